// PROTOCOL §3: short poll, long poll.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, post, request, poll, pollBody, pub, publishAll, assertError, requestBytes, datas, seqOf, epochOf, stats, range, parked } from './lib.mjs';

const d = await daemon({ after });
const MIB = 1024 * 1024;
const bodySize = (messages) => messages.reduce((n, m) => n + m.data.length, 0);

describe('short poll', () => {
  test('short_poll_body__cursor_and_messages_and_a_newline', async (t) => {
    const own = await daemon(t);
    const epoch = await epochOf(own);
    const none = await get(own, '/live/t');
    assert.equal(none.text, `{"cursor":"${epoch}-0","messages":[]}\n`, 'cursor is there also when messages is empty');
    await pub(own, 't', 'x');
    await pub(own, 't?event=tick', '[1, 2]', { 'Content-Type': 'application/json' });
    const r = await get(own, '/live/t');
    const body = pollBody(r);
    assert.deepEqual(body, { cursor: `${epoch}-2`, messages: [{ id: `${epoch}-1`, topic: 't', data: 'x' }, { id: `${epoch}-2`, topic: 't', event: 'tick', data: [1, 2] }] });
    assert.equal(r.status, 200);
    assert.equal(r.headers.etag, `"${epoch}-2"`);
    assert.equal(r.headers['cache-control'], 'no-store');
  });

  test('short_poll_cursor_is_the_hubs_head_when_all_was_sent', async () => {
    const { id } = await pub(d, 'head/a', '1');
    const other = await pub(d, 'head/b', '2');
    assert.equal((await poll(d, '/live/head/a')).cursor, other.id);
    assert.equal((await poll(d, `/live/head/a?since=${id}`)).cursor, other.id);
    assert.equal((await poll(d, '/live/head/none')).cursor, other.id);
  });

  test('short_poll_data__text_is_a_json_string', async () => {
    const texts = ['', ' ', '"quoted" \\ back/slash', 'tab\tnl\ncr\r', '\u0000\u0001\u001f\u007f', 'é ☃ 😀 \u2028\u2029 \uFEFF', '{"not":"json"}', '</script>'];
    for (const text of texts) {
      await pub(d, 'text', text, { 'Content-Type': 'text/plain' });
      const [m] = (await poll(d, '/live/text?since=-1')).messages;
      assert.equal(m.data, text);
      assert.ok(!('encoding' in m));
    }
  });

  test('short_poll_data__json_is_the_value_itself', async () => {
    for (const text of ['{"a":[1,2,{"b":null}]}', '[]', '1', '-0.5e-7', 'true', 'null', '"a string"', ' {\r\n\t"spaced" : "\\u00e9" } \n']) {
      await pub(d, 'json', text, { 'Content-Type': 'application/json' });
      const [m] = (await poll(d, '/live/json?since=-1')).messages;
      assert.deepEqual(m.data, JSON.parse(text), text);
      assert.ok(!('encoding' in m));
    }
  });

  test('short_poll_data__binary_is_base64_with_encoding', async () => {
    for (const bytes of [[], [0], [0, 255], [1, 2, 3], range(0, 255)]) {
      await pub(d, 'bin', Buffer.from(bytes), { 'Content-Type': 'application/octet-stream' });
      const [m] = (await poll(d, '/live/bin?since=-1')).messages;
      assert.equal(m.encoding, 'base64');
      assert.equal(m.data, Buffer.from(bytes).toString('base64'));
    }
  });

  test('short_poll_304_when_nothing_that_matches_came__with_the_new_head_in_etag', async () => {
    await pub(d, 'tag', '1');
    const first = await get(d, '/live/tag');
    const same = await get(d, '/live/tag', { 'If-None-Match': first.headers.etag });
    assert.equal(same.status, 304);
    assert.equal(same.headers.etag, first.headers.etag);
    assert.equal(same.headers['cache-control'], 'no-store');
    const other = await pub(d, 'tag/other', '2');
    const moved = await get(d, '/live/tag', { 'If-None-Match': first.headers.etag });
    assert.equal(moved.status, 304);
    assert.equal(moved.headers.etag, `"${other.id}"`, 'the new head');
    await pub(d, 'tag', '3');
    const fresh = await get(d, '/live/tag', { 'If-None-Match': moved.headers.etag });
    assert.deepEqual(datas(pollBody(fresh).messages), ['3']);
  });

  test('short_poll_304_only_when_it_starts_from_if_none_match', async () => {
    const { id } = await pub(d, 'tag2', '1');
    assert.deepEqual((await poll(d, `/live/tag2?since=${id}`, { 'If-None-Match': `"${id}"` })).messages, []);
    assert.deepEqual((await poll(d, '/live/tag2', { 'If-None-Match': `"${id}"`, 'Last-Event-ID': id })).messages, []);
    assert.deepEqual((await poll(d, `/live/tag2?since=${id}`)).messages, []);
  });

  test('short_poll_304_not_when_there_is_a_gap', async () => {
    const [a] = await publishAll(d, [['tag3', '1'], ['tag3', '2']]);
    await request(d, 'DELETE', '/live/tag3');
    const r = await get(d, '/live/tag3', { 'If-None-Match': `"${a.id}"` });
    assert.deepEqual([pollBody(r).messages, r.json.gap.reason], [[], 'evicted']);
    assert.equal((await get(d, '/live/tag3', { 'If-None-Match': r.headers.etag })).status, 304);
    assert.equal((await get(d, '/live/tag3', { 'If-None-Match': '"zzzzzzzz-1"' })).status, 200);
  });

  test('short_poll_answers_a_304_and_goes_on_with_the_connection', async () => {
    const { id } = await pub(d, 'tag4', '1');
    const c = await d.connect();
    for (let i = 0; i < 3; i++) {
      c.write(requestBytes(d.host, 'GET', '/live/tag4', { 'If-None-Match': `"${id}"` }));
      assert.equal((await c.response()).status, 304);
    }
    c.write(requestBytes(d.host, 'GET', '/live/tag4'));
    assert.equal((await c.response()).status, 200);
  });

  test('head_is_get_without_the_body', async () => {
    const { id } = await pub(d, 'hd', 'x');
    const full = await get(d, '/live/hd');
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'HEAD', '/live/hd'), requestBytes(d.host, 'HEAD', '/live/hd', { 'If-None-Match': `"${id}"` }), requestBytes(d.host, 'GET', '/live/hd')]));
    const head = await c.response('HEAD');
    assert.equal(head.status, 200);
    for (const name of ['etag', 'cache-control', 'content-type']) assert.equal(head.headers[name], full.headers[name]);
    assert.ok([undefined, full.headers['content-length']].includes(head.headers['content-length']));
    assert.equal((await c.response('HEAD')).status, 304);
    assert.equal((await c.response()).text, full.text, 'no body byte came between');
  });

  test('head_never_waits', async () => {
    const begin = Date.now();
    const r = await request(d, 'HEAD', '/live/hd/empty?wait=20');
    assert.equal(r.status, 200);
    assert.match(r.headers.etag, /^"[a-z0-9]{8}-\d+"$/);
    assert.equal((await request(d, 'HEAD', '/live/hd/empty', { Prefer: 'wait=20' })).status, 200);
    assert.ok(Date.now() - begin < 5000);
  });
});

describe('parts', () => {
  test('answers_of_more_than_1000_messages_come_in_parts', async (t) => {
    const own = await daemon(t, '--set', 'history=5000');
    const ids = (await publishAll(own, range(1, 2500).map((i) => ['many', `${i}`]))).map((m) => m.id);
    await pub(own, 'other', 'moves the head');
    for (const wait of ['', '&wait=5']) {
      let since = 'earliest';
      const parts = [];
      for (let more = true; more;) {
        const r = await get(own, `/live/many?since=${since}${wait}`);
        const body = pollBody(r);
        parts.push(body.messages.length);
        more = body.more;
        if (more !== undefined) {
          assert.equal(more, true);
          assert.equal(body.cursor, body.messages.at(-1).id, 'the cursor is the last message\'s');
        } else {
          assert.equal(seqOf(body.cursor), seqOf(ids.at(-1)) + 1, 'at the end it is the head');
        }
        const begin = parts.slice(0, -1).reduce((a, b) => a + b, 0);
        assert.deepEqual(body.messages.map((m) => m.id), ids.slice(begin, begin + body.messages.length));
        since = body.cursor;
      }
      assert.deepEqual(parts, [1000, 1000, 500]);
    }
    const exact = await poll(own, `/live/many?since=${ids[1499]}`);
    assert.equal(exact.messages.length, 1000);
    assert.ok(!('more' in exact), 'exactly 1,000 are one part');
  });

  test('answers_of_more_than_1_mib_come_in_parts', async (t) => {
    const own = await daemon(t, '--set', 'history_bytes=33554432');
    const size = 100 * 1024;
    const ids = [];
    for (let i = 0; i < 40; i++) ids.push((await pub(own, 'big', String.fromCharCode(97 + (i % 26)).repeat(size))).id);
    let since = 'earliest';
    const got = [];
    for (let more = true, n = 0; more; n++) {
      const body = await poll(own, `/live/big?since=${since}`);
      assert.ok(body.messages.length > 0 && n < 40, 'each part brings something');
      assert.ok(bodySize(body.messages) <= MIB, `a part of ${bodySize(body.messages)} bytes`);
      more = body.more;
      if (more) {
        assert.equal(body.cursor, body.messages.at(-1).id);
        assert.ok(bodySize(body.messages) + 2 * size > MIB, 'a part is filled as far as it goes');
      }
      since = body.cursor;
      got.push(...body.messages);
    }
    assert.deepEqual(got.map((m) => m.id), ids);
    assert.ok(got.every((m, i) => m.data === String.fromCharCode(97 + (i % 26)).repeat(size)));
  });

  test('a_message_as_large_as_an_answer_may_be_still_comes', async (t) => {
    const own = await daemon(t, '--set', 'history_bytes=33554432');
    for (const c of 'abc') await pub(own, 'huge', c.repeat(MIB));
    let since = 'earliest';
    for (const c of 'abc') {
      const body = await poll(own, `/live/huge?since=${since}`);
      assert.equal(body.messages.length, 1);
      assert.ok(body.messages[0].data === c.repeat(MIB));
      assert.equal(body.more, c === 'c' ? undefined : true);
      since = body.cursor;
    }
  });

  test('polls_that_bring_nothing_are_counted__by_any_of_their_answers', async (t) => {
    const own = await daemon(t);
    const empty = async () => (await stats(own)).polls_empty;
    const { id } = await pub(own, 't', 'x');
    await poll(own, '/live/t');
    assert.equal(await empty(), 0);
    await poll(own, `/live/t?since=${id}`);
    assert.equal(await empty(), 1);
    assert.equal((await get(own, '/live/t', { 'If-None-Match': `"${id}"` })).status, 304);
    assert.equal(await empty(), 2);
    await poll(own, `/live/t?since=${id}&wait=1`);
    assert.equal(await empty(), 3);
    const held = poll(own, `/live/t?since=${id}&wait=20`);
    await parked(own, 1);
    await pub(own, 't', 'y');
    await held;
    assert.equal(await empty(), 3);
  });
});

describe('long poll', { concurrency: 4 }, () => {
  test('long_poll_is_held_until_a_message_matches__by_wait_or_by_prefer', async (t) => {
    const own = await daemon(t);
    const asked = [['?wait=20', {}], ['', { Prefer: 'wait=20' }], ['', { Prefer: 'respond-async, wait=20' }], ['', { Prefer: 'wait="20"' }],
      ['', { prefer: 'Wait = 20; foo="some, thing"' }], ['', { Prefer: 'wait' }], ['', [['Prefer', 'return=minimal'], ['Prefer', 'wait=20']]]];
    const held = asked.map(([query, headers]) => poll(own, `/live/t${query}`, headers));
    await parked(own, asked.length);
    const other = await pub(own, 'elsewhere', 'wakes nobody');
    assert.equal(other.status, 202);
    assert.equal((await stats(own)).parked_polls, asked.length);
    const { id, subscribers } = await pub(own, 't', 'x');
    assert.equal(subscribers, asked.length);
    for (const h of held) assert.deepEqual(await h, { cursor: id, messages: [{ id, topic: 't', data: 'x' }] });
  });

  test('long_poll_at_its_deadline_answers_200_and_no_messages', async (t) => {
    const own = await daemon(t);
    const begin = Date.now();
    const held = poll(own, '/live/t?wait=1');
    await parked(own, 1);
    const { id } = await pub(own, 'elsewhere', 'x');
    assert.deepEqual(await held, { cursor: id, messages: [] });
    const took = Date.now() - begin;
    assert.ok(took >= 850 && took < 10000, `after ${took} ms`); // up to 10 % less
  });

  test('long_poll_waits_at_most_the_servers_maximum', async (t) => {
    const own = await daemon(t, '--set', 'poll_max_ms=400');
    const begin = Date.now();
    const all = [['?wait=55', {}], ['?wait=4000000000', {}], ['', { Prefer: 'wait=3000' }], ['', { Prefer: 'wait' }]];
    for (const body of await Promise.all(all.map(([q, h]) => poll(own, `/live/t${q}`, h)))) assert.deepEqual(body.messages, []);
    const took = Date.now() - begin;
    assert.ok(took >= 300 && took < 10000, `after ${took} ms`);
  });

  test('long_poll_wait_0_is_a_short_poll', async (t) => {
    const own = await daemon(t);
    await pub(own, 't', 'x');
    assert.deepEqual(datas((await poll(own, '/live/t?wait=0')).messages), ['x'], 'it starts at earliest');
    assert.deepEqual((await poll(own, '/live/none?wait=0')).messages, []);
    const { cursor } = await poll(own, '/live/t');
    assert.equal((await get(own, '/live/t?wait=0', { 'If-None-Match': `"${cursor}"` })).status, 304);
    assert.deepEqual((await poll(own, '/live/none', { Prefer: 'wait=0' })).messages, []);
  });

  test('long_poll_wait_that_is_no_number_is_400', async (t) => {
    const own = await daemon(t);
    for (const wait of ['abc', '1x', 'x1', '0x1', '1%20', '%201', 'NaN', 'Infinity', '1e1', '--1']) assertError(await get(own, `/live/t?wait=${wait}`), 400);
  });

  test('long_poll_from_a_cursor_answers_at_once_with_all_that_match', async (t) => {
    const own = await daemon(t);
    const [a, , , last] = await publishAll(own, [['t', '1'], ['t', '2'], ['u', 'u'], ['t', '3']]);
    const body = await poll(own, `/live/t?wait=20&since=${a.id}`);
    assert.deepEqual([datas(body.messages), body.cursor], [['2', '3'], last.id]);
  });

  test('long_poll_of_several_topics_gets_whichever_comes', async (t) => {
    const own = await daemon(t);
    for (const topic of ['a', 'b', 'c/d']) {
      const held = poll(own, '/live/c/*?topic=a&topic=b&wait=20');
      await parked(own, 1);
      const m = await pub(own, topic, topic);
      assert.deepEqual(await held, { cursor: m.id, messages: [{ id: m.id, topic, data: topic }] });
    }
  });

  test('long_poll_that_starts_from_if_none_match_waits_too', async (t) => {
    const own = await daemon(t, '--set', 'poll_max_ms=300');
    const { id } = await pub(own, 't', 'x');
    const body = await poll(own, '/live/t?wait=5', { 'If-None-Match': `"${id}"` });
    assert.deepEqual(body, { cursor: id, messages: [] }, '200 at the deadline, not 304');
  });

  test('long_poll_gets_what_came_in_one_turn_in_one_answer_or_from_its_cursor_on', async (t) => {
    const own = await daemon(t);
    const held = poll(own, '/live/t?wait=20');
    await parked(own, 1);
    await publishAll(own, range(1, 20).map((i) => ['t', `${i}`]));
    let { messages, cursor } = await held;
    while (messages.length < 20) {
      const body = await poll(own, `/live/t?wait=20&since=${cursor}`);
      messages = messages.concat(body.messages);
      cursor = body.cursor;
    }
    assert.deepEqual(datas(messages), range(1, 20).map(String));
  });

  test('long_poll_keeps_the_connection_for_the_next_one', async (t) => {
    const own = await daemon(t);
    const c = await own.connect();
    let cursor = 'latest';
    for (const text of ['a', 'b', 'c']) {
      c.write(requestBytes(own.host, 'GET', `/live/t?wait=20&since=${cursor}`));
      await parked(own, 1);
      await pub(own, 't', text);
      const body = pollBody(await c.response());
      assert.deepEqual(datas(body.messages), [text]);
      cursor = body.cursor;
    }
  });

  test('long_poll_whose_client_has_gone_is_no_reader_any_more', async (t) => {
    const own = await daemon(t);
    for (const go of ['end', 'destroy']) {
      const c = await own.connect();
      c.write(requestBytes(own.host, 'GET', '/live/t?wait=20'));
      await parked(own, 1);
      c[go]();
      await parked(own, 0);
      const r = await post(own, '/live/t', 'x');
      assert.deepEqual([r.status, r.json.subscribers], [202, 0]);
    }
  });

  test('long_poll_of_an_ephemeral_message_is_woken', async (t) => {
    const own = await daemon(t);
    const held = poll(own, '/live/t?wait=20');
    await parked(own, 1);
    const { id } = (await post(own, '/live/t?ephemeral=1', 'x')).json;
    assert.deepEqual(await held, { cursor: id, messages: [{ id, topic: 't', data: 'x' }] });
  });

  test('long_poll_with_a_gap_says_so_before_it_waits', async (t) => {
    const own = await daemon(t);
    await publishAll(own, [['t', '1'], ['t', '2']]);
    const body = await poll(own, '/live/t?wait=20&since=zzzzzzzz-9');
    assert.deepEqual([body.gap.reason, datas(body.messages)], ['epoch', ['1', '2']]);
  });

  test('long_poll_of_300_waiters_each_gets_the_message', async (t) => {
    const own = await daemon(t);
    const held = range(1, 300).map(() => poll(own, '/live/t?wait=20', {}, 20000));
    await parked(own, 300);
    const { id, subscribers } = await pub(own, 't', 'all');
    assert.equal(subscribers, 300);
    for (const body of await Promise.all(held)) assert.deepEqual(body, { cursor: id, messages: [{ id, topic: 't', data: 'all' }] });
  });
});
