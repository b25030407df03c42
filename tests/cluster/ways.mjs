// The three classical ways from one server to many, each really done, side by side: everything to every node (rtpush's,
// by Redis), sticky by topic, and a registry with direct forwarding. node tests/cluster/ways.mjs [--json] [--nodes 1,2,4,8]
// [--readers 4] [--payload 100] [--topics 250] [--singles 500] [--burst 4000] [--rounds 3] [--seed 1]. Prints Markdown.
//
// Nodes are daemons; those of the last two ways know of no bus, and a forwarder beside each, here in this process, sends
// on what is published at it. A publish arrives at a node by chance, in each way at the forwarder there, so that each way
// pays for one. Bytes are of the sockets, without TCP's own heads; what a forwarder says to its own node is not traffic.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { pathToFileURL } from 'node:url';
import { Redis, Node, rtpushd, knowsRedis, lacks, sleep, eventually } from './lib.mjs';

export const lacking = () => lacks('redis-server', 'redis-cli') || (knowsRedis(rtpushd()) ? '' : 'the daemon knows no --redis');
const hash = (text) => createHash('sha256').update(text).digest().readUInt32BE(), owner = (topic, n) => hash(topic) % n;

// --- the ways ---

// home: where a reader of the topic connects. publish: what the forwarder at node `at` does. forwards: to how many other
// nodes that must have gone, known from where the readers are and not from the registry. share: what is expected of it.
export const WAYS = {
  every: {
    title: 'everything to every node (this)', hasRedis: true, isBus: true, home: (c) => c.dice(c.n), forwards: () => 0,
    publish: (c, at, topic, data) => c.hops[at].post(at, topic, data),
  },
  sticky: {
    title: 'sticky by topic', home: (c, topic) => owner(topic, c.n), forwards: (c, at, topic) => Number(owner(topic, c.n) !== at),
    publish: (c, at, topic, data) => c.hops[at].post(owner(topic, c.n), topic, data),
    share: (n) => 1 - 1 / n,
  },
  registry: {
    title: 'registry, direct forwarding', hasRedis: true, isRegistry: true, home: (c) => c.dice(c.n),
    forwards: (c, at, topic) => new Set(c.readers.filter((r) => r.topic === topic && r.home !== at).map((r) => r.home)).size,
    async publish(c, at, topic, data) {
      const homes = new Set((await c.hops[at].book.ask(command('SMEMBERS', topic))).map((member) => parseInt(member, 10)));
      await Promise.all([...homes].map((home) => c.hops[at].post(home, topic, data)));
    },
    share: (n, readers) => (n - 1) * (1 - (1 - 1 / n) ** readers),
  },
};

// --- connections that are kept: questions out, answers in their order ---

class Line {
  static async open(port, parse) {
    const l = Object.assign(new Line(), { socket: net.connect(port, '127.0.0.1').setNoDelay(true), waiting: [], rest: '' });
    await once(l.socket, 'connect');
    l.socket.on('error', () => {}).on('close', () => { for (const { failed } of l.waiting) failed(new Error('a connection between nodes has ended')); });
    l.socket.on('data', (d) => {
      l.rest += d.toString('latin1');
      let at = 0;
      for (let found; (found = parse(l.rest, at)); at = found.next) l.waiting.shift().done(found.value);
      l.rest = l.rest.slice(at);
    });
    return l;
  }

  ask(text) {
    this.socket.write(text);
    return new Promise((done, failed) => { this.waiting.push({ done, failed }); });
  }
}

// The status of the HTTP answer at `at`, and where the next one begins; null: it is not all there.
function httpAnswer(text, at) {
  const end = text.indexOf('\r\n\r\n', at);
  if (end < 0) return null;
  const next = end + 4 + Number(/content-length: (\d+)/i.exec(text.slice(at, end))[1]);
  return next <= text.length ? { value: Number(text.slice(at + 9, at + 12)), next } : null;
}

const command = (...words) => `*${words.length}\r\n${words.map((w) => `$${w.length}\r\n${w}\r\n`).join('')}`;

// The same for what Redis answers: an array, a string, a number.
function redisAnswer(text, at) {
  const end = text.indexOf('\r\n', at), number = Number(text.slice(at + 1, end)), value = [];
  if (end < 0) return null;
  let next = end + 2;
  if (text[at] === ':') return { value: number, next };
  if (text[at] === '$') return next + number + 2 <= text.length ? { value: text.slice(next, next + number), next: next + number + 2 } : null;
  assert.equal(text[at], '*', text.slice(at, end));
  for (let i = 0, found; i < number; i++, value.push(found.value), next = found.next) if (!(found = redisAnswer(text, next))) return null;
  return { value, next };
}

// The forwarder beside node `at`.
class Hop {
  static async open(nodes, at, redis) {
    const h = Object.assign(new Hop(), { at, nodes, lines: [], statuses: new Set() });
    for (const node of nodes) h.lines.push(await Line.open(node.port, httpAnswer));
    if (redis) h.book = await Line.open(redis.port, redisAnswer);
    return h;
  }

  async post(to, topic, data) {
    const head = `POST /live/${topic} HTTP/1.1\r\nHost: 127.0.0.1:${this.nodes[to].port}\r\nContent-Length: ${data.length}\r\n\r\n`;
    this.statuses.add(await this.lines[to].ask(head + data));
  }

  // To and from the other nodes.
  bytes(direction) { return this.lines.reduce((sum, line, to) => sum + (to === this.at ? 0 : line.socket[direction]), 0); }

  end() { for (const line of [...this.lines, this.book]) line?.socket.destroy(); }
}

// A reader: an event stream, open and at its place when this returns.
async function read(c, topic, home) {
  const r = { topic, home, got: [] };
  r.request = http.get(`http://127.0.0.1:${c.nodes[home].port}/live/${topic}`, { agent: false, headers: { Accept: 'text/event-stream' } });
  const [answer] = await once(r.request, 'response');
  for (const stream of [r.request, answer]) stream.on('error', () => {}); // lost messages say it
  let rest = '';
  await new Promise((ready) => answer.setEncoding('latin1').on('data', (d) => {
    const blocks = (rest + d).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const number = /^data: ?(\d+)/m.exec(block);
      if (number) c.arrived(r, Number(number[1])); else if (/^id:/m.test(block)) ready();
    }
  }));
  return r;
}

// --- one way with n nodes ---

class Cluster {
  constructor(way, n, o) {
    let drawn = 0;
    Object.assign(this, { way, n, o, nodes: [], hops: [], readers: [], sent: [], forwards: 0, delivered: 0 });
    this.dice = (sides) => hash(`${o.seed} ${n} ${drawn++}`) % sides;
    this.topics = Array.from({ length: o.topics }, (_, i) => `t/${`${i}`.padStart(3, '0')}`);
  }

  async begin() {
    if (this.way.hasRedis) this.redis = await Redis.begin({ persistent: false });
    this.nodes = Array.from({ length: this.n }, (_, at) => new Node(`n${at + 1}`, { redisPort: this.way.isBus && this.redis.port }));
    await Promise.all(this.nodes.map((node) => node.start()));
    for (let at = 0; at < this.n; at++) this.hops.push(await Hop.open(this.nodes, at, this.way.isRegistry && this.redis));
    if (this.redis) this.info = await Line.open(this.redis.port, redisAnswer);
    // What a message costs beside its payload, from one of another size, as many digits long, to the last node.
    const { socket } = this.hops[0].lines.at(-1), before = socket.bytesWritten, size = 10 ** `${this.o.payload}`.length - 1;
    await this.hops[0].post(this.n - 1, 'w/000', 'x'.repeat(size));
    this.h = socket.bytesWritten - before - size;
    this.hops[0].statuses.clear();
    const readersOf = (topic) => Array.from({ length: this.o.readers }, () => read(this, topic, this.way.home(this, topic)));
    this.readers = await Promise.all(this.topics.flatMap(readersOf));
    await this.register('SADD');
  }

  // Each reader by the forwarder of its node, as it comes and as it goes.
  async register(verb) {
    if (this.way.isRegistry) await Promise.all(this.readers.map((r, i) => this.hops[r.home].book.ask(command(verb, r.topic, `${r.home} ${i}`))));
  }

  // What Redis has counted so far, without what asking costs.
  async look() {
    if (!this.redis) return { into: 0, out: 0, commands: 0, writes: 0 };
    const { socket } = this.info, before = socket.bytesRead, text = await this.info.ask(command('INFO', 'all'));
    const field = (name) => Number(new RegExp(`^${name}:(?:calls=)?(\\d+)`, 'm').exec(text)?.[1] ?? 0);
    const calls = (...names) => names.reduce((sum, name) => sum + field(`cmdstat_${name}`), 0);
    const commands = calls('evalsha', 'eval', 'xread', 'xrange', 'xrevrange', 'smembers'); // the others that the log's scripts make are not sent
    return { into: field('total_net_input_bytes') - socket.bytesWritten, out: field('total_net_output_bytes') - before, commands, writes: calls('sadd', 'srem') };
  }

  arrived(reader, number) {
    const s = this.sent[number];
    reader.got.push(number);
    this.delivered++;
    s.took.push(performance.now() - s.began);
    if (s.took.length === this.o.readers) s.done();
  }

  // On a topic and at a node by chance. all: every reader has it.
  publish() {
    const topic = this.topics[this.dice(this.topics.length)], at = this.dice(this.n), s = { topic, took: [] };
    this.forwards += this.way.forwards(this, at, topic);
    s.all = new Promise((done) => { s.done = done; });
    s.began = performance.now();
    s.answered = this.way.publish(this, at, topic, `${this.sent.push(s) - 1} `.padEnd(this.o.payload, 'x'));
    return s;
  }

  // One after the other, with time for nodes without a reader: nothing shares a command or a reply.
  async singles() {
    for (let i = 0; i < this.o.singles; i++, await sleep(2)) {
      const s = this.publish(), late = new Promise((_, failed) => { setTimeout(failed, this.o.patience, new Error(`a reader lacks message ${i}`)).unref(); });
      await Promise.race([Promise.all([s.answered, s.all]), late]);
    }
  }

  // 32 under way at any time.
  async burst() {
    let left = this.o.burst;
    await Promise.all(Array.from({ length: 32 }, async () => { while (left-- > 0) await this.publish().answered; }));
    await eventually(() => this.delivered >= this.sent.length * this.o.readers, 'each reader has each message', this.o.patience);
    await sleep(100); // for one that comes twice
  }

  // Each reader had each message of its topic once. How many topics were not read in the same order by all?
  judge() {
    const sent = new Map(this.topics.map((topic) => [topic, []])), orders = new Map(this.topics.map((topic) => [topic, new Set()]));
    this.sent.forEach(({ topic }, number) => sent.get(topic).push(number));
    for (const r of this.readers) {
      assert.deepEqual([...r.got].sort((a, b) => a - b), sent.get(r.topic), `a reader of ${r.topic} at node ${r.home}: each message once`);
      orders.get(r.topic).add(r.got.join());
    }
    return [...orders.values()].filter((set) => set.size > 1).length;
  }

  async end() {
    for (const hop of this.hops) hop.end();
    for (const r of this.readers) r.request.destroy();
    this.info?.socket.destroy();
    await Promise.all(this.nodes.map((node) => node.kill()));
    await this.redis?.end();
  }
}

// Figures per publish. Throws where a message is lost or doubled, or a count is not what it must be.
export async function measure(way, n, o) {
  const c = new Cluster(way, n, o), bytes = (direction) => c.hops.reduce((sum, hop) => sum + hop.bytes(direction), 0);
  try {
    await c.begin();
    const wrote = bytes('bytesWritten'), read0 = bytes('bytesRead'), a = await c.look();
    await c.singles();
    const b = await c.look(), took = c.sent.flatMap((s) => s.took).sort((x, y) => x - y);
    await c.burst();
    const sent = bytes('bytesWritten') - wrote, answers = bytes('bytesRead') - read0, d = await c.look(), orders = c.judge(), count = c.sent.length;
    await c.register('SREM');
    const { writes } = await c.look(), into = (b.into - a.into) / o.singles, out = (b.out - a.out) / o.singles;
    const r = { n, h: c.h, orders, commands: (b.commands - a.commands) / o.singles, p50: took[Math.floor(took.length * 0.5)], p99: took[Math.floor(took.length * 0.99)] };
    if (way.isBus) return Object.assign(r, { carried: out, other: into }); // all goes over Redis: that is what is between machines
    assert.equal(sent, c.forwards * (o.payload + c.h), 'bytes between nodes: of each forward, the payload and h');
    assert.deepEqual([...new Set(c.hops.flatMap((hop) => [...hop.statuses]))], [201], 'only nodes with a reader are sent to');
    assert.equal(d.commands - a.commands, way.isRegistry ? count : 0, 'the registry is asked once for each publish');
    assert.equal(writes, way.isRegistry ? 2 * c.readers.length : 0, 'a write for each reader that comes, and one as it goes');
    return Object.assign(r, { carried: sent / count, formula: way.share(n, o.readers) * (o.payload + c.h), other: answers / count + into + out, writes: writes / c.readers.length });
  } finally {
    await c.end();
  }
}

// Each way with each number of nodes. What is by chance is within 5 % of its formula; so is the first way, whose a and h
// in a + N (P + h) are taken from the fewest and the most nodes, in between.
export async function round(counts, o) {
  const results = {};
  for (const n of counts) for (const [name, way] of Object.entries(WAYS)) (results[name] ??= []).push(await measure(way, n, o));
  const first = results.every[0], last = results.every.at(-1), slope = (last.carried - first.carried) / (last.n - first.n || 1);
  for (const r of results.every) Object.assign(r, { h: slope - o.payload, formula: first.carried + (r.n - first.n) * slope });
  for (const [name, list] of Object.entries(results)) for (const r of list) {
    assert.ok(Math.abs(r.carried - r.formula) <= 0.05 * r.formula, `${name}, ${r.n} nodes: ${r.carried} bytes, by the formula ${r.formula}`);
    if (name !== 'registry') assert.equal(r.orders, 0, `${name}, ${r.n} nodes: one order for all`);
  }
  return results;
}

async function main(args) {
  if (lacking()) throw new Error(lacking());
  const option = (name, otherwise) => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : otherwise);
  const o = { readers: 4, payload: 100, topics: 250, singles: 500, burst: 4000, rounds: 3, seed: 1, patience: 10000 };
  const counts = option('nodes', '1,2,4,8').split(',').map(Number), rounds = [];
  for (const name of Object.keys(o)) o[name] = Number(option(name, o[name]));
  while (rounds.length < o.rounds) console.error(`# round ${rounds.push(await round(counts, o))}`);
  if (args.includes('--json')) { console.log(JSON.stringify({ options: o, counts, rounds })); return; }
  const row = (...cells) => console.log(`| ${cells.join(' | ')} |`), bytes = (x) => Math.round(x).toLocaleString('en');
  row('nodes', 'way', 'bytes a publish, to carry it', 'by the formula', 'other bytes', 'Redis commands a publish', 'a reader', 'delivery p50, ms', 'p99, ms', 'topics read in two orders');
  row(...Array(10).fill('---'));
  counts.forEach((n, i) => Object.entries(WAYS).forEach(([name, { title }]) => {
    const all = rounds.map((r) => r[name][i]), of = (get) => all.map(get).sort((x, y) => x - y), median = (get) => of(get)[Math.floor(all.length / 2)];
    const spread = (get) => `${median(get).toFixed(2)} (${of(get)[0].toFixed(2)} to ${of(get).at(-1).toFixed(2)})`, sizes = ['carried', 'formula', 'other'].map((key) => bytes(median((r) => r[key])));
    row(n, title, ...sizes, median((r) => r.commands).toFixed(2), all[0].writes ?? '', spread((r) => r.p50), spread((r) => r.p99), median((r) => r.orders));
  }));
  const h = Object.keys(WAYS).map((name) => `${name} ${rounds[0][name].at(-1).h.toFixed(0)}`).join(', ');
  console.log(`\n${o.readers} readers of each of ${o.topics} topics, payload ${o.payload} bytes; ${o.singles} publishes one by one (for times, and what is Redis's),`);
  console.log(`${o.burst} with 32 under way; medians of ${o.rounds} rounds, least and most. h: ${h}. Other bytes: answers, and what Redis is sent or asked.`);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await main(process.argv.slice(2));
