// What the cases stand on: a peer that says what it likes byte by byte, and a runner that starts the client against
// it and watches its end, its output, its time, its CPU and its memory.
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import fs from 'node:fs';
import crypto from 'node:crypto';
import { spawn } from 'node:child_process';

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const B = (x) => (Buffer.isBuffer(x) ? x : Buffer.from(x, 'utf8'));
const show = (x) => { const s = JSON.stringify(x) ?? String(x); return s.length > 300 ? `${s.slice(0, 300)}… (${s.length})` : s; };

// --- WebSocket frames ---

// frame(1, 'hi', { fin, rsv, mask, length }): length lies about the size.
export function frame(op, data = '', { fin = 1, rsv = 0, mask = false, length } = {}) {
  const body = B(data), n = BigInt(length ?? body.length);
  const head = [(fin << 7) | (rsv << 4) | op], m = mask ? 0x80 : 0;
  if (n < 126n) head.push(m | Number(n));
  else if (n < 65536n) head.push(m | 126, Number(n >> 8n), Number(n & 255n));
  else { const b = Buffer.alloc(8); b.writeBigUInt64BE(n); head.push(m | 127, ...b); }
  return Buffer.concat([Buffer.from(head), mask ? Buffer.alloc(4) : Buffer.alloc(0), body]);
}
export const text = (s, how) => frame(1, s, how);
export const close = (code, reason = '') => frame(8, Buffer.concat([Buffer.from([code >> 8, code & 255]), B(reason)]));
export const acceptOf = (key) => crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');

// --- messages as rtpush spells them ---

export const EPOCH = 'k3f9x2ab';
export const cursor = (n) => `${EPOCH}-${n}`;
export const message = (n, data = `m${n}`, more) => ({ id: cursor(n), topic: 't', data, ...more });
export const envelope = (o) => text(typeof o === 'string' ? o : JSON.stringify(o));
export const hello = (n = 0) => envelope({ type: 'hello', cursor: cursor(n), heartbeat: 20000 });
export const told = (n, data, more) => envelope({ type: 'message', ...message(n, data, more) });
export const response = (body, head = {}, status = '200 OK') => {
  const h = { 'Content-Type': 'application/json', 'Content-Length': B(body).length, ...head };
  return Buffer.concat([B(`HTTP/1.1 ${status}\r\n${Object.entries(h).filter(([, v]) => v !== null).map(([k, v]) => `${k}: ${v}\r\n`).join('')}\r\n`), B(body)]);
};
export const poll = (messages, at, more) => `${JSON.stringify({ cursor: at ?? messages.at(-1)?.id ?? cursor(0), messages, ...more })}\n`;
export const chunk = (s) => Buffer.concat([B(`${B(s).length.toString(16)}\r\n`), B(s), B('\r\n')]);
export const bytewise = (s) => Buffer.concat([...B(s)].map((b) => chunk(Buffer.from([b]))));
export const streamHead = (head = {}) => response('', { 'Content-Type': 'text/event-stream', 'Content-Length': null, 'Transfer-Encoding': 'chunked', ...head });
export const block = (n, data = `m${n}`, event) => `id: ${cursor(n)}\n${event ? `event: ${event}\n` : ''}${data.split('\n').map((l) => `data: ${l}\n`).join('')}\n`;

// --- the peer ---

class Gone extends Error {}

// One connection of the client, read piece by piece. Whatever the client does, a read ends: with bytes or with Gone.
export class Peer {
  constructor(socket, run) {
    Object.assign(this, { socket, run, buffer: Buffer.alloc(0), isOver: false, wake: () => {}, at: Date.now() });
    socket.setNoDelay?.(true);
    socket.on('data', (d) => { this.buffer = this.buffer.length ? Buffer.concat([this.buffer, d]) : d; this.wake(); });
    for (const what of ['end', 'error', 'close']) socket.on(what, () => { this.isOver = true; this.wake(); });
  }
  async until(fn) {
    for (;;) {
      const value = fn();
      if (value !== undefined) return value;
      if (this.isOver) throw new Gone();
      await new Promise((done) => { this.wake = done; });
    }
  }
  take(n) { const d = this.buffer.subarray(0, n); this.buffer = this.buffer.subarray(n); return d; }

  // The next request's head. That the client's own head is well made is checked here, in every case.
  async head() {
    const end = await this.until(() => { const i = this.buffer.indexOf('\r\n\r\n'); return i < 0 ? undefined : i; });
    const raw = this.take(end + 4).toString('latin1');
    const [line, ...fields] = raw.slice(0, -4).split('\r\n');
    const [method, target, version] = line.split(' ');
    const headers = {};
    for (const f of fields) {
      const m = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*?)[ \t]*$/.exec(f);
      if (!m) { this.run.fault(`a bad header line from the client: ${show(f)}`); continue; }
      const name = m[1].toLowerCase();
      if (name in headers && ['host', 'content-length', 'sec-websocket-key', 'last-event-id'].includes(name)) this.run.fault(`${name} twice`);
      headers[name] = name in headers ? `${headers[name]}, ${m[2]}` : m[2];
    }
    if (!/^(GET|POST) [\x21-\x7e]+ HTTP\/1\.1$/.test(line)) this.run.fault(`a bad request line: ${show(line)}`);
    if (!headers.host) this.run.fault('no Host');
    const url = new URL(target ?? '/', 'http://x');
    const request = { method, target, version, path: url.pathname, query: url.searchParams, headers, raw, at: Date.now(), peer: this };
    request.since = url.searchParams.get('since') ?? url.searchParams.get('last_event_id') ?? headers['last-event-id'] ?? headers['if-none-match']?.replace(/"/g, '') ?? null;
    if (headers['last-event-id']) request.since = headers['last-event-id'];
    request.kind = /websocket/i.test(headers.upgrade ?? '') ? 'ws' : method === 'POST' ? 'post' : /text\/event-stream/.test(headers.accept ?? '') ? 'sse'
      : Number(url.searchParams.get('wait') ?? /wait=(\d+)/.exec(headers.prefer ?? '')?.[1] ?? 0) > 0 ? 'lp' : 'sp';
    this.run.requests.push(request);
    return request;
  }
  async body(request) {
    const n = Number(request.headers['content-length'] ?? 0);
    return (await this.until(() => (this.buffer.length >= n ? this.take(n) : undefined))).toString('utf8');
  }
  write(...pieces) { for (const p of pieces.flat()) if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(B(p)); return this; }
  // As write, but waits for the room: for floods.
  async push(piece) {
    if (this.isOver || this.socket.destroyed) throw new Gone();
    if (this.socket.write(piece)) return;
    await new Promise((done) => { const on = () => { for (const what of ['drain', 'close']) this.socket.off(what, on); done(); }; for (const what of ['drain', 'close']) this.socket.on(what, on); });
  }
  async flood(piece, times = Infinity) { for (let i = 0; i < times; i++) await this.push(piece); }
  // Byte by byte. Where the pace is not the point (ms below 50), a busy machine is not waited for longer than 1.5 s.
  async trickle(bytes, ms = 0) {
    const began = Date.now();
    for (const b of B(bytes)) {
      if (this.socket.destroyed) throw new Gone();
      this.socket.write(Buffer.from([b]));
      if (ms >= 50) await sleep(ms);
      else if (Date.now() - began < 1500) await (ms ? sleep(ms) : new Promise(setImmediate));
    }
  }
  end(...pieces) { this.write(...pieces); this.socket.end(); return this; }
  cut() { this.socket.destroy(); }
  reset() { this.socket.resetAndDestroy ? this.socket.resetAndDestroy() : this.socket.destroy(); }

  // The lines of a right answer to an upgrade, to be spoilt.
  upgrade(request, more = []) {
    return ['HTTP/1.1 101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${acceptOf(request.headers['sec-websocket-key'])}`, ...more];
  }
  // Reads a request, checks that it is a right upgrade, answers so. mode: 'plain' or 'v1'.
  async accept(mode = 'plain', ...pieces) {
    const r = await this.head();
    this.isUpgrade(r);
    const offers = (r.headers['sec-websocket-protocol'] ?? '').split(/ *, */).filter(Boolean);
    if (mode === 'v1' && !offers.includes('rtpush.v1')) this.run.fault('rtpush.v1 is not offered');
    this.isWebSocket = true;
    this.write(Buffer.concat([B(lines(this.upgrade(r, mode === 'v1' ? ['Sec-WebSocket-Protocol: rtpush.v1'] : []))), ...pieces.flat().map(B)]));
    return r;
  }
  isUpgrade(r) {
    const h = r.headers, key = h['sec-websocket-key'] ?? '';
    if (r.kind !== 'ws') throw new Gone(this.run.fault(`no upgrade but ${r.kind}`));
    if (!/^[A-Za-z0-9+/]{22}==$/.test(key) || Buffer.from(key, 'base64').length !== 16) this.run.fault(`Sec-WebSocket-Key ${show(key)}`);
    if (h['sec-websocket-version'] !== '13') this.run.fault(`Sec-WebSocket-Version ${show(h['sec-websocket-version'])}`);
    if (!/(^|,) *upgrade *(,|$)/i.test(h.connection ?? '')) this.run.fault(`Connection ${show(h.connection)}`);
  }
  // The next frame of the client. It must be masked, by a key of its own.
  async frame() {
    const f = await this.until(() => {
      const b = this.buffer;
      if (b.length < 2) return undefined;
      let n = b[1] & 127, at = 2;
      if (n === 126) { if (b.length < 4) return undefined; n = b.readUInt16BE(2); at = 4; } else if (n === 127) { if (b.length < 10) return undefined; n = Number(b.readBigUInt64BE(2)); at = 10; }
      const isMasked = b[1] >= 128;
      if (b.length < at + 4 * isMasked + n) return undefined;
      const whole = this.take(at + 4 * isMasked + n), mask = isMasked ? whole.subarray(at, at + 4) : Buffer.alloc(4), data = Buffer.from(whole.subarray(at + 4 * isMasked));
      for (let i = 0; i < data.length; i++) data[i] ^= mask[i & 3];
      return { op: b[0] & 15, fin: b[0] >> 7, rsv: (b[0] >> 4) & 7, isMasked, mask: mask.toString('hex'), data };
    });
    if (!f.isMasked) this.run.fault('an unmasked frame from the client');
    if (f.rsv || ![1, 2, 8, 9, 10, 0].includes(f.op)) this.run.fault(`a frame of the client with op ${f.op}, rsv ${f.rsv}`);
    if (f.op >= 8 && f.data.length > 125) this.run.fault(`a control frame of ${f.data.length} bytes`);
    if (this.closed) this.run.fault('a frame behind the client\'s close');
    this.run.masks.push(f.mask);
    if (f.op === 8) { this.closed = true; this.run.closes.push(f.data.length >= 2 ? f.data.readUInt16BE(0) : 1005); }
    return f;
  }
  // What is left to do when the script is through: read the client's frames, answer its close by the end.
  async rest() {
    if (!this.isWebSocket) return this.until(() => { this.buffer = Buffer.alloc(0); return undefined; });
    for (;;) if ((await this.frame()).op === 8) { this.socket.end(); return undefined; }
  }
}
export const lines = (list) => `${list.join('\r\n')}\r\n\r\n`;

// --- the runner ---

export const limits = { program: '', mb: 64, factor: 1, ms: 6000, cpu: 600 };
export function setup(program) {
  limits.program = path.resolve(program);
  // A sanitizer's build: its memory is not the client's, its end must not look like exit code 1.
  if (fs.readFileSync(limits.program).includes('__asan_init')) {
    limits.factor = 3;
    process.env.ASAN_OPTIONS = `${process.env.ASAN_OPTIONS ?? ''}:exitcode=99:quarantine_size_mb=1:malloc_context_size=5`;
    process.env.UBSAN_OPTIONS = `${process.env.UBSAN_OPTIONS ?? ''}:exitcode=99`;
  }
  if (fs.readFileSync(limits.program).subarray(0, 2).toString() === '#!') Object.assign(limits, { factor: 10, mb: 300, ms: 15000 }); // reference.mjs
}
const stat = (pid) => { try { const f = fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' '); return 10 * (Number(f[11]) + Number(f[12])); } catch { return 0; } };
const peak = (pid) => { try { return Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0) / 1024; } catch { return 0; } };

class Run {
  constructor() { Object.assign(this, { stdout: Buffer.alloc(0), stderr: '', peers: [], requests: [], masks: [], closes: [], faults: [], cpu: 0, mb: 0 }); }
  get out() { return this.stdout.toString('utf8'); }
  fault(s) { if (this.faults.length < 5) this.faults.push(s); return s; }
}

async function listen(c, run) {
  const serve = async (socket) => {
    const peer = new Peer(socket, run);
    run.peers.push(peer);
    try {
      await c.serve(peer, run.peers.length, run);
      await peer.rest();
    } catch (e) { if (!(e instanceof Gone)) run.fault(`the test's server: ${e.stack}`); }
  };
  // allowHalfOpen: a client that shuts its sending side down is still there to read.
  const server = c.tls ? c.tls(serve) : net.createServer({ allowHalfOpen: false }, serve);
  server.on('tlsClientError', (e, socket) => { run.tlsError = e; socket.destroy(); });
  server.on('error', () => {});
  const file = path.join(os.tmpdir(), `rtcat-${process.pid}-${crypto.randomBytes(4).toString('hex')}`);
  await new Promise((done, failed) => { server.once('error', failed); c.unix ? server.listen(file, done) : server.listen(0, c.host ?? '127.0.0.1', done); });
  run.port = server.address().port;
  return { server, where: c.unix ? `unix:${file}:` : `${c.scheme ?? 'http'}://${c.host ? `[${c.host}]` : '127.0.0.1'}:${run.port}` };
}

// Runs one case; returns what was wrong, [] if nothing, or { skip }.
export async function runCase(c) {
  const run = new Run();
  let server, where = '';
  try { if (c.serve) ({ server, where } = await listen(c, run)); } catch (e) { return { skip: `no server: ${e.code}` }; }
  const args = [...(c.args ?? []), ...(c.urls ?? [`${where}${c.path ?? '/live/t'}`])];
  const began = Date.now();
  const child = c.tty
    ? spawn('script', ['-qec', [limits.program, ...args].map((a) => `'${a.replace(/'/g, "'\\''")}'`).join(' '), '/dev/null'], { stdio: ['pipe', 'pipe', 'pipe'] })
    : spawn(limits.program, args, { stdio: ['pipe', c.outTo ? fs.openSync(c.outTo, 'w') : 'pipe', 'pipe'], env: { ...process.env, http_proxy: '' } });
  child.stdin.on('error', () => {});
  if (c.in) child.stdin.write(c.in);
  if (c.eof) child.stdin.end();
  // c.slowOut: our end of the pipe stays full for so long; c.shutOut: we go after the first bytes, as `head -n 1` does.
  const pieces = [];
  let size = 0;
  const hear = () => child.stdout?.on('data', (d) => { if (size < 64 << 20) pieces.push(d); size += d.length; if (c.shutOut) child.stdout.destroy(); });
  if (c.slowOut) setTimeout(hear, c.slowOut); else hear();
  child.stderr.on('data', (d) => { if (run.stderr.length < 1 << 20) run.stderr += d; });
  const watch = setInterval(() => { run.cpu = Math.max(run.cpu, stat(child.pid)); run.mb = Math.max(run.mb, peak(child.pid)); if (run.mb > 10 * limits.mb) child.kill('SIGKILL'); }, 15);
  const limit = 2 * (c.ms ?? limits.ms); // twice, for a machine that others use, too: spinning is seen by the CPU
  const hung = setTimeout(() => { run.isHung = true; child.kill('SIGKILL'); }, limit + (c.stop ?? 0));
  const stop = c.stop && setTimeout(() => { run.isStopped = true; child.kill('SIGTERM'); }, c.stop);
  const { code, signal } = await new Promise((done) => { child.on('error', (e) => done({ code: null, signal: e.code })); child.on('close', (code_, signal_) => done({ code: code_, signal: signal_ })); });
  run.took = Date.now() - began;
  run.stdout = Buffer.concat(pieces);
  clearInterval(watch); clearTimeout(hung); clearTimeout(stop);
  await sleep(1); // what the client said last may still be on its way
  await new Promise(setImmediate);
  for (const p of run.peers) p.socket.destroy();
  server?.close();
  run.code = run.isStopped && code !== 99 && !['SIGSEGV', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL'].includes(signal) ? 'stopped' : signal === 'SIGPIPE' ? signal : code;
  const why = c.skip?.(run);
  return why ? { skip: why } : verdict(c, run, { code, signal, limit, args });
}

function verdict(c, run, { code, signal, limit, args }) {
  const wrong = [], one = (x) => (Array.isArray(x) ? x : [x]);
  const say = (what, wanted, got) => wrong.push(`${what}: expected ${wanted}, got ${got}`);
  if (run.isHung) say('its end', `within ${limit} ms`, `none, with ${run.cpu} ms of CPU`);
  else if (!one(c.exit).includes(run.code)) say('exit code', one(c.exit).join(' or '), signal ? `signal ${signal}` : code);
  if (/Sanitizer|runtime error:/.test(run.stderr)) say('a sanitizer', 'silence', run.stderr.slice(0, 1500));
  const outs = 'out' in c ? one(c.out) : null;
  if (outs && !outs.some((o) => (o instanceof RegExp ? o.test(run.out) : typeof o === 'function' ? o(run.out) : Buffer.isBuffer(o) ? o.equals(run.stdout) : o === run.out))) say('stdout', outs.map((o) => (typeof o === 'string' ? show(o) : String(o))).join(' or '), show(run.out));
  if (c.err && !c.err.test(run.stderr)) say('stderr', c.err, show(run.stderr));
  if (c.noErr && run.stderr) say('stderr', 'nothing', show(run.stderr));
  if ([1, 2, 3].includes(code) && !run.isHung && !c.shutOut && !/^rtcat: ./m.test(run.stderr)) say('stderr', 'a line `rtcat: …`', show(run.stderr));
  if (code === 3 && !run.isHung && run.stderr.trim().split('\n').length !== 1 && args.includes('--no-reconnect')) say('stderr', 'one line', show(run.stderr));
  // What a server says must not steer the terminal.
  // eslint-disable-next-line no-control-regex
  if (!c.tty && /[\x00-\x08\x0b-\x1f\x7f]/.test(run.stderr)) say('stderr', 'no control characters', show(run.stderr));
  const cpu = (c.cpu ?? limits.cpu) * limits.factor;
  if (run.cpu > cpu) say('CPU', `at most ${cpu} ms`, run.cpu);
  if (run.mb > limits.mb) say('memory (VmHWM)', `at most ${limits.mb} MB`, run.mb.toFixed(1));
  if (c.closes && run.closes.some((k) => !c.closes.includes(k))) say('the client\'s close code', c.closes.join(' or '), run.closes);
  if (c.conns && run.peers.length > c.conns) say('connections', `at most ${c.conns}`, run.peers.length);
  for (const f of run.faults) wrong.push(f);
  try { const more = c.check?.(run); if (more) wrong.push(more); } catch (e) { wrong.push(`the check: ${e.message}`); }
  if (wrong.length) wrong.push(`ran: rtcat ${args.map(show).join(' ')}; exit ${code ?? signal}, ${run.took} ms, ${run.cpu} ms CPU, ${run.mb.toFixed(1)} MB; stdout ${show(run.out)}; stderr ${show(run.stderr)}; requests ${run.requests.map((r) => r.kind)}`);
  return wrong;
}
