// What the tests stand on: the daemon on a port of its own, a socket that can be read piece by piece, strict
// readers for HTTP/1.1 messages, SSE blocks and WebSocket frames. Nothing here forgives the server anything.
import net from 'node:net';
import path from 'node:path';
import crypto from 'node:crypto';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const RTPUSHD = process.env.RTPUSHD ? path.resolve(process.env.RTPUSHD) : path.resolve(here, '../../build/rtpushd');
// How long a read waits for what must come. Only a failing test waits so long.
export const PATIENCE = Number(process.env.WIRE_PATIENCE_MS ?? 15000);

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const seqOf = (id) => Number(id.slice(9));
export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
export const datas = (messages) => messages.map((m) => m.data);

// Waits until fn() returns something truthy and returns it. what: a text, or a function that gives one when it is too late.
export async function eventually(fn, what, ms = PATIENCE) {
  const end = Date.now() + ms;
  for (;;) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never: ${typeof what === 'function' ? what() : what}`);
    await sleep(10);
  }
}

// A small seeded generator (mulberry32): a failing run can be repeated by SEED.
export function random(seed) {
  let a = seed >>> 0;
  const next = () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return { next, below: (n) => Math.floor(next() * n), pick: (list) => list[Math.floor(next() * list.length)] };
}

// --- the daemon ---

export class Daemon {
  constructor(args) {
    this.sockets = new Set();
    this.stdout = '';
    this.stderr = '';
    this.listening = [];
    this.process = spawn(RTPUSHD, args, { stdio: ['ignore', 'pipe', 'pipe'] });
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

  async start(listeners) {
    await eventually(() => this.over || this.listening.length >= listeners, `${RTPUSHD} listening`);
    assert.ok(!this.over, `${RTPUSHD} ended at its start: ${JSON.stringify(this.over)} ${this.stderr}`);
    const first = this.listening[0];
    this.address = first.startsWith('unix:') ? { path: first.slice(5) } : addressOf(first);
    this.port = this.address.port;
    this.host = first.startsWith('unix:') ? 'localhost' : first.slice('http://'.length);
    this.url = `http://${this.host}`;
    return this;
  }

  async connect(address = this.address) {
    const socket = net.connect({ ...address, allowHalfOpen: true });
    this.sockets.add(socket);
    await new Promise((done, failed) => { socket.once('connect', done); socket.once('error', failed); });
    socket.setNoDelay(true);
    socket.on('close', () => this.sockets.delete(socket));
    return new Conn(socket, this);
  }

  // Every test ends here: the daemon must still be there, drain and exit 0, with nothing to say by a sanitizer.
  async stop() {
    for (const socket of this.sockets) socket.destroy();
    if (!this.over) this.process.kill('SIGTERM');
    const late = setTimeout(() => { this.late = true; this.process.kill('SIGKILL'); }, 20000);
    const { code, signal } = await this.exit;
    clearTimeout(late);
    assert.doesNotMatch(this.stderr, /Sanitizer|runtime error:/);
    assert.ok(!this.late, 'the daemon did not end within 20 s of SIGTERM');
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `the daemon's end: ${this.stderr}`);
  }
}

function addressOf(url) {
  const { hostname, port } = new URL(url);
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) };
}

// t is a test's context, or { after } of node:test for a whole file.
export async function daemon(t, ...args) {
  const given = args.filter((a) => a === '--listen').length;
  const d = new Daemon(given ? args : ['--listen', 'http://127.0.0.1:0', ...args]);
  t.after(() => d.stop());
  return d.start(given || 1);
}

// Runs the daemon to its end. For flags.
export async function run(...args) {
  const d = new Daemon(args);
  const late = setTimeout(() => d.process.kill('SIGKILL'), PATIENCE);
  const { code, signal } = await d.exit;
  clearTimeout(late);
  return { code, signal, stdout: d.stdout, stderr: d.stderr };
}

// --- a socket read by pieces ---

export class Conn {
  #pieces = [];
  #size = 0;
  #wake = () => {};

  constructor(socket, d) {
    this.socket = socket;
    this.daemon = d;
    const wake = () => this.#wake();
    socket.on('data', (piece) => { this.#pieces.push(piece); this.#size += piece.length; wake(); });
    socket.on('end', () => { this.ended = true; wake(); });
    socket.on('error', (e) => { this.error = e; wake(); });
    socket.on('close', () => { this.closed = true; wake(); });
  }

  get over() { return this.ended || this.closed || false; }
  get size() { return this.#size; }

  peek() {
    if (this.#pieces.length !== 1) this.#pieces = [Buffer.concat(this.#pieces)];
    return this.#pieces[0];
  }

  write(bytes) { return this.socket.write(bytes); }
  end() { this.socket.end(); }
  destroy() { this.socket.destroy(); }
  pause() { this.socket.pause(); }
  resume() { this.socket.resume(); }

  // Waits until found() is not undefined.
  async wait(found, what, ms = PATIENCE) {
    const end = Date.now() + ms;
    for (;;) {
      const value = found();
      if (value !== undefined) return value;
      const have = () => JSON.stringify(this.peek().subarray(0, 300).toString('latin1'));
      if (this.over) throw new Error(`the connection ended (${this.error?.code ?? 'FIN'}) before ${what}; unread: ${have()}`);
      const left = end - Date.now();
      if (left <= 0) throw new Error(`${ms} ms without ${what}; unread: ${have()}`);
      await new Promise((done) => {
        const timer = setTimeout(done, left);
        this.#wake = () => { clearTimeout(timer); done(); };
      });
    }
  }

  #drop(n) {
    const bytes = this.peek();
    const taken = bytes.subarray(0, n);
    this.#pieces = [bytes.subarray(n)];
    this.#size -= n;
    return taken;
  }

  async take(n, what = `${n} bytes`, ms) {
    await this.wait(() => (this.#size >= n ? true : undefined), what, ms);
    return this.#drop(n);
  }

  // All up to and with `end`.
  async until(end, what = JSON.stringify(end), ms) {
    const at = await this.wait(() => {
      const i = this.peek().indexOf(end, 0, 'latin1');
      return i < 0 ? undefined : i;
    }, what, ms);
    return this.#drop(at + end.length);
  }

  // The end must come; returns what came before it. A reset counts as an end only where reset is true.
  async eof(ms, { reset = false } = {}) {
    await this.wait(() => (this.over ? true : undefined), 'the end of the connection', ms);
    if (!reset) assert.equal(this.error, undefined, 'the connection was reset, not ended');
    return this.#drop(this.#size);
  }

  // Nothing may come for so long, and the connection stays.
  async quiet(ms) {
    await sleep(ms);
    assert.equal(this.peek().toString('latin1'), '', 'nothing was to come');
    assert.ok(!this.over, 'the connection was to stay');
  }

  // --- HTTP (RFC 9112) ---

  async head(ms) {
    const text = (await this.until('\r\n\r\n', 'the head of a response', ms)).toString('latin1').slice(0, -4);
    assert.doesNotMatch(text.replaceAll('\r\n', ''), /[\r\n\0]/, 'a bare CR, LF or NUL in a head');
    const [first, ...lines] = text.split('\r\n');
    const [, minor, status, reason] = /^HTTP\/1\.([01]) ([1-5]\d\d) ([^\r\n]*)$/.exec(first) ?? assert.fail(`status line: ${first}`);
    const list = lines.map((line) => {
      const m = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*$/.exec(line) ?? assert.fail(`header line: ${line}`);
      return [m[1].toLowerCase(), m[2]];
    });
    const headers = {};
    for (const [name, value] of list) headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
    assert.ok(!('content-length' in headers && 'transfer-encoding' in headers), 'both Content-Length and Transfer-Encoding');
    if (status[0] === '1' || status === '204') {
      assert.ok(!('content-length' in headers) && !('transfer-encoding' in headers), `${status} with a body header (RFC 9110 §8.6)`);
    }
    return { minor: Number(minor), status: Number(status), reason, headers, list };
  }

  // One piece of a chunked body; empty at its end.
  async chunk(ms) {
    const line = (await this.until('\r\n', 'a chunk', ms)).toString('latin1').slice(0, -2);
    assert.match(line, /^[0-9A-Fa-f]+$/, 'a chunk size');
    const size = parseInt(line, 16);
    const piece = size ? await this.take(size, 'a chunk\'s data') : Buffer.alloc(0);
    assert.equal((await this.take(2, 'a chunk\'s end')).toString('latin1'), '\r\n');
    return piece;
  }

  async response(method = 'GET', ms) {
    let r;
    do r = await this.head(ms); while (r.status === 100);
    const { headers } = r;
    let body = Buffer.alloc(0);
    if (method !== 'HEAD' && r.status !== 204 && r.status !== 304 && r.status >= 200) {
      if ('transfer-encoding' in headers) {
        assert.equal(headers['transfer-encoding'], 'chunked');
        const pieces = [];
        for (let piece; (piece = await this.chunk()).length;) pieces.push(piece);
        body = Buffer.concat(pieces);
      } else if ('content-length' in headers) {
        assert.match(headers['content-length'], /^\d+$/);
        body = await this.take(Number(headers['content-length']), 'a body');
      } else {
        body = await this.eof();
      }
    }
    return finish(r, body);
  }
}

function finish(r, body) {
  r.body = body;
  r.text = body.toString();
  Object.defineProperty(r, 'json', { get: () => JSON.parse(r.text) });
  return r;
}

export function requestBytes(host, method, target, headers = {}, body) {
  const list = Array.isArray(headers) ? headers : Object.entries(headers);
  const has = (name) => list.some(([n]) => n.toLowerCase() === name);
  let head = `${method} ${target} HTTP/1.1\r\n`;
  if (!has('host')) head += `Host: ${host}\r\n`;
  for (const [name, value] of list) head += `${name}: ${value}\r\n`;
  const data = body === undefined ? Buffer.alloc(0) : Buffer.from(body);
  if (body !== undefined && !has('content-length') && !has('transfer-encoding')) head += `Content-Length: ${data.length}\r\n`;
  return Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), data]);
}

// One request on a connection of its own.
export async function request(d, method, target, headers = {}, body, ms) {
  const c = await d.connect();
  const list = Array.isArray(headers) ? headers : Object.entries(headers);
  c.write(requestBytes(d.host, method, target, [...list, ['Connection', 'close']], body));
  const r = await c.response(method, ms);
  c.destroy();
  return r;
}

export const get = (d, target, headers, ms) => request(d, 'GET', target, headers, undefined, ms);
export const post = (d, target, body = '', headers = {}) => request(d, 'POST', target, headers, body);

// A poll that must be answered by 200. Checks what every poll answer has.
export async function poll(d, target, headers, ms) {
  return pollBody(await get(d, target, headers, ms));
}

export function pollBody(r) {
  assert.equal(r.status, 200, r.text);
  assert.match(r.headers['content-type'], /^application\/json/);
  assert.equal(r.headers['cache-control'], 'no-store');
  assert.match(r.text, /^\{[^]*\}\n$/, 'a JSON object and a newline');
  const body = r.json;
  assert.match(body.cursor, /^[a-z0-9]{8}-\d+$/);
  assert.equal(r.headers.etag, `"${body.cursor}"`);
  assert.ok(Array.isArray(body.messages));
  return body;
}

export const epochOf = async (d, mount = '/live') => (await poll(d, `${mount}/no/such/topic`)).cursor.slice(0, 8);

// A publish that must be accepted; returns its answer, with the status.
export async function pub(d, topic, data = '', headers = {}) {
  const r = await post(d, `/live/${topic}`, data, headers);
  assert.ok(r.status === 201 || r.status === 202, `${r.status} ${r.text}`);
  return { status: r.status, ...r.json };
}

// Many requests on one connection, all sent before the first answer is read. Answers in order.
export async function pipeline(d, requests) {
  const c = await d.connect();
  const all = requests.map(([method, target, headers, body]) => requestBytes(d.host, method, target, headers, body));
  c.write(Buffer.concat(all));
  const answers = [];
  for (const [method] of requests) answers.push(await c.response(method));
  c.destroy();
  return answers;
}

export const publishAll = async (d, list) => {
  const answers = await pipeline(d, list.map(([topic, data]) => ['POST', `/live/${topic}`, {}, data]));
  for (const r of answers) assert.ok(r.status === 201 || r.status === 202, `${r.status} ${r.text}`);
  return answers.map((r) => r.json);
};

// PROTOCOL §5: every HTTP error body is {"error":…,"reason":…} and a newline.
export function assertError(r, ...statuses) {
  assert.ok(statuses.includes(r.status), `status ${r.status}, not ${statuses}: ${r.text}`);
  assert.match(r.text, /^\{[^\n]*\}\n$/, 'an error body is one JSON object and a newline');
  assert.match(r.headers['content-type'], /^application\/json/);
  const { error, reason } = r.json;
  assert.match(error, /^[A-Za-z0-9_-]+$/, 'error: a short code');
  assert.ok(typeof reason === 'string' && reason.includes(' '), `reason: a sentence, not ${reason}`);
  return r;
}

// Waits until that many subscriptions read a topic: an ephemeral publish says so and leaves nothing.
export const readers = (d, topic, n) => eventually(async () => {
  const r = await post(d, `/live/${topic}?ephemeral=1`, 'probe');
  return r.json.subscribers === n;
}, `${n} subscriptions of ${topic}`);

export const stats = async (d) => (await get(d, '/stats')).json;

// Waits until that many long polls are held.
export const parked = (d, n) => eventually(async () => (await stats(d)).parked_polls === n, `${n} parked polls`);

// --- SSE (WHATWG HTML §9.2) ---

export class Sse {
  text = '';
  lastId = '';

  static async open(d, target, headers = {}, { version = '1.1', method = 'GET', c } = {}) {
    const s = new Sse();
    s.c = c ?? await d.connect();
    const bytes = requestBytes(d.host, method, target, [['Accept', 'text/event-stream'], ...(Array.isArray(headers) ? headers : Object.entries(headers))]);
    s.c.write(version === '1.1' ? bytes : Buffer.from(bytes.toString('latin1').replace('HTTP/1.1', `HTTP/${version}`), 'latin1'));
    s.r = await s.c.head();
    if (s.r.status !== 200) return Object.assign(s, { refused: finish(s.r, s.r.headers['content-length'] ? await s.c.take(Number(s.r.headers['content-length'])) : Buffer.alloc(0)) });
    assert.equal(s.r.headers['content-type'], 'text/event-stream');
    s.chunked = s.r.headers['transfer-encoding'] === 'chunked';
    return s;
  }

  async #more(ms) {
    const piece = this.chunked ? await this.c.chunk(ms) : await this.c.take(await this.c.wait(() => this.c.size || undefined, 'more of the stream', ms));
    if (!piece.length) this.done = true;
    this.bytes = Buffer.concat([this.bytes ?? Buffer.alloc(0), piece]);
    // Only whole blocks are decoded, so no character is cut.
    const end = this.bytes.lastIndexOf('\n\n');
    if (end >= 0 || this.done) {
      const cut = this.done ? this.bytes.length : end + 2;
      this.text += this.bytes.subarray(0, cut).toString();
      this.bytes = this.bytes.subarray(cut);
    }
    assert.doesNotMatch(this.text, /\r/, 'lines end with LF alone');
  }

  // The next block, up to its empty line, exactly as sent. null: the stream has ended.
  async raw(ms) {
    for (;;) {
      const end = this.text.indexOf('\n\n');
      if (end >= 0) {
        const raw = this.text.slice(0, end + 2);
        this.text = this.text.slice(end + 2);
        return raw;
      }
      if (this.done) return null;
      await this.#more(ms);
    }
  }

  async block(ms) {
    const raw = await this.raw(ms);
    if (raw === null) return null;
    const block = { raw, comments: [], data: undefined };
    const lines = [];
    for (const line of raw.slice(0, -2).split('\n')) {
      if (line.startsWith(':')) { block.comments.push(line.slice(1)); continue; }
      const m = /^(id|event|data|retry): ?([^\n]*)$/.exec(line) ?? assert.fail(`a line of a stream: ${JSON.stringify(line)}`);
      if (m[1] === 'data') lines.push(m[2]);
      else { assert.ok(!(m[1] in block), `two ${m[1]} in a block`); block[m[1]] = m[2]; }
    }
    if (lines.length) block.data = lines.join('\n');
    if (block.id !== undefined) this.lastId = block.id;
    return block;
  }

  // The first block of a stream: retry, a comment, and the cursor unless a gap follows.
  async hello() {
    const block = await this.block();
    assert.match(block.retry, /^\d+$/);
    assert.equal(block.comments.length, 1);
    assert.equal(block.data, undefined);
    return block;
  }

  // The next block that fires an event; null: the stream has ended.
  async next(ms) {
    for (;;) {
      const block = await this.block(ms);
      if (block === null || block.data !== undefined) return block;
    }
  }

  async take(n) {
    const blocks = [];
    while (blocks.length < n) blocks.push(await this.next() ?? assert.fail('the stream ended'));
    return blocks;
  }

  async quiet(ms) {
    assert.equal(this.text, '');
    await this.c.quiet(ms);
  }

  close() { this.c.destroy(); }
}

// A stream whose first block was read.
export async function sse(d, target, headers, options) {
  const s = await Sse.open(d, target, headers, options);
  assert.ok(!s.refused, `SSE refused: ${s.refused?.status} ${s.refused?.text}`);
  s.first = await s.hello();
  return s;
}

// --- WebSocket (RFC 6455) ---

export const OP = { CONT: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 };
export const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='; // RFC 6455 §1.3
export const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

export function frameBytes(opcode, payload = '', { fin = true, rsv = 0, mask = true, form = 0 } = {}) {
  const data = Buffer.from(payload);
  const n = data.length;
  const bytes = form || (n < 126 ? 1 : n < 65536 ? 2 : 8);
  const head = Buffer.alloc(2 + (bytes === 1 ? 0 : bytes));
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (mask ? 0x80 : 0) | (bytes === 1 ? n : bytes === 2 ? 126 : 127);
  if (bytes === 2) head.writeUInt16BE(n, 2);
  if (bytes === 8) head.writeBigUInt64BE(BigInt(n), 2);
  if (!mask) return Buffer.concat([head, data]);
  const key = crypto.randomBytes(4);
  const masked = Buffer.allocUnsafe(n);
  for (let i = 0; i < n; i++) masked[i] = data[i] ^ key[i & 3];
  return Buffer.concat([head, key, masked]);
}

export function closeBytes(code, reason = '') {
  const text = Buffer.from(reason);
  const payload = Buffer.alloc(2 + text.length);
  payload.writeUInt16BE(code);
  text.copy(payload, 2);
  return payload;
}

export const handshake = (d, target, headers = []) => requestBytes(d.host, 'GET', target, [
  ['Upgrade', 'websocket'], ['Connection', 'Upgrade'], ['Sec-WebSocket-Key', KEY], ['Sec-WebSocket-Version', '13'],
  ...(Array.isArray(headers) ? headers : Object.entries(headers)),
]);

// A handshake of any form, and its answer, whatever it is.
export async function upgrade(d, bytes) {
  const c = await d.connect();
  c.write(bytes);
  const r = await c.head();
  if (r.status !== 101) {
    const n = Number(r.headers['content-length'] ?? 0);
    finish(r, n ? await c.take(n) : Buffer.alloc(0));
  }
  return { c, r };
}

export class Ws {
  static async open(d, target, headers = [], { tail } = {}) {
    const w = new this();
    w.daemon = d;
    w.c = await d.connect();
    const bytes = handshake(d, target, headers);
    w.c.write(tail ? Buffer.concat([bytes, tail]) : bytes);
    w.r = await w.c.head();
    assert.equal(w.r.status, 101, `the handshake was refused: ${w.r.status}`);
    assert.equal(w.r.headers.upgrade.toLowerCase(), 'websocket');
    assert.equal(w.r.headers.connection.toLowerCase(), 'upgrade');
    assert.equal(w.r.headers['sec-websocket-accept'], ACCEPT);
    return w;
  }

  send(opcode, payload, options) { return this.c.write(frameBytes(opcode, payload, options)); }
  text(s) { return this.send(OP.TEXT, s); }
  binary(b) { return this.send(OP.BINARY, b); }

  // One frame as it stands. RFC 6455 §5.1, §5.2, §5.5: a server's frame is not masked, has no reserved bit
  // without an extension, the shortest length, and control frames are whole and short.
  async frame(ms) {
    const length = await this.c.wait(() => {
      const b = this.c.size >= 2 ? this.c.peek() : null;
      if (!b) return undefined;
      const n = b[1] & 0x7f;
      const head = n < 126 ? 2 : n === 126 ? 4 : 10;
      if (b.length < head) return undefined;
      const size = n < 126 ? n : n === 126 ? b.readUInt16BE(2) : Number(b.readBigUInt64BE(2));
      assert.equal(b[1] & 0x80, 0, 'a masked frame from the server');
      assert.equal(head, size < 126 ? 2 : size < 65536 ? 4 : 10, 'not the shortest length');
      return this.c.size >= head + size ? { head, size } : undefined;
    }, 'a frame', ms);
    const head = await this.c.take(length.head);
    const payload = await this.c.take(length.size);
    const f = { fin: (head[0] & 0x80) !== 0, rsv: (head[0] >> 4) & 7, opcode: head[0] & 15, payload };
    assert.equal(f.rsv, 0);
    assert.ok([0, 1, 2, 8, 9, 10].includes(f.opcode), `opcode ${f.opcode}`);
    if (f.opcode >= 8) assert.ok(f.fin && payload.length <= 125, 'a control frame is whole and short');
    return f;
  }

  // The next message or close; pings are answered, pongs passed over.
  async next(ms) {
    const parts = [];
    for (let opcode; ;) {
      const f = await this.frame(ms);
      if (f.opcode === OP.PING) { this.send(OP.PONG, f.payload); continue; }
      if (f.opcode === OP.PONG) continue;
      if (f.opcode === OP.CLOSE) {
        assert.notEqual(f.payload.length, 1);
        const code = f.payload.length ? f.payload.readUInt16BE() : 0;
        return { opcode: OP.CLOSE, code, reason: f.payload.subarray(2).toString() };
      }
      assert.equal(f.opcode === OP.CONT, opcode !== undefined, 'fragments in order (RFC 6455 §5.4)');
      opcode ??= f.opcode;
      parts.push(f.payload);
      if (f.fin) {
        const payload = Buffer.concat(parts);
        return { opcode, payload, text: opcode === OP.TEXT ? new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(payload) : undefined };
      }
    }
  }

  async expectText(text, ms) {
    const m = await this.next(ms);
    assert.equal(m.opcode, OP.TEXT, JSON.stringify(m));
    assert.equal(m.text, text);
  }

  // The close that must come, after any messages; then the handshake's other half, then the end (RFC 6455 §7.1.1).
  async expectClose(code, reason, ms) {
    const seen = [];
    let m;
    while ((m = await this.next(ms)).opcode !== OP.CLOSE) seen.push(m);
    assert.ok([code].flat().includes(m.code), `close ${m.code} "${m.reason}", not ${code}`);
    if (reason instanceof RegExp) assert.match(m.reason, reason);
    else if (reason !== undefined) assert.equal(m.reason, reason);
    this.send(OP.CLOSE, closeBytes(m.code || 1000));
    await this.c.eof(ms, { reset: true });
    return { ...m, seen };
  }

  // Proof that the connection lives and all before it was read: a ping comes back.
  async alive() {
    const token = crypto.randomBytes(6).toString('hex');
    this.send(OP.PING, token);
    for (;;) {
      const f = await this.frame();
      if (f.opcode === OP.PING) { this.send(OP.PONG, f.payload); continue; }
      assert.equal(f.opcode, OP.PONG, `only the pong was to come: ${f.payload}`);
      assert.equal(f.payload.toString(), token);
      return;
    }
  }

  close() { this.c.destroy(); }
}

// rtpush.v1
export class Envelope extends Ws {
  static async open(d, target = '/live', headers = []) {
    const e = await super.open(d, target, [...(Array.isArray(headers) ? headers : Object.entries(headers)), ['Sec-WebSocket-Protocol', 'rtpush.v1']]);
    assert.equal(e.r.headers['sec-websocket-protocol'], 'rtpush.v1');
    e.hello = await e.recv();
    assert.equal(e.hello.type, 'hello');
    return e;
  }

  // Any frame; heartbeats too.
  async any(ms) {
    const m = await this.next(ms);
    if (m.opcode === OP.CLOSE) throw Object.assign(new Error(`closed ${m.code} "${m.reason}"`), { close: m });
    assert.equal(m.opcode, OP.TEXT, 'the envelope is text');
    return JSON.parse(m.text);
  }

  async recv(ms) {
    for (;;) {
      const o = await this.any(ms);
      if (o.type !== 'heartbeat') return o;
    }
  }

  async expect(type, ms) {
    const o = await this.recv(ms);
    assert.equal(o.type, type, JSON.stringify(o));
    return o;
  }

  say(object) { return this.text(JSON.stringify(object)); }

  // Says something with a ref and waits for its ack; what came before it is in `before`.
  async ask(object) {
    const ref = object.ref ?? crypto.randomBytes(4).toString('hex');
    this.say({ ...object, ref });
    const before = [];
    for (;;) {
      const o = await this.recv();
      if ((o.type === 'ack' || o.type === 'error') && o.ref === ref) return Object.assign(o, { before });
      before.push(o);
    }
  }

  async acked(object) {
    const o = await this.ask(object);
    assert.equal(o.type, 'ack', JSON.stringify(o));
    return o;
  }

  async refused(object) {
    const o = await this.ask(object);
    assert.equal(o.type, 'error', JSON.stringify(o));
    assert.ok(typeof o.code === 'string' || typeof o.code === 'number', 'an error has a code');
    assert.ok(typeof o.reason === 'string' && o.reason.length > 0, 'an error has a reason');
    return o;
  }
}
