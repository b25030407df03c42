// PROTOCOL §2: where to start, and gaps.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, request, poll, pub, publishAll, pipeline, assertError, sse, Sse, Ws, Envelope, datas, seqOf, epochOf, stats, eventually, range, parked } from './lib.mjs';

const d = await daemon({ after });
const epoch = await epochOf(d);
const numbered = (topic, n) => publishAll(d, range(1, n).map((i) => [topic, `${i}`]));
const OTHER = 'zzzzzzzz-5';

// What each transport gets of `topic` when it starts as the query and headers say; it must be `want`, then nothing more.
const transports = {
  'short poll': async (query, headers, topic) => datas((await poll(d, `/live/${topic}?${query}`, headers)).messages),
  'long poll': async (query, headers, topic) => datas((await poll(d, `/live/${topic}?wait=5&${query}`, headers)).messages),
  SSE: async (query, headers, topic, n) => {
    const s = await sse(d, `/live/${topic}?${query}`, headers);
    const got = datas(await s.take(n));
    await pub(d, topic, 'end');
    assert.equal((await s.next()).data, 'end');
    s.close();
    return got;
  },
  'raw WebSocket': async (query, headers, topic, n) => {
    const w = await Ws.open(d, `/live/${topic}?${query}`, headers);
    const got = [];
    for (let i = 0; i < n; i++) got.push((await w.next()).text);
    await pub(d, topic, 'end');
    await w.expectText('end');
    w.close();
    return got;
  },
  envelope: async (query, headers, topic, n) => {
    const e = await Envelope.open(d, `/live/${topic}?${query}`, headers);
    const got = [];
    for (let i = 0; i < n; i++) got.push((await e.expect('message')).data);
    await pub(d, topic, 'end');
    assert.equal((await e.expect('message')).data, 'end');
    e.close();
    return got;
  },
};

describe('the cursor to start from', () => {
  let serial = 0;
  for (const [name, read] of Object.entries(transports)) {
    const start = async (query, headers, want) => {
      const topic = `start/${serial++}`;
      const ids = (await numbered(topic, 5)).map((m) => m.id);
      const fill = (text) => text.replace(/\$(\d)/g, (_, i) => ids[i - 1]).replace(/#(\d)/g, (_, i) => seqOf(ids[i - 1]));
      const filled = Object.entries(headers).map(([n, v]) => [n, fill(v)]);
      const got = await read(fill(query), filled, topic, want.length);
      assert.deepEqual(got, want.map(String), `${name}: ${query} ${JSON.stringify(headers)}`);
    };
    const last = (n) => range(6 - n, 5);

    test(`${name}: last_event_id_header_before_query_before_since`, async () => {
      await start('last_event_id=$2&since=$1', { 'Last-Event-ID': '$4' }, last(1));
      await start('last_event_id=$3&since=$1', {}, last(2));
      await start('since=$1&last_event_id=$3', {}, last(2));
      await start('since=$2', {}, last(3));
    });
    test(`${name}: an_empty_value_counts_as_none`, async () => {
      await start('last_event_id=$3&since=$1', { 'Last-Event-ID': '' }, last(2));
      await start('last_event_id=&since=$1', {}, last(4));
      await start('last_event_id=&since=$2', { 'Last-Event-ID': '' }, last(3));
    });
    test(`${name}: values__cursor__bare_seq__earliest__minus_n`, async () => {
      await start('since=$4', {}, last(1));
      await start('since=#3', {}, last(2));
      await start('since=earliest', {}, last(5));
      await start('since=-2', {}, last(2));
      await start('since=-1', {}, last(1));
      await start('last_event_id=-3', {}, last(3));
      await start('last_event_id=earliest', {}, last(5));
      await start('', { 'Last-Event-ID': '#2' }, last(3));
      await start('', { 'Last-Event-ID': '-2' }, last(2));
      await start('since=latest', { 'Last-Event-ID': 'earliest' }, last(5));
    });
  }

  test('if_none_match_is_the_last_source__for_polls', async () => {
    const ids = (await numbered('inm', 5)).map((m) => m.id);
    const tag = { 'If-None-Match': `"${ids[2]}"` };
    assert.deepEqual(datas((await poll(d, '/live/inm', tag)).messages), ['4', '5']);
    assert.deepEqual(datas((await poll(d, '/live/inm?wait=5', tag)).messages), ['4', '5']);
    assert.deepEqual(datas((await poll(d, '/live/inm', { 'If-None-Match': `W/"${ids[2]}"` })).messages), ['4', '5'], 'weak comparison (RFC 9110 §13.1.2)');
    assert.deepEqual(datas((await poll(d, `/live/inm?since=${ids[3]}`, tag)).messages), ['5']);
    assert.deepEqual(datas((await poll(d, `/live/inm?last_event_id=${ids[3]}`, tag)).messages), ['5']);
    assert.deepEqual(datas((await poll(d, '/live/inm', { ...tag, 'Last-Event-ID': ids[0] })).messages), ['2', '3', '4', '5']);
    assert.deepEqual(datas((await poll(d, '/live/inm?since=', tag)).messages), ['4', '5']);
  });

  test('minus_n_is_the_last_n_of_each_topic', async () => {
    await publishAll(d, [['each/a', 'a1'], ['each/a', 'a2'], ['each/a', 'a3'], ['each/b', 'b1'], ['each/b', 'b2'], ['each/a', 'a4']]);
    const both = '/live?topic=each/a&topic=each/b';
    assert.deepEqual(datas((await poll(d, `${both}&since=-1`)).messages), ['b2', 'a4']);
    assert.deepEqual(datas((await poll(d, `${both}&since=-2`)).messages), ['a3', 'b1', 'b2', 'a4']);
    assert.deepEqual(datas((await poll(d, `${both}&since=-9`)).messages), ['a1', 'a2', 'a3', 'b1', 'b2', 'a4']);
    const s = await sse(d, `${both}&since=-1`);
    assert.deepEqual(datas(await s.take(2)), ['b2', 'a4']);
    s.close();
    assert.deepEqual(datas((await poll(d, '/live/each/*?since=-1')).messages), ['b2', 'a4'], 'of each topic that a wildcard matches');
    assert.deepEqual(datas((await poll(d, '/live/each/*?wait=5&since=-2')).messages), ['a3', 'b1', 'b2', 'a4']);
    const w = await Ws.open(d, '/live/each/**?since=-1');
    await w.expectText('b2');
    await w.expectText('a4');
    w.close();
  });

  test('latest_is_the_head', async () => {
    await numbered('late', 3);
    assert.deepEqual((await poll(d, '/live/late?since=latest')).messages, []);
    const s = await sse(d, '/live/late?since=latest');
    const w = await Ws.open(d, '/live/late?since=latest');
    await pub(d, 'late', 'new');
    assert.equal((await s.next()).data, 'new');
    await w.expectText('new');
    s.close(); w.close();
  });

  test('without_any__websocket_sse_and_long_poll_start_at_latest', async () => {
    await numbered('none', 3);
    const s = await sse(d, '/live/none');
    const w = await Ws.open(d, '/live/none');
    const e = await Envelope.open(d, '/live/none');
    const held = poll(d, '/live/none?wait=5');
    await parked(d, 1);
    const { id } = await pub(d, 'none', 'new');
    assert.equal((await s.next()).data, 'new');
    await w.expectText('new');
    assert.equal((await e.expect('message')).data, 'new');
    assert.deepEqual(await held, { cursor: id, messages: [{ id, topic: 'none', data: 'new' }] });
    s.close(); w.close(); e.close();
  });

  test('without_any__a_short_poll_starts_at_earliest', async () => {
    await numbered('short', 3);
    assert.deepEqual(datas((await poll(d, '/live/short')).messages), ['1', '2', '3']);
    assert.deepEqual(datas((await poll(d, '/live/short?wait=0')).messages), ['1', '2', '3']);
  });
});

describe('a value that is none of these', () => {
  const bad = ['abc', 'k3f9x2ab', 'k3f9x2ab-', '-', '--1', '-x', '1.5', '0x5', '1e3', '%201', '1%20', 'K3F9X2AB-1', 'k3f9x2a-1', 'k3f9x2abc-1',
    'k3f9x2ab-1x', 'k3f9x2ab--1', 'k3f9x2ab-%2B1', '%2B1', 'Latest', 'latest%20', 'earliest1', '%00', 'null', 'undefined', 'k3f9x2_b-1'];

  for (const value of bad) {
    test(`in_the_query_it_is_400_with_a_json_body: ${value}`, async () => {
      for (const key of ['since', 'last_event_id']) {
        assertError(await get(d, `/live/bad?${key}=${value}`), 400);
        assertError(await get(d, `/live/bad?wait=1&${key}=${value}`), 400);
      }
      assertError((await Sse.open(d, `/live/bad?since=${value}`)).refused, 400);
      await assert.rejects(Ws.open(d, `/live/bad?since=${value}`), /refused: 400/);
    });
  }

  test('in_a_header_it_is_a_cursor_of_another_epoch__from_is_empty__it_is_never_echoed', async () => {
    await numbered('hdr', 2);
    const gap = { from: '', to: `${epoch}-0`, reason: 'epoch' };
    for (const value of ['abc', 'k3f9x2ab', '{"from":1}', 'K3F9X2AB-1', '1.5', 'null', '12345678901234567890-99999999999999999999', 'x'.repeat(2000)]) {
      const headers = { 'Last-Event-ID': value };
      const short = await poll(d, '/live/hdr', headers);
      assert.deepEqual(short.gap, gap, value);
      assert.deepEqual(datas(short.messages), ['1', '2'], 'then all that is still held');
      const long = await poll(d, '/live/hdr?wait=5', headers);
      assert.deepEqual([long.gap, datas(long.messages)], [gap, ['1', '2']]);
      const s = await sse(d, '/live/hdr', headers);
      const block = await s.next();
      assert.deepEqual([block.event, JSON.parse(block.data)], ['gap', gap]);
      assert.deepEqual(datas(await s.take(2)), ['1', '2']);
      s.close();
      const w = await Ws.open(d, '/live/hdr', headers);
      assert.equal(w.r.headers['rtpush-gap'], `- ${epoch}-0 epoch`);
      await w.expectText('1');
      w.close();
      const e = await Envelope.open(d, '/live/hdr', headers);
      assert.deepEqual(await e.expect('gap'), { type: 'gap', ...gap });
      assert.equal((await e.expect('message')).data, '1');
      e.close();
    }
    const tag = await poll(d, '/live/hdr', { 'If-None-Match': '"33a64df551425fcc55e4d42a148795d9f25f89d4"' });
    assert.deepEqual([tag.gap, datas(tag.messages)], [gap, ['1', '2']], 'If-None-Match is a header too');
  });

  test('a_cursor_of_another_epoch_is_a_gap_of_that_reason', async () => {
    await numbered('epoch', 2);
    for (const target of [`/live/epoch?since=${OTHER}`, `/live/epoch?last_event_id=${OTHER}`]) {
      const { gap, messages } = await poll(d, target);
      assert.deepEqual([gap, datas(messages)], [{ from: OTHER, to: `${epoch}-0`, reason: 'epoch' }, ['1', '2']]);
    }
    assert.deepEqual((await poll(d, '/live/epoch', { 'Last-Event-ID': OTHER })).gap, { from: OTHER, to: `${epoch}-0`, reason: 'epoch' });
  });

  test('a_cursor_ahead_of_the_head_was_never_issued__it_is_of_another_epoch', async () => {
    const [, two] = await numbered('ahead', 2);
    const ahead = `${epoch}-${seqOf(two.id) + 1000}`;
    const { gap, messages } = await poll(d, `/live/ahead?since=${ahead}`);
    assert.deepEqual([gap, datas(messages)], [{ from: ahead, to: `${epoch}-0`, reason: 'epoch' }, ['1', '2']]);
    const s = await sse(d, '/live/ahead', { 'Last-Event-ID': ahead });
    assert.deepEqual(JSON.parse((await s.next()).data), gap);
    s.close();
    assert.equal((await poll(d, `/live/ahead?since=${seqOf(two.id) + 1000}`)).gap.reason, 'epoch', 'a bare seq ahead too');
    assert.equal((await poll(d, `/live/ahead?since=${epoch}-${seqOf(two.id) + 1}`)).gap.reason, 'epoch', 'ahead by one');
    const big = await poll(d, '/live/ahead', { 'Last-Event-ID': `${epoch}-18446744073709551615` });
    assert.equal(big.gap.reason, 'epoch');
    assert.equal((await poll(d, `/live/ahead?since=${two.id}`)).gap, undefined, 'the head itself is not ahead');
  });
});

describe('gap', () => {
  // history=3. seq 1: u, 2..6: t (2 and 3 are lost), 7: u
  const setup = async (t) => {
    const own = await daemon(t, '--set', 'history=3');
    const ids = (await publishAll(own, [['u', 'u1'], ...range(1, 5).map((i) => ['t', `t${i}`]), ['u', 'u2']])).map((m) => m.id);
    const e = ids[0].slice(0, 8);
    assert.deepEqual(ids.map(seqOf), range(1, 7));
    return { own, at: (n) => `${e}-${n}` };
  };

  test('gap_is_told_when_messages_after_the_cursor_are_no_longer_held__exactly', async (t) => {
    const { own, at } = await setup(t);
    for (const n of [0, 1, 2]) {
      const body = await poll(own, `/live/t?since=${at(n)}`);
      assert.deepEqual(body.gap, { from: at(n), to: at(3), reason: 'evicted' }, `cursor ${n}`);
      assert.deepEqual(datas(body.messages), ['t3', 't4', 't5'], 'then all that is still held');
    }
    for (const n of [3, 4, 5, 6, 7]) assert.ok(!('gap' in await poll(own, `/live/t?since=${at(n)}`)), `no gap at cursor ${n}`);
    assert.ok(!('gap' in await poll(own, '/live/t')), 'earliest asks for what is held');
    assert.ok(!('gap' in await poll(own, '/live/t?since=-3')));
    assert.ok(!('gap' in await poll(own, '/live/t?since=latest')));
  });

  test('gap_is_exact_per_topic', async (t) => {
    const { own, at } = await setup(t);
    const u = await poll(own, `/live/u?since=${at(0)}`);
    assert.ok(!('gap' in u), 'u lost nothing');
    assert.deepEqual(datas(u.messages), ['u1', 'u2']);
    assert.ok(!('gap' in await poll(own, `/live/never?since=${at(0)}`)), 'a topic that never was');
    const both = await poll(own, `/live/u?topic=t&since=${at(0)}`);
    assert.deepEqual(both.gap, { from: at(0), to: at(3), reason: 'evicted' });
    assert.deepEqual(datas(both.messages), ['u1', 't3', 't4', 't5', 'u2']);
    const all = await poll(own, `/live/*?since=${at(0)}`);
    assert.deepEqual([all.gap, datas(all.messages)], [both.gap, ['u1', 't3', 't4', 't5', 'u2']], 'a wildcard: of all that it matches');
    assert.ok(!('gap' in await poll(own, `/live/none/*?since=${at(0)}`)));
  });

  test('gap_to_is_the_highest_seq_lost__reason_epoch_too', async (t) => {
    const { own, at } = await setup(t);
    assert.deepEqual((await poll(own, `/live/t?since=${OTHER}`)).gap, { from: OTHER, to: at(3), reason: 'epoch' });
    assert.deepEqual((await poll(own, `/live/u?since=${OTHER}`)).gap, { from: OTHER, to: at(0), reason: 'epoch' });
  });

  test('gap_by_sse_is_an_event_before_the_first_message__its_id_is_to_when_nothing_held_is_older', async (t) => {
    const { own, at } = await setup(t);
    const s = await Sse.open(own, `/live/t?since=${at(1)}`);
    const first = await s.hello();
    assert.equal(first.id, undefined, 'the id is left to the gap event');
    const gap = await s.block();
    assert.deepEqual([gap.event, gap.id, gap.data], ['gap', at(3), `{"from":"${at(1)}","to":"${at(3)}","reason":"evicted"}`]);
    assert.deepEqual((await s.take(3)).map((m) => [m.id, m.data]), [[at(4), 't3'], [at(5), 't4'], [at(6), 't5']]);
    s.close();
  });

  test('gap_by_sse__its_id_is_just_before_the_oldest_that_is_sent_when_something_held_is_older_than_to', async (t) => {
    const { own, at } = await setup(t);
    for (const target of [`/live/u?topic=t&since=${at(0)}`, `/live/*?since=${at(0)}`, `/live/*?since=${OTHER}`]) {
      const s = await sse(own, target);
      assert.equal(s.first.id, undefined);
      const gap = await s.block();
      assert.deepEqual([gap.event, gap.id, JSON.parse(gap.data).to], ['gap', at(0), at(3)], target);
      assert.deepEqual((await s.take(5)).map((m) => m.id), [1, 4, 5, 6, 7].map(at));
      s.close();
    }
    const s = await sse(own, `/live/t?since=${OTHER}`);
    assert.equal((await s.block()).id, at(3));
    s.close();
    // From cursor 1 on u's first is passed: the oldest that is sent is 4, and nothing held that matches is older than to.
    const passed = await sse(own, `/live/*?since=${at(1)}`);
    assert.equal((await passed.block()).id, at(3));
    assert.deepEqual((await passed.take(4)).map((m) => m.id), [4, 5, 6, 7].map(at));
    passed.close();
  });

  test('gap_by_sse_with_an_older_message_that_is_not_the_first__id_is_the_position_before_it', async (t) => {
    const own = await daemon(t, '--set', 'history=2');
    const ids = (await publishAll(own, [['x', ''], ['x', ''], ['u', 'u'], ['t', '1'], ['t', '2'], ['t', '3']])).map((m) => m.id);
    const s = await sse(own, `/live/u?topic=t&since=${ids[0]}`); // lost: t's 4; oldest sent: u's 3
    const gap = await s.block();
    assert.deepEqual([gap.event, gap.id, JSON.parse(gap.data)], ['gap', ids[1], { from: ids[0], to: ids[3], reason: 'evicted' }]);
    assert.deepEqual((await s.take(3)).map((m) => m.id), [ids[2], ids[4], ids[5]]);
    s.close();
    // Resuming from the gap's id brings the same gap again and loses nothing.
    const again = await poll(own, `/live/u?topic=t&since=${gap.id}`);
    assert.deepEqual([again.gap.to, again.messages.length], [ids[3], 3]);
  });

  test('gap_by_envelope_stands_between_hello_and_the_first_message__hello_is_where_it_started', async (t) => {
    const { own, at } = await setup(t);
    const e = await Envelope.open(own, `/live/t?since=${at(1)}`);
    assert.equal(e.hello.cursor, at(1));
    assert.deepEqual(await e.recv(), { type: 'gap', from: at(1), to: at(3), reason: 'evicted' });
    assert.equal((await e.expect('message')).id, at(4));
    e.close();
  });

  test('gap_by_envelope_of_a_subscribe_has_the_topic', async (t) => {
    const { own, at } = await setup(t);
    const e = await Envelope.open(own, '/live');
    const ack = await e.acked({ type: 'subscribe', topic: 't', since: at(2) });
    assert.deepEqual(ack.before[0], { type: 'gap', topic: 't', from: at(2), to: at(3), reason: 'evicted' });
    assert.deepEqual(datas(ack.before.slice(1)), ['t3', 't4', 't5']);
    const other = await e.acked({ type: 'subscribe', topic: 'u', since: OTHER });
    assert.deepEqual(other.before[0], { type: 'gap', topic: 'u', from: OTHER, to: at(0), reason: 'epoch' });
    e.close();
  });

  test('gap_by_raw_websocket_is_a_header_of_the_101', async (t) => {
    const { own, at } = await setup(t);
    const w = await Ws.open(own, `/live/t?since=${at(2)}`);
    assert.equal(w.r.headers['rtpush-gap'], `${at(2)} ${at(3)} evicted`);
    for (const text of ['t3', 't4', 't5']) await w.expectText(text);
    w.close();
    const none = await Ws.open(own, `/live/t?since=${at(3)}`);
    assert.equal(none.r.headers['rtpush-gap'], undefined);
    none.close();
    const other = await Ws.open(own, `/live/u?since=${OTHER}`);
    assert.equal(other.r.headers['rtpush-gap'], `${OTHER} ${at(0)} epoch`);
    other.close();
  });

  test('gap_by_long_poll_is_in_the_body', async (t) => {
    const { own, at } = await setup(t);
    const body = await poll(own, `/live/t?wait=5&since=${at(0)}`);
    assert.deepEqual([body.gap, datas(body.messages)], [{ from: at(0), to: at(3), reason: 'evicted' }, ['t3', 't4', 't5']]);
    assert.equal(body.cursor, at(7));
  });

  test('gap_after_delete__readers_behind_it_see_one', async (t) => {
    const { own, at } = await setup(t);
    assert.equal((await request(own, 'DELETE', '/live/t')).status, 204);
    assert.deepEqual(await poll(own, `/live/t?since=${at(4)}`), { cursor: at(7), gap: { from: at(4), to: at(6), reason: 'evicted' }, messages: [] });
    assert.ok(!('gap' in await poll(own, `/live/t?since=${at(6)}`)));
    assert.ok(!('gap' in await poll(own, `/live/u?since=${at(0)}`)));
  });

  test('gap_is_still_exact_for_a_topic_that_has_disappeared', async (t) => {
    const own = await daemon(t, '--set', 'history_ms=100');
    const ids = (await publishAll(own, [['gone', '1'], ['gone', '2'], ['kept', 'k']])).map((m) => m.id);
    await eventually(async () => { const s = await stats(own); return s.messages_held === 0 && s.topics === 0; }, 'all topics gone');
    assert.deepEqual((await poll(own, `/live/gone?since=${ids[0]}`)).gap, { from: ids[0], to: ids[1], reason: 'evicted' });
    assert.ok(!('gap' in await poll(own, `/live/gone?since=${ids[1]}`)));
    assert.ok(!('gap' in await poll(own, `/live/never?since=${ids[0]}`)));
    await pub(own, 'gone', '3'); // reborn
    const reborn = await poll(own, `/live/gone?since=${ids[0]}`);
    assert.deepEqual([reborn.gap.to, datas(reborn.messages)], [ids[1], ['3']]);
    assert.deepEqual((await poll(own, `/live/*?since=${ids[0]}`)).gap.to, ids[2], 'a wildcard knows the dead that it matches');
  });

  test('gap_below_the_floor_is_always_announced', async (t) => {
    // Each name that dies takes a place in the table of the dead (16,384): one that falls out raises the floor.
    const own = await daemon(t, '--set', 'history_ms=100');
    const n = 16500;
    const answers = await pipeline(own, range(1, n).map((i) => ['POST', `/live/d${i}`, {}, '']));
    const ids = answers.map((r) => r.json.id);
    await eventually(async () => (await stats(own)).topics === 0, 'all topics gone', 20000);
    const first = await poll(own, `/live/fresh?since=${ids[0]}`);
    assert.equal(first.gap.reason, 'evicted');
    const floor = seqOf(first.gap.to);
    assert.ok(floor >= n - 16384 && floor < n, `floor ${floor}`);
    assert.ok(!('gap' in await poll(own, `/live/fresh?since=${first.gap.to}`)), 'at the floor it is exact');
    assert.ok('gap' in await poll(own, `/live/fresh?since=${ids[floor - 2]}`), 'just below it is announced');
    assert.deepEqual((await poll(own, `/live/d${n}?since=${ids[n - 2]}`)).gap, { from: ids[n - 2], to: ids[n - 1], reason: 'evicted' });
  });

  test('retention_by_count_bytes_age_and_total', async (t) => {
    const count = await daemon(t, '--set', 'history=2');
    await publishAll(count, range(1, 4).map((i) => ['t', `${i}`]));
    assert.deepEqual(datas((await poll(count, '/live/t')).messages), ['3', '4']);

    const bytes = await daemon(t, '--set', 'history_bytes=20000');
    await publishAll(bytes, range(1, 9).map((i) => ['t', `${i}`.repeat(4000)]));
    const held = datas((await poll(bytes, '/live/t')).messages).map((s) => s[0]);
    assert.ok(held.length >= 2 && held.length <= 5, `${held.length} of 4,000 bytes in 20,000`);
    assert.equal(held.join(''), range(1, 9).join('').slice(-held.length), 'the newest are held');

    const total = await daemon(t, '--set', 'history_total_bytes=100000');
    await publishAll(total, range(1, 60).map((i) => [`t${i}`, 'x'.repeat(4000)]));
    const left = (await poll(total, '/live/*')).messages;
    assert.ok(left.length >= 5 && left.length <= 25, `${left.length} of 4,000 bytes in 100,000`);
    assert.equal(left.at(-1).topic, 't60', 'oldest first');

    const age = await daemon(t, '--set', 'history_ms=150');
    await pub(age, 't', 'x');
    assert.equal((await poll(age, '/live/t')).messages.length, 1);
    await eventually(async () => (await poll(age, '/live/t')).messages.length === 0, 'too old');

    const none = await daemon(t, '--set', 'history=-1');
    const live = await sse(none, '/live/t');
    await pub(none, 't', 'x');
    assert.equal((await live.next()).data, 'x', 'live readers get it all the same');
    assert.deepEqual((await poll(none, '/live/t')).messages, []);
    live.close();
  });
});
