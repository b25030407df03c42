// The transport lab (examples/lab.c) without a browser: its API, its counters against what clients of the test's own
// count, the arithmetic of polling, and every fault as its figures show it. LAB is the program; else build/lab.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { sleep, eventually } from '../wire/lib.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const WebSocket = createRequire(path.join(here, '../wire/package.json'))('ws');
const LAB = path.resolve(process.env.LAB ?? path.join(here, '../../build/lab'));
const NAMES = ['short', 'long', 'sse', 'ws'];

// --- the program ---

async function lab(t, ...args) {
  const child = spawn(LAB, ['--listen', 'http://127.0.0.1:0', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const l = { child, sockets: new Set() };
  let out = '', err = '', over = null;
  child.stdout.on('data', (d) => { out += d; });
  child.stderr.on('data', (d) => { err += d; });
  const exit = new Promise((done) => {
    child.on('error', (e) => { over = { code: String(e) }; done(); });
    child.on('close', (code, signal) => { over = { code, signal }; done(); });
  });
  // Each test ends here: the program is still there, ends by SIGTERM, and no sanitizer has anything to say.
  t.after(async () => {
    for (const socket of l.sockets) socket.destroy();
    const was = over;
    if (!over) child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), 20000);
    await exit;
    clearTimeout(late);
    assert.equal(was, null, `it ended before its time: ${JSON.stringify(was)} ${err}`);
    assert.doesNotMatch(err, /Sanitizer|runtime error:/);
    assert.deepEqual(over, { code: 0, signal: null }, err);
  });
  await eventually(() => over || out.includes('\n'), `${LAB} is ready`);
  assert.ok(!over, `it did not start: ${JSON.stringify(over)} ${err}`);
  l.url = /http:\/\/\S+(?=\/\n)/.exec(out)[0];
  l.port = Number(new URL(l.url).port);
  l.get = async (target) => (await fetch(l.url + target)).json();
  l.post = async (target) => {
    const r = await fetch(l.url + target, { method: 'POST' });
    assert.equal(r.status, 200, `${target}: ${await r.clone().text()}`);
    return r.json();
  };
  l.set = (values) => l.post(`/lab/set?${new URLSearchParams(values)}`);
  l.do = (what, lane) => l.post(`/lab/do?what=${what}${lane ? `&lane=${lane}` : ''}`);
  l.stats = () => l.get('/lab/stats');
  l.lane = async (name) => (await l.stats()).lanes[name];
  const config = await l.get('/lab/config');
  l.lanes = Object.fromEntries(config.lanes.map((lane) => [lane.name, lane]));
  return l;
}

const all = (n) => Object.fromEntries(NAMES.map((name) => [`clients_${name}`, n]));

async function allOpen(l, n, names = NAMES) {
  await eventually(async () => {
    const { lanes } = await l.stats();
    return names.every((name) => lanes[name].clients.open === n && lanes[name].connections === n);
  }, `${n} clients are open in ${names}`);
}

// The publisher stops, and each of the n has each message once, without a gap. Returns the lanes.
async function allHaveAll(l, n) {
  await l.set({ rate: 0 });
  await sleep(600);
  const { published, lanes } = await l.stats();
  for (const name of NAMES) {
    const c = lanes[name].clients;
    assert.deepEqual([c.lost, c.gap, c.gaps, c.doubled], [0, 0, 0, 0], name);
    assert.equal(c.latency.count, n * published, `${name}: each has each`);
  }
  return lanes;
}

// Nothing is under way any more: all that was published has been delivered and received.
async function settled(l, names = NAMES) {
  const s = await eventually(async () => {
    const now = await l.stats();
    const isQuiet = (lane) => lane.clients.received === lane.delivered && lane.server.pending === 0
      && lane.proxy.up === lane.bytes_in && lane.proxy.down === lane.bytes_out;
    return names.every((name) => isQuiet(now.lanes[name])) && now;
  }, 'what was delivered is what was received');
  return s.lanes;
}

const near = (value, expected, part, what) =>
  assert.ok(Math.abs(value - expected) <= expected * part, `${what}: ${value}, expected ${expected} within ${part * 100} %`);

// --- clients of our own ---

// A plain socket: what it sends and gets, by the byte.
async function plain(l, port, request = '') {
  const socket = net.connect(port, '127.0.0.1');
  const c = { socket, text: '', bytes: 0, at: [] };
  l.sockets.add(socket);
  socket.setNoDelay(true);
  socket.on('data', (d) => { c.text += d.toString('latin1'); c.bytes += d.length; c.at.push([Date.now(), d.length]); });
  socket.on('error', (e) => { c.error = e.code; });
  socket.on('end', () => { c.ended = true; });
  socket.on('close', () => { c.closed = true; });
  await new Promise((done) => { socket.once('connect', done); socket.once('error', done); });
  if (request) socket.write(request);
  return c;
}

const head = (target, ...lines) => `GET ${target} HTTP/1.1\r\nHost: lab\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;
const SSE_HEAD = head('/live/lab', 'Accept: text/event-stream');
const upgrade = (target) => head(target, 'Upgrade: websocket', 'Connection: Upgrade', 'Sec-WebSocket-Version: 13', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==');
const POLL_HEAD = head('/live/lab?since=latest');

async function eventStream(l, port) {
  const c = await plain(l, port, SSE_HEAD);
  c.numbers = () => [...c.text.matchAll(/"n":(\d+)/g)].map((m) => Number(m[1]));
  await eventually(() => c.text.includes('\nid:'), 'the stream begins');
  return c;
}

// An event stream as a browser reads it, by fetch.
async function fetchStream(url) {
  const abort = new AbortController();
  const r = await fetch(url, { headers: { Accept: 'text/event-stream' }, signal: abort.signal });
  const s = { messages: [], close: () => abort.abort() };
  let rest = '';
  const read = async () => {
    for await (const piece of r.body) {
      const blocks = (rest + Buffer.from(piece).toString()).split('\n\n');
      rest = blocks.pop();
      for (const block of blocks) {
        const data = /^data: (.*)$/m.exec(block);
        if (data) s.messages.push(JSON.parse(data[1]));
      }
    }
  };
  read().catch(() => {});
  return s;
}

async function socketTo(l, port, query = '') {
  const ws = new WebSocket(`ws://127.0.0.1:${port}/live/lab${query}`);
  const s = { ws, data: [] };
  ws.on('message', (d) => s.data.push(d.toString()));
  ws.on('close', (code, reason) => { s.code = code; s.reason = reason.toString(); });
  ws.on('error', (e) => { s.error = e.message; });
  l.sockets.add({ destroy: () => ws.terminate() });
  await eventually(() => ws.readyState === WebSocket.OPEN || s.error, 'a WebSocket opens');
  return s;
}

// --- arithmetic, alone: it measures ---

// Each client asks every `interval` at its own moment: a message waits half of it in the mean, comes with one poll, and
// all other polls are empty.
test('lab_short_polls_cost_what_arithmetic_says', async (t) => {
  const l = await lab(t);
  const n = 200, interval = 1000, rate = 0.7;
  await l.set({ rate: 0, interval, clients_short: n });
  await allOpen(l, n, ['short']);
  await sleep(interval);
  await l.do('reset');
  await l.set({ rate });
  await sleep(5900);
  await l.set({ rate: 0 });
  await sleep(interval * 1.2); // the last message's turn, too
  const { seconds, published, lanes: { short } } = await l.stats();
  const polls = n * seconds * 1000 / interval;
  near(short.requests, polls, 0.1, 'polls');
  near(short.empty, polls - n * published, 0.1, 'empty answers');
  near(short.clients.latency.mean_us, interval * 1000 / 2, 0.1, 'mean latency');
  near(short.clients.latency.p50_us, interval * 1000 / 2, 0.15, 'median latency');
  assert.ok(short.clients.latency.max_us < interval * 1000 * 1.5);
});

// The others wait most of the time: three at once.
describe('lab', { concurrency: 3 }, () => {

// --- the API ---

const RANGES = {
  rate: [0, 1000], burst: [1, 1000], size: [64, 16384], interval: [100, 60000], wait: [1000, 55000], clients_short: [0, 3000],
  clients_long: [0, 3000], clients_sse: [0, 3000], clients_ws: [0, 3000], latency: [0, 2000], buffer: [0, 1], block: [0, 1], nat: [0, 120],
  throttle: [0, 10000000], resume: [0, 1], jitter: [0, 1], fallback: [0, 1], heartbeat: [500, 120000], history: [1, 10000],
};
const FIRST = {
  rate: 1, burst: 1, size: 128, interval: 5000, wait: 25000, ...all(0), latency: 0, buffer: 0, block: 0, nat: 0, throttle: 0, resume: 1,
  jitter: 1, fallback: 0, heartbeat: 20000, slow: 'close', history: 1000,
};

test('lab_set_takes_what_is_in_range_and_nothing_else', async (t) => {
  const l = await lab(t);
  assert.deepEqual((await l.stats()).state, FIRST);
  const refused = ['nosuch=1', 'rate', '=1', 'rate=1&nosuch=1', 'slow=fast', 'slow=0', 'size=100.5', 'rate=1e2', 'rate=0x1', 'rate=-1', 'rate=%31',
    'rate=1.2.3', 'rate=.', `rate=${'9'.repeat(400)}`, `${'a'.repeat(400)}=1`, 'rate=1;burst=2', 'rate=%22%0a', '%22%3cscript=1'];
  for (const [key, [least, most]] of Object.entries(RANGES)) {
    refused.push(`${key}=${most + 1}`, `${key}=`, `${key}=x`, `${key}=1x`);
    if (least) refused.push(`${key}=${least - 1}`);
  }
  for (const query of refused) {
    const r = await fetch(`${l.url}/lab/set?burst=7&${query}`, { method: 'POST' });
    const body = await r.json();
    assert.equal(r.status, 400, query);
    assert.equal(body.error, 'bad_request', query);
    assert.match(body.reason, /^[\x20-\x7e]{10,}$/, query);
  }
  assert.deepEqual((await l.stats()).state, FIRST, 'nothing has changed');
  for (const [key, [least, most]] of Object.entries(RANGES)) {
    if (key.startsWith('clients') || key === 'heartbeat') continue; // not so many, and no restart each
    for (const value of [least, most, FIRST[key]]) assert.deepEqual(await l.set({ [key]: value }), { ...FIRST, [key]: value });
  }
  for (const slow of ['latest', 'skip', 'close']) assert.equal((await l.set({ slow })).slow, slow);
  assert.equal((await l.set({ rate: '0.25' })).rate, 0.25);
  assert.deepEqual(await l.set({}), { ...FIRST, rate: 0.25 }, 'no key: the state');
});

test('lab_http_answers_each_path_and_refuses_the_rest', async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-lab-'));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  fs.writeFileSync(path.join(folder, 'page.html'), 'first');
  const l = await lab(t, '--page', path.join(folder, 'page.html'));
  assert.equal(await (await fetch(`${l.url}/`)).text(), 'first');
  fs.writeFileSync(path.join(folder, 'page.html'), 'second');
  assert.equal(await (await fetch(`${l.url}/`)).text(), 'second', 'it is read anew');
  const before = Date.now() * 1000, { us } = await l.get('/lab/time');
  assert.ok(us >= before - 1000 && us <= Date.now() * 1000 + 1000);
  const table = [['GET', '/lab/set', 405], ['GET', '/lab/do?what=reset', 405], ['POST', '/lab/stats', 405], ['POST', '/', 405], ['DELETE', '/lab/set', 405],
    ['GET', '/lab', 404], ['GET', '/lab/', 404], ['POST', '/lab/do', 400], ['POST', '/lab/do?what=', 400], ['POST', '/lab/do?what=explode', 400],
    ['POST', '/lab/do?what=cut&lane=', 400], ['POST', '/lab/do?what=cut&lane=smoke', 400], ['POST', `/lab/do?what=cut&lane=${'x'.repeat(500)}`, 400],
    ['POST', '/lab/do?what=reset&lane=ws', 400], ['POST', '/live/figures', 403], ['HEAD', '/lab/stats', 200]];
  for (const [method, target, status] of table) assert.equal((await fetch(l.url + target, { method })).status, status, `${method} ${target}`);
  for (const [origin, status] of [[l.url, 200], ['http://elsewhere.example', 403], ['null', 403], [`https://127.0.0.1:${l.port}`, 403]]) {
    const r = await fetch(`${l.url}/lab/set?burst=1`, { method: 'POST', headers: { Origin: origin } });
    assert.equal(r.status, status, origin);
  }
  for (const { direct } of Object.values(l.lanes)) { // lanes may be read from the page, which is another origin; none may publish
    const r = await fetch(`http://127.0.0.1:${direct}/live/lab`, { headers: { Origin: l.url } });
    assert.equal(r.headers.get('access-control-allow-origin'), '*');
    assert.equal((await fetch(`http://127.0.0.1:${direct}/live/lab`, { method: 'POST', body: '{}' })).status, 403);
  }
});

// --- what is counted ---

test('lab_counts_what_clients_of_our_own_count', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 0, size: 300 });
  const short = await plain(l, l.lanes.short.port), long = await plain(l, l.lanes.long.port);
  const sse = await eventStream(l, l.lanes.sse.port);
  const ws = await socketTo(l, l.lanes.ws.port);
  const direct = async (name) => (await fetch(`http://127.0.0.1:${l.lanes[name].direct}/stats`, { headers: { Connection: 'close' } })).json();
  const sseBefore = sse.bytes, truth = await direct('sse');
  await l.do('reset');
  short.socket.write(POLL_HEAD);
  await eventually(() => short.text.includes('"messages":[]'), 'an empty poll');
  long.socket.write(head('/live/lab?since=latest&wait=20'));
  await eventually(async () => (await l.lane('long')).server.parked_polls === 1, 'the long poll is parked');
  const cursor = /"cursor":"([^"]+)"/.exec(short.text)[1];
  for (let i = 0; i < 3; i++) await l.do('publish');
  await eventually(() => sse.numbers().length === 3 && ws.data.length === 3 && long.text.includes('"n":1'), 'all have all');
  const again = head(`/live/lab?since=${cursor}`);
  short.socket.write(again);
  await eventually(() => short.text.includes('"n":3'), 'the short poll has all');
  const s = await l.stats();
  const { short: a, long: b, sse: c, ws: d } = s.lanes;
  assert.equal(s.published, 3);
  assert.deepEqual(sse.numbers(), [1, 2, 3]);
  for (const data of ws.data) assert.equal(data.length, 300);
  assert.deepEqual(ws.data.map((data) => JSON.parse(data).n), [1, 2, 3]);
  const longCount = [...long.text.matchAll(/"n":/g)].length;
  assert.deepEqual([a.delivered, b.delivered, c.delivered, d.delivered], [3, longCount, 3, 3]);
  for (const lane of [a, b, c, d]) assert.equal(lane.payload, lane.delivered * 300);
  assert.deepEqual([a.requests, a.empty, a.connections, c.connections, d.connections], [2, 1, 1, 1, 1]);
  assert.deepEqual([b.requests, b.empty, b.connections], [1, 0, 1]);
  assert.deepEqual([a.bytes_in, a.bytes_out], [POLL_HEAD.length + again.length, short.bytes], 'the short poll, to the byte');
  assert.equal(b.bytes_out, long.bytes);
  assert.equal(c.bytes_out, sse.bytes - sseBefore);
  assert.deepEqual([c.server.event_streams, d.server.websockets], [1, 1]);
  assert.equal(d.bytes_out, 3 * (300 + 4), 'a frame has four bytes before 300 of payload');
  for (const lane of [a, b, c, d]) assert.deepEqual([lane.proxy.up, lane.proxy.down], [lane.bytes_in, lane.bytes_out], 'what the proxy carried');
  const now = await direct('sse'); // /stats of the lane itself, past the proxy
  assert.equal(now.delivered - truth.delivered, c.delivered);
  assert.equal(now.published - truth.published, c.server.published);
  sse.socket.destroy();
  await eventually(async () => (await l.lane('sse')).connections === 0, 'it has left');
  await l.do('reset');
  const { published, lanes } = await l.stats();
  assert.deepEqual([published, lanes.ws.delivered, lanes.ws.payload, lanes.ws.bytes_out, lanes.short.requests], [0, 0, 0, 0, 0]);
  await l.do('publish');
  await eventually(() => ws.data.length === 4, 'one more');
  assert.equal(JSON.parse(ws.data[3]).n, 1, 'numbers begin anew');
});

test('lab_clients_receive_what_is_delivered_and_figures_say_so', async (t) => {
  const l = await lab(t);
  const figures = await fetchStream(`${l.url}/live/figures`);
  t.after(() => figures.close());
  await l.set({ rate: 0, size: 1000, interval: 300, wait: 5000, ...all(25) });
  await allOpen(l, 25);
  await l.do('reset');
  await l.set({ rate: 20, burst: 2 });
  await sleep(2000);
  await l.set({ rate: 0 });
  await sleep(700); // a short poll more
  const lanes = await settled(l), { published } = await l.stats();
  near(published, 80, 0.2, 'two at once, 20 times a second, for two seconds');
  for (const name of NAMES) {
    const { clients: c, server, ...lane } = lanes[name];
    assert.equal(lane.delivered, 25 * published, name);
    assert.deepEqual([c.received, c.lost, c.gap, c.doubled, c.gaps, c.reconnects], [25 * published, 0, 0, 0, 0, 0], name);
    assert.equal(c.latency.count, c.received);
    assert.equal(c.latency.buckets.reduce((sum, n) => sum + n, 0), c.received);
    assert.ok(c.latency.p50_us <= c.latency.p90_us && c.latency.p90_us <= c.latency.p99_us && c.latency.p99_us <= c.latency.max_us);
    assert.equal(lane.payload, lane.delivered * 1000);
    assert.ok(lane.bytes_out > lane.payload);
    assert.ok(server.cpu_us > 0 && server.memory > 25 * 300, name);
    assert.equal(server.requests, lane.requests);
    assert.equal(server.owed, server.delivered + server.skipped + server.abandoned + server.pending, 'the equation of the counters');
  }
  assert.ok(lanes.long.requests > lanes.ws.requests && lanes.short.requests > 0);
  assert.deepEqual([lanes.sse.requests, lanes.ws.requests], [0, 0]);
  await eventually(() => figures.messages.at(-1)?.published === published, 'the topic figures says the same');
  const told = figures.messages.at(-1);
  assert.deepEqual(told.lanes.ws.clients, lanes.ws.clients);
  assert.deepEqual(Object.keys(told).sort(), ['lanes', 'published', 'seconds', 'state', 'us']);
  const gaps = figures.messages.slice(1).map((m, i) => m.us - figures.messages[i].us);
  near(gaps.sort((x, y) => x - y)[gaps.length >> 1], 500000, 0.2, 'every 500 ms');
});

// --- faults ---

test('lab_latency_cut_resume_and_jitter_are_seen', async (t) => {
  const l = await lab(t);
  const n = 100;
  await l.set({ rate: 20, latency: 150, clients_sse: n, clients_ws: n });
  await allOpen(l, n, ['sse', 'ws']);
  await l.do('reset');
  await sleep(1000);
  for (const name of ['sse', 'ws']) {
    const { latency } = (await l.lane(name)).clients;
    assert.ok(latency.p50_us >= 150000 && latency.p50_us < 250000, `${name}: ${latency.p50_us}`);
  }
  await l.set({ latency: 0 });
  await sleep(400);

  await l.do('reset'); // a cut, and all is there
  await l.do('cut');
  await eventually(async () => (await l.lane('ws')).clients.reconnects === n && (await l.lane('sse')).clients.reconnects === n, 'all are back');
  await l.set({ rate: 0 });
  let lanes = await settled(l, []);
  await sleep(300);
  lanes = (await l.stats()).lanes;
  for (const name of ['sse', 'ws']) {
    const { published } = await l.stats(), c = lanes[name].clients;
    assert.deepEqual([c.lost, c.gap, c.gaps, c.doubled, c.open], [0, 0, 0, 0, n], name);
    assert.equal(c.latency.count, n * published, `${name}: each has each`);
    assert.ok(c.replayed > 0, name);
  }

  await l.set({ resume: 0, jitter: 0, rate: 20 }); // without a cursor, after one second exactly
  await l.do('reset');
  await l.do('cut');
  await eventually(async () => (await l.lane('ws')).clients.reconnects === n, 'all are back');
  await sleep(300);
  const ws = await l.lane('ws');
  assert.ok(ws.clients.lost >= n * 15 && ws.clients.lost <= n * 25, `a second of 20 a second is lost: ${ws.clients.lost}`);
  assert.deepEqual([ws.clients.gap, ws.clients.gaps], [0, 0]);
  assert.equal(ws.accepts.length, 100);
  const slots = ws.accepts.slice(-13).filter((k) => k > 0).length;
  assert.ok(slots <= 4, `a herd comes at once: ${ws.accepts.slice(-13)}`);
});

test('lab_throttle_and_middleboxes_are_seen', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 0, size: 2000 });
  const slow = await eventStream(l, l.lanes.sse.port);
  await l.set({ throttle: 10000, burst: 20 });
  const from = Date.now(), had = slow.bytes;
  await l.do('publish');
  await eventually(() => slow.bytes - had > 40000, 'it comes through');
  near((slow.bytes - had) / (Date.now() - from) * 1000, 10000, 0.25, 'bytes a second');
  slow.socket.destroy();

  await l.set({ throttle: 0, burst: 1, buffer: 1 }); // nothing of a stream passes before 16 KiB are there
  const held = await plain(l, l.lanes.sse.port, SSE_HEAD);
  await eventually(async () => (await l.lane('sse')).server.event_streams >= 1, 'the lane has the reader');
  for (let i = 0; i < 7; i++) await l.do('publish');
  await sleep(300);
  assert.equal(held.bytes, 0, 'it is held back');
  const poll = await plain(l, l.lanes.sse.port, POLL_HEAD); // other answers are not
  await eventually(() => poll.text.startsWith('HTTP/1.1 200'), 'a poll passes');
  for (let i = 0; i < 2; i++) await l.do('publish');
  await eventually(() => held.bytes >= 16384, '16 KiB go on together');
  await l.do('publish');
  await sleep(200);
  const before = held.bytes;
  await l.set({ buffer: 0 });
  await eventually(() => held.bytes > before, 'the rest comes when it is switched off');

  await l.set({ block: 1, clients_ws: 10 });
  const accepted = (await l.lane('ws')).server.accepted;
  const refused = await plain(l, l.lanes.ws.port, upgrade('/live/lab'));
  await eventually(() => refused.ended, 'the middlebox answers');
  assert.match(refused.text, /^HTTP\/1\.1 403 /);
  assert.equal(refused.text.split('\r\n\r\n')[1].length, Number(/Content-Length: (\d+)/.exec(refused.text)[1]));
  assert.equal((await l.lane('ws')).server.accepted, accepted, 'the lane never saw it');
  assert.match((await socketTo(l, l.lanes.ws.port)).error, /403/);
  await l.set({ fallback: 1 });
  await allOpen(l, 10, ['ws']);
  const ws = await l.lane('ws');
  assert.deepEqual([ws.server.websockets, ws.server.event_streams], [0, 10], 'they came by the next best way');
  await l.set({ block: 0, fallback: 0 });
  await eventually(async () => (await l.lane('ws')).server.websockets === 10, 'and now as before');
});

test('lab_nat_forgets_who_is_silent', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 0, heartbeat: 500, nat: 1, clients_ws: 5, clients_sse: 5 });
  await allOpen(l, 5, ['ws', 'sse']);
  await l.do('reset');
  await sleep(2000);
  let { ws, sse } = (await l.stats()).lanes;
  const faults = [ws.proxy.swallowed, sse.proxy.swallowed, ws.clients.reconnects, sse.clients.reconnects];
  assert.deepEqual(faults, [0, 0, 0, 0], 'heartbeats below it keep the way open');
  await l.set({ heartbeat: 2500 });
  await sleep(300);
  await allOpen(l, 5, ['ws', 'sse']);
  await l.do('reset');
  await sleep(1800); // the way is forgotten after 1 s, and nobody has said a word yet
  await l.do('publish'); // into the void
  await sleep(200);
  assert.equal((await l.lane('ws')).clients.received, 0);
  await eventually(async () => (await l.lane('ws')).server.closed_dead === 5, 'the server finds the dead by its pings', 10000);
  await eventually(async () => {
    ({ ws, sse } = (await l.stats()).lanes);
    return ws.proxy.swallowed > 5 * 128 && sse.proxy.swallowed > 5 * 128;
  }, 'what was published is swallowed in both');
  await eventually(async () => {
    const c = (await l.lane('ws')).clients;
    return c.reconnects >= 5 && c.received >= 5;
  }, 'clients find it too, and resume', 10000);
  const { lost, gaps, gap } = (await l.lane('ws')).clients;
  assert.deepEqual([lost, gaps, gap], [0, 0, 0]);
});

test('lab_slow_readers_are_closed_or_skip', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 100, size: 4096, history: 10, throttle: 20000, clients_ws: 4 });
  await eventually(async () => (await l.lane('ws')).server.closed_slow >= 4, 'who is too slow is closed');
  await l.set({ slow: 'skip', clients_ws: 0 });
  await l.do('reset');
  await l.set({ clients_ws: 4 });
  await eventually(async () => {
    const { server, clients } = await l.lane('ws');
    return server.gaps >= 8 && clients.gap > 100;
  }, 'or passes over what it cannot take, and is told');
  const ws = await l.lane('ws');
  assert.equal(ws.server.closed_slow, 0);
  assert.deepEqual([ws.clients.lost, ws.clients.doubled], [0, 0], 'no number is missing without a gap');
});

// --- what happens to a server ---

test('lab_restart_keeps_the_log_and_forget_does_not', async (t) => {
  const l = await lab(t);
  const n = 20;
  await l.set({ rate: 20, interval: 200, wait: 5000, ...all(n) });
  await allOpen(l, n);
  const before = await (await fetch(`http://127.0.0.1:${l.lanes.ws.direct}/live/lab?since=latest`)).json();
  await l.do('reset');
  await l.do('restart');
  await eventually(async () => Object.values((await l.stats()).lanes).every((lane) => lane.connections === 0), 'the lanes are gone');
  const refused = await plain(l, l.lanes.short.port, POLL_HEAD);
  await eventually(() => refused.closed, 'the proxy closes, where there is no server');
  assert.equal(refused.bytes, 0);
  await sleep(1000);
  await allOpen(l, n);
  const lanes = await allHaveAll(l, n);
  for (const name of NAMES) {
    assert.ok(lanes[name].server.accepted >= n && lanes[name].server.accepted < 4 * n, `${name}: its counters go on over its hubs`);
  }
  const after = await (await fetch(`http://127.0.0.1:${l.lanes.ws.direct}/live/lab?since=latest`)).json();
  assert.equal(after.cursor.slice(0, 8), before.cursor.slice(0, 8), 'one epoch');
  assert.ok(Number(after.cursor.slice(9)) > Number(before.cursor.slice(9)));

  await l.set({ rate: 20 });
  await l.do('reset');
  await sleep(300);
  await l.do('forget');
  await sleep(1300);
  await allOpen(l, n);
  await l.set({ rate: 0 });
  await sleep(600);
  const epochs = new Set();
  for (const name of NAMES) {
    const c = (await l.lane(name)).clients;
    assert.deepEqual([c.lost, c.doubled], [0, 0], name);
    assert.ok(c.gaps >= n && c.gap > 0, `${name}: ${JSON.stringify(c)}`);
    epochs.add((await (await fetch(`http://127.0.0.1:${l.lanes[name].direct}/live/lab?since=latest`)).json()).cursor);
  }
  assert.equal(epochs.size, 1, 'one log, one order, the same ids in every lane');
  assert.notEqual([...epochs][0].slice(0, 8), before.cursor.slice(0, 8));
});

test('lab_drain_sends_away_and_loses_nothing', async (t) => {
  const l = await lab(t);
  const n = 20;
  await l.set({ rate: 20, interval: 200, wait: 5000, ...all(n) });
  await allOpen(l, n);
  const ws = await socketTo(l, l.lanes.ws.port);
  await l.do('reset');
  await sleep(200); // those slots are from before
  const from = Date.now();
  await l.do('drain');
  await eventually(async () => fetch(`http://127.0.0.1:${l.lanes.ws.direct}/healthz`).then(() => false, () => true), 'the listener is closed');
  const held = await plain(l, l.lanes.ws.port, POLL_HEAD);
  await eventually(() => ws.code, 'the socket is closed');
  assert.equal(ws.code, 1012);
  assert.match(ws.reason, /^retry=\d+$/);
  await eventually(() => held.text.startsWith('HTTP/1.1 200'), 'who came meanwhile was held, and has his answer');
  await eventually(async () => (await l.stats()).lanes.ws.clients.reconnects >= n, 'all are back');
  held.socket.destroy();
  await sleep(1500);
  await allOpen(l, n);
  const lanes = await allHaveAll(l, n);
  const came = lanes.ws.accepts.slice(-Math.floor((Date.now() - from) / 100));
  assert.ok(Math.max(...came) <= n / 3 && came.filter((k) => k > 0).length >= n / 3, `they come one after another: ${came}`);
});

// --- the trace ---

test('lab_trace_shows_the_bytes_of_watched_connections', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 0, size: 5000 });
  const trace = await fetchStream(`${l.url}/live/trace`);
  t.after(() => trace.close());
  await sleep(200);
  const events = () => trace.messages.flatMap((m) => m.events);
  const request = head('/live/lab?since=latest&watch=1');
  await plain(l, l.lanes.long.port, POLL_HEAD); // not watched
  const c = await plain(l, l.lanes.short.port, request);
  await eventually(() => c.text.includes('messages'), 'an answer');
  const ws = await socketTo(l, l.lanes.ws.port, '?watch=1');
  await l.do('publish');
  await eventually(() => ws.data.length === 1, 'a message');
  c.socket.destroy();
  await l.do('cut', 'ws');
  await eventually(() => events().some((e) => e.dir === 'cut') && events().some((e) => e.dir === 'close'), 'both ends are told');
  const of = (lane) => events().filter((e) => e.lane === lane);
  assert.deepEqual(of('short').map((e) => e.dir), ['open', 'up', 'down', 'close']);
  const bytes = (e) => Buffer.from(e.data, 'base64').toString('latin1');
  assert.equal(bytes(of('short')[1]), request);
  assert.equal(bytes(of('short')[2]), c.text);
  assert.equal(of('short')[2].size, c.bytes);
  const down = of('ws').filter((e) => e.dir === 'down');
  assert.match(bytes(down[0]), /^HTTP\/1\.1 101 /);
  assert.equal(down.slice(1).reduce((sum, e) => sum + e.size, 0), 5004);
  assert.equal(Buffer.from(down[1].data, 'base64').length, Math.min(down[1].size, 2048), 'the first 2048 bytes');
  assert.deepEqual(of('long'), []);
  assert.ok(events().every((e, i, list) => !i || e.us >= list[i - 1].us), 'in order');
});

// --- hostile ---

test('lab_stands_what_is_thrown_at_it', async (t) => {
  const l = await lab(t);
  await l.set({ rate: 20, ...all(5), interval: 300 });
  await allOpen(l, 5);
  const ports = [l.port, ...NAMES.map((name) => l.lanes[name].port)];
  const rubbish = ['\r\n\r\n\r\n', '\0'.repeat(5000), 'GET', `GET /${'a'.repeat(20000)} HTTP/1.1\r\n\r\n`, `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(5000)}\r\n`,
    'POST /lab/set?rate=5 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n', head('/lab/set?watch=1').slice(0, -3),
    upgrade('/live/lab?watch=1') + '\xff\xff\xff\xff'.repeat(1000),
    `POST /lab/do?${'what=publish&'.repeat(300)} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n`, head(`/live/${'%2f'.repeat(500)}`), head('/lab/stats').repeat(50)];
  for (const port of ports) {
    for (const bytes of rubbish) {
      const c = await plain(l, port);
      c.socket.write(Buffer.from(bytes, 'latin1'));
      if (bytes.length % 2) c.socket.end();
    }
  }
  const crowd = []; // many that say nothing, that say half a head, that go at once, that read nothing
  for (let i = 0; i < 300; i++) crowd.push(await plain(l, ports[i % 5], ['', 'GET /live/lab HT', SSE_HEAD, POLL_HEAD.repeat(20)][i % 4]));
  for (const [i, c] of crowd.entries()) {
    if (i % 3 === 0) c.socket.resetAndDestroy();
    else if (i % 3 === 1) c.socket.end();
    else c.socket.pause();
  }
  await l.set({ nat: 1, latency: 20, throttle: 3000, buffer: 1 });
  await l.set({ rate: 1000, burst: 1000, size: 16384 }); // more than can be: the rest goes on all the same
  await sleep(1000);
  assert.ok((await l.stats()).published > 0);
  await l.do('cut');
  await l.set({ nat: 0, latency: 0, throttle: 0, buffer: 0, rate: 20, burst: 1, size: 64, interval: 200 });
  for (const what of ['restart', 'drain', 'forget', 'cut', 'publish', 'reset', 'restart', 'forget', 'drain']) await l.do(what);
  await sleep(500);
  for (const name of NAMES) for (const what of ['drain', 'restart']) await l.do(what, name);
  for (const c of crowd) c.socket.destroy();
  for (const socket of l.sockets) socket.destroy();
  await sleep(2500);
  await allOpen(l, 5);
  await l.do('reset');
  await sleep(1000);
  const { published, lanes } = await l.stats();
  for (const name of NAMES) assert.ok(lanes[name].clients.received >= 5 * (published - 12), `${name} works: ${lanes[name].clients.received} of ${published}`);
});

});
