// A real nginx in a folder of its own, and what is read through it.
import fs from 'node:fs';
import os from 'node:os';
import net from 'node:net';
import path from 'node:path';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createRequire } from 'node:module';

const here = path.dirname(fileURLToPath(import.meta.url));
const top = path.resolve(here, '../..');
export const RTCAT = path.resolve(process.env.RTCAT ?? path.join(top, 'build/rtcat'));
export const NGINX = process.env.NGINX ?? '/usr/sbin/nginx';
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const WebSocket = createRequire(path.join(top, 'tests/wire/package.json'))('ws');
const rtpush = createRequire(import.meta.url)('../../tools/rtpush.js');

export const freePort = () => new Promise((done) => {
  const s = net.createServer().listen(0, '127.0.0.1', () => { const { port } = s.address(); s.close(() => done(port)); });
});

const answers = (port) => new Promise((done) => {
  const s = net.connect(port, '127.0.0.1', () => { s.destroy(); done(true); }).on('error', () => done(false));
});

// nginx with one of the two files. a, b: the daemons' ports. timeout: in place of the file's proxy_read_timeout.
export async function nginx(t, file, { a, b = 1, timeout = '3s', ignore = '', edit = (text) => text }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-nginx-')), port = await freePort();
  const fragment = edit(fs.readFileSync(path.join(here, file), 'utf8').replaceAll('LISTEN', port).replaceAll('UPSTREAM_A', a).replaceAll('UPSTREAM_B', b)
    .replace('IGNORE', ignore).replace(/proxy_read_timeout \w+;/, `proxy_read_timeout ${timeout};`));
  const temps = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((x) => `${x}_temp_path ${folder}/${x};`).join(' ');
  const root = process.getuid() === 0 ? 'user root;\n' : '';
  fs.writeFileSync(path.join(folder, 'nginx.conf'), `${root}daemon off; master_process on; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log info;
events { worker_connections 4000; }
http { access_log off; ${temps}
${fragment}}
`);
  const p = spawn(NGINX, ['-p', folder, '-c', path.join(folder, 'nginx.conf'), '-e', path.join(folder, 'error.log')], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '', over;
  p.stderr.on('data', (d) => { said += d; });
  const exit = new Promise((done) => { p.on('error', (e) => { said += e; over = true; done(); }); p.on('close', () => { over = true; done(); }); });
  t.after(async () => {
    p.kill('SIGTERM');
    await exit;
    fs.rmSync(folder, { recursive: true, force: true });
  });
  for (let i = 0; !(await answers(port)); i++) {
    assert.ok(!over && i < 300, `nginx did not start: ${said}`);
    await sleep(20);
  }
  return { port, url: `http://127.0.0.1:${port}/live`, log: () => fs.readFileSync(path.join(folder, 'error.log'), 'utf8') };
}

// A program that is read to its end.
export function start(t, command, ...args) {
  const p = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const o = { process: p, out: '', err: '', began: Date.now(), first: null };
  p.stdout.on('data', (d) => { o.first ??= Date.now() - o.began; o.out += d; });
  p.stderr.on('data', (d) => { o.err += d; });
  o.exit = new Promise((done) => { p.on('error', (e) => { o.err += e; done(-1); }); p.on('close', (code) => { o.code = code; done(code); }); });
  t.after(async () => { p.kill('SIGKILL'); await o.exit; });
  o.lines = () => o.out.split('\n').slice(0, -1);
  return o;
}

export const rtcat = (t, url, transport, ...more) => start(t, RTCAT, '--transport', transport, ...more, url);
export const curl = (t, ...args) => start(t, 'curl', '-sS', '-N', ...args);

// The JS client; log: its states, gaps and messages, with the time.
export function client(t, url, topic, options = {}) {
  const live = rtpush(url, { WebSocket, share: false, interval: 100, backoff: 50, backoffMax: 300, ...options });
  const log = { states: [], gaps: [], errors: [], got: [], transports: [] };
  live.on('state', (state, { transport }) => {
    log.states.push(`${state} ${transport}`);
    if (state === 'open') log.transports.push(transport);
  });
  live.on('gap', (g) => log.gaps.push(g));
  live.on('error', (e) => log.errors.push(e.message));
  const off = live.subscribe(topic, (m) => log.got.push({ data: m.data, at: Date.now() }));
  t.after(() => live.close());
  return Object.assign(log, { live, ready: off.ready });
}

export async function publish(url, topic, data, key) {
  const r = await fetch(`${url}/${topic}`, { method: 'POST', body: data, headers: key ? { 'Idempotency-Key': key } : {} });
  const text = await r.text();
  if (r.status > 202) throw Object.assign(new Error(`${r.status} ${text}`), { status: r.status });
  return JSON.parse(text);
}

export async function eventually(fn, what, ms = 15000) {
  for (const end = Date.now() + ms; ; await sleep(20)) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never: ${what}`);
  }
}

export const statsOf = async (port) => (await fetch(`http://127.0.0.1:${port}/stats`)).json();
export const readers = (port, n) => eventually(async () => (await statsOf(port)).subscriptions >= n, `${n} readers`);
