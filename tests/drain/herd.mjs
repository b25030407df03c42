// herd.c for clients of tools/rtpush.js: the same flags, the same lines.
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const WebSocket = createRequire(path.resolve(here, '../wire/package.json'))('ws');
const rtpush = createRequire(import.meta.url)('../../tools/rtpush.js');

const KINDS = { ws: 'websocket', sse: 'sse', lp: 'longpoll', sp: 'shortpoll' };
const counts = {}, options = {};
let url, until = 0, ends = false;
for (let words = process.argv.slice(2); words.length;) {
  const word = words.shift(), name = word.slice(2);
  if (KINDS[name]) counts[name] = Number(words.shift());
  else if (word === '--until') until = Number(words.shift());
  else if (word === '--interval') options.interval = Number(words.shift());
  else if (word === '--end') ends = true;
  else url = word;
}

const { pathname, origin } = new URL(url), [, mount, ...topic] = pathname.split('/');
const all = [], times = [];
let openCount = 0, seenCount = 0, highest = 0;

function add(name) {
  const one = { name, seen: new Map(), last: 0, back: 0, inEpoch: 0, doubled: 0, gaps: [], evicted: 0, opens: 0, epoch: '' };
  const live = rtpush(`${origin}/${mount}`, { WebSocket, share: false, transports: [KINDS[name]], ...options });
  one.live = live;
  all.push(one);
  live.on('gap', (g) => { g.reason === 'epoch' ? one.gaps.push(g.to.slice(0, 8)) : one.evicted++; });
  live.on('error', (e) => { if (e.isFatal) console.error(`herd.mjs: ${name} failed: ${e.message}`); });
  live.on('state', (state) => {
    if (state === 'connecting' && one.opens) times.push(Date.now());
  });
  live.subscribe(topic.join('/'), (m) => {
    const n = Number(m.data);
    if (!(n >= 1)) { console.error(`herd.mjs: not a number of ours: ${m.data}`); process.exit(3); }
    if (one.seen.has(n)) one.doubled++;
    else {
      one.seen.set(n, 1);
      if (n === until && ++seenCount === all.length) { console.log('seen'); if (ends) end(); }
    }
    const epoch = m.id.slice(0, 8);
    if (n < one.last) { one.back++; one.inEpoch += epoch === one.epoch; }
    one.last = n;
    one.epoch = epoch;
    highest = Math.max(highest, n);
  }).ready.then(() => { if (!one.opens++ && ++openCount === all.length) console.log('open'); });
}

function end() {
  highest = Math.max(highest, until);
  const losses = [], sum = (f) => all.reduce((n, one) => n + f(one), 0);
  all.forEach((one, i) => { for (let n = 1; n <= highest; n++) if (!one.seen.has(n)) losses.push([one.name, n, i]); });
  const doublers = Object.fromEntries(Object.keys(KINDS).map((k) => [k, sum((o) => (o.name === k ? o.doubled : 0))]));
  const summary = { clients: all.length, highest, losses: losses.slice(0, 20000), lost: losses.length, doubled: sum((o) => o.doubled), back: sum((o) => o.back),
    back_in_epoch: sum((o) => o.inEpoch), gaps: sum((o) => o.gaps.length + o.evicted), gaps_evicted: sum((o) => o.evicted),
    gaps_most: Math.max(...all.map((o) => o.gaps.length + o.evicted)), gaps_twice: sum((o) => o.gaps.length - new Set(o.gaps).size), doublers,
    reconnects: times.length, times };
  process.stdout.write(`${JSON.stringify(summary)}\n`, () => process.exit(0));
}

process.on('SIGTERM', end);
for (let any = true; any;) {
  any = false;
  for (const name of Object.keys(KINDS)) if (counts[name]) { counts[name]--; any = true; add(name); }
}
