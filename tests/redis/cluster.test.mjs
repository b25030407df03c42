// Several nodes on one log: what is published on any of them is read on each, in one order, with the same cursors.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { Redis, Reader, Proxy, Publisher, node, nodes, tryNode, logName, judgeWhole, epochOf, wire, sleep, eventually, range, get, poll, pub, sse, seqOf, datas } from './lib.mjs';

const { Ws, Envelope, parked, request } = wire;
const redis = await Redis.start({ after });

const history = async (d, topic, query = '') => (await poll(d, `/live/${topic}${query}`)).messages;
const until = (d, topic, wanted) => eventually(async () => JSON.stringify(datas(await history(d, topic))) === JSON.stringify(wanted), `${topic} is ${wanted}`);

describe('one log', { concurrency: 4 }, () => {
  test('redis_a_publish_on_one_node_is_read_on_another_by_all_four_transports__same_id', async (t) => {
    const [a, b] = await nodes(t, redis, 2);
    const s = await sse(b, '/live/x'), e = await Envelope.open(b, '/live/x'), w = await Ws.open(b, '/live/x');
    const lp = poll(b, '/live/x?wait=20');
    await parked(b, 1);
    const { id } = await pub(a, 'x', 'hello');
    const block = await s.next();
    assert.deepEqual([block.id, block.data], [id, 'hello']);
    assert.deepEqual(await e.expect('message'), { type: 'message', id, topic: 'x', data: 'hello' });
    await w.expectText('hello');
    assert.deepEqual((await lp).messages, [{ id, topic: 'x', data: 'hello' }]);
    assert.deepEqual(await history(b, 'x'), [{ id, topic: 'x', data: 'hello' }]);
    assert.deepEqual(await history(a, 'x'), [{ id, topic: 'x', data: 'hello' }]);
    for (const x of [s, e, w]) x.close();
  });

  test('redis_a_publish_by_envelope_and_by_raw_frame_is_in_the_same_log', async (t) => {
    const [a, b] = await nodes(t, redis, 2);
    const r = await Reader.open(b, 'x');
    const e = await Envelope.open(a), w = await Ws.open(a, '/live/x');
    const ack = await e.acked({ type: 'publish', topic: 'x', data: { n: 1 }, event: 'ev' });
    await r.until('{"n":1}');
    w.text('raw');
    await r.until('raw');
    assert.deepEqual(r.messages.map((m) => [m.data, m.event]), [['{"n":1}', 'ev'], ['raw', undefined]]);
    assert.equal(r.messages[0].id, ack.id);
    for (const x of [r, e, w]) x.close();
  });

  test('redis_one_order_everywhere__three_nodes_publish_at_once', async (t) => {
    const all = await nodes(t, redis, 3), topics = range(0, 4).map((n) => `t/${n}`);
    const rs = await Promise.all(all.map((d) => Reader.open(d, 't/*')));
    const answers = await Promise.all(all.map((d, n) => wire.publishAll(d, range(1, 200).map((i) => [topics[i % 5], `${n}:${i}`]))));
    const acked = answers.flatMap((list, n) => list.map((m, i) => ({ id: m.id, data: `${n}:${i + 1}` })));
    for (const r of rs) await eventually(() => r.messages.length >= 600, `600 messages, not ${r.messages.length}`);
    judgeWhole(rs, acked);
    assert.deepEqual(rs[1].log, rs[0].log);
    assert.deepEqual(rs[2].log, rs[0].log);
    // Each publisher's own are in the order it sent them.
    for (const n of [0, 1, 2]) assert.deepEqual(rs[0].messages.map((m) => m.data).filter((x) => x.startsWith(`${n}:`)), range(1, 200).map((i) => `${n}:${i}`));
    for (const r of rs) r.close();
  });

  test('redis_a_reader_who_moves_from_node_to_node_with_his_cursor_misses_nothing', async (t) => {
    const all = await nodes(t, redis, 3), got = [];
    let { cursor } = await poll(all[0], '/live/x');
    const p = new Publisher(all, 'x', { every: 4 });
    for (let i = 0; i < 40; i++) {
      const body = await poll(all[i % 3], `/live/x?wait=5&since=${cursor}`);
      assert.equal(body.gap, undefined);
      got.push(...body.messages);
      ({ cursor } = body);
    }
    const s = await sse(all[1], '/live/x', { 'Last-Event-ID': cursor });
    await p.stop();
    while (got.length < p.acked.length) { const b = await s.next(); got.push({ id: b.id, data: b.data }); }
    assert.deepEqual([p.refused, p.failed], [[], []]);
    assert.deepEqual(got.map((m) => m.id), p.acked.map((m) => m.id).sort((x, y) => seqOf(x) - seqOf(y)));
    s.close();
  });

  test('redis_a_cursor_slightly_ahead_of_a_node_waits_until_the_node_is_there', async (t) => {
    const log = logName(), between = await Proxy.start(t, redis);
    const a = await node(t, redis, { log, name: 'a' }), b = await node(t, between, { log, name: 'b' });
    await pub(a, 'x', 'one');
    await until(b, 'x', ['one']);
    between.stall();
    const { id } = await pub(a, 'x', 'two');
    const answers = [poll(b, `/live/x?since=${id}`), poll(b, `/live/x?since=${id}&wait=1`), Reader.open(b, 'x', `?since=${id}`)];
    let early = 0;
    answers[0].then(() => { early++; });
    await sleep(700);
    assert.equal(early, 0, 'it was to wait');
    between.pass();
    const [sp, lp, r] = await Promise.all(answers);
    assert.deepEqual([sp.messages, sp.gap, lp.messages, lp.gap], [[], undefined, [], undefined]);
    await pub(a, 'x', 'three');
    await r.until('three');
    assert.deepEqual(r.log.map((x) => x.data), ['three']);
    r.close();
  });

  test('redis_a_cursor_far_ahead_is_of_another_epoch__after_at_most_5_s', async (t) => {
    const [a] = await nodes(t, redis, 1), { id } = await pub(a, 'x', 'one'), began = Date.now();
    const body = await poll(a, `/live/x?since=${epochOf(id)}-${seqOf(id) + 1000}`);
    assert.equal(body.gap.reason, 'epoch');
    assert.deepEqual(datas(body.messages), ['one']);
    assert.ok(Date.now() - began < 6500);
  });
});

describe('starts', { concurrency: 4 }, () => {
  test('redis_a_node_that_starts_later_has_the_history__same_ids_and_epoch', async (t) => {
    const log = logName(), a = await node(t, redis, { log, name: 'a' });
    for (const n of range(1, 150)) a.last = await pub(a, n % 2 ? 'x' : 'y', `m${n}`);
    const b = await node(t, redis, { log, name: 'b' });
    for (const topic of ['x', 'y']) assert.deepEqual(await history(b, topic), await history(a, topic));
    assert.equal((await history(b, 'x')).length, 75);
    const { cursor } = await poll(b, '/live/z');
    assert.ok(epochOf(cursor) === epochOf(a.last.id) && seqOf(cursor) >= seqOf(a.last.id), cursor);
    const [third] = (await history(a, 'x')).slice(2);
    const body = await poll(b, `/live/x?since=${third.id}`);
    assert.deepEqual([body.gap, body.messages.length], [undefined, 72]);
  });

  test('redis_all_nodes_restart__the_history_and_the_epoch_are_there', async (t) => {
    const log = logName(), [a, b] = await Promise.all(['a', 'b'].map((name) => node(t, redis, { log, name })));
    const { id } = await pub(a, 'x', 'one');
    await pub(b, 'x', 'two');
    await until(a, 'x', ['one', 'two']);
    const had = await history(a, 'x');
    await Promise.all([a.stop(), b.stop()]);
    const c = await node(t, redis, { log, name: 'a' });
    assert.deepEqual(await history(c, 'x'), had);
    const body = await poll(c, `/live/x?since=${id}`);
    assert.deepEqual([body.gap, datas(body.messages)], [undefined, ['two']]);
    const three = await pub(c, 'x', 'three');
    assert.equal(epochOf(three.id), epochOf(id));
    assert.ok(seqOf(three.id) > seqOf(had[1].id));
  });

  test('redis_a_topic_keeps_no_more_than_its_history__on_a_new_node_too__and_the_gap_is_exact', async (t) => {
    const log = logName(), args = ['--set', 'history=5'], a = await node(t, redis, { log, name: 'a', args });
    const ids = (await wire.publishAll(a, range(1, 12).map((n) => ['x', `m${n}`]))).map((m) => m.id);
    const b = await node(t, redis, { log, name: 'b', args });
    for (const d of [a, b]) {
      assert.deepEqual(datas(await history(d, 'x')), range(8, 12).map((n) => `m${n}`));
      assert.equal((await poll(d, `/live/x?since=${ids[6]}`)).gap, undefined);
      const { gap } = await poll(d, `/live/x?since=${ids[5]}`);
      assert.deepEqual(gap, { from: ids[5], to: ids[6], reason: 'evicted' });
    }
  });

  test('redis_logs_of_different_names_do_not_meet', async (t) => {
    const [a] = await nodes(t, redis, 1), [b] = await nodes(t, redis, 1);
    await pub(a, 'x', 'mine');
    await pub(b, 'x', 'theirs');
    assert.deepEqual([datas(await history(a, 'x')), datas(await history(b, 'x'))], [['mine'], ['theirs']]);
    assert.notEqual((await poll(a, '/live/x')).cursor.slice(0, 8), (await poll(b, '/live/x')).cursor.slice(0, 8));
  });

  test('redis_nodes_that_nobody_named_are_two', async (t) => {
    const log = logName(), a = await node(t, redis, { log }), b = await node(t, redis, { log });
    await pub(a, 'x', 'm');
    await until(b, 'x', ['m']);
  });

  test('redis_two_live_nodes_of_one_name__the_second_is_refused', async (t) => {
    const log = logName(), a = await node(t, redis, { log, name: 'twin' }), b = tryNode(t, redis, { log, name: 'twin' });
    await eventually(() => b.over || b.listening.length, 'the second comes to a decision');
    assert.deepEqual([b.over?.code, b.listening], [1, []], b.stderr);
    assert.match(b.stderr, /twin/);
    await pub(a, 'x', 'the first one lives');
    const other = await node(t, redis, { log: logName(), name: 'twin' }); // the same name in another log is another node
    await pub(other, 'x', 'm');
  });
});

describe('what a message is', { concurrency: 4 }, () => {
  test('redis_each_kind_and_size_is_the_same_on_both_nodes', async (t) => {
    const [a, b] = await nodes(t, redis, 2);
    const e = await Envelope.open(b, '/live/k/**');
    const all = Buffer.from(range(0, 255));
    const mib = `${'é1234567'.repeat(116508)}xxxx`;
    assert.equal(Buffer.byteLength(mib), 1048576);
    const cases = [
      ['empty', '', {}], ['text', 'grüße\r\n\0 \u{1f600}', {}], ['binary', all, { 'Content-Type': 'application/octet-stream' }],
      ['json', '{"a":[1,2.5,null,true,"\\u00e9"],"b":{}}', { 'Content-Type': 'application/json' }], ['text?event=ev-%C3%A9', 'with an event', {}],
      ['big', mib, {}], ['bigbinary', Buffer.alloc(1048576, all), { 'Content-Type': 'application/octet-stream' }],
    ];
    for (const [target, body, headers] of cases) {
      const { id } = await pub(a, `k/${target}`, body, headers);
      const there = await e.expect('message');
      assert.equal(there.id, id);
      const raw = async (d) => (await get(d, `/live/${there.topic}?since=-1`)).text;
      await eventually(async () => (await raw(a)) === (await raw(b)), `${target} is spelled the same`);
      const [m] = JSON.parse(await raw(b)).messages;
      assert.deepEqual([m.id, m.event], [id, target.includes('event') ? 'ev-é' : undefined]);
      if (headers['Content-Type'] === 'application/json') assert.deepEqual(m.data, JSON.parse(body));
      else if (m.encoding) assert.ok(Buffer.from(m.data, 'base64').equals(Buffer.from(body)), target);
      else assert.ok(m.data === String(body), target);
      assert.equal(m.encoding, Buffer.isBuffer(body) ? 'base64' : undefined);
    }
    e.close();
  });

  test('redis_ephemeral__to_who_is_there_on_each_node__never_stored', async (t) => {
    const log = logName(), [a, b] = await nodes(t, redis, 2, { log });
    const ra = await Reader.open(a, 'x'), rb = await Reader.open(b, 'x');
    const lp = poll(b, '/live/x?wait=20');
    await parked(b, 1);
    const { id: first } = await pub(a, 'x?ephemeral=1', 'typing');
    assert.deepEqual((await lp).messages, [{ id: first, topic: 'x', data: 'typing' }]);
    await pub(b, 'x', 'stored');
    for (const r of [ra, rb]) { await r.until('stored'); assert.deepEqual(r.messages.map((m) => m.data), ['typing', 'stored']); }
    const c = await node(t, redis, { log, name: 'late' });
    for (const d of [a, b, c]) {
      const body = await poll(d, `/live/x?since=${epochOf(first)}-${seqOf(first) - 1}`);
      assert.deepEqual([datas(body.messages), body.gap], [['stored'], undefined]);
    }
    ra.close(); rb.close();
  });

  test('redis_delete_on_one_node_clears_on_the_others_and_on_those_to_come', async (t) => {
    const log = logName(), [a, b] = await nodes(t, redis, 2, { log });
    const ids = [];
    for (const x of ['one', 'two', 'three']) ids.push((await pub(a, 'x', x)).id);
    await pub(a, 'y', 'stays');
    await until(b, 'x', ['one', 'two', 'three']);
    assert.equal((await request(a, 'DELETE', '/live/x')).status, 204);
    await until(b, 'x', []);
    await pub(b, 'x', 'after');
    await until(a, 'x', ['after']);
    const c = await node(t, redis, { log, name: 'late' });
    for (const d of [a, b, c]) {
      assert.deepEqual([datas(await history(d, 'x')), datas(await history(d, 'y'))], [['after'], ['stays']]);
      const body = await poll(d, `/live/x?since=${ids[0]}`);
      assert.deepEqual([body.gap?.reason, datas(body.messages)], ['evicted', ['after']]);
    }
  });

  test('redis_an_idempotency_key_is_one_on_all_nodes__one_after_the_other', async (t) => {
    const log = logName(), [a, b] = await nodes(t, redis, 2, { log }), key = { 'Idempotency-Key': 'k1' };
    const first = await pub(a, 'x', 'once', key), second = await pub(b, 'x', 'twice', key);
    assert.equal(second.id, first.id);
    assert.notEqual((await pub(b, 'y', 'another topic', key)).id, first.id);
    await a.stop(); // nor does the one who took it forget it
    const c = await node(t, redis, { log, name: 'late' });
    assert.equal((await pub(c, 'x', 'thrice', key)).id, first.id);
    for (const d of [b, c]) assert.deepEqual(datas(await history(d, 'x')), ['once']);
  });

  test('redis_an_idempotency_key_is_one_on_all_nodes__at_once', async (t) => {
    const all = await nodes(t, redis, 3);
    for (const round of range(1, 5)) {
      const answers = await Promise.all(range(0, 11).map((n) => pub(all[n % 3], 'x', `${round}:${n}`, { 'Idempotency-Key': `r${round}` })));
      assert.equal(new Set(answers.map((m) => m.id)).size, 1, `round ${round}`);
    }
    for (const d of all) await eventually(async () => (await history(d, 'x')).length === 5, 'five messages');
    assert.deepEqual(await history(all[1], 'x'), await history(all[0], 'x'));
  });
});
