// What breaks, and what the client does about it.
'use strict';
const { test } = require('node:test');
const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const zlib = require('node:zlib');
const http = require('node:http');
const { spawn } = require('node:child_process');
const { rtpush, WebSocket, Locks, lib, setup, client, publish, sleep, eventually } = require('./lib.js');

const numbers = (n) => Array.from({ length: n }, (_, i) => `${i}`);
const file = path.resolve(__dirname, '../../tools/rtpush.js');

test('size_at_most_10_KiB_gzipped', () => {
  const size = zlib.gzipSync(fs.readFileSync(file), { level: 9 }).length;
  assert.ok(size <= 10240, `${size} bytes`);
});

test('file_is_a_plain_script_an_es_module_and_commonjs', async () => {
  const vm = require('node:vm'), text = fs.readFileSync(file, 'utf8');
  const page = vm.createContext({ URL });
  vm.runInContext(text, page);
  assert.equal(typeof page.rtpush, 'function');
  assert.equal(typeof rtpush, 'function');
  assert.equal((await import(file)).default, rtpush);
  assert.equal(rtpush.rtpush, rtpush);
});

test('websocket_refused_then_sse_then_long_poll_then_short_poll__by_one_cursor', async (t) => {
  const { d, proxy } = await setup(t);
  const live = client(t, proxy.url);
  const got = [];
  await live.subscribe('n', (m) => got.push(m.data)).ready;
  const seen = [live.transport];
  for (const [i, kind] of ['websocket', 'sse', 'longpoll'].entries()) {
    proxy.refused.add(kind);
    await publish(d.port, 'n', `${2 * i}`);
    proxy.cut();
    await publish(d.port, 'n', `${2 * i + 1}`);
    await eventually(() => live.state === 'open' && live.transport !== seen[i], `another than ${kind}`).catch((e) => { throw new Error(`${e} ${live.log.states.slice(0, 30)} ${proxy.seen.slice(0, 40)}`); });
    seen.push(live.transport);
  }
  await publish(d.port, 'n', '6');
  await eventually(() => got.length >= 7, '7');
  assert.deepEqual(seen, ['websocket', 'sse', 'longpoll', 'shortpoll']);
  assert.deepEqual(got, numbers(7));
  assert.deepEqual(live.log.gaps, []);
});

test('what_failed_is_remembered_and_tried_again_beside_what_works', async (t) => {
  const { d, proxy } = await setup(t);
  proxy.refused.add('websocket');
  const live = client(t, proxy.url, { remember: 1500 });
  const got = [];
  await live.subscribe('n', (m) => got.push(m.data)).ready;
  assert.equal(live.transport, 'sse');
  proxy.refused.delete('websocket');
  const before = proxy.seen.filter((k) => k === 'websocket').length, states = live.log.states.length;
  proxy.cut();
  await eventually(() => live.log.states.length > states, 'noticed'); // it may be open again before we look
  await eventually(() => live.state === 'open', 'open again');
  assert.equal(live.transport, 'sse', 'it is passed over');
  assert.equal(proxy.seen.filter((k) => k === 'websocket').length, before);
  let n = 0;
  await eventually(async () => { await publish(d.port, 'n', `${n++}`); await sleep(10); return live.transport === 'websocket'; }, 'WebSocket again');
  await publish(d.port, 'n', `${n++}`);
  await eventually(() => got.length >= n, 'all');
  assert.deepEqual(got, numbers(n));
  assert.ok(!live.log.states.slice(-1).includes('waiting'));
});

test('sse_that_a_proxy_buffers_is_passed_over', async (t) => {
  const { d, proxy } = await setup(t);
  proxy.silent = new Set(['sse']);
  const live = client(t, proxy.url, { transports: ['sse', 'longpoll'], firstByte: 300 });
  const got = [];
  await live.subscribe('n', (m) => got.push(m.data)).ready;
  assert.equal(live.transport, 'longpoll');
  await publish(d.port, 'n', 'x');
  await eventually(() => got.length, 'x');
});

test('a_server_that_is_away_teaches_nothing', async (t) => {
  const { proxy, d } = await setup(t);
  proxy.target = 1;
  const live = client(t, proxy.url);
  const off = live.subscribe('n', () => {});
  await sleep(800);
  assert.ok(live.log.states.includes('waiting'));
  proxy.target = d.port;
  await off.ready;
  assert.equal(live.log.gaps.length, 0);
});

for (const [transport, beat] of [['websocket', 'heartbeat_ms'], ['sse', 'sse_heartbeat_ms']]) {
  test(`watchdog_a_stalled_${transport}_is_replaced_after_two_heartbeats`, async (t) => {
    const { d, proxy } = await setup(t, '--set', `${beat}=300`);
    const live = client(t, proxy.url, { firstByte: 500, transports: [transport] });
    const got = [];
    await live.subscribe('n', (m) => got.push(m.data)).ready;
    await sleep(900);
    assert.equal(live.log.states.filter((s) => s === `open ${transport}`).length, 1, 'heartbeats keep it');
    proxy.isStalled = true;
    const begin = Date.now();
    await publish(d.port, 'n', 'x');
    setTimeout(() => { proxy.isStalled = false; }, 900);
    await eventually(() => got.length, 'x');
    assert.ok(Date.now() - begin < 5000);
    assert.deepEqual(got, ['x']);
  });
}

test('a_better_transport_is_tried_beside_the_current_one__which_goes_on_if_that_fails', async (t) => {
  const { d, proxy } = await setup(t);
  proxy.refused.add('websocket');
  const live = client(t, proxy.url, { remember: 300 });
  const got = [];
  await live.subscribe('n', (m) => got.push(m.data)).ready;
  live.log.states.length = 0;
  const tries = () => proxy.seen.filter((k) => k === 'websocket').length, before = tries();
  let n = 0;
  const publishing = async (end) => { while (!end()) { await publish(d.port, 'n', `${n++}`); await sleep(5); } };
  await publishing(() => tries() >= before + 2);
  assert.deepEqual(live.log.states, [], 'nothing seen of the failures');
  proxy.refused.clear();
  await publishing(() => live.transport === 'websocket');
  await publish(d.port, 'n', `${n++}`);
  await eventually(() => got.at(-1) === `${n - 1}`, 'the last');
  assert.deepEqual(got, numbers(n));
  assert.deepEqual(live.log.states, ['open websocket']);
  assert.equal(proxy.seen.filter((k) => k === 'sse').length, 1);
});

test('a_subscription_while_a_better_transport_is_tried_is_not_lost', async (t) => {
  const { d, proxy } = await setup(t);
  proxy.refused.add('websocket');
  const live = client(t, proxy.url, { remember: 100, transports: ['websocket', 'longpoll'], firstByte: 60000 });
  const got = [];
  await live.subscribe('a', (m) => got.push(m.data)).ready;
  proxy.refused.clear();
  proxy.silent = new Set(['websocket']);
  const tries = () => proxy.seen.filter((k) => k === 'websocket').length, before = tries();
  await eventually(() => tries() > before, 'the rival');
  await live.subscribe('b', (m) => got.push(m.data)).ready;
  proxy.silent.clear();
  for (let n = 0; live.transport !== 'websocket' || got.length < n; n++) { await publish(d.port, 'b', `${n}`); await eventually(() => got.length > n, `${n}`); }
  assert.deepEqual(got, numbers(got.length));
});

test('publish_by_all_kinds_of_data__and_refusals', async (t) => {
  const { proxy } = await setup(t);
  for (const transports of [['websocket'], ['longpoll']]) {
    const live = client(t, proxy.url, { transports });
    const got = [];
    await live.subscribe('n', (m) => got.push(m)).ready;
    const datas = ['text', { a: 1 }, 5, new Uint8Array([1, 2, 255]), '', [null]];
    const ids = await Promise.all(datas.map((data) => live.publish('n', data, { event: 'e' })));
    await eventually(() => got.length >= 6, '6');
    assert.deepEqual(got, datas.map((data, i) => ({ id: ids[i], topic: 'n', data, event: 'e' })));
    await assert.rejects(live.publish('@user/x', 'no'));
    await assert.rejects(live.publish('a*b', 'no'));
    live.close();
    await assert.rejects(live.publish('n', 'x'), /closed/);
  }
});

test('publish_whose_answer_is_lost_arrives_once_with_the_first_id', async (t) => {
  const { d, proxy } = await setup(t);
  for (const transports of [['websocket'], ['shortpoll']]) {
    const live = client(t, proxy.url, { transports });
    const reader = client(t, `http://127.0.0.1:${d.port}/live`);
    const got = [];
    await reader.subscribe('p', (m) => got.push(m)).ready;
    if (transports[0] === 'websocket') await live.subscribe('other', () => {}).ready;
    proxy.eaten = transports[0] === 'websocket' ? 'websocket' : 'post';
    proxy.eatAnswers = 1;
    const ids = await Promise.all(['a', 'b', 'c'].map((data) => live.publish('p', data)));
    await sleep(300);
    assert.deepEqual(got.map((m) => m.data), ['a', 'b', 'c']);
    assert.deepEqual(got.map((m) => m.id), ids);
    live.close();
    reader.close();
  }
});

test('publish_before_the_server_is_there_waits_for_it', async (t) => {
  const { proxy, d } = await setup(t);
  proxy.target = 1;
  const live = client(t, proxy.url);
  const sent = live.publish('p', 'early');
  await sleep(300);
  proxy.target = d.port;
  assert.match(await sent, /-1$/);
});

for (const transport of ['websocket', 'sse', 'longpoll']) {
  test(`drain_${transport}_obeys_the_delay_and_comes_back_to_the_new_daemon`, async (t) => {
    const { daemon } = await lib;
    const { d, proxy } = await setup(t);
    const live = client(t, proxy.url, { transports: [transport] });
    const got = [], waits = [];
    live.on('state', (state, { delay }) => { if (state === 'waiting') waits.push([Date.now(), delay]); if (state === 'connecting') waits.push([Date.now()]); });
    await live.subscribe('n', (m) => got.push(m.data)).ready;
    waits.length = 0;
    d.process.kill('SIGTERM');
    await eventually(() => waits.length, 'told');
    const e = await daemon(t);
    proxy.target = e.port;
    await eventually(() => waits.length > 1, 'tries again');
    const [[told, delay], [tried]] = waits;
    assert.ok(delay >= 0 && delay <= 4000, `${delay}`);
    assert.ok(tried - told >= delay - 5 && tried - told < delay + 500, `${tried - told} after ${delay}`);
    await eventually(() => live.state === 'open', 'open');
    await publish(e.port, 'n', 'new');
    await eventually(() => got.length, 'new');
    assert.equal(live.log.gaps.length, 1); // another epoch
  });
}

test('retry_after_is_obeyed', async (t) => {
  const times = [];
  const server = http.createServer((req, res) => {
    times.push(Date.now());
    if (times.length === 1) res.writeHead(503, { 'Retry-After': '1' }).end('{"error":"unavailable","reason":"full"}\n');
    else res.end('{"cursor":"aaaaaaaa-0","messages":[]}\n');
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => { server.closeAllConnections(); server.close(); });
  const live = client(t, `http://127.0.0.1:${server.address().port}/live`, { transports: ['longpoll', 'shortpoll'] });
  await live.subscribe('n', () => {}).ready;
  assert.equal(live.transport, 'longpoll');
  assert.ok(times[1] - times[0] >= 990, `${times[1] - times[0]}`);
});

test('a_forbidden_topic_is_told_and_the_others_live', async (t) => {
  const { d, proxy } = await setup(t);
  for (const transport of ['websocket', 'sse', 'longpoll', 'shortpoll']) {
    const live = client(t, proxy.url, { transports: [transport] });
    const got = [];
    live.subscribe('@user/ann', () => {});
    await live.subscribe('n', (m) => got.push(m.data)).ready;
    await eventually(() => live.log.errors.length, 'the error');
    assert.deepEqual(live.log.errors.map((e) => e.topic), ['@user/ann']);
    await publish(d.port, 'n', 'x');
    await eventually(() => got.length, 'x');
    live.close();
  }
});

test('close_leaves_no_timer__the_process_ends_by_itself', async (t) => {
  const { d } = await setup(t);
  for (const transport of ['websocket', 'sse', 'longpoll', 'shortpoll']) {
    const code = `const { rtpush, WebSocket } = require(${JSON.stringify(path.join(__dirname, 'lib.js'))});
      const live = rtpush('http://127.0.0.1:${d.port}/live', { WebSocket, transports: ['${transport}'] });
      live.subscribe('n', () => {}).ready.then(() => live.publish('n', 'x')).then(() => { live.close(); const end = Date.now(); process.on('exit', () => console.log(Date.now() - end)); });`;
    const child = spawn(process.execPath, ['-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
    let out = '';
    child.stdout.on('data', (x) => { out += x; });
    const late = setTimeout(() => child.kill('SIGKILL'), 30000);
    const [exit] = await require('node:events').once(child, 'close');
    clearTimeout(late);
    assert.equal(exit, 0, transport);
    assert.ok(out && +out < 6000, `${transport}: ${out} ms`); // fetch's idle connections are Node's
  }
});

// --- login, by a server that says what the daemon would with a login ---

async function loginServer(t) {
  const server = http.createServer((req, res) => res.writeHead(404).end());
  const sockets = new WebSocket.Server({ server });
  const told = [];
  sockets.on('connection', (ws) => ws.on('message', (text) => {
    const m = JSON.parse(text);
    told.push(m);
    const say = (o) => ws.send(JSON.stringify(o));
    if (m.type === 'auth' && m.token === 'old') ws.close(4001, 'expired');
    else if (m.type === 'auth' && !ws.isIn) { ws.isIn = true; say({ type: 'hello', cursor: 'aaaaaaaa-0', heartbeat: 20000 }); }
    if (m.type === 'subscribe') say({ type: 'ack', ref: m.ref, cursor: 'aaaaaaaa-0' });
  }));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => { for (const ws of sockets.clients) ws.terminate(); server.close(); });
  return { url: `http://127.0.0.1:${server.address().port}/live`, told };
}

test('token_is_the_first_message__asked_again_before_expiry_and_after_4001', async (t) => {
  const server = await loginServer(t);
  const tokens = ['old', { token: 'first', expires: Date.now() + 1000 }, 'second'];
  const live = client(t, server.url, { token: async () => tokens.shift(), transports: ['websocket'] });
  await live.subscribe('n', () => {}).ready;
  await eventually(() => server.told.filter((m) => m.type === 'auth').length === 3, 'a renewal', 3000);
  assert.deepEqual(server.told.filter((m) => m.type === 'auth').map((m) => m.token), ['old', 'first', 'second']);
});

test('token_that_is_refused_again_and_again_ends_it', async (t) => {
  const server = await loginServer(t);
  const live = client(t, server.url, { token: () => 'old', transports: ['websocket'] });
  live.subscribe('n', () => {});
  await eventually(() => live.state === 'closed', 'the end');
  assert.equal(live.log.errors.at(-1).isFatal, true);
});

test('token_goes_by_authorization_where_headers_can', async (t) => {
  const { proxy } = await setup(t);
  for (const transport of ['sse', 'longpoll', 'shortpoll']) {
    const live = client(t, proxy.url, { token: 'secret', transports: [transport] });
    await live.subscribe('n', () => {}).ready;
    await live.publish('n', 'x');
    live.close();
  }
  assert.ok(proxy.heads.every((head) => /^authorization: Bearer secret\r$/im.test(head) && !/token=/.test(head)));
});

// --- tabs ---

test('tabs_share_one_connection__the_leaders_death_costs_no_message', async (t) => {
  const { d, proxy } = await setup(t, '--set', 'history=5000');
  const locks = new Locks();
  const tabs = [0, 1, 2, 3].map(() => client(t, proxy.url, { share: true, locks }));
  const got = tabs.map(() => []);
  await Promise.all(tabs.map((tab, i) => tab.subscribe('n', (m) => got[i].push(m.data)).ready));
  assert.equal(proxy.seen.filter((k) => k === 'websocket').length, 1);
  let late = [];
  const publishing = (async () => { for (const n of numbers(300)) { await publish(d.port, 'n', n); await sleep(3); } })();
  await sleep(250);
  await tabs[2].subscribe('n', (m) => late.push(m.data), { since: 'earliest' }).ready;
  await eventually(() => got[3].length > 50, 'some');
  const leader = tabs.find((tab) => tab.share.isLeader);
  leader.close();
  await sleep(150);
  tabs.find((tab) => tab.share.isLeader && tab !== leader).sleep(); // as frozen
  await publishing;
  for (const tab of tabs) if (tab.isPaused) tab.wake();
  const rest = tabs.map((tab, i) => i).filter((i) => tabs[i] !== leader);
  await eventually(() => rest.every((i) => got[i].length >= 300), 'all').catch(() => {});
  for (const i of rest) assert.deepEqual(got[i], numbers(300));
  if (tabs[2] !== leader) assert.deepEqual(late, numbers(300));
  assert.deepEqual(tabs.flatMap((tab) => tab.log.gaps), []);
});

test('tabs_a_leader_that_was_behind_tells_gaps_only_to_those_who_missed_something', async (t) => {
  const { d, proxy } = await setup(t, '--set', 'history=10');
  const locks = new Locks();
  const [one, two] = [0, 1].map(() => client(t, proxy.url, { share: true, locks }));
  const got = [[], []];
  await one.subscribe('n', (m) => got[0].push(m.data)).ready;
  await two.subscribe('n', (m) => got[1].push(m.data)).ready;
  await eventually(() => one.share.isLeader, 'leads');
  one.sleep(); // the other leads, and this one falls behind by more than the history
  await eventually(() => two.share.isLeader && two.state === 'open', 'leads');
  for (const n of numbers(30)) await publish(d.port, 'n', n);
  await eventually(() => got[1].length >= 30, '30');
  proxy.target = 1;
  proxy.cut();
  one.wake();
  await sleep(50);
  two.sleep();
  await eventually(() => one.share.isLeader, 'leads again');
  two.wake();
  await sleep(50);
  proxy.target = d.port;
  await publish(d.port, 'n', 'last');
  await eventually(() => got[0].includes('last') && got[1].includes('last'), 'last');
  assert.equal(one.log.gaps.length, 1);
  assert.deepEqual(two.log.gaps, []);
  assert.deepEqual(got[1], [...numbers(30), 'last']);
});

test('tabs_a_topic_that_only_a_follower_has', async (t) => {
  const { d, proxy } = await setup(t);
  for (const n of numbers(3)) await publish(d.port, 'b', n);
  for (const transports of [['websocket'], ['sse'], ['longpoll'], ['shortpoll']]) {
    const locks = new Locks();
    const [one, two] = [0, 1].map(() => client(t, proxy.url, { share: transports[0], locks, transports }));
    const got = [];
    await one.subscribe('a', () => {}).ready;
    await two.subscribe('b', (m) => got.push(m.data), { since: '-2' }).ready;
    await two.subscribe('c', (m) => got.push(m.data)).ready;
    two.subscribe('@other', () => {});
    assert.equal(two.transport, transports[0]);
    assert.ok(!two.share.isLeader);
    await publish(d.port, 'b', 'b');
    await publish(d.port, 'c', 'c');
    await eventually(() => got.length >= 4, `4; ${got}`);
    assert.deepEqual(got.slice(-2), ['b', 'c']);
    assert.equal(got.length, 4);
    await eventually(() => two.log.errors.some((e) => e.topic === '@other'), 'refused');
    one.close();
    await eventually(() => two.share.isLeader && two.state === 'open', 'takes over');
    await publish(d.port, 'b', 'again');
    await eventually(() => got.length >= 5, 'again');
    two.close();
  }
});

// Subscriptions come and go while connections are cut and transports refused: each one's messages have no hole.
test('tabs_subscriptions_that_come_and_go_through_faults', async (t) => {
  const seed = Number(process.env.SEED || Date.now() % 1e6), { next, below, pick } = (await lib).random(seed);
  t.diagnostic(`SEED=${seed}`);
  const { d, proxy } = await setup(t, '--set', 'history=100000', '--set', 'heartbeat_ms=500', '--set', 'sse_heartbeat_ms=500');
  const locks = new Locks(), sent = [0, 0, 0], topics = ['t/0', 't/1', 't/2'], all = [];
  const tabs = [0, 1, 2].map(() => client(t, proxy.url, { remember: 300, firstByte: 1000, share: true, locks }));
  const subscribe = (tab, pattern, since) => {
    const one = { pattern, since, got: topics.map(() => []) };
    one.off = tab.subscribe(pattern, (m) => one.got[topics.indexOf(m.topic)].push(+m.data), { since });
    all.push(one);
    return one;
  };
  for (const tab of tabs) subscribe(tab, 't/0');
  let isOver = false;
  const publishing = topics.map(async (topic, k) => { while (!isOver) { await publish(d.port, topic, `${sent[k]++}`); await sleep(5 + below(15)); } });
  const breaking = (async () => {
    for (; !isOver; await sleep(50 + below(300))) {
      const what = next(), kind = pick(['websocket', 'sse', 'longpoll']);
      if (what > 0.8) proxy.refused.clear(); else proxy.cut();
      if (what > 0.5 && what < 0.8) proxy.refused.add(kind);
    }
  })();
  for (let i = 0; i < 20; i++) {
    await sleep(250);
    subscribe(pick(tabs), pick(['t/1', 't/2', 't/*']), pick(['earliest', '-5', 'latest', undefined]));
    if (i % 5 === 4) { const one = all[all.length - 3]; one.off(); one.isOff = true; }
  }
  isOver = true;
  await Promise.all([...publishing, breaking]);
  proxy.refused.clear();
  const has = (one, k) => one.pattern === topics[k] || one.pattern === 't/*';
  await eventually(() => all.every((one) => one.isOff || topics.every((_, k) => !has(one, k) || one.got[k].includes(sent[k] - 1))), 'the last ones', 60000);
  for (const { got, pattern, since } of all) {
    for (const list of got.filter((l) => l.length)) {
      assert.deepEqual(list, list.map((_, i) => list[0] + i), `${pattern} since ${since}`);
      if (since === 'earliest') assert.equal(list[0], 0);
    }
  }
  assert.deepEqual(tabs.flatMap((tab) => tab.log.gaps), []);
});
