// The supervisor, the herds and the publisher that the drain is proven with, and what is to be true of them.
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import fs from 'node:fs';
import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const top = path.resolve(here, '../..');
export const BUILD = path.join(top, 'build');
export const RTPUSHD = path.resolve(process.env.RTPUSHD ?? path.join(BUILD, 'rtpushd'));
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// Compiles a program of this folder, if it is not there already; under the sanitizers unless DRAIN_CFLAGS says
// otherwise. -O0: compiling is most of what it costs.
export function build(name) {
  const flags = (process.env.DRAIN_CFLAGS ?? '-g -O0 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined').split(' ');
  const out = path.join(BUILD, `drain-${name}${flags.includes('-O2') ? '-O2' : ''}`), source = path.join(here, `${name}.c`);
  const age = (file) => (fs.existsSync(file) ? fs.statSync(file).mtimeMs : 0);
  if (age(out) > Math.max(age(source), age(path.join(top, 'rtpush.h')))) return out;
  fs.mkdirSync(BUILD, { recursive: true });
  execFileSync(process.env.CC ?? 'gcc', [...flags, '-Wall', '-Wextra', source, '-o', out, '-pthread'], { stdio: 'inherit' });
  return out;
}

// A program that says things a line at a time. A line that was said stays until it is taken.
export class Program {
  constructor(command, args) {
    this.lines = [];
    this.stderr = '';
    this.process = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.process.stdin.on('error', () => {});
    this.process.on('error', (e) => { this.stderr += e; });
    let rest = '';
    this.process.stdout.on('data', (d) => {
      const all = (rest + d).split('\n');
      rest = all.pop();
      this.lines.push(...all);
      this.wake?.();
    });
    this.process.stderr.on('data', (d) => { this.stderr += d; });
    this.over = new Promise((done) => this.process.on('close', (code, signal) => { this.ended = { code, signal }; this.wake?.(); done(this.ended); }));
  }

  // The next line that begins so.
  async line(begin, ms = 30000) {
    for (const end = Date.now() + ms; ;) {
      const i = this.lines.findIndex((line) => line.startsWith(begin));
      if (i >= 0) return this.lines.splice(i, 1)[0];
      if (this.ended || Date.now() > end) throw new Error(`${this.process.spawnfile}: no line "${begin}…" (${JSON.stringify(this.ended)}) ${this.stderr.slice(0, 2000)} ${this.lines.slice(0, 3)}`);
      await new Promise((done) => { const timer = setTimeout(done, 50); this.wake = () => { clearTimeout(timer); done(); }; });
    }
  }

  say(text) { this.process.stdin.write(`${text}\n`); }

  async kill() {
    if (!this.ended) this.process.kill('SIGKILL');
    await this.over;
  }
}

export class Supervisor extends Program {
  static async begin(t, program) {
    const s = new Supervisor(program, [RTPUSHD]);
    s.pids = new Set();
    t.after(async () => {
      for (const pid of s.pids) try { process.kill(pid, 'SIGKILL'); } catch { /* it has gone */ }
      await s.kill();
      assert.doesNotMatch(s.stderr, /Sanitizer|runtime error:/);
    });
    s.port = Number((await s.line('port')).slice(5));
    return s;
  }

  async start(...args) {
    this.say(['start', ...args].join(' '));
    const pid = Number((await this.line('started')).slice(8));
    this.pids.add(pid);
    await this.line('listening on fd:3');
    return pid;
  }

  async exit(pid, ms = 30000) {
    const [, , status] = (await this.line(`exit ${pid} `, ms)).split(' ');
    this.pids.delete(pid);
    return Number(status);
  }
}

export class Herd extends Program {
  static async begin(t, command, args, counts, port, more = []) {
    const flags = Object.entries(counts).flatMap(([k, n]) => [`--${k}`, `${n}`]);
    const h = new Herd(command, [...args, ...flags, '--interval', '300', ...more, `http://127.0.0.1:${port}/live/n`]);
    t.after(() => h.kill());
    await h.line('open', 60000);
    return h;
  }

  async summary() {
    this.process.kill('SIGTERM');
    const s = JSON.parse(await this.line('{', 60000));
    const { code } = await this.over;
    assert.equal(code, 0, this.stderr);
    assert.equal(this.stderr, '');
    return s;
  }
}

export const epochOf = (id) => id.slice(0, 8);

// One number after the other, each on a connection of its own, until stop(). A refusal is tried again under the same key.
export class Publisher {
  constructor(port, { every = 50, topic = 'n' } = {}) {
    Object.assign(this, { port, every, topic, sent: [], refusals: [], n: 0, isOn: true });
    this.done = this.run();
  }

  async run() {
    while (this.isOn) {
      const began = Date.now();
      await this.one();
      const left = this.every - (Date.now() - began);
      if (left > 0) await sleep(left);
    }
  }

  async one() {
    const n = ++this.n, key = `number-${n}-${process.pid}`;
    for (;;) {
      const asked = Date.now();
      try {
        const { id, subscribers } = await post(this.port, this.topic, `${n}`, { 'Idempotency-Key': key });
        this.sent.push({ n, id, epoch: epochOf(id), asked, answered: Date.now(), subscribers });
        return;
      } catch (e) {
        this.refusals.push({ n, why: e.code ?? e.message });
        await sleep(20);
      }
    }
  }

  async stop() {
    this.isOn = false;
    await this.done;
  }
}

export const post = (port, topic, data, headers = {}) => new Promise((done, failed) => {
  const r = http.request({ host: '127.0.0.1', port, path: `/live/${topic}`, method: 'POST', agent: false, headers: { ...headers, 'Content-Length': Buffer.byteLength(data) } }, (answer) => {
    let text = '';
    answer.on('data', (d) => { text += d; }).on('end', () => (answer.statusCode < 300 ? done(JSON.parse(text)) : failed(new Error(`HTTP ${answer.statusCode}`)))).on('error', failed);
  });
  r.on('error', failed).end(data);
});

// The greatest distance between the sorted values and an even spread over 0…most (Kolmogorov).
export function deviation(values, most) {
  const sorted = [...values].sort((a, b) => a - b), n = sorted.length;
  return Math.max(...sorted.map((v, i) => Math.max(Math.abs(v / most - i / n), Math.abs(v / most - (i + 1) / n))));
}

// The most that fall into any `width` ms, wherever it begins.
export function crowd(times, width = 100) {
  const sorted = [...times].sort((a, b) => a - b);
  let most = 0;
  for (let i = 0, j = 0; i < sorted.length; i++) {
    while (sorted[i] - sorted[j] >= width) j++;
    most = Math.max(most, i - j + 1);
  }
  return most;
}

export function histogram(times, from, to, width = 100) {
  const bars = Array(Math.max(1, Math.ceil((to - from) / width))).fill(0);
  for (const t of times) if (t >= from && t < to) bars[Math.floor((t - from) / width)]++;
  return bars;
}

// Reconnects per 100 ms, a row for each restart, with the bound.
export function svg(rows, bound, title) {
  const width = 900, height = 170, left = 60, top0 = 50;
  const most = Math.max(bound * 1.1, ...rows.flatMap((r) => r.bars));
  const count = Math.max(...rows.map((r) => r.bars.length));
  const parts = [`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top0 + rows.length * (height + 45)}" font-family="sans-serif" font-size="12">`,
    '<rect width="100%" height="100%" fill="white"/>', `<text x="${left}" y="24" font-size="16">${title}</text>`];
  const step = (width - left - 30) / count;
  rows.forEach(({ name, bars }, i) => {
    const y0 = top0 + i * (height + 45) + height, y = (v) => y0 - (v / most) * (height - 20);
    parts.push(`<text x="${left}" y="${y0 - height + 12}">${name}</text>`);
    bars.forEach((v, k) => parts.push(`<rect x="${(left + k * step).toFixed(1)}" y="${y(v).toFixed(1)}" width="${(step - 1).toFixed(1)}" height="${(y0 - y(v)).toFixed(1)}" fill="#3572a5"/>`));
    parts.push(`<line x1="${left}" x2="${width - 30}" y1="${y(bound)}" y2="${y(bound)}" stroke="#c0392b" stroke-dasharray="6 4"/>`,
      `<text x="${width - 32}" y="${y(bound) - 4}" text-anchor="end" fill="#c0392b">the bound: ${Math.round(bound)}</text>`,
      `<line x1="${left}" x2="${width - 30}" y1="${y0}" y2="${y0}" stroke="black"/>`);
    for (let v = 0; v <= most; v += Math.max(10, Math.ceil(most / 4 / 10) * 10)) parts.push(`<text x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`);
    for (let s = 0; s * 10 <= count; s++) parts.push(`<text x="${left + s * 10 * step}" y="${y0 + 15}" text-anchor="middle">${s} s</text>`);
  });
  return `${[...parts, '</svg>'].join('\n')}\n`;
}

// A port that was free a moment ago.
export const freePort = () => new Promise((done) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); });
});
