// What the tests of the Redis bus stand on: Redis servers of their own, nodes, what stands between the two (a proxy that
// cuts and stalls, a middle that lies), readers that forget nothing, and the verdict over what they have seen.
//
//   node --test tests/redis        RTPUSHD and RTPUSHD_TLS name the daemons; else they are built, under sanitizers
import fs from 'node:fs';
import os from 'node:os';
import net from 'node:net';
import path from 'node:path';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const top = path.resolve(here, '../..');
export const BUILD = path.resolve(process.env.REDIS_BUILD ?? path.join(top, 'build'));
export const REDIS = process.env.REDIS_SERVER ?? 'redis-server';

// --- programs ---

const sanitizers = ['-g', '-O1', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'];

// Builds once, however many test files ask at the same time. Returns the program.
function build(name, source, flags = [], libraries = []) {
  const program = path.join(BUILD, name), lock = `${program}.lock`;
  const sources = [source, path.join(top, 'rtpush.h'), path.join(top, 'tools/rtpushd.c')];
  const isFresh = () => fs.existsSync(program) && sources.every((s) => fs.statSync(s).mtimeMs < fs.statSync(program).mtimeMs);
  fs.mkdirSync(BUILD, { recursive: true });
  for (let tries = 0; !isFresh(); tries++) {
    try { fs.mkdirSync(lock); } catch (e) {
      if (e.code !== 'EEXIST') throw e;
      // Somebody builds; but whoever was killed while building left his lock.
      if (tries > 900) fs.rmSync(lock, { recursive: true, force: true });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
      continue;
    }
    try {
      const cc = spawnSync(process.env.CC ?? 'cc', [...sanitizers, ...flags, source, '-o', `${program}.new`, '-pthread', ...libraries], { encoding: 'utf8' });
      if (cc.error || cc.status) throw new Error(`cc ${source}: ${cc.error ?? cc.stderr}`);
      fs.renameSync(`${program}.new`, program);
    } finally { fs.rmSync(lock, { recursive: true, force: true }); }
    break;
  }
  return program;
}

const RTPUSHD = path.resolve(process.env.RTPUSHD ?? build('redis-rtpushd', path.join(top, 'tools/rtpushd.c')));
export const program = {
  plain: () => RTPUSHD,
  tls: () => process.env.RTPUSHD_TLS ?? build('redis-rtpushd-tls', path.join(top, 'tools/rtpushd.c'), ['-DRTPUSH_OPENSSL'], ['-lssl', '-lcrypto']),
  login: () => process.env.RTPUSHD_LOGIN ?? build('redis-login', path.join(here, 'login.c')), // the daemon with names; see there
};

export const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-redis-'));
process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));

// The Daemon of tests/wire starts one program; ours is a script that becomes the one its first argument names. What
// was freed is not kept for long: the memory of a node is measured.
process.env.RTPUSHD = path.join(dir, 'daemon');
fs.writeFileSync(process.env.RTPUSHD, `#!/bin/sh
ASAN_OPTIONS=\${ASAN_OPTIONS:+$ASAN_OPTIONS:}quarantine_size_mb=2:malloc_context_size=12
export ASAN_OPTIONS
program=$1
shift
exec "$program" "$@"
`, { mode: 0o755 });
export const wire = await import('../wire/lib.mjs');
export const { sleep, eventually, range, get, post, poll, pub, sse, seqOf, datas } = wire;
export const epochOf = (id) => id.slice(0, 8);

// What was begun last ends first: the nodes before their Redis.
const ends = new WeakMap();
export function atEnd(t, fn) {
  if (ends.has(t)) { ends.get(t).push(fn); return; }
  const list = [fn];
  ends.set(t, list);
  t.after(async () => {
    const failed = [];
    while (list.length) await list.pop()().catch((e) => failed.push(e));
    if (failed.length) throw failed[0];
  });
}

// --- ports ---

export const freePort = () => new Promise((done) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); });
});

const where = (url) => (url.port ? { host: '127.0.0.1', port: url.port } : { path: url.path });

// --- RESP, the part that is the same in all of Redis's versions ---

// The value at `at`: [value, where the next begins], or null while it is not all there.
export function respParse(b, at = 0) {
  const cr = b.indexOf('\r\n', at);
  if (cr < 0) return null;
  const type = String.fromCharCode(b[at]), text = b.toString('latin1', at + 1, cr), next = cr + 2;
  if ('+,(#_'.includes(type)) return [text, next];
  if (type === ':') return [Number(text), next];
  if (type === '-') return [Object.assign(new Error(text), { isReply: true }), next];
  const n = Number(text);
  if (type === '$' || type === '=') {
    if (n < 0) return [null, next];
    return b.length < next + n + 2 ? null : [b.toString('latin1', next, next + n), next + n + 2];
  }
  if (!'*%~>|'.includes(type)) throw new Error(`not RESP: ${JSON.stringify(b.toString('latin1', at, at + 40))}`);
  if (n < 0) return [null, next];
  const list = [];
  let end = next;
  for (let i = type === '%' || type === '|' ? 2 * n : n; i > 0; i--) {
    const v = respParse(b, end);
    if (!v) return null;
    list.push(v[0]);
    end = v[1];
  }
  return [list, end];
}

// A command, or any reply made of lists, strings (as bulk), numbers and null.
export function resp(v) {
  if (v === null) return Buffer.from('$-1\r\n');
  if (typeof v === 'number' || typeof v === 'bigint') return Buffer.from(`:${v}\r\n`);
  if (Array.isArray(v)) return Buffer.concat([Buffer.from(`*${v.length}\r\n`), ...v.map(resp)]);
  const data = Buffer.isBuffer(v) ? v : Buffer.from(v, 'latin1');
  return Buffer.concat([Buffer.from(`$${data.length}\r\n`), data, Buffer.from('\r\n')]);
}

// Cuts a stream into values: calls each(value, its bytes).
class Values {
  #rest = Buffer.alloc(0);

  constructor(each) { this.each = each; }

  take(piece) {
    this.#rest = this.#rest.length ? Buffer.concat([this.#rest, piece]) : piece;
    for (let v; this.#rest.length && (v = respParse(this.#rest));) {
      const bytes = this.#rest.subarray(0, v[1]);
      this.#rest = this.#rest.subarray(v[1]);
      this.each(v[0], bytes);
    }
  }
}

// A connection of the test's own. call('GET', 'x') throws what Redis refuses.
export class Resp {
  #waiting = [];

  static async open(address) {
    const r = new Resp();
    r.socket = net.connect(address);
    const values = new Values((v) => {
      const w = r.#waiting.shift();
      if (v instanceof Error) w.failed(v); else w.done(v);
    });
    r.socket.on('data', (d) => values.take(d)).on('close', () => { for (const w of r.#waiting.splice(0)) w.failed(new Error('closed')); });
    await new Promise((done, failed) => r.socket.once('connect', done).once('error', failed));
    r.socket.on('error', () => {});
    return r;
  }

  call(...words) {
    return new Promise((done, failed) => {
      if (this.socket.destroyed) { failed(new Error('closed')); return; }
      this.#waiting.push({ done, failed });
      this.socket.write(resp(words.map(String)));
    });
  }
}

// --- Redis ---

export class Redis {
  // args: more words of its configuration. path: a Unix socket instead of a port. aof: survives a kill.
  static async start(t, { aof = false, args = [], path: socket, port, auth } = {}) {
    const r = new Redis();
    r.dir = fs.mkdtempSync(path.join(dir, 'server-'));
    Object.assign(r, { args, aof, auth, path: socket && path.join(r.dir, 's'), port: socket ? undefined : port ?? await freePort() });
    atEnd(t, () => r.kill().then(() => fs.rmSync(r.dir, { recursive: true, force: true })));
    await r.run();
    return r;
  }

  get url() { return this.path ? `unix:${this.path}` : `redis://127.0.0.1:${this.port}`; }

  async run() {
    const args = ['--port', this.port ?? 0, '--bind', '127.0.0.1', '--dir', this.dir, '--save', '', '--appendonly', this.aof ? 'yes' : 'no', '--appendfsync', 'always',
      '--loglevel', 'warning', ...(this.path ? ['--unixsocket', this.path] : []), ...this.args];
    this.said = '';
    this.client = undefined;
    this.process = spawn(REDIS, args.map(String), { stdio: ['ignore', 'pipe', 'pipe'] });
    for (const s of [this.process.stdout, this.process.stderr]) s.on('data', (d) => { this.said += d; });
    const p = this.process;
    this.exit = new Promise((done) => p.on('error', (e) => { this.said += e; this.over = true; done(); }).on('close', () => { this.over = true; done(); }));
    this.over = false;
    await eventually(() => {
      assert.ok(!this.over, `${REDIS}: ${this.said}`);
      return this.call('PING').catch(() => null);
    }, `${REDIS} answers: ${this.said}`);
  }

  async call(...words) {
    if (!this.client || this.client.socket.destroyed) { // the first time, or a sentinel has ended all connections
      this.client = await Resp.open(where(this));
      if (this.auth) await this.client.call('AUTH', ...this.auth);
    }
    return this.client.call(...words);
  }

  signal(name) { this.process.kill(name); }

  async kill() {
    if (!this.over) this.process.kill('SIGKILL');
    await this.exit;
  }

  // keep: with its data (if it has an append-only file), else without.
  async restart({ keep = this.aof } = {}) {
    await this.kill();
    if (!keep) for (const name of fs.readdirSync(this.dir)) fs.rmSync(path.join(this.dir, name), { recursive: true });
    await this.run();
  }
}

// One Redis for all the tests of a file that do it no harm; each has a log of its own there.
let logs = 0;
export const logName = () => `log${process.pid}x${++logs}`;

// --- nodes ---

export class Node extends wire.Daemon {
  // A crash: the node is not asked.
  async kill() {
    this.isKilled = true;
    this.process.kill('SIGKILL');
    await this.exit;
  }

  signal(name) { this.process.kill(name); }

  async stop() {
    if (this.isKilled) { assert.doesNotMatch(this.stderr, /Sanitizer|runtime error:/); return; }
    this.process.kill('SIGCONT');
    await super.stop();
  }

  // What the kernel says: the most memory it ever had, and the seconds of CPU it used.
  get peak() { return Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))[1]) * 1024; }
  get cpu() {
    const f = fs.readFileSync(`/proc/${this.process.pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
    return (Number(f[11]) + Number(f[12])) / 100;
  }

  // The lines about Redis, without what a session does.
  get lines() { return this.stderr.split('\n').filter((l) => l && !/: session [0-9a-f]+ /.test(l)); }
}

const arguments_of = (redis, { log, name, args = [], use = 'plain' }) => [program[use](), '--listen', 'http://127.0.0.1:0', '--redis', redis.url ?? redis, ...(log ? ['--redis-log', log] : []),
  ...(name ? ['--node', name] : []), '--drain-spread', '0', '--verbose', ...args];

// A node that has begun to listen. options: log, name, args, use (which program).
export async function node(t, redis, options = {}) {
  const d = new Node(arguments_of(redis, options));
  atEnd(t, () => d.stop());
  return d.start(1);
}

// A node that need not come up.
export function tryNode(t, redis, options = {}) {
  const d = new Node(arguments_of(redis, options));
  atEnd(t, async () => { if (!d.over) await d.kill(); assert.doesNotMatch(d.stderr, /Sanitizer|runtime error:/); });
  return d;
}

export async function nodes(t, redis, count, options = {}) {
  const log = options.log ?? logName();
  return Promise.all(range(1, count).map((n) => node(t, redis, { log, name: `n${n}`, ...options })));
}

// --- between a node and Redis ---

// Passes bytes until told otherwise: cut() ends what is open; mode 'stall' passes nothing and closes nothing, 'refuse'
// ends each new connection at once, 'slow' passes what Redis says byte by byte. A target can be replaced.
export class Proxy {
  mode = 'pass';
  pairs = new Set();
  accepted = []; // when

  static async start(t, target) {
    const p = new Proxy();
    p.target = target;
    p.server = net.createServer({ allowHalfOpen: false }, (c) => p.#take(c)).listen(0, '127.0.0.1');
    await new Promise((done) => p.server.once('listening', done));
    p.port = p.server.address().port;
    atEnd(t, async () => { p.cut(); p.server.close(); });
    return p;
  }

  get url() { return `redis://127.0.0.1:${this.port}`; }

  #take(c) {
    this.accepted.push(Date.now());
    c.on('error', () => {});
    if (this.mode === 'refuse') { c.destroy(); return; }
    const s = net.connect(where(this.target)), pair = { c, s, held: [] };
    this.pairs.add(pair);
    for (const [from, to] of [[c, s], [s, c]]) {
      from.on('data', (d) => {
        if (this.mode === 'stall') pair.held.push([to, d]);
        else if (this.mode === 'slow' && to === c) { for (const byte of d) pair.held.push([to, Buffer.from([byte])]); this.#drip(pair); }
        else to.write(d);
      }).on('error', () => {}).on('close', () => { if (this.mode !== 'stall') to.destroy(); this.pairs.delete(pair); });
    }
  }

  async #drip(pair) {
    if (pair.isDripping) return;
    pair.isDripping = true;
    while (pair.held.length && this.mode !== 'stall') {
      const [to, d] = pair.held.shift();
      to.write(d);
      await new Promise(setImmediate);
    }
    pair.isDripping = false;
  }

  // What was held goes on.
  pass() {
    this.mode = 'pass';
    for (const pair of this.pairs) for (const [to, d] of pair.held.splice(0)) to.write(d);
  }
  stall() { this.mode = 'stall'; }
  cut() { for (const { c, s } of this.pairs) { c.destroy(); s.destroy(); } this.pairs.clear(); }
  away() { this.mode = 'refuse'; this.cut(); }
}

// Knows which reply belongs to which command, and may lie. rule(command, connection) returns nothing, or what to do with
// the reply: { bytes } (the command does not reach Redis), { change: (value, bytes) => bytes }, and close: true (after
// that). In place of bytes a function may write by itself; what it returns is waited for.
export class Middle {
  rule = null;
  sockets = new Set();
  accepted = [];
  seen = []; // the commands' names

  static async start(t, redis) {
    const m = new Middle();
    m.redis = redis;
    m.server = net.createServer((c) => m.#take(c)).listen(0, '127.0.0.1');
    await new Promise((done) => m.server.once('listening', done));
    m.port = m.server.address().port;
    atEnd(t, async () => { m.cut(); m.server.close(); });
    return m;
  }

  get url() { return `redis://127.0.0.1:${this.port}`; }
  cut() { for (const c of this.sockets) c.destroy(); }

  #take(c) {
    this.accepted.push(Date.now());
    const s = net.connect(where(this.redis)), queue = [];
    let isFlushing = false;
    c.setNoDelay(true);
    this.sockets.add(c).add(s);
    for (const [x, other] of [[c, s], [s, c]]) x.on('error', () => {}).on('close', () => { this.sockets.delete(x); other.destroy(); });
    const flush = async () => {
      if (isFlushing) return;
      isFlushing = true;
      while (queue.length && queue[0].reply) {
        const { reply, how } = queue.shift();
        if (typeof reply === 'function') await reply(c); else if (!c.destroyed) c.write(reply);
        if (how?.close) c.end();
      }
      isFlushing = false;
    };
    const commands = new Values((words, bytes) => {
      const name = commandName(words);
      this.seen.push(name);
      const how = this.rule?.({ name, words }, c);
      queue.push({ how, reply: how?.bytes, isLocal: !!how?.bytes });
      if (!how?.bytes) s.write(bytes); else flush();
    });
    const replies = new Values((value, bytes) => {
      const entry = queue.find((q) => !q.isLocal && !q.reply);
      if (!entry) { c.write(bytes); return; }
      entry.reply = entry.how?.change ? entry.how.change(value, bytes) : bytes;
      flush();
    });
    c.on('data', (d) => commands.take(d));
    s.on('data', (d) => replies.take(d));
  }
}

// CLIENT SETNAME is one command, EVALSHA another: two words where the first is a family.
const FAMILIES = ['CLIENT', 'SCRIPT', 'CONFIG', 'CLUSTER', 'FUNCTION', 'XINFO', 'XGROUP'];
const commandName = (words) => { const a = String(words[0]).toUpperCase(); return FAMILIES.includes(a) ? `${a} ${String(words[1]).toUpperCase()}` : a; };

// --- readers and publishers ---

// An SSE reader that goes on in the background. log: {id, data} and {gap} in the order they came.
export class Reader {
  log = [];

  static async open(d, topic, query = '') {
    const r = new Reader();
    r.s = await sse(d, `/live/${topic}${query}`);
    r.pump();
    return r;
  }

  async pump() {
    try {
      for (let b; (b = await this.s.block(600000));) {
        if (b.data === undefined) continue;
        this.log.push(b.event === 'gap' ? { gap: JSON.parse(b.data) } : { id: b.id, data: b.data, event: b.event });
      }
      this.ended = 'the stream ended';
    } catch (e) { this.ended = e.message; }
  }

  get messages() { return this.log.filter((x) => !x.gap); }
  get gaps() { return this.log.filter((x) => x.gap).map((x) => x.gap); }
  has(data) { return this.log.some((x) => x.data === data); }
  until(data, ms) { return eventually(() => this.has(data) || (this.ended && assert.fail(this.ended)), `a reader gets ${data}; it has ${JSON.stringify(this.log.slice(-3))}`, ms); }
  close() { this.s.close(); }
}

let numbers = 0;
// Publishes numbered messages, not waiting for an answer before the next one, until stop().
export class Publisher {
  acked = [];
  refused = []; // 503
  failed = [];
  open = new Set();

  constructor(nodes, topic, { every = 25, body = '' } = {}) {
    Object.assign(this, { nodes, topic, body });
    this.timer = every && setInterval(() => (nodes.every((d) => d.over) ? clearInterval(this.timer) : this.one()), every).unref();
  }

  one(d = this.nodes[numbers % this.nodes.length], headers = {}) {
    const data = `${this.topic}:${++numbers}${this.body}`, asked = Date.now();
    const p = post(d, `/live/${this.topic}`, data, headers).then((r) => {
      const took = Date.now() - asked;
      if (r.status < 300) this.acked.push({ data, id: r.json.id, took, asked });
      else this.refused.push({ data, status: r.status, took, text: r.text, headers: r.headers });
      return r;
    }, (e) => { this.failed.push({ data, why: e.message }); });
    this.open.add(p);
    p.finally(() => this.open.delete(p));
    return p;
  }

  async stop() {
    clearInterval(this.timer);
    await Promise.all(this.open);
    return this;
  }
}

// A publish that is tried until it is taken: the end of a fault. Returns its answer with its data.
export async function goesThrough(d, topic, ms = 20000) {
  const data = `${topic}:${++numbers}`;
  const id = await eventually(async () => {
    const r = await post(d, `/live/${topic}`, data, { 'Idempotency-Key': `through-${data}` });
    return r.status < 300 && r.json.id;
  }, `${topic} takes messages again: ${d.lines?.slice(-4).join(' | ')}`, ms);
  return { id, data };
}

const covers = (gap, id) => (epochOf(gap.to) === epochOf(id) ? seqOf(id) <= seqOf(gap.to) : gap.reason === 'epoch');

// What holds after any fault. No id names two messages. No reader gets a message twice, nor one that is not behind the
// one before it unless a gap says so. What was acknowledged came to each reader, or it was told that it may not have.
export function judge(readers, acked) {
  const named = new Map();
  const name = (id, data) => { assert.equal(named.get(id) ?? data, data, `one id for two messages: ${id}`); named.set(id, data); };
  for (const { id, data } of acked) name(id, data);
  readers.forEach((r, n) => {
    assert.equal(r.ended, undefined, 'the reader stays connected');
    const seen = new Set();
    let last;
    for (const x of r.log) {
      if (x.gap) {
        assert.ok(['epoch', 'evicted'].includes(x.gap.reason));
        if (last && epochOf(last) !== epochOf(x.gap.to)) last = undefined;
        continue;
      }
      name(x.id, x.data);
      // A Redis that lost all cannot say that it had it: in another epoch it may come once more.
      assert.ok(!seen.has(`${epochOf(x.id)} ${x.data}`), `reader ${n} got it twice: ${x.data} ${x.id}`);
      seen.add(x.data).add(`${epochOf(x.id)} ${x.data}`);
      if (last) assert.ok(epochOf(last) === epochOf(x.id) && seqOf(last) < seqOf(x.id), `reader ${n}: ${x.id} after ${last} without a gap`);
      last = x.id;
    }
    for (const a of acked) assert.ok(seen.has(a.data) || r.gaps.some((g) => covers(g, a.id)), `reader ${n} lost ${a.data} ${a.id} in silence; gaps ${JSON.stringify(r.gaps)}`);
  });
}

// And where nothing may be lost at all.
export function judgeWhole(readers, acked) {
  judge(readers, acked);
  const epochs = new Set(acked.map((a) => epochOf(a.id)));
  assert.equal(epochs.size, 1, `the epoch is kept: ${[...epochs]}`);
  readers.forEach((r) => assert.deepEqual(r.gaps, [], 'no gap'));
}
