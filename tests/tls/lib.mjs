// What the tests of TLS stand on: certificates made by the openssl command, the daemon and rtcat with OpenSSL, and the
// peers: Node's own TLS (through the strict readers of tests/wire/lib.mjs), curl, openssl s_client, rtcat.
//
//   node --test tests/tls          RTPUSHD_TLS and RTCAT_TLS name the programs; else they are built, under sanitizers
import fs from 'node:fs';
import os from 'node:os';
import net from 'node:net';
import tls from 'node:tls';
import path from 'node:path';
import { Duplex } from 'node:stream';
import crypto from 'node:crypto';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { spawn, spawnSync, execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
export const root = path.resolve(here, '../..');
const sanitizers = ['-g', '-O1', '-fno-omit-frame-pointer', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined'];

// Builds once, however many test files ask at the same time. Returns the program.
export function build(name, source, flags, libraries = ['-lssl', '-lcrypto', '-pthread']) {
  const program = path.join(root, 'build', name), lock = `${program}.lock`;
  const sources = [source, path.join(root, 'rtpush.h'), path.join(here, 'lib.mjs')];
  const isFresh = () => fs.existsSync(program) && sources.every((s) => fs.statSync(s).mtimeMs < fs.statSync(program).mtimeMs);
  fs.mkdirSync(path.dirname(program), { recursive: true });
  for (let tries = 0; !isFresh(); tries++) {
    try { fs.mkdirSync(lock); } catch (e) {
      if (e.code !== 'EEXIST') throw e;
      // Somebody builds; but whoever was killed while building left his lock.
      if (tries > 900 || Date.now() - (fs.statSync(lock, { throwIfNoEntry: false })?.mtimeMs ?? Date.now()) > 120000) fs.rmSync(lock, { recursive: true, force: true });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
      continue;
    }
    try {
      const cc = spawnSync(process.env.CC ?? 'cc', [...flags, source, '-o', `${program}.new`, ...libraries], { encoding: 'utf8' });
      if (cc.error || cc.status) throw new Error(`cc ${source}: ${cc.error ?? cc.stderr}`);
      fs.renameSync(`${program}.new`, program);
    } finally { fs.rmSync(lock, { recursive: true, force: true }); }
    break;
  }
  return program;
}

const tool = (given, name, flags) => (given ? path.resolve(given) : build(`tls-${name}`, path.join(root, 'tools', `${name.split('-')[0]}.c`), ['-DRTPUSH_OPENSSL', ...flags]));
export const RTPUSHD = tool(process.env.RTPUSHD_TLS, 'rtpushd', sanitizers);
export const RTCAT = tool(process.env.RTCAT_TLS, 'rtcat', sanitizers);
export const fastDaemon = () => tool(process.env.RTPUSHD_TLS_FAST, 'rtpushd-fast', ['-O2']); // no sanitizer, for figures
const small = () => build('tls-small', path.join(here, 'small.c'), ['-O1'], []);

export const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-tls-'));
process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
export const file = (name) => path.join(dir, name);

// The Daemon of tests/wire starts one program; ours is a script that becomes the one that its first argument names.
process.env.RTPUSHD = file('daemon');
fs.writeFileSync(file('daemon'), `#!/bin/sh
case $1 in
--program) program=$2 && shift 2 && exec "$program" "$@" ;;
--small) small=$2 port=$3 bytes=$4 && shift 4 && exec "$small" "$port" "$bytes" "${RTPUSHD}" "$@" ;;
*) exec "${RTPUSHD}" "$@" ;;
esac
`, { mode: 0o755 });
export const wire = await import('../wire/lib.mjs');
export const { sleep, eventually, range } = wire;
export const WebSocket = createRequire(path.join(here, '../wire/package.json'))('ws');

// --- certificates ---

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: dir }).toString();
const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];

export function authority(name) {
  openssl('req', '-x509', ...ec, '-keyout', `${name}.key`, '-out', `${name}.pem`, '-subj', `/CN=rtpush test ${name}`, '-days', '2');
  return { name, cert: file(`${name}.pem`) };
}

// A certificate by an authority; none: signed by itself. names: SAN, as DNS:localhost,IP:127.0.0.1
export function issue(name, { ca, names = 'DNS:localhost,IP:127.0.0.1', cn = name, days = 2, usage = 'serverAuth', serial = crypto.randomBytes(8).readBigUInt64BE() >> 1n } = {}) {
  const made = { name, cert: file(`${name}.pem`), key: file(`${name}.key`), serial: serial.toString(16).toUpperCase().replace(/^0+/, '') };
  const san = names ? `subjectAltName=${names}\n` : '';
  if (!ca) {
    openssl('req', '-x509', ...ec, '-keyout', `${name}.key`, '-out', `${name}.pem`, '-subj', `/CN=${cn}`, '-days', String(days), '-set_serial', String(serial), '-addext', `subjectAltName=${names}`);
    return made;
  }
  fs.writeFileSync(file(`${name}.ext`), `basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=${usage}\n${san}`);
  openssl('req', '-new', ...ec, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${cn}`);
  openssl('x509', '-req', '-in', `${name}.csr`, '-CA', ca.cert, '-CAkey', `${ca.name}.key`, '-set_serial', String(serial), '-days', String(days), '-extfile', `${name}.ext`, '-out', `${name}.pem`);
  return made;
}

export const ca = authority('ca');
export const good = issue('good', { ca });
export const serialOf = (cert) => cert.serialNumber.replace(/^0+/, '').toUpperCase();

// --- the daemon, and Node's connections to it ---

export class TlsDaemon extends wire.Daemon {
  tls = { ca: fs.readFileSync(ca.cert), servername: 'localhost', ALPNProtocols: ['http/1.1'] };

  async start(listeners) {
    await super.start(listeners);
    const url = new URL(this.inherited ?? this.listening[0]);
    this.port = Number(url.port);
    this.address = { host: url.hostname, port: this.port };
    this.host = `localhost:${this.port}`; // what Host: says, and what the certificate is for
    this.url = `https://localhost:${this.port}`;
    this.wss = `wss://localhost:${this.port}`;
    return this;
  }

  raw(address = this.address) { return super.connect(address); } // in the clear

  async socket(options = {}) {
    const socket = tls.connect({ ...this.address, ...this.tls, ...options });
    this.sockets.add(socket);
    socket.on('close', () => this.sockets.delete(socket));
    await new Promise((done, failed) => { socket.once('secureConnect', done); socket.once('error', failed); socket.once('close', () => failed(new Error('closed'))); });
    socket.setNoDelay(true);
    return socket;
  }

  async connect(options) { return new wire.Conn(await this.socket(options), this); } // what the strict readers of tests/wire call

  // Through a tap: see there.
  async tapped(options = {}, how = {}) {
    const c = net.connect(this.address);
    this.sockets.add(c);
    await new Promise((done, failed) => c.once('connect', done).once('error', failed));
    const tap = new Tap(c, how);
    const socket = tls.connect({ socket: tap, ...this.tls, ...options });
    await new Promise((done, failed) => { socket.once('secureConnect', done); socket.once('error', failed); });
    socket.on('error', () => {});
    return { tap, socket };
  }

  stderrHas(pattern, ms) { return eventually(() => pattern.test(this.stderr), `${pattern} on stderr: ${this.stderr}`, ms); }
}

// Between Node's TLS and the network: keeps what is to be sent until it is released (then it goes in one write), sees
// the records (their types are in the clear), and may keep the FIN from the server.
class Tap extends Duplex {
  constructor(c, { keepsFin = false, isBytewise = false, slowness = 0 } = {}) {
    super();
    Object.assign(this, { c, keepsFin, isBytewise, slowness, isHeld: false, held: [], isEnded: false, inbound: [], writes: 0 });
    c.setNoDelay(true);
    c.on('data', (d) => { this.inbound.push(d); this.push(d); });
    c.on('end', () => { this.isPeerEnded = true; this.push(null); });
    c.on('error', (e) => { this.error = e; this.push(null); });
  }
  _read() {}
  _write(d, encoding, done) {
    if (this.isBytewise) { this.drip(d).then(() => done()); return; }
    if (this.isHeld) this.held.push(Buffer.from(d)); else this.c.write(d);
    done();
  }
  async drip(d) {
    for (const byte of d) { this.writes++; this.c.write(Buffer.from([byte])); await (this.slowness ? sleep(this.slowness) : new Promise((done) => setImmediate(done))); }
  }
  _final(done) { this.isEnded = true; if (!this.keepsFin) this.c.end(); done(); }
  _destroy(e, done) { this.c.destroy(); done(e); }
  hold() { this.isHeld = true; }
  release() { this.isHeld = false; this.c.write(Buffer.concat(this.held.splice(0))); }
  // [type, size] of what came.
  get records() {
    const bytes = Buffer.concat(this.inbound), list = [];
    for (let at = 0; at + 5 <= bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) list.push([bytes[at], bytes.readUInt16BE(at + 3)]);
    return list;
  }
}

const start = async (t, d, listeners) => { t.after(() => d.stop()); return d.start(listeners); };

// The daemon with the good certificate and what is given. t: a test's context, or { after }.
export function daemon(t, ...args) {
  const listen = args.includes('--listen') ? [] : ['--listen', 'https://127.0.0.1:0'];
  const certs = args.includes('--cert') ? [] : ['--cert', good.cert, '--key', good.key];
  const all = [...listen, ...certs, '--echo', '/echo', '--hello', '/hello', ...args];
  return start(t, new TlsDaemon(all), all.filter((a) => a === '--listen').length);
}

async function freePort() {
  const server = net.createServer();
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

// The same behind a listening socket with a send buffer of so many bytes.
export async function smallDaemon(t, bytes, ...args) {
  const port = await freePort();
  const certs = args.includes('--cert') ? [] : ['--cert', good.cert, '--key', good.key];
  const d = new TlsDaemon(['--small', small(), port, bytes, '--listen', 'fd:3:https', ...certs, '--echo', '/echo', '--hello', '/hello', ...args].map(String));
  d.inherited = `https://127.0.0.1:${port}`;
  return start(t, d, 1);
}

// --- programs ---

// Runs to its end, or to its time. Nothing is refused by its status: that is for the test to say.
export async function run(program, args, { input, ms = 15000, onStart } = {}) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const out = [];
  let err = '', isLate = false;
  child.stdin.on('error', () => {});
  child.stdout.on('data', (d) => out.push(d));
  child.stderr.on('data', (d) => { err += d; });
  if (input !== undefined) child.stdin.end(input);
  onStart?.(child);
  const timer = setTimeout(() => { isLate = true; child.kill('SIGKILL'); }, ms);
  const code = await new Promise((done, failed) => { child.on('error', failed); child.on('close', (c, signal) => done(c ?? signal)); });
  clearTimeout(timer);
  const bytes = Buffer.concat(out);
  assert.doesNotMatch(err, /Sanitizer|runtime error:/);
  return { code, bytes, out: bytes.toString(), err, isLate };
}

export const curl = (d, target, args = [], options) => run('curl', ['-sS', '--http1.1', '--cacert', ca.cert, '--resolve', `localhost:${d.port}:127.0.0.1`, ...args, `${d.url}${target}`], { input: '', ...options });
export const rtcat = (url, args = [], options) => run(RTCAT, ['--ca', ca.cert, ...args, url], options);

// openssl s_client: what it said in all. `input` goes in when the handshake is done; it ends when the server does, at
// an empty line of input ('Q'), or after ms.
export function sClient(d, args = [], { input = 'Q\n', ms = 10000, name = 'localhost', when = /Verify return code|read R BLOCK|no peer certificate/ } = {}) {
  return run('openssl', ['s_client', '-connect', `127.0.0.1:${d.port}`, ...(name ? ['-servername', name] : ['-noservername']), '-CAfile', ca.cert, ...args], {
    ms,
    onStart: (child) => {
      let seen = '', isSaid = false;
      child.stdout.on('data', (data) => {
        seen += data;
        if (isSaid || !when.test(seen)) return;
        isSaid = true;
        (async () => { for (const part of [input].flat()) { if (typeof part === 'number') await sleep(part); else child.stdin.write(part); } })();
      });
    },
  });
}
