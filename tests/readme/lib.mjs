// What runs a page's code: its blocks are found, the repository is copied with other ports, and each line is typed into
// a real shell, as a reader would do it: a line that neither ends nor listens nor reads is a mistake.
import fs from 'node:fs';
import os from 'node:os';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { sleep, eventually } from '../wire/lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
export const top = path.resolve(here, '../..');
export { sleep, eventually };

export const freePort = () => new Promise((done) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); });
});

export const answers = (port) => new Promise((done) => {
  const s = net.connect(port, '127.0.0.1', () => { s.destroy(); done(true); }).on('error', () => done(false));
});

// --- the page ---

// The blocks of a page: fenced ones by their language; indented ones are for the shell. { kind, text, line, section }
export function blocksOf(markdown) {
  const blocks = [];
  let section = '', open = null, isBlank = true;
  markdown.split('\n').forEach((line, i) => {
    const fence = /^ {0,3}(`{3,}|~{3,})\s*(\S*)/.exec(line);
    if (open?.fence) {
      if (fence && !fence[2] && fence[1].startsWith(open.fence)) open = null;
      else open.text += `${line}\n`;
    } else if (fence) {
      blocks.push(open = { kind: fence[2].toLowerCase(), text: '', line: i + 1, section, fence: fence[1] });
    } else if (/^ {4}\S/.test(line) && (open || isBlank) && !/^ {4}([-*]|\d+\.) /.test(line)) {
      if (!open) blocks.push(open = { kind: 'sh', text: '', line: i + 1, section });
      open.text += `${line.slice(4)}\n`;
    } else if (open && !line.trim()) open.text += '\n';
    else if (open && /^ {4}/.test(line)) open.text += `${line.slice(4)}\n`;
    else open = null;
    if (!open && /^#{1,6} /.test(line)) section = line.replace(/^#+ /, '');
    isBlank = !line.trim();
  });
  return blocks;
}

// Commands of a shell block: what bash takes as a whole, each with what is said to be seen (`# -> TEXT`).
export function commandsOf(text) {
  const commands = [];
  let part = '';
  for (const line of text.split('\n')) {
    part += part ? `\n${line}` : line.replace(/^\$ /, '');
    if (!part.trim() || /^\s*#/.test(part)) part = '';
    else if (isWhole(part)) {
      const shown = /\s#\s*->[ ]?(.+?)\s*$/.exec(part);
      commands.push({ text: part, shown: shown?.[1] });
      part = '';
    }
  }
  assert.equal(part.trim(), '', 'bash waits for more after the last line');
  return commands;
}

function isWhole(text) {
  if (/\\$/.test(text)) return false;
  const { status, stderr } = spawnSync('bash', ['-n'], { input: `${text}\n`, encoding: 'utf8' });
  if (/unexpected end of file|unexpected EOF|here-document/.test(stderr)) return false;
  assert.equal(status, 0, `not a command: ${text}\n${stderr}`);
  return true;
}

// The commands at the head of a C program: comment lines that are indented like code.
export const commandsIn = (c) => commandsOf([...c.matchAll(/^\/\/ {4,}(\S.*)$/gm)].map((m) => m[1]).join('\n'));

// --- the copy ---

const cache = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-readme-cc-'));
process.on('exit', () => fs.rmSync(cache, { recursive: true, force: true }));

// clang takes a third of gcc's time.
const compiler = process.env.CC || (spawnSync('clang', ['--version']).status === 0 ? 'clang' : 'cc');

// A copy of the repository in which every port that the page names, or a program has by default, is a free one.
export class Copy {
  static async of(markdown) {
    const copy = new Copy();
    copy.folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-readme-'));
    copy.ports = new Map();
    const named = markdown.matchAll(/(?:127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1\]|ListenStream=|_PORT=|\bN\d=)[:/]?(\d{4,5})\b/g);
    for (const port of ['8080', '8081', '8082', ...[...named].map((m) => m[1])]) if (!copy.ports.has(port)) copy.ports.set(port, await freePort());
    for (const name of fs.readdirSync(top)) if (!['examples', 'tools', 'build', '.git'].includes(name)) fs.symlinkSync(path.join(top, name), path.join(copy.folder, name));
    for (const name of ['examples', 'tools']) copy.take(name);
    fs.mkdirSync(path.join(copy.folder, '.bin'));
    fs.symlinkSync(path.join(here, 'cc.sh'), path.join(copy.folder, '.bin/cc'));
    return copy;
  }

  take(name) {
    const from = path.join(top, name), to = path.join(this.folder, name);
    if (fs.statSync(from).isDirectory()) {
      fs.mkdirSync(to);
      for (const one of fs.readdirSync(from)) this.take(path.join(name, one));
    } else if (/\.(c|h|sh|html|js|cfg|conf)$/.test(name)) {
      fs.writeFileSync(to, this.moved(fs.readFileSync(from, 'utf8')), { mode: fs.statSync(from).mode });
    } else fs.symlinkSync(from, to);
  }

  moved(text) {
    return text.replace(new RegExp(`\\b(${[...this.ports.keys()].join('|')})\\b`, 'g'), (port) => this.ports.get(port));
  }

  port(shown) { return this.ports.get(String(shown)); }
  path(...names) { return path.join(this.folder, ...names); }
  write(name, text) { fs.writeFileSync(this.path(name), text); return this.path(name); }

  get env() {
    const PATH = `${process.env.PATH}:/usr/sbin:/sbin`;
    return { ...process.env, PATH: `${this.path('.bin')}:${PATH}`, REAL_PATH: PATH, REAL_CC: compiler, CACHE: cache };
  }

  // Runs a command to its end.
  run(command, ...args) {
    const child = spawn(command, args, { cwd: this.folder, env: this.env, stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (d) => { out += d; });
    return new Promise((done, failed) => { child.on('error', failed); child.on('close', (status) => done({ status, out })); });
  }

  remove() { fs.rmSync(this.folder, { recursive: true, force: true }); }
}

// --- a terminal ---

// A shell into which lines are typed. holder: a program that starts it (inherit, for descriptor 3).
export class Terminal {
  constructor(copy, holder = []) {
    const [program, ...args] = [...holder, 'bash', '--noprofile', '--norc'];
    this.out = '';
    this.count = 0;
    this.child = spawn(program, args, { cwd: copy.folder, env: copy.env, detached: true, stdio: ['pipe', 'pipe', 'ignore'] });
    this.child.stdout.on('data', (d) => { this.out += d; });
    this.child.stdin.on('error', () => {});
    this.closed = new Promise((done) => { this.child.on('close', () => { this.isClosed = true; done(); }); });
    this.type('exec 2>&1; trap : TERM INT'); // it outlives the signal that ends its programs,
    this.type(`(while kill -0 ${process.pid}; do sleep 1; done; kill -KILL 0) >/dev/null 2>&1 & disown`); // but not this test
  }

  // { out, status }; status is undefined while it runs.
  type(text) {
    const mark = `\x1e${++this.count} `, from = this.out.length, terminal = this;
    this.child.stdin.write(`{\n${text}\n} </dev/null\nprintf '\\036${this.count} %s\\n' $?\n`);
    return {
      get at() { return terminal.out.indexOf(mark, from); },
      get status() { return this.at < 0 ? undefined : Number(/\x1e\d+ (\d+)/.exec(terminal.out.slice(this.at))?.[1]); },
      get out() { return terminal.out.slice(from, this.at < 0 ? undefined : this.at).replace(/\x1e\d+ \d+\n/g, ''); },
    };
  }

  signal(name) { try { process.kill(-this.child.pid, name); } catch { /* all have ended */ } }

  // As Ctrl-C and the end of the window: what runs in it must end by itself.
  async end() {
    this.child.stdin.end('wait\n');
    for (let i = 0; !this.isClosed && i < 12; i++) {
      this.signal('SIGTERM'); // a second one ends a drain at once
      await Promise.race([this.closed, sleep(i ? 1000 : 400)]);
    }
    if (this.isClosed) return;
    this.signal('SIGKILL');
    throw new Error(`still there 12 s after SIGTERM: ${this.out.slice(-500)}`);
  }
}

// --- HTTP ---

// An answer of whatever speaks HTTP or HTTPS there, or null.
export function get(port, target = '/healthz', { isTls = false, headers = {}, ms = 3000 } = {}) {
  return new Promise((done) => {
    const child = spawn('curl', ['-skS', '-i', '-m', `${ms / 1000}`, ...Object.entries(headers).flatMap(([k, v]) => ['-H', `${k}: ${v}`]),
      `${isTls ? 'https' : 'http'}://127.0.0.1:${port}${target}`], { stdio: ['ignore', 'pipe', 'ignore'] });
    let text = '';
    child.stdout.on('data', (d) => { text += d; });
    child.on('error', () => done(null));
    child.on('close', () => done(/^HTTP\/\S+ \d+/.test(text) ? { status: Number(/ (\d+)/.exec(text)[1]), text } : null));
  });
}

// Each request has a connection of its own: a kept one may be to the server that was there before.
export function ask(url, { method = 'GET', headers = {}, body } = {}) {
  return new Promise((done, failed) => {
    const request = http.request(url, { method, headers, agent: false }, (answer) => {
      let text = '';
      answer.on('data', (d) => { text += d; });
      answer.on('end', () => done({ status: answer.statusCode, text }));
      answer.on('error', failed);
    });
    request.on('error', failed).end(body);
  });
}

export const publish = (url, data, headers = {}) => ask(url, { method: 'POST', body: data, headers });
export const read = async (url) => JSON.parse((await ask(url)).text);
