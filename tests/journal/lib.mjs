// What the journal's tests stand on: a daemon that is ended or killed and started again on the same folder, all that
// it holds, and what it says to each cursor.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Daemon, RTPUSHD, pipeline, poll, post, eventually } from '../wire/lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
export const top = path.resolve(here, '../..');
export const BUILD = path.resolve(process.env.JOURNAL_BUILD ?? path.join(top, 'build'));

const SANITIZERS = '-g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined'.split(' ');

// Compiles a source of the project once, until it or the header changes. Two test files may want it at the same moment:
// each compiles to a name of its own and moves it into place.
export function build(source, name, flags = SANITIZERS) {
  const file = path.join(top, source), out = path.join(BUILD, name), mine = `${out}.${process.pid}`;
  const age = (f) => (fs.existsSync(f) ? fs.statSync(f).mtimeMs : 0);
  if (age(out) > Math.max(age(file), age(path.join(top, 'rtpush.h')))) return out;
  fs.mkdirSync(BUILD, { recursive: true });
  execFileSync(process.env.CC ?? 'gcc', [...flags, '-D_GNU_SOURCE', '-Wall', '-Wextra', file, '-o', mine, '-pthread'], { stdio: 'inherit' });
  fs.renameSync(mine, out);
  return out;
}

// Without the sanitizers, for what moves hundreds of megabytes. Both block: to be called before the tests begin.
export const fastDaemon = () => build('tools/rtpushd.c', 'journal-rtpushd-fast', ['-O0']);

// What was begun last ends first: daemons before the folders that they write to.
const ends = new WeakMap();
export function after(t, end) {
  if (!ends.has(t)) {
    ends.set(t, []);
    t.after?.(async () => {
      const errors = [];
      for (const f of ends.get(t).reverse()) try { await f(); } catch (e) { errors.push(e); }
      if (errors.length) throw errors[0];
    });
  }
  ends.get(t).push(end);
}

export function folder(t, parent = os.tmpdir()) {
  const dir = fs.mkdtempSync(path.join(parent, 'journal-'));
  after(t, () => fs.rmSync(dir, { recursive: true, force: true }));
  return dir;
}

// As the Daemon of tests/wire, but any program in any environment, and it may be killed.
export class Journaled {
  constructor(program, args, env) {
    Object.assign(this, { sockets: new Set(), stdout: '', stderr: '', listening: [] });
    this.process = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.process.stdout.on('data', (d) => {
      this.stdout += d;
      this.listening = [...this.stdout.matchAll(/^listening on (\S+)\n/gm)].map((m) => m[1]);
    });
    this.process.stderr.on('data', (d) => { this.stderr += d; });
    this.exit = new Promise((done) => {
      this.process.on('error', (e) => { this.over = { code: null, signal: String(e) }; done(this.over); });
      this.process.on('close', (code, signal) => { this.over = { code, signal }; done(this.over); });
    });
  }

  async kill() {
    this.isKilled = true;
    this.process.kill('SIGKILL');
    await this.exit;
    for (const socket of this.sockets) if (!socket.connecting) socket.destroy(); // else nobody hears that it failed
    assert.doesNotMatch(this.stderr, /Sanitizer|runtime error:/);
    assert.equal(this.over.signal, 'SIGKILL', `it had ended by itself: ${JSON.stringify(this.over)} ${this.stderr}`);
  }

  // The clean end: SIGTERM, the drain, exit status 0.
  async end() {
    if (!this.isKilled) await Daemon.prototype.stop.call(this);
  }
}
for (const name of ['start', 'connect']) Journaled.prototype[name] = Daemon.prototype[name];

export function begin(t, dir, args = [], { program = RTPUSHD, env } = {}) {
  const listen = args.includes('--listen') ? [] : ['--listen', 'http://127.0.0.1:0'];
  const d = new Journaled(program, [...listen, '--journal', dir, '--drain-spread', '100', '--verbose', ...args], env);
  after(t, () => d.end());
  return d;
}

export const start = (t, dir, args, how) => begin(t, dir, args, how).start(1);

// Runs it to its end, which it is expected to find by itself: what it exits with.
export async function refused(dir, args = [], how = {}) {
  const d = begin({}, dir, args, how), late = setTimeout(() => d.process.kill('SIGKILL'), 10000);
  const over = await d.exit;
  clearTimeout(late);
  assert.doesNotMatch(d.stderr, /Sanitizer|runtime error:/);
  return { ...over, stdout: d.stdout, stderr: d.stderr };
}

// The two ends that a restart has.
export const ENDS = { clean: (d) => d.end(), kill: (d) => d.kill() };

// Everything a poll of the topic or pattern returns, over all its parts.
export async function held(d, target, since = 'earliest') {
  const all = [];
  for (let more = true, body; more; ({ more } = body)) {
    body = await poll(d, `/live/${target}${target.includes('?') ? '&' : '?'}since=${since}`);
    all.push(...body.messages);
    since = body.cursor;
  }
  return all;
}

export const headOf = async (d) => (await poll(d, '/live/no/such/topic')).cursor;

// What the daemon answers to every cursor that it has ever issued, for each of the topics and patterns: the gap or none,
// and all the messages. This is what has to be the same after a restart, to the byte.
export async function verdicts(d, targets) {
  const head = await headOf(d), epoch = head.slice(0, 8), cursors = Array.from({ length: Number(head.slice(9)) + 1 }, (_, seq) => `${epoch}-${seq}`);
  const said = { head };
  for (const target of targets) {
    const answers = await pipeline(d, cursors.map((c) => ['GET', `/live/${target}?since=${c}`, {}]));
    answers.forEach((r, seq) => {
      assert.equal(r.status, 200, r.text);
      said[`${target} since ${seq}`] = r.text;
    });
  }
  return said;
}

export const sizeOf = (dir) => fs.readdirSync(dir).reduce((sum, name) => {
  try { return sum + fs.statSync(path.join(dir, name)).blocks * 512; } catch { return sum; } // it was there a moment ago
}, 0);

export const copy = (from, to) => fs.cpSync(from, to, { recursive: true });

// Tries until it is accepted. For when the journal heals.
export const untilTaken = (d, topic, data) => eventually(async () => {
  const r = await post(d, `/live/${topic}`, data);
  return r.status < 300 && { ...r.json, data };
}, 'publishes are taken again', 20000);
