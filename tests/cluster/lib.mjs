// Redis, nodes, the two balancers with the very files of examples/cluster, herds of clients, and publishers.
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { spawn, execFile, execFileSync } from 'node:child_process';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

export const here = path.dirname(fileURLToPath(import.meta.url));
export const top = path.resolve(here, '../..');
export const BUILD = path.resolve(process.env.CLUSTER_BUILD ?? path.join(top, 'build/cluster'));
const EXAMPLE = path.join(top, 'examples/cluster');
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const run = promisify(execFile);

// --- programs ---

// Where Debian has haproxy and nginx, PATH does not go for everybody.
export function which(name) {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.map((f) => path.join(f, name)).find((f) => fs.existsSync(f));
}

// What of these is not there, as a reason to skip; "" if all is.
export function lacks(...names) {
  const missing = names.filter((name) => !which(name));
  return missing.length ? `no ${missing.join(', ')}` : '';
}

// Does this daemon know Redis? One that was compiled without it says so by its --help.
export const knowsRedis = (program) => /--redis\b/.test(execFileSync(program, ['--help']).toString());

// Compiles a program, if it is not there already. Optimised: what is measured here is time.
export function build(source, { out = path.basename(source, '.c'), flags = ['-O2'] } = {}) {
  const file = path.join(BUILD, out), from = path.resolve(here, source), age = (f) => (fs.existsSync(f) ? fs.statSync(f).mtimeMs : 0);
  if (age(file) > Math.max(age(from), age(path.join(top, 'rtpush.h')))) return file;
  fs.mkdirSync(BUILD, { recursive: true });
  execFileSync(process.env.CC ?? 'cc', [...flags, '-Wall', '-Wextra', from, '-o', file, '-pthread'], { stdio: 'inherit' });
  return file;
}

export const rtpushd = () => (process.env.RTPUSHD ? path.resolve(process.env.RTPUSHD) : build('../../tools/rtpushd.c'));

// A port that was free a moment ago.
export const freePort = () => new Promise((done) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); });
});

export async function eventually(fn, what, ms = 20000) {
  for (const end = Date.now() + ms; ; await sleep(20)) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never: ${what}`);
  }
}

const answers = (port) => new Promise((done) => {
  const s = net.connect(port, '127.0.0.1', () => { s.destroy(); done(true); }).on('error', () => done(false));
});

// A child that says lines. Its stderr, and with `log` its stdout, go to a file.
export class Child {
  constructor(command, args, { log, env } = {}) {
    this.lines = [];
    this.name = path.basename(command);
    this.process = spawn(command, args, { stdio: ['pipe', log ? log : 'pipe', log ?? 'pipe'], env: { ...process.env, ...env } });
    this.process.stdin.on('error', () => {});
    this.process.on('error', (e) => { this.said += e; });
    this.said = '';
    let rest = '';
    this.process.stdout?.on('data', (d) => {
      const all = (rest + d).split('\n');
      rest = all.pop();
      for (const line of all) if (!this.onLine?.(line)) this.lines.push(line);
      this.wake?.();
    });
    this.process.stderr?.on('data', (d) => { this.said += d; });
    this.over = new Promise((done) => this.process.on('close', (code, signal) => { this.ended = { code, signal }; this.wake?.(); done(this.ended); }));
  }

  get pid() { return this.process.pid; }

  say(text) { this.process.stdin.write(`${text}\n`); }

  async line(begin, ms = 30000) {
    for (const end = Date.now() + ms; ;) {
      const i = this.lines.findIndex((line) => line.startsWith(begin));
      if (i >= 0) return this.lines.splice(i, 1)[0];
      if (this.ended || Date.now() > end) throw new Error(`${this.name}: no line "${begin}…" within ${ms} ms (${JSON.stringify(this.ended ?? 'it runs')}) ${this.said.slice(0, 3000)}`);
      await new Promise((done) => { const timer = setTimeout(done, 50); this.wake = () => { clearTimeout(timer); done(); }; });
    }
  }

  async kill(signal = 'SIGKILL') {
    if (!this.ended) this.process.kill(signal);
    return this.over;
  }
}

// --- Redis ---

export class Redis {
  static async begin({ persistent = true } = {}) {
    const r = new Redis();
    r.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-redis-'));
    r.port = await freePort();
    r.persistent = persistent;
    r.starts = 0;
    await r.start();
    return r;
  }

  // appendfsync always: what was answered is on the disk.
  async start() {
    const keep = this.persistent ? ['--appendonly', 'yes', '--appendfsync', 'always'] : [];
    this.log ??= fs.openSync(path.join(this.folder, 'log'), 'a');
    this.child = new Child(which('redis-server'), ['--port', `${this.port}`, '--bind', '127.0.0.1', '--dir', this.folder, '--save', '', ...keep], { log: this.log });
    await eventually(async () => { if (this.child.ended) throw new Error(`redis-server ended: ${fs.readFileSync(path.join(this.folder, 'log'))}`); return (await this.cli('PING').catch(() => '')) === 'PONG'; }, 'Redis answers');
    this.starts++;
  }

  async cli(...words) { return (await run('redis-cli', ['-p', `${this.port}`, ...words])).stdout.trim(); }

  // INFO as a map; of a section with several fields in a line, the whole line.
  async info(...sections) { return Object.fromEntries((await this.cli('INFO', ...sections)).split(/\r?\n/).filter((l) => l.includes(':')).map((l) => [l.slice(0, l.indexOf(':')), l.slice(l.indexOf(':') + 1)])); }

  kill() { return this.child.kill(); }

  forget() { fs.rmSync(path.join(this.folder, 'appendonlydir'), { recursive: true, force: true }); }

  async end() {
    await this.kill();
    fs.closeSync(this.log);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

// --- nodes ---

export class Node {
  constructor(name, { redisPort, log = 'test', args = [], env = {}, program = rtpushd(), logFile }) {
    Object.assign(this, { name, redisPort, redisLog: log, args, env, program, logFile, starts: 0 });
  }

  async start(ms = 20000) {
    this.port ??= await freePort();
    const redis = this.redisPort ? ['--redis', `redis://127.0.0.1:${this.redisPort}`, '--redis-log', this.redisLog, '--node', this.name] : [];
    const log = this.logFile ? fs.openSync(this.logFile, 'a') : undefined;
    this.child = new Child(this.program, ['--listen', `http://127.0.0.1:${this.port}`, ...redis, ...this.args], { log: log ?? 'ignore', env: this.env });
    if (log !== undefined) fs.closeSync(log);
    const began = Date.now();
    await eventually(async () => { if (this.child.ended) throw new Error(`${this.name} ended at its start: ${JSON.stringify(this.child.ended)} ${this.tail()}`); return answers(this.port); }, `${this.name} listens ${this.tail()}`, ms);
    this.starts++;
    return Date.now() - began;
  }

  tail() { return this.logFile && fs.existsSync(this.logFile) ? fs.readFileSync(this.logFile, 'utf8').slice(-1500) : ''; }

  async stats() { return (await fetch(`http://127.0.0.1:${this.port}/stats`)).json(); }

  signal(name) { this.child.process.kill(name); }

  async kill() {
    if (!this.child || this.child.ended) return;
    this.signal('SIGKILL');
    await this.child.over;
  }
}

// --- the balancers ---

// ${NAME}s of a file of examples/cluster, filled in.
const fill = (file, values) => fs.readFileSync(path.join(EXAMPLE, file), 'utf8').replace(/\$\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

export class Balancers {
  static async begin(nodes) {
    const b = new Balancers(), folder = b.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-balancers-'));
    b.haproxyPort = await freePort();
    b.nginxPort = await freePort();
    const values = { DIR: folder, HERE: EXAMPLE, HAPROXY_PORT: b.haproxyPort, NGINX_PORT: b.nginxPort, CONTROL_PORT: 1, N1: nodes[0].port, N2: nodes[1].port, N3: nodes[2].port };
    for (const file of ['haproxy.cfg', 'nginx.conf']) fs.writeFileSync(path.join(folder, file), fill(file, values));
    b.nginxArgs = ['-e', `${folder}/nginx.log`, '-g', `user ${os.userInfo().username};`, '-c', `${folder}/nginx.conf`];
    b.log = fs.openSync(path.join(folder, 'log'), 'a');
    b.haproxy = new Child(which('haproxy'), ['-W', '-db', '-f', `${folder}/haproxy.cfg`], { log: b.log });
    b.nginx = new Child(which('nginx'), b.nginxArgs, { log: b.log });
    for (const port of [b.haproxyPort, b.nginxPort]) await eventually(() => answers(port), `a balancer listens: ${fs.readFileSync(path.join(folder, 'log'))}`);
    return b;
  }

  get urls() { return [`http://127.0.0.1:${this.haproxyPort}/live`, `http://127.0.0.1:${this.nginxPort}/live`]; }

  reloadHaproxy() { this.haproxy.process.kill('SIGUSR2'); }

  reloadNginx() { return run(which('nginx'), [...this.nginxArgs, '-s', 'reload']); }

  async end() {
    await Promise.all([this.haproxy.kill('SIGTERM'), this.nginx.kill('SIGTERM')]);
    fs.closeSync(this.log);
    fs.rmSync(this.folder, { recursive: true, force: true });
  }
}

// A way to Redis that can be cut.
export class Wire extends Child {
  static async begin(to) {
    const w = new Wire(process.execPath, [path.join(here, 'cut.mjs'), `${to}`]);
    w.port = Number((await w.line('port ')).slice(5));
    return w;
  }
}

// --- clients ---

export const TOPICS = 60, GROUP = 10;
export const nameOf = (topic) => `n/${Math.floor(topic / GROUP)}/${topic % GROUP}`;

export class Herd extends Child {
  constructor(kind, { first, count, url, program }) {
    const args = ['--first', `${first}`, '--count', `${count}`, url];
    super(...(kind === 'C' ? [program, args] : [process.execPath, [path.join(here, 'herd.mjs'), ...args]]));
    Object.assign(this, { kind, first, count, url, ticks: [], probes: new Map() });
    this.name = `herd ${kind} ${first}`;
  }

  onLine(line) {
    const [word, ...numbers] = line.split(' ');
    if (word === 'tick') this.ticks.push(numbers.map(Number));
    else if (word === 'probe') this.probes.set(Number(numbers[0]), { all: Number(numbers[1]), half: Number(numbers[2]) });
    else return false;
    return true;
  }

  async summary() {
    this.say('end');
    const s = JSON.parse(await this.line('{', 60000));
    const { code } = await this.over;
    if (code) throw new Error(`${this.name} ended with ${code}: ${this.said.slice(0, 2000)}`);
    return s;
  }
}

// --- publishers ---

let keys = 0;

// One POST on a kept connection, tried again under its key until it is acknowledged. urls: taken in turn.
// Answers { id, tries, took }. refused(why) hears of each attempt that failed.
export class Poster {
  constructor(urls, { lanes = 4, within = 8000 } = {}) {
    this.agent = new http.Agent({ keepAlive: true, maxSockets: lanes, keepAliveMsecs: 5000 });
    Object.assign(this, { urls, within, turn: 0, refusals: [] });
  }

  attempt(topic, data, key) {
    const url = this.urls[this.turn++ % this.urls.length];
    return new Promise((done, failed) => {
      const r = http.request(`${url}/${topic}`, { method: 'POST', agent: this.agent, headers: { 'Content-Type': 'text/plain', 'Content-Length': data.length, 'Idempotency-Key': key } }, (answer) => {
        let text = '';
        answer.setEncoding('utf8').on('data', (d) => { text += d; }).on('error', failed).on('end', () => {
          clearTimeout(timer);
          const { statusCode } = answer;
          if (statusCode === 201 || statusCode === 202) try { return done(JSON.parse(text)); } catch (e) { return failed(e); }
          failed(Object.assign(new Error(`${statusCode} ${text.trim().slice(0, 200)}`), { status: statusCode, code: `${statusCode}` }));
          return null;
        }).on('aborted', () => failed(new Error('cut')));
      });
      const timer = setTimeout(() => r.destroy(Object.assign(new Error('no answer'), { code: 'no answer' })), this.within);
      r.on('error', (e) => { clearTimeout(timer); failed(e); }).end(data);
    });
  }

  async post(topic, data) {
    const key = `${process.pid}-${++keys}`, began = Date.now();
    for (let tries = 1; ; tries++) {
      try {
        const { id } = await this.attempt(topic, data, key);
        return { id, tries, took: Date.now() - began };
      } catch (e) {
        if (e.status >= 400 && e.status < 500 && e.status !== 429 && e.status !== 408) throw e;
        this.refusals.push({ at: Date.now(), why: e.code ?? e.message });
        if (this.isOver) throw e;
        await sleep(50 + Math.random() * 150);
      }
    }
  }

  end() { this.isOver = true; this.agent.destroy(); }
}

// Numbers on its own topics, each topic's one after the other, `rate` a second over all, until stop(). ids: of topic and number.
export class Publisher extends Poster {
  constructor(urls, topics, { rate, lanes = 4, within }) {
    super(urls, { lanes, within });
    Object.assign(this, { topics, rate, count: 0, isOn: true });
    this.ids = new Map(topics.map((topic) => [topic, [null]]));
    this.retried = new Set();
    this.epochs = new Map(); // of each, when it was first given
    this.done = Promise.all(Array.from({ length: lanes }, (_, k) => this.lane(topics.filter((_, i) => i % lanes === k), lanes)));
  }

  // Behind its plan after a fault it catches up, at twice the rate.
  async lane(topics, lanes) {
    const every = (1000 * lanes) / this.rate;
    let due = Date.now() + Math.random() * every;
    for (let i = 0; this.isOn; i++) {
      const topic = topics[i % topics.length], ids = this.ids.get(topic), n = ids.length, began = Date.now();
      const { id, tries } = await this.post(nameOf(topic), `${n} ${began}`);
      ids.push(id);
      if (!this.epochs.has(epochOf(id))) this.epochs.set(epochOf(id), Date.now());
      this.count++;
      if (tries > 1) this.retried.add(`${topic} ${n}`);
      due += every;
      const left = Math.max(due - Date.now(), every / 2 - (Date.now() - began));
      if (left > 0) await sleep(left);
    }
  }

  async stop() {
    this.isOn = false;
    await this.done;
    this.agent.destroy();
  }
}

export const epochOf = (id) => id.slice(0, 8);
export const seqOf = (id) => Number(id.slice(9));
