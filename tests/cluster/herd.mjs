// herd.c for clients of tools/rtpush.js: the same flags, the same readers, the same lines.
import { createRequire } from 'node:module';
import readline from 'node:readline';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const WebSocket = createRequire(path.resolve(here, '../wire/package.json'))('ws');
const rtpush = createRequire(import.meta.url)('../../tools/rtpush.js');

const TOPICS = 60, GROUP = 10, PROBE = TOPICS;
const TRANSPORTS = ['websocket', 'sse', 'longpoll', 'websocket', 'sse', 'longpoll', 'websocket', 'sse', 'longpoll', 'shortpoll'];
const flags = { first: 0, count: 0, interval: 500, backoff: 4000 };
let url;
for (let words = process.argv.slice(2); words.length;) {
  const word = words.shift();
  if (word.startsWith('--')) flags[word.slice(2)] = Number(words.shift());
  else url = word;
}

const nameOf = (topic) => (topic === PROBE ? 'probe' : `n/${Math.floor(topic / GROUP)}/${topic % GROUP}`);
const topicOf = new Map(Array.from({ length: TOPICS + 1 }, (_, k) => [nameOf(k), k]));

// Two topics each; each fiftieth a pattern of ten. All read the probe.
function reads(i) {
  if (i % 50 === 7) return Array.from({ length: GROUP }, (_, k) => (Math.floor(i / 50) % (TOPICS / GROUP)) * GROUP + k);
  const a = i % TOPICS, b = (i * 7 + 13) % TOPICS;
  return [a, b === a ? (b + 1) % TOPICS : b];
}

const all = [], probes = new Map();
let warm = 0, left = 0, delivered = 0, worst = 0, reconnects = 0, told = 0;

function fail(one, what, id, n) {
  if (told++ < 200) console.error(`herd.mjs: client ${one.index} (${one.transport}): ${what}: number ${n}, ${id}`);
}

function take(one, m) {
  const r = one.readings.get(topicOf.get(m.topic)), epoch = m.id.slice(0, 8), seq = Number(m.id.slice(9));
  const [n, sent] = String(m.data).split(' ').map(Number);
  if (!r || !(n >= 0) || !sent) { console.error(`herd.mjs: not of ours: ${JSON.stringify(m)}`); process.exit(3); }
  if (!r.isWarm) {
    r.isWarm = true;
    if (++one.warm === one.readings.size && ++warm === all.length) console.log('open');
  }
  if (epoch === r.epoch && seq <= r.seq) one.back++, fail(one, 'out of order', m.id, n);
  else if (epoch === r.epoch && n && n < r.last) one.back++, fail(one, 'a lower number', m.id, n);
  Object.assign(r, { epoch, seq });
  if (!n) return; // of the warming up
  r.last = n;
  delivered++;
  if (one.transport !== 'shortpoll') worst = Math.max(worst, Date.now() - sent); // that one's is its interval
  if (r.seen.has(n)) {
    if (r.seen.get(n) === epoch) one.doubled++, one.sentBack += one.isSentBack, fail(one, 'doubled', m.id, n);
    else one.across++;
    return;
  }
  r.seen.set(n, epoch);
  if (r.topic === PROBE) {
    const p = probes.get(n) ?? { seen: 0, half: 0 };
    probes.set(n, p);
    if (++p.seen === Math.floor((all.length + 1) / 2)) p.half = Date.now();
    if (p.seen === all.length) console.log(`probe ${n} ${Date.now()} ${p.half}`);
  }
  if (r.until && n === r.until && !--one.left && !--left) console.log('seen');
}

function begin(index) {
  const topics = reads(index), transport = TRANSPORTS[index % 10];
  const one = { index, transport, readings: new Map(), warm: 0, left: 0, gaps: [], opens: 0, doubled: 0, across: 0, back: 0, sentBack: 0, isSentBack: false, leftEpochs: new Set() };
  for (const topic of [...topics, PROBE]) one.readings.set(topic, { topic, seen: new Map(), last: 0, until: 0, isWarm: false, epoch: '', seq: 0 });
  const live = one.live = rtpush(url, { WebSocket, share: false, transports: [transport], interval: flags.interval, backoffMax: flags.backoff });
  all.push(one);
  live.on('gap', (g) => {
    one.gaps.push([index, g.from, g.to, g.reason]);
    if (g.reason !== 'epoch' || !g.from) return;
    const from = g.from.slice(0, 8), to = g.to.slice(0, 8);
    // Sent back to an epoch that it had left, or to the begin of its own: what follows is doubled, and that is why.
    one.isSentBack = from === to || one.leftEpochs.has(to);
    if (from !== to) one.leftEpochs.add(from);
  });
  live.on('error', (e) => { if (e.isFatal) console.error(`herd.mjs: client ${index} closed for good: ${e.message}`); });
  live.on('state', (state) => { if (state === 'connecting' && one.opens++) reconnects++; });
  for (const name of topics.length === GROUP ? [nameOf(topics[0]).replace(/\d$/, '*')] : topics.map(nameOf)) live.subscribe(name, (m) => take(one, m));
  live.subscribe('probe', (m) => take(one, m));
}

function until(last) {
  for (const one of all) {
    for (const r of one.readings.values()) {
      if (r.topic === PROBE) continue;
      r.until = last[r.topic];
      if (r.until && !r.seen.has(r.until)) one.left++;
    }
    if (one.left) left++;
  }
  if (!left) console.log('seen');
}

function who() {
  for (const one of all) for (const r of one.readings.values()) {
    if (r.until && !r.seen.has(r.until)) console.error(`herd.mjs: client ${one.index} (${one.transport}, ${one.live.state}): ${nameOf(r.topic)}: has ${r.last} of ${r.until}, gaps ${one.gaps.length}, last epoch ${r.epoch}, cursor ${one.live.cursor}`);
  }
}

function end() {
  const missing = [], sum = (name) => all.reduce((n, one) => n + one[name], 0);
  for (const one of all) for (const r of one.readings.values()) for (let n = 1; n <= r.until; n++) {
    if (r.seen.has(n)) continue;
    const from = n;
    while (n < r.until && !r.seen.has(n + 1)) n++;
    missing.push([one.index, r.topic, from, n]);
  }
  const summary = { clients: all.length, missing, gaps: all.flatMap((one) => one.gaps), doubled: sum('doubled'), across: sum('across'), back: sum('back'), sentBack: sum('sentBack') };
  process.stdout.write(`${JSON.stringify(summary)}\n`, () => process.exit(0));
}

for (let i = 0; i < flags.count; i++) begin(flags.first + i);
setInterval(() => {
  console.log(`tick ${Math.floor(Date.now() / 1000)} ${delivered} ${worst} ${reconnects}`);
  delivered = worst = reconnects = 0;
}, 1000);
process.on('SIGINT', () => {});
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  if (line.startsWith('until ')) until(line.slice(6).split(' ').map(Number));
  else if (line === 'who') who();
  else if (line === 'end') end();
}).on('close', () => process.exit(0));
