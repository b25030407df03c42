// Three nodes, two balancers without stickiness, clients of both kinds on all four transports, three publishers that do
// not give up, and one fault after the other: nobody loses a message without being told, gets one twice or out of order.
//
// CLUSTER_LONG=1: 600 clients, 100,000 messages and each fault twice, about eight minutes. CLUSTER_CLIENTS,
// CLUSTER_MESSAGES, CLUSTER_RATE, CLUSTER_FAULTS (a part of their names, comma separated): another size.
// Writes cluster.svg, cluster.md and cluster.json to build/ (CLUSTER_OUT).
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { Redis, Node, Balancers, Wire, Herd, Poster, Publisher, TOPICS, nameOf, BUILD, top, build, rtpushd, knowsRedis, lacks, sleep, eventually } from './lib.mjs';
import { judge, table, plot } from './judge.mjs';

const isLong = process.env.CLUSTER_LONG === '1';
const CLIENTS = Number(process.env.CLUSTER_CLIENTS ?? (isLong ? 600 : 120));
const MESSAGES = Number(process.env.CLUSTER_MESSAGES ?? (isLong ? 100000 : 6000));
const RATE = Number(process.env.CLUSTER_RATE ?? (isLong ? 240 : 150));
const OUT = path.resolve(process.env.CLUSTER_OUT ?? path.join(top, 'build'));
const SPREAD = isLong ? 3000 : 1000;
const PATIENCE = 60000; // for a reader to be back; only what is broken takes so long

async function setup(t) {
  const c = { drains: [] }, ends = [];
  t.after(async () => { for (const end of ends.reverse()) await end(); });
  fs.mkdirSync(BUILD, { recursive: true });
  const redis = c.redis = await Redis.begin();
  ends.push(() => redis.end());
  const wire = c.wire = await Wire.begin(redis.port);
  ends.push(() => wire.kill());
  c.clock = path.join(redis.folder, 'clock');
  fs.writeFileSync(c.clock, Buffer.alloc(8));
  const shim = build('clock.c', { out: 'clock.so', flags: ['-O1', '-shared', '-fPIC'] });
  // What is kept is enough for whoever comes back within the test: a gap is told for a lost epoch only.
  const args = ['--drain-spread', `${SPREAD}`, '--set', 'history=3000', '--set', 'history_bytes=4194304', '--set', 'history_total_bytes=134217728', '--verbose'];
  c.nodes = ['n1', 'n2', 'n3'].map((name) => new Node(name, {
    redisPort: name === 'n2' ? wire.port : redis.port, args, logFile: path.join(BUILD, `${name}.log`),
    env: name === 'n3' ? { LD_PRELOAD: shim, CLOCK_FILE: c.clock } : {},
  }));
  for (const n of c.nodes) {
    fs.rmSync(n.logFile, { force: true });
    ends.push(async () => { n.signal('SIGCONT'); await n.kill(); });
    await n.start();
  }
  const balancers = c.balancers = await Balancers.begin(c.nodes);
  ends.push(() => balancers.end());
  return { c, ends };
}

// Half through each balancer, half of each language.
async function herds(c, ends) {
  const program = build('herd.c'), quarter = Math.floor(CLIENTS / 4);
  c.herds = [['C', 0], ['C', 1], ['JS', 0], ['JS', 1]].map(([kind, way], i) => new Herd(kind, { first: i * quarter, count: i < 3 ? quarter : CLIENTS - 3 * quarter, url: c.balancers.urls[way], program }));
  for (const h of c.herds) ends.push(() => h.kill());
  c.prober = new Poster(c.balancers.urls, { lanes: 1, within: 3000 });
  ends.push(() => c.prober.end());
  // Number 0 on each topic again and again, until each client has had one of each of its own: then it reads for sure.
  const open = Promise.all(c.herds.map((h) => h.line('open', PATIENCE)));
  let isOpen = false;
  open.then(() => { isOpen = true; }, () => { isOpen = true; });
  while (!isOpen) {
    for (let k = 0; k < TOPICS && !isOpen; k++) await c.prober.post(nameOf(k), `0 ${Date.now()}`);
    await c.prober.post('probe', `0 ${Date.now()}`);
    await sleep(300);
  }
  await open;
}

const DATALESS = 'Redis restarted without its data', FLUSHED = 'Redis flushed';

function schedule(c) {
  const [n1, n2, n3] = c.nodes, { redis, wire, balancers } = c, long = (a, b) => (isLong ? b : a);
  const kill = (n) => ({ name: `${n.name} killed (-9), started again`, ms: 1500, begin: () => n.kill(), end: () => n.start() });
  const stop = (n, ms) => ({ name: `${n.name} stopped (SIGSTOP) and continued`, ms, begin: () => n.signal('SIGSTOP'), end: () => n.signal('SIGCONT') });
  const cut = (ms) => ({ name: 'n2 cut off from Redis', ms, begin: () => wire.say('cut'), end: () => wire.say('heal') });
  const once = [
    kill(n1),
    stop(n2, long(6500, 12000)), // above the 5 s that a cursor ahead of its node may wait
    { name: 'rolling drain of all three (SIGTERM, started again)', ms: 0, begin: async () => {
      for (const n of c.nodes) {
        const asked = Date.now();
        n.signal('SIGTERM');
        assert.deepEqual(await n.child.over, { code: 0, signal: null }, `${n.name} drained: ${n.tail()}`);
        const gone = Date.now();
        await n.start();
        c.drains.push([n.name, gone - asked, Date.now() - gone]); // how long to go, and to be back
      }
    } },
    { name: 'Redis killed (-9), started again with its data', ms: long(1500, 4000), begin: () => redis.kill(), end: () => redis.start() },
    { name: 'connections to Redis killed (CLIENT KILL)', ms: 0, begin: async () => { await redis.cli('CLIENT', 'KILL', 'TYPE', 'normal'); await redis.cli('CLIENT', 'KILL', 'TYPE', 'pubsub'); } },
    { name: 'nginx reloaded', ms: 0, begin: () => balancers.reloadNginx() },
    { name: 'HAProxy reloaded', ms: 0, begin: () => balancers.reloadHaproxy() },
    cut(long(6500, 8000)),
    { name: 'n3\'s clock set back by an hour', ms: 0, begin: () => { const b = Buffer.alloc(8); b.writeBigInt64LE(-3600n * 1000000000n); fs.writeFileSync(c.clock, b, { flag: 'r+' }); } },
  ];
  const twice = [stop(n1, 6000), kill(n2), cut(15000), once[3], once[2], { ...kill(n3), ms: 11000 }, once[4],
    { name: 'Redis stopped (SIGSTOP) and continued', ms: 7000, begin: () => redis.child.process.kill('SIGSTOP'), end: () => redis.child.process.kill('SIGCONT') },
    once[6], once[5]];
  const dataless = { name: DATALESS, isDataless: true, ms: 0, begin: async () => { await redis.kill(); redis.forget(); await redis.start(); } };
  const flushed = { name: FLUSHED, isDataless: true, ms: 0, begin: () => redis.cli('FLUSHALL') };
  const all = isLong ? [...once, ...twice, dataless, kill(n1), flushed, once[2]] : [...once, dataless, kill(n2)];
  const wanted = process.env.CLUSTER_FAULTS?.split(',');
  return wanted ? all.filter((f) => wanted.some((w) => f.name.includes(w))) : all;
}

// A probe is one more number of the topic `probe`, one after the other.
function probe(c) {
  const n = c.probes = (c.probes ?? 0) + 1, before = c.probing ?? Promise.resolve();
  c.probing = before.then(() => c.prober.post('probe', `${n} ${Date.now()}`));
  c.probing.catch(() => {});
  return n;
}

async function reached(c, n, since) {
  try {
    await eventually(() => c.herds.every((h) => h.probes.has(n)), '', PATIENCE);
  } catch { return { n, missing: c.herds.filter((h) => !h.probes.has(n)).map((h) => h.name) }; }
  const of = (name) => c.herds.map((h) => h.probes.get(n)[name] - since).sort((a, b) => a - b);
  return { n, all: of('all').at(-1), half: of('half')[1], by: c.herds.map((h) => `${h.name}: ${h.probes.get(n).all - since}`) };
}

async function fault(c, f) {
  const o = { name: f.name, hasEnd: !!f.end, isDataless: !!f.isDataless, began: Date.now() }, refused = () => [...c.publishers, c.prober].flatMap((p) => p.refusals).length, before = refused();
  // What takes time to begin (a drain of all three) has readers to be served meanwhile.
  const begun = f.begin(), n = f.isDataless ? (await begun, probe(c)) : probe(c), first = reached(c, n, o.began);
  await begun;
  if (f.end) {
    await sleep(f.ms);
    await f.end();
  }
  o.ended = Date.now();
  if (f.end) o.last = await reached(c, probe(c), o.ended);
  o.first = await first;
  o.refusals = refused() - before;
  o.over = Date.now();
  for (const node of c.nodes) if (node.child.ended) { o.dead = `${node.name} has ended by itself: ${JSON.stringify(node.child.ended)} ${node.tail()}`; await node.start().catch(() => {}); }
  return o;
}

// The epochs in the order in which they were first given.
function epochsOf(publishers) {
  const first = new Map();
  for (const p of publishers) for (const [e, at] of p.epochs) first.set(e, Math.min(at, first.get(e) ?? Infinity));
  return [...first].sort((a, b) => a[1] - b[1]).map(([e]) => e);
}

const why = lacks('redis-server', 'redis-cli', 'haproxy', 'nginx') || (knowsRedis(rtpushd()) ? '' : 'the daemon knows no --redis');

test('a_cluster_under_faults_loses_nothing', { skip: why || false, timeout: isLong ? 1500000 : 600000 }, async (t) => {
  const began = Date.now(), { c, ends } = await setup(t);
  await herds(c, ends);
  const { urls } = c.balancers, range = Array.from({ length: TOPICS }, (_, k) => k);
  c.publishers = [[urls[0]], [urls[1]], urls].map((ways, i) => new Publisher(ways, range.filter((k) => k % 3 === i), { rate: RATE / 3, lanes: 10, within: 2500 }));
  for (const p of c.publishers) ends.push(() => p.end());
  const failed = Promise.all(c.publishers.map((p) => p.done));
  failed.catch(() => {});
  await sleep(2000);

  const faults = [];
  for (const f of schedule(c)) {
    const o = await Promise.race([fault(c, f), failed.then(() => null)]);
    if (o) faults.push(o), console.error(`# ${table([{ ...o, reconnects: '' }])[2]}${o.dead ? ` ${o.dead}` : ''}${o.first.missing ? ` missing: ${o.first.missing}` : ''}${o.last?.missing ? ` missing: ${o.last.missing}` : ''}`);
    await sleep(isLong ? 4000 : 500);
  }
  const count = () => c.publishers.reduce((n, p) => n + p.count, 0);
  while (count() < MESSAGES) await Promise.race([sleep(100), failed]);
  const sending = Date.now();
  await Promise.race([Promise.all(c.publishers.map((p) => p.stop())), new Promise((done) => { setTimeout(done, PATIENCE).unref(); }).then(() => { throw new Error(`a publisher has no answer: ${JSON.stringify(c.publishers.map((p) => p.refusals.slice(-3)))}`); })]);

  const ids = new Map(c.publishers.flatMap((p) => [...p.ids])), until = range.map((k) => ids.get(k).length - 1);
  for (const h of c.herds) h.say(`until ${until.join(' ')}`);
  const unfinished = [];
  await Promise.all(c.herds.map((h) => h.line('seen', PATIENCE).catch(() => { h.say('who'); unfinished.push(h.name); })));
  if (unfinished.length) await sleep(500);
  const summaries = [];
  for (const h of c.herds) summaries.push(await h.summary());
  const epochs = epochsOf(c.publishers), verdict = judge(summaries, ids, epochs);

  // What the herds say of each second belongs to the fault during which it was.
  const ticks = c.herds.flatMap((h) => h.ticks), within = (from, to) => ticks.filter(([s]) => s * 1000 >= from && s * 1000 < to).reduce((n, [, , , r]) => n + r, 0);
  faults.forEach((f, i) => { f.reconnects = within(f.began - 500, faults[i + 1]?.began - 500 || Infinity); });
  const messages = count(), delivered = ticks.reduce((n, [, d]) => n + d, 0), refusals = {};
  for (const { why: w } of c.publishers.flatMap((p) => p.refusals)) refusals[w.slice(0, 60)] = (refusals[w.slice(0, 60)] ?? 0) + 1;
  const retried = c.publishers.reduce((n, p) => n + p.retried.size, 0), dataless = faults.filter((f) => f.isDataless).length;
  const lines = [
    `${verdict.clients} clients (half C, half JavaScript; ${[30, 30, 30, 10].map((p, i) => `${Math.round((verdict.clients * p) / 100)} ${['WebSocket', 'SSE', 'long poll', 'short poll'][i]}`).join(', ')}), half through HAProxy, half through nginx; ${messages.toLocaleString('en')} messages on ${TOPICS} topics by 3 publishers; ${delivered.toLocaleString('en')} deliveries; ${Math.round((Date.now() - began) / 1000)} s`, '',
    '| lost without a gap | doubled | of these, by a false gap | out of order | lost with a gap | under both epochs | gaps told | of these, false | most for one client | epochs |', '|---|---|---|---|---|---|---|---|---|---|',
    `| ${verdict.lost.length} | ${verdict.doubled} | ${verdict.sentBack} | ${verdict.back} | ${verdict.told} | ${verdict.across} | ${verdict.gaps} | ${verdict.falseGaps} | ${verdict.gapsMost} | ${epochs.length}, ${1 + dataless} expected |`, '',
    ...table(faults), '',
    `Publishes that were tried again: ${retried} (${Object.entries(refusals).map(([w, n]) => `${w}: ${n}`).join('; ') || 'none'}). From the last acknowledgement until all readers had all: ${unfinished.length ? 'never' : `${((Math.max(...c.herds.map(() => Date.now())) - sending) / 1000).toFixed(1)} s at most`}.`,
  ];
  fs.mkdirSync(OUT, { recursive: true });
  fs.writeFileSync(path.join(OUT, 'cluster.md'), `${lines.join('\n')}\n`);
  fs.writeFileSync(path.join(OUT, 'cluster.json'), JSON.stringify({ verdict: { ...verdict, lost: verdict.lost.slice(0, 500) }, faults, epochs, refusals, messages, delivered, drains: c.drains, herds: summaries.map((h, i) => [c.herds[i].name, h.doubled, h.sentBack, h.gaps.length]), ticks, gaps: summaries.flatMap((s) => s.gaps).slice(0, 3000) }));
  fs.writeFileSync(path.join(OUT, 'cluster.svg'), plot(`${verdict.clients} clients, 3 nodes, 2 balancers, one fault after the other: lost ${verdict.lost.length}, doubled ${verdict.doubled}, out of order ${verdict.back}`, ticks, faults));
  for (const line of lines) t.diagnostic(line);
  const said = c.herds.map((h) => h.said).join('').trim();
  if (said) t.diagnostic(said.slice(0, 6000));

  assert.deepEqual(faults.filter((f) => f.dead).map((f) => f.dead), [], 'no node ends by itself');
  assert.deepEqual({ lost: verdict.lost.length, doubled: verdict.doubled, back: verdict.back }, { lost: 0, doubled: 0, back: 0 }, JSON.stringify(verdict.lost.slice(0, 20)));
  assert.deepEqual(unfinished, [], 'all readers have all');
  assert.equal(epochs.length, 1 + dataless, `an epoch for each loss of Redis's data: ${epochs}`);
  assert.equal(verdict.falseGaps, 0, 'no gap but to a new epoch');
  assert.ok(verdict.gapsMost <= dataless, `a gap is told once: ${verdict.gapsMost}`);
  assert.ok(verdict.across <= retried * verdict.clients, 'only what was tried again may be in two epochs');
  assert.deepEqual(faults.filter((f) => f.first.missing || f.last?.missing).map((f) => `${f.name}: ${f.first.missing} ${f.last?.missing ?? ''}`), [], 'all readers come back');
  assert.equal(said, '', 'no herd complains');
});
