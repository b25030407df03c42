// PROTOCOL §3: the envelope, rtpush.v1.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, post, poll, pub, publishAll, Envelope, Ws, OP, datas, seqOf, epochOf, range, readers, eventually } from './lib.mjs';

const d = await daemon({ after });
const epoch = await epochOf(d);
const headOf = async (own) => (await poll(own, '/live/no/such')).cursor;

describe('hello', () => {
  test('envelope_hello_is_first__with_the_cursor_and_the_heartbeat', async () => {
    const e = await Envelope.open(d, '/live/h');
    assert.deepEqual(e.hello, { type: 'hello', cursor: await headOf(d), heartbeat: 20000 });
    e.close();
  });

  test('envelope_hello_cursor_is_where_it_starts', async () => {
    const [a] = await publishAll(d, [['h', '1'], ['h', '2'], ['h', '3']]);
    const e = await Envelope.open(d, `/live/h?since=${a.id}`);
    assert.equal(e.hello.cursor, a.id);
    assert.deepEqual([(await e.expect('message')).data, (await e.expect('message')).data], ['2', '3']);
    e.close();
    const bare = await Envelope.open(d, '/live');
    assert.equal(bare.hello.cursor, await headOf(d));
    bare.close();
  });
});

describe('message', () => {
  test('envelope_message_is_as_in_polls', async () => {
    const e = await Envelope.open(d, '/live/m');
    const sent = [
      await pub(d, 'm', 'text "☃"\n\u0000'), await pub(d, 'm?event=tick', '{"a":[1,null]}', { 'Content-Type': 'application/json' }),
      await pub(d, 'm', Buffer.from([0, 255]), { 'Content-Type': 'image/png' }), await pub(d, 'm', ''), await pub(d, 'm', '"string"', { 'Content-Type': 'application/json' }),
    ];
    const want = [{ data: 'text "☃"\n\u0000' }, { event: 'tick', data: { a: [1, null] } }, { data: 'AP8=', encoding: 'base64' }, { data: '' }, { data: 'string' }]
      .map((w, i) => ({ id: sent[i].id, topic: 'm', ...w }));
    for (const w of want) assert.deepEqual(await e.recv(), { type: 'message', ...w });
    assert.deepEqual((await poll(d, '/live/m')).messages, want);
    e.close();
  });

  test('envelope_reads_the_topics_of_its_url_and_those_it_subscribes_to', async () => {
    const e = await Envelope.open(d, '/live/url/a?topic=url/b');
    await e.acked({ type: 'subscribe', topic: 'url/c' });
    await publishAll(d, [['url/a', 'a'], ['url/b', 'b'], ['url/c', 'c'], ['url/d', 'd'], ['url/a', 'end']]);
    for (const data of ['a', 'b', 'c', 'end']) assert.equal((await e.expect('message')).data, data);
    e.close();
  });
});

describe('subscribe', () => {
  test('envelope_subscribe_is_acked_with_cursor_and_no_id', async () => {
    const e = await Envelope.open(d);
    const { before, ...ack } = await e.acked({ type: 'subscribe', topic: 's/a', ref: 'r1' });
    assert.deepEqual(ack, { type: 'ack', ref: 'r1', cursor: await headOf(d) });
    assert.deepEqual(before, []);
    await pub(d, 's/a', 'x');
    const m = await e.expect('message');
    assert.deepEqual([m.data, 'replay' in m], ['x', false]);
    e.close();
  });

  test('envelope_ref_comes_back_as_it_was', async () => {
    const e = await Envelope.open(d);
    for (const ref of ['a', 'ü"\\ ', 7, 'x'.repeat(100)]) {
      e.say({ type: 'subscribe', topic: 's/ref', ref });
      assert.deepEqual((await e.expect('ack')).ref, ref);
    }
    e.close();
  });

  test('envelope_without_ref_there_is_no_ack', async () => {
    const e = await Envelope.open(d);
    e.say({ type: 'subscribe', topic: 's/noref' });
    e.say({ type: 'publish', topic: 's/noref', data: 'x' });
    assert.equal((await e.expect('message')).data, 'x');
    e.say({ type: 'unsubscribe', topic: 's/noref' });
    await e.alive();
    e.close();
  });

  test('envelope_subscribe_since_replays_with_replay_true__the_ack_after_the_last', async () => {
    const ids = (await publishAll(d, range(1, 5).map((i) => ['rep', `${i}`]))).map((m) => m.id);
    const first = await Envelope.open(d);
    const ack = await first.acked({ type: 'subscribe', topic: 'rep', since: ids[1] });
    assert.deepEqual(ack.before, [3, 4, 5].map((i) => ({ type: 'message', id: ids[i - 1], topic: 'rep', data: `${i}`, replay: true })));
    assert.equal(ack.cursor, await headOf(d));
    first.close();
    for (const [since, want] of [[seqOf(ids[2]), [4, 5]], [`${seqOf(ids[3])}`, [5]], [-2, [4, 5]], ['-1', [5]], ['earliest', [1, 2, 3, 4, 5]], ['latest', []], [ids[4], []]]) {
      const own = await Envelope.open(d);
      const again = await own.acked({ type: 'subscribe', topic: 'rep', since });
      assert.deepEqual(again.before.map((m) => [m.data, m.replay]), want.map((i) => [`${i}`, true]), `since ${JSON.stringify(since)}`);
      own.close();
    }
  });

  test('envelope_replay_then_live_without_replay', async () => {
    await publishAll(d, [['rl', '1'], ['rl', '2']]);
    const e = await Envelope.open(d);
    const ack = await e.acked({ type: 'subscribe', topic: 'rl', since: 'earliest' });
    assert.deepEqual(datas(ack.before), ['1', '2']);
    await pub(d, 'rl', '3');
    const m = await e.expect('message');
    assert.deepEqual([m.data, 'replay' in m], ['3', false]);
    e.close();
  });

  test('envelope_replay_does_not_disturb_what_is_live', async () => {
    await publishAll(d, range(1, 50).map((i) => ['old', `${i}`]));
    const e = await Envelope.open(d, '/live/now');
    e.say({ type: 'subscribe', topic: 'old', since: 'earliest', ref: 1 });
    const { id } = await pub(d, 'now', 'live');
    const old = [], now = [];
    let acked = false;
    while (!acked || !now.length) {
      const o = await e.recv();
      if (o.type === 'ack') acked = true;
      else if (o.topic === 'old') { assert.ok(!acked && o.replay === true); old.push(o.data); } else now.push(o);
    }
    assert.deepEqual(old, range(1, 50).map(String));
    assert.deepEqual(now, [{ type: 'message', id, topic: 'now', data: 'live' }]);
    e.close();
  });

  test('envelope_replay_of_much_comes_whole_before_its_ack', async (t) => {
    const own = await daemon(t, '--set', 'history=3000', '--set', 'history_bytes=16777216');
    await publishAll(own, range(1, 3000).map((i) => ['much', `${i} ${'x'.repeat(1000)}`]));
    const e = await Envelope.open(own);
    const ack = await e.acked({ type: 'subscribe', topic: 'much', since: 'earliest' });
    assert.deepEqual(ack.before.map((m) => parseInt(m.data, 10)), range(1, 3000));
    assert.ok(ack.before.every((m) => m.replay === true));
    e.close();
  });

  test('envelope_subscribing_to_the_same_name_again_only_gets_its_ack', async () => {
    await publishAll(d, [['same', '1'], ['same', '2']]);
    const e = await Envelope.open(d);
    assert.equal((await e.acked({ type: 'subscribe', topic: 'same', since: 'earliest' })).before.length, 2);
    for (const since of [undefined, 'earliest', '-1']) assert.deepEqual((await e.acked({ type: 'subscribe', topic: 'same', since })).before, []);
    assert.equal((await post(d, '/live/same', '3')).json.subscribers, 1);
    assert.equal((await e.expect('message')).data, '3');
    await e.alive();
    e.close();
  });

  test('envelope_a_message_goes_to_a_connection_once', async () => {
    const e = await Envelope.open(d, '/live/once/*');
    await e.acked({ type: 'subscribe', topic: 'once/a' });
    await e.acked({ type: 'subscribe', topic: 'once/**' });
    await publishAll(d, [['once/a', '1'], ['once/b', '2'], ['once/a', '3']]);
    for (const data of ['1', '2', '3']) assert.equal((await e.expect('message')).data, data);
    await e.alive();
    // What one subscription has passed, another does not bring again.
    assert.deepEqual((await e.acked({ type: 'subscribe', topic: 'once/b', since: 'earliest' })).before, []);
    await e.alive();
    e.close();
  });

  test('envelope_what_one_subscription_has_not_passed_another_brings', async () => {
    await publishAll(d, [['part/a', 'a1'], ['part/b', 'b1']]);
    const e = await Envelope.open(d);
    assert.deepEqual(datas((await e.acked({ type: 'subscribe', topic: 'part/a', since: 'earliest' })).before), ['a1']);
    assert.deepEqual(datas((await e.acked({ type: 'subscribe', topic: 'part/*', since: 'earliest' })).before), ['b1']);
    e.close();
  });

  test('envelope_unsubscribe_is_acked_with_neither_id_nor_cursor__and_nothing_comes_after', async () => {
    const e = await Envelope.open(d, '/live/un/a');
    await e.acked({ type: 'subscribe', topic: 'un/b' });
    for (const topic of ['un/a', 'un/b']) {
      const { before, ...ack } = await e.acked({ type: 'unsubscribe', topic, ref: 'u' });
      assert.deepEqual(ack, { type: 'ack', ref: 'u' });
      assert.equal((await pub(d, topic, 'unheard')).subscribers, 0);
    }
    await e.alive();
    await e.acked({ type: 'subscribe', topic: 'un/a' });
    await pub(d, 'un/a', 'heard');
    assert.equal((await e.expect('message')).data, 'heard');
    e.close();
  });

  test('envelope_a_since_that_is_none_is_an_error_or_a_gap_never_silence', async () => {
    const e = await Envelope.open(d);
    const answer = await e.ask({ type: 'subscribe', topic: 'bad', since: 'nonsense' });
    assert.ok(answer.type === 'error' || answer.before[0]?.type === 'gap');
    await e.alive();
    e.close();
  });

  test('envelope_an_empty_since_counts_as_none', async () => {
    await publishAll(d, [['emp', '1']]);
    const e = await Envelope.open(d);
    assert.deepEqual((await e.acked({ type: 'subscribe', topic: 'emp', since: '' })).before, []);
    e.close();
  });

  test('envelope_forbidden_topics_are_refused', async () => {
    for (const topic of ['@user/ann', '@presence/none', '@other', '@user/*']) {
      const e = await Envelope.open(d);
      try { await e.refused({ type: 'subscribe', topic }); } catch (error) { assert.equal(error.close?.code, 4003, String(error)); }
      e.close();
    }
  });

  test('envelope_at_most_64_topics', async () => {
    const e = await Envelope.open(d);
    for (const i of range(1, 64)) await e.acked({ type: 'subscribe', topic: `cap/${i}` });
    await e.refused({ type: 'subscribe', topic: 'cap/65' });
    await e.acked({ type: 'unsubscribe', topic: 'cap/1' });
    await e.acked({ type: 'subscribe', topic: 'cap/65' });
    e.close();
  });
});

describe('publish', () => {
  test('envelope_publish_is_acked_with_its_id', async () => {
    const e = await Envelope.open(d);
    const { before, ...ack } = await e.acked({ type: 'publish', topic: 'p', data: 'x', ref: 'p1' });
    assert.deepEqual(Object.keys(ack).sort(), ['id', 'ref', 'type']);
    assert.deepEqual((await poll(d, '/live/p')).messages, [{ id: ack.id, topic: 'p', data: 'x' }]);
    e.close();
  });

  test('envelope_publish_data__a_string_is_text_any_other_value_json_base64_binary', async () => {
    const e = await Envelope.open(d);
    const w = await Ws.open(d, '/live/kinds');
    for (const [data, extra, opcode, payload] of [
      ['plain', {}, OP.TEXT, 'plain'], ['{"a":1}', {}, OP.TEXT, '{"a":1}'], ['esc \u0000 "\\\n😀', {}, OP.TEXT, 'esc \u0000 "\\\n😀'], ['', {}, OP.TEXT, ''],
      [{ a: [1, 'two', null] }, {}, OP.TEXT, '{"a":[1,"two",null]}'], [17, {}, OP.TEXT, '17'], [true, {}, OP.TEXT, 'true'], [null, {}, OP.TEXT, 'null'], [[], {}, OP.TEXT, '[]'],
      ['AP8B', { encoding: 'base64' }, OP.BINARY, Buffer.from([0, 255, 1])], ['', { encoding: 'base64' }, OP.BINARY, ''],
    ]) {
      const { id } = await e.acked({ type: 'publish', topic: 'kinds', data, ...extra });
      const m = await w.next();
      assert.deepEqual([m.opcode, m.payload], [opcode, Buffer.from(payload)], JSON.stringify(data));
      const [polled] = (await poll(d, '/live/kinds?since=-1')).messages;
      assert.deepEqual(polled, { id, topic: 'kinds', data, ...extra });
    }
    e.close(); w.close();
  });

  test('envelope_publish_of_half_a_surrogate_pair_never_becomes_invalid_utf8', async () => {
    const e = await Envelope.open(d, '/live/half');
    e.text('{"type":"publish","topic":"half","data":"a\\ud800z","ref":1}');
    const answer = await e.recv(); // read as strict UTF-8
    if (answer.type !== 'error') assert.equal((await poll(d, '/live/half')).messages[0].data, 'a\ufffdz');
    e.close();
  });

  test('envelope_publish_event_and_its_own_reading', async () => {
    const e = await Envelope.open(d, '/live/own');
    const ack = await e.acked({ type: 'publish', topic: 'own', event: 'said', data: 'x' });
    const m = ack.before[0] ?? await e.recv();
    assert.deepEqual(m, { type: 'message', id: ack.id, topic: 'own', event: 'said', data: 'x' });
    await e.acked({ type: 'publish', topic: 'own', event: '', data: 'y' });
    assert.ok(!('event' in (await poll(d, '/live/own?since=-1')).messages[0]), 'an empty event is none');
    e.close();
  });

  test('envelope_publish_key__the_same_key_on_the_same_topic_is_the_first_message_again', async () => {
    const e = await Envelope.open(d);
    const one = await e.acked({ type: 'publish', topic: 'key', data: '1', key: 'k' });
    const two = await e.acked({ type: 'publish', topic: 'key', data: '2', key: 'k' });
    assert.equal(two.id, one.id);
    const other = await e.acked({ type: 'publish', topic: 'key/other', data: '3', key: 'k' });
    assert.notEqual(other.id, one.id);
    assert.deepEqual(datas((await poll(d, '/live/key')).messages), ['1']);
    const posted = await post(d, '/live/key', '4', { 'Idempotency-Key': 'k' });
    assert.equal(posted.json.id, one.id, 'over HTTP the same');
    e.close();
  });

  test('envelope_publish_ephemeral_is_delivered_and_not_kept', async () => {
    const e = await Envelope.open(d, '/live/eph');
    const head = seqOf(await headOf(d));
    const { id } = await e.acked({ type: 'publish', topic: 'eph', data: 'x', ephemeral: true });
    assert.equal(seqOf(id), head + 1);
    assert.deepEqual((await poll(d, '/live/eph')).messages, []);
    assert.ok(!('gap' in await poll(d, `/live/eph?since=${epoch}-${head}`)));
    e.close();
    const w = await Envelope.open(d, '/live/eph');
    w.say({ type: 'publish', topic: 'eph', data: 'y', ephemeral: true });
    assert.equal((await w.expect('message')).data, 'y');
    w.close();
  });

  test('envelope_publish_refused_gets_an_error_with_its_ref__and_the_connection_lives', async () => {
    const e = await Envelope.open(d);
    const bad = [
      { topic: 'a//b', data: 'x' }, { topic: '', data: 'x' }, { data: 'x' }, { topic: 'a/*', data: 'x' }, { topic: '@user/ann', data: 'x' }, { topic: 'x'.repeat(256), data: 'x' },
      { topic: 'e', event: 'gap', data: 'x' }, { topic: 'e', event: 'a\nb', data: 'x' }, { topic: 'e', data: '!!!', encoding: 'base64' }, { topic: 'e', data: 'AAA', encoding: 'base64' }, { topic: 7, data: 'x' },
    ];
    for (const m of bad) await e.refused({ type: 'publish', ...m });
    assert.deepEqual((await poll(d, '/live/e')).messages, []);
    await e.acked({ type: 'publish', topic: 'e', data: 'good' });
    e.close();
  });

  test('envelope_publish_off_is_refused', async (t) => {
    const own = await daemon(t, '--publish', 'off');
    const e = await Envelope.open(own, '/live/t');
    try { await e.refused({ type: 'publish', topic: 't', data: 'x' }); } catch (error) { assert.equal(error.close?.code, 4003, String(error)); }
    assert.deepEqual((await poll(own, '/live/t')).messages, []);
    e.close();
  });

  test('envelope_publishes_in_one_write_are_acked_in_order', async () => {
    const e = await Envelope.open(d);
    for (const i of range(1, 200)) e.say({ type: 'publish', topic: 'row', data: `${i}`, ref: i });
    const ids = [];
    for (const i of range(1, 200)) {
      const ack = await e.expect('ack');
      assert.equal(ack.ref, i);
      ids.push(seqOf(ack.id));
    }
    assert.deepEqual(ids, range(ids[0], ids[0] + 199));
    e.close();
  });
});

describe('errors', () => {
  const bad = ['', 'x', '{', '{"type":"subscribe","topic":"a"', '{"type":"subscribe","topic":"a"} x', '[]', '"type"', 'null', '7', '{}', '{"type":7}', '{"type":"nonsense"}', '{"type":"hello"}', '{"type":"SUBSCRIBE","topic":"a"}',
    '{"type":"subscribe"}', '{"type":"subscribe","topic":["a"]}', "{'type':'subscribe'}", '{"type":"publish","topic":"a","data":01}', '{"type":"publish","topic":"a","data":"a\tb"}',
    `${'['.repeat(65)}${']'.repeat(65)}`, `{"type":"publish","topic":"a","data":${'['.repeat(70)}${']'.repeat(70)}}`, '{"type":"publish","topic":"a\\u0000","data":"x"}'];
  for (const text of bad) {
    test(`envelope_unknown_types_and_malformed_json_get_an_error_and_the_connection_lives: ${text.slice(0, 50)}`, async () => {
      const e = await Envelope.open(d);
      e.text(text);
      const error = await e.expect('error');
      assert.ok((typeof error.code === 'string' || typeof error.code === 'number') && error.reason.length > 0);
      await e.acked({ type: 'subscribe', topic: 'still/there' });
      e.close();
    });
  }

  test('envelope_unknown_type_answers_with_its_ref', async () => {
    const e = await Envelope.open(d);
    await e.refused({ type: 'nonsense', ref: 'n' });
    e.close();
  });

  test('envelope_binary_frame_gets_an_error_and_the_connection_lives', async () => {
    const e = await Envelope.open(d);
    e.binary('{"type":"subscribe","topic":"bin","ref":1}');
    await e.expect('error');
    assert.equal((await pub(d, 'bin', 'x')).subscribers, 0);
    await e.acked({ type: 'subscribe', topic: 'bin' });
    e.close();
  });

  test('envelope_invalid_utf8_is_1007_as_ever', async () => {
    const e = await Envelope.open(d);
    e.text(Buffer.from('7b2274797065223a22ff227d', 'hex'));
    await e.expectClose(1007);
  });

  test('envelope_message_over_the_limit_is_1009', async (t) => {
    const own = await daemon(t, '--set', 'message_max=1000');
    const e = await Envelope.open(own);
    e.say({ type: 'publish', topic: 't', data: 'x'.repeat(1000) });
    await e.expectClose(1009);
  });

  test('envelope_auth_where_there_is_no_login_does_not_end_the_connection', async () => {
    const e = await Envelope.open(d);
    e.say({ type: 'auth', token: 'x' });
    e.say({ type: 'subscribe', topic: 'auth', ref: 'after' });
    for (;;) {
      const o = await e.recv();
      if (o.type === 'ack' && o.ref === 'after') break;
    }
    e.close();
  });
});

describe('heartbeat', () => {
  test('envelope_heartbeat_has_the_cursor__and_there_are_pings_as_well', async (t) => {
    const own = await daemon(t, '--set', 'heartbeat_ms=200');
    const e = await Envelope.open(own, '/live/t');
    assert.equal(e.hello.heartbeat, 200);
    let pings = 0;
    const beat = async () => {
      for (;;) {
        const f = await e.frame();
        if (f.opcode === OP.PING) { pings++; e.send(OP.PONG, f.payload); continue; }
        const o = JSON.parse(f.payload);
        if (o.type === 'heartbeat') return o;
      }
    };
    const first = await beat();
    assert.deepEqual(first, { type: 'heartbeat', cursor: e.hello.cursor });
    const { id } = await pub(own, 'other', 'x');
    await eventually(async () => (await beat()).cursor === id, 'the head in a heartbeat');
    assert.ok(pings >= 1);
    e.close();
  });

  test('envelope_every_reader_is_counted', async () => {
    const e = await Envelope.open(d, '/live/count');
    await readers(d, 'count', 1);
    e.close();
    await readers(d, 'count', 0);
  });
});
