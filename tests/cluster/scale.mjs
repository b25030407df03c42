// What a cluster costs: node tests/cluster/scale.mjs [--smoke] [--nodes 1,2,4,8] [--rounds 3]. Prints Markdown.
//
// All on this machine, on loopback: nodes, Redis and the load share its cores, so throughput here is of the whole, not
// of one part. Each round measures `alone` (one node, no Redis) and every number of nodes in turn; medians over the
// rounds, with the least and the most.
import net from 'node:net';
import fs from 'node:fs';
import { promisify } from 'node:util';
import { execFile } from 'node:child_process';
import { Redis, Node, build, rtpushd, knowsRedis, lacks, sleep } from './lib.mjs';

const run = promisify(execFile);

const args = process.argv.slice(2), isSmoke = args.includes('--smoke');
const option = (name, otherwise) => (args.includes(name) ? args[args.indexOf(name) + 1] : otherwise);
const COUNTS = option('--nodes', isSmoke ? '1,2' : '1,2,4,8').split(',').map(Number), ROUNDS = Number(option('--rounds', isSmoke ? 1 : 3));
const SINGLE = isSmoke ? 100 : 500, BURST_MS = isSmoke ? 500 : 3000, SAMPLES = isSmoke ? 50 : 400, STREAM = isSmoke ? 10000 : 1000000, IDLE_MS = isSmoke ? 1000 : 20000;
const PAYLOADS = [100, 1000];

// --- a WebSocket that speaks the envelope, made for load: bytes ready to send, acks only counted ---

class Ws {
  static async open(port, topics = []) {
    const w = new Ws();
    w.socket = net.connect(port, '127.0.0.1').setNoDelay(true);
    w.rest = Buffer.alloc(0);
    w.acks = w.errors = 0;
    w.socket.write(`GET /live?${topics.map((t) => `topic=${t}`).join('&')} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: rtpush.v1\r\n\r\n`);
    await new Promise((done, failed) => {
      w.socket.on('error', failed).on('close', () => failed(new Error(`closed: ${w.rest}`)));
      w.socket.on('data', (d) => {
        w.rest = w.rest.length ? Buffer.concat([w.rest, d]) : d;
        if (!w.isOpen) {
          const end = w.rest.indexOf('\r\n\r\n');
          if (end < 0) return;
          if (!w.rest.toString('latin1').startsWith('HTTP/1.1 101')) { failed(new Error(w.rest.toString())); return; }
          w.rest = w.rest.subarray(end + 4);
          w.isOpen = true;
          done();
        }
        w.read();
      });
    });
    return w;
  }

  read() {
    let at = 0;
    const b = this.rest;
    for (;;) {
      if (b.length < at + 2) break;
      let size = b[at + 1] & 127, head = 2;
      if (size === 126) { if (b.length < at + 4) break; size = b.readUInt16BE(at + 2); head = 4; }
      if (size === 127) { if (b.length < at + 10) break; size = Number(b.readBigUInt64BE(at + 2)); head = 10; }
      if (b.length < at + head + size) break;
      const text = b.subarray(at + head, at + head + size);
      at += head + size;
      if (text[9] === 97) this.acks++, this.onAck?.(); // {"type":"ack"
      else if (text[9] === 109) this.onMessage?.(text); // {"type":"message"
      else if (text[9] === 101) { this.errors++; this.lastError = text.toString(); this.onAck?.(); }
    }
    this.rest = b.subarray(at);
  }

  // A masked text frame, with the key 0.
  static frame(topic, data) {
    const text = Buffer.from(JSON.stringify({ type: 'publish', topic, data, ref: 1 }));
    const head = text.length < 126 ? Buffer.from([0x81, 0x80 | text.length]) : Buffer.from([0x81, 0x80 | 126, text.length >> 8, text.length & 255]);
    return Buffer.concat([head, Buffer.alloc(4), text]);
  }

  // One, answered.
  publish(topic, data) {
    return new Promise((done) => { this.onAck = done; this.socket.write(Ws.frame(topic, data)); });
  }

  // With `window` under way at any time, for ms, or `count` of them. How many were answered.
  async burst(topics, size, { ms = Infinity, count = Infinity, window = 128 } = {}) {
    const frames = topics.map((t) => Ws.frame(t, 'x'.repeat(size))), end = Date.now() + ms, before = this.acks, errors = this.errors;
    let sent = 0, answered = 0;
    await new Promise((done) => {
      const send = () => {
        const out = [];
        while (sent - answered < window && sent < count && Date.now() < end) out.push(frames[sent++ % frames.length]);
        if (out.length) this.socket.write(Buffer.concat(out));
        if (sent === answered) done();
      };
      this.onAck = () => { answered++; if (sent - answered <= window / 2) send(); };
      send();
    });
    this.onAck = null;
    if (this.errors > errors) throw new Error(`a publish was refused: ${this.lastError}`);
    return this.acks - before;
  }

  close() { this.socket.removeAllListeners('close').destroy(); }
}

// --- a cluster of n nodes; 0: one node without Redis ---

async function cluster(n, more = []) {
  const redis = n ? await Redis.begin({ persistent: false }) : null, nodes = [];
  for (let i = 1; i <= Math.max(n, 1); i++) {
    const node = new Node(`n${i}`, { redisPort: redis?.port, args: more });
    await node.start();
    nodes.push(node);
  }
  return { redis, nodes, async end() { for (const node of nodes) await node.kill(); await redis?.end(); } };
}

// What Redis has counted, without what asking costs: the second of two looks shows that.
async function counters(redis) {
  const look = async () => {
    const i = await redis.info('stats', 'commandstats'), o = { in: Number(i.total_net_input_bytes), out: Number(i.total_net_output_bytes), commands: Number(i.total_commands_processed) };
    for (const [k, v] of Object.entries(i)) if (k.startsWith('cmdstat_')) o[k] = Number(/calls=(\d+)/.exec(v)[1]);
    return o;
  };
  const a = await look(), b = await look();
  return { ...b, self: { in: b.in - a.in, out: b.out - a.out, commands: b.commands - a.commands } };
}

// The difference, per publish.
function per(a, b, n) {
  const o = {};
  for (const k of Object.keys(b)) if (typeof b[k] === 'number') o[k] = (b[k] - (a[k] ?? 0) - 2 * (b.self[k] ?? (/info|config|command|hello|client/.test(k) ? Infinity : 0))) / n;
  for (const k of Object.keys(o)) if (!Number.isFinite(o[k])) delete o[k];
  return o;
}

async function measure(n) {
  const c = await cluster(n), o = { n }, first = c.nodes[0], last = c.nodes.at(-1);
  try {
    const w = await Ws.open(first.port), reader = await Ws.open(last.port, ['lat']);
    // One at a time: nothing shares a command or a reply.
    if (c.redis) {
      for (const size of PAYLOADS) {
        await w.publish('warm', 'x');
        const a = await counters(c.redis);
        for (let i = 0; i < SINGLE; i++) await w.publish(`t/${i % 10}`, 'x'.repeat(size));
        await sleep(200);
        o[`single${size}`] = per(a, await counters(c.redis), SINGLE);
      }
    }
    // Between nodes: from the publish on the first to the message on the last.
    const took = [];
    for (let i = 0; i < SAMPLES; i++) {
      const began = process.hrtime.bigint(), got = new Promise((done) => { reader.onMessage = () => { took.push(Number(process.hrtime.bigint() - began) / 1e6); done(); }; });
      w.publish('lat', `${i}`);
      await Promise.race([got, sleep(5000).then(() => { throw new Error('a message has not come'); })]);
      await sleep(2);
    }
    took.sort((x, y) => x - y);
    Object.assign(o, { p50: took[Math.floor(took.length * 0.5)], p99: took[Math.floor(took.length * 0.99)] });
    // As much as one log takes: two connections to each node.
    const ws = [];
    for (const node of c.nodes) for (let i = 0; i < 2; i++) ws.push(await Ws.open(node.port));
    const topics = Array.from({ length: 10 }, (_, k) => `burst/${k}`), a = c.redis && await counters(c.redis), began = Date.now();
    const counts = await Promise.all(ws.map((x) => x.burst(topics, 100, { ms: BURST_MS, window: Math.max(16, Math.floor(512 / ws.length)) })));
    const all = counts.reduce((x, y) => x + y, 0);
    o.rate = all / ((Date.now() - began) / 1000);
    await sleep(300);
    if (c.redis) o.burst = per(a, await counters(c.redis), all);
    for (const x of [w, reader, ...ws]) x.close();
  } finally {
    await c.end();
  }
  return o;
}

const cpuMs = (pid) => { const f = fs.readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/.*\) /, '').split(' '); return (Number(f[11]) + Number(f[12])) * 10; };
const rssMb = (pid) => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;

async function idle() {
  const n = COUNTS.includes(4) ? 4 : COUNTS.at(-1), c = await cluster(n), alone = await cluster(0);
  try {
    await sleep(1000);
    const pids = [...c.nodes.map((x) => x.child.pid), c.redis.child.pid, alone.nodes[0].child.pid], before = pids.map(cpuMs), a = await counters(c.redis), began = Date.now();
    await sleep(IDLE_MS);
    const s = (Date.now() - began) / 1000, used = pids.map((p, i) => (cpuMs(p) - before[i]) / s), d = per(a, await counters(c.redis), s);
    return { n, nodes: used.slice(0, n), redis: used[n], alone: used[n + 1], commands: d.commands / n, bytes: (d.in + d.out) / n };
  } finally {
    await c.end();
    await alone.end();
  }
}

// By a program of its own, as the daemon lets Redis keep 100,000 messages only.
async function startUp() {
  const redis = await Redis.begin({ persistent: false }), program = build('start.c');
  const start = async (what) => (await run(program, [what, `${STREAM}`, `redis://127.0.0.1:${redis.port}`, 'long'])).stdout.trim().split(' ').map(Number);
  try {
    const began = Date.now();
    await start('fill');
    const filled = (Date.now() - began) / 1000, length = Number(await redis.cli('XLEN', '{long}:log')), redisMb = rssMb(redis.child.pid), all = [];
    for (let r = 0; r < ROUNDS; r++) all.push(await start('load'));
    return { filled, length, redisMb, ms: all.map((x) => x[0] / 1000), cpu: all.map((x) => x[1] / 1000), held: all[0][2], mb: all[0][3] };
  } finally {
    await redis.end();
  }
}

// --- what is printed ---

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];
const spread = (list, digits) => (ROUNDS > 1 ? `${median(list).toFixed(digits)} (${Math.min(...list).toFixed(digits)} to ${Math.max(...list).toFixed(digits)})` : list[0].toFixed(digits));
const row = (...cells) => console.log(`| ${cells.join(' | ')} |`);

// Of the commands that Redis counts, what nodes send: the others are called by the script.
const sent = (o) => ['evalsha', 'eval', 'xread', 'xrange', 'xrevrange'].reduce((n, name) => n + (o[`cmdstat_${name}`] ?? 0), 0);

// y = a + b x by least squares.
function line(points) {
  const n = points.length, mx = points.reduce((s, [x]) => s + x, 0) / n, my = points.reduce((s, [, y]) => s + y, 0) / n;
  const b = points.reduce((s, [x, y]) => s + (x - mx) * (y - my), 0) / (points.reduce((s, [x]) => s + (x - mx) ** 2, 0) || 1);
  return { a: my - b * mx, b };
}

async function main() {
  const why = lacks('redis-server', 'redis-cli') || (knowsRedis(rtpushd()) ? '' : 'the daemon knows no --redis');
  if (why) { console.log(`skipped: ${why}`); process.exit(isSmoke ? 0 : 1); }
  const results = new Map([0, ...COUNTS].map((n) => [n, []]));
  for (let r = 0; r < ROUNDS; r++) for (const n of results.keys()) {
    results.get(n).push(await measure(n));
    console.error(`# round ${r + 1}, ${n || 'alone'}`);
  }
  const of = (n, get) => results.get(n).map(get);
  row('nodes', 'publishes a second into one log', 'first node to last: p50, ms', 'p99, ms', 'commands sent to Redis per publish', 'the same in a burst', 'run by it, with those of scripts', 'bytes into Redis per publish', 'out of Redis', 'out in a burst');
  row(...Array(10).fill('---'));
  for (const n of results.keys()) {
    row(n || 'one, without Redis', spread(of(n, (o) => o.rate), 0), spread(of(n, (o) => o.p50), 2), spread(of(n, (o) => o.p99), 2),
      ...(n ? [spread(of(n, (o) => sent(o.single100)), 2), spread(of(n, (o) => sent(o.burst)), 2), spread(of(n, (o) => o.single100.commands), 2), spread(of(n, (o) => o.single100.in), 0), spread(of(n, (o) => o.single100.out), 0), spread(of(n, (o) => o.burst.out), 0)] : Array(6).fill('')));
  }
  console.log(`\nPayload 100 bytes; Redis without AOF; medians of ${ROUNDS} rounds, least and most. Commands one at a time, by name, with ${COUNTS.at(-1)} nodes: ${Object.entries(results.get(COUNTS.at(-1))[0].single100).filter(([k, v]) => k.startsWith('cmdstat_') && v >= 0.01).map(([k, v]) => `${k.slice(8)} ${v.toFixed(2)}`).join(', ')} (what a script calls counts too).\n`);

  const fits = PAYLOADS.map((size) => line(COUNTS.map((n) => [n, median(of(n, (o) => o[`single${size}`].out))])));
  const overhead = fits[0].b - PAYLOADS[0], N = COUNTS.at(-1), P = PAYLOADS[0];
  row('way', 'bytes between machines per publish: the formula', ...[2, 8, 32].map((n) => `at ${n} nodes`), 'measured');
  row(...Array(6).fill('---'));
  const every = (n) => fits[0].a + n * fits[0].b, direct = (R) => (n) => (n - 1) * (1 - (1 - 1 / n) ** R) * (P + overhead);
  const at = (f) => [2, 8, 32].map((n) => Math.round(f(n)));
  row('everything to every node (this)', 'a + N (P + h)', ...at(every), COUNTS.map((n) => `${n}: ${Math.round(median(of(n, (o) => o[`single${P}`].out)))}, by the formula ${Math.round(every(n))}`).join('; '));
  row('sticky by topic', '0 where the balancer brings reader and publisher to the topic\'s node; else (1 − 1/N) (P + h)', ...at((n) => (1 - 1 / n) * (P + overhead)), 'not built');
  for (const R of [1, 10, 100]) row(`registry, direct forwarding, ${R} readers of a topic`, '(N − 1) (1 − (1 − 1/N)^R) (P + h), and 2 registry writes per reader', ...at(direct(R)), 'not built');
  console.log(`\nP: the payload, here ${P} bytes. h, measured: ${overhead.toFixed(0)} bytes of topic, names and framing for each node; a: ${fits[0].a.toFixed(0)} bytes (the publisher's answer). With payloads of ${PAYLOADS[1]} bytes the slope is ${fits[1].b.toFixed(0)} bytes a node: ${(fits[1].b - fits[0].b).toFixed(0)} more for ${PAYLOADS[1] - P} more.\n`);

  const i = await idle();
  row('', 'CPU, ms a second');
  row('---', '---');
  row(`an idle node of ${i.n}`, `${median(i.nodes).toFixed(2)} (${Math.min(...i.nodes).toFixed(2)} to ${Math.max(...i.nodes).toFixed(2)})`);
  row('an idle node without Redis', i.alone.toFixed(2));
  row('Redis', i.redis.toFixed(2));
  console.log(`\nOver ${IDLE_MS / 1000} s; each idle node sends ${i.commands.toFixed(2)} commands a second, ${i.bytes.toFixed(0)} bytes both ways.\n`);

  const s = await startUp();
  console.log(`${STREAM.toLocaleString('en')} messages of 100 bytes on 1,000 topics were published in ${s.filled.toFixed(1)} s; the stream has ${s.length.toLocaleString('en')} entries, Redis ${s.redisMb.toFixed(0)} MB. A node begins in ${spread(s.ms, 2)} s (${spread(s.cpu, 2)} s of CPU), holds ${s.held.toLocaleString('en')} messages and was ${s.mb} MB at most.`);
}

await main();
process.exit(0);
