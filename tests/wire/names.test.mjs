// PROTOCOL §1: names.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, post, request, poll, pub, publishAll, assertError, sse, Sse, Ws, Envelope, upgrade, handshake, datas, seqOf, epochOf, parked } from './lib.mjs';

const d = await daemon({ after });
const enc = encodeURIComponent;

describe('topic', () => {
  const names = [
    ['chat/general', '/live/chat/general', 'is the path after the mount'],
    ['chat/encoded', '/live/chat%2Fencoded', 'percent-decoded, the slash too'],
    ['a b', '/live/a%20b', 'percent-decoded space'],
    ['plus+plus', '/live/plus+plus', 'in a path + is itself'],
    ['café/☃/😀', '/live/caf%C3%A9/%E2%98%83/%f0%9f%98%80', 'UTF-8, hex digits of either case'],
    ['50%', '/live/50%25', 'decoded once'],
    ['%41', '/live/%2541', 'decoded once'],
    ['~-._!$&\'(),;=:@', "/live/~-._!$&'(),;=:@", 'any character of a path segment (RFC 3986 §3.3)'],
    ['x', '/live/x', 'one byte'],
    ['n'.repeat(255), `/live/${'n'.repeat(255)}`, '255 bytes'],
    ['é'.repeat(127) + 'x', `/live/${enc('é'.repeat(127))}x`, '255 bytes of UTF-8'],
    ['a/@b', '/live/a/@b', 'an @ that is not first is ordinary'],
    ['plus plus', '/live?topic=plus+plus', 'in a query + is a space'],
    ['q+q', '/live?topic=q%2Bq', 'in a query %2B is a plus'],
    ['q/r', '/live?topic=q/r', 'a query value may hold slashes'],
  ];
  for (const [name, target, why] of names) {
    test(`topic_${why.replaceAll(' ', '_')}: ${target.slice(0, 40)}`, async () => {
      const r = await post(d, target, 'here');
      assert.ok(r.status === 201 || r.status === 202, r.text);
      assert.equal(r.json.topic, name);
      const { messages } = await poll(d, `${target}${target.includes('?') ? '&' : '?'}since=-1`);
      assert.deepEqual(messages, [{ id: r.json.id, topic: name, data: 'here' }]);
    });
  }

  const bad = [
    ['/live', 'no topic at all'], ['/live/', 'an empty name'], ['/live?topic=', 'an empty name in the query'],
    ['/live//a', 'an empty first segment'], ['/live/a//b', 'an empty segment'], ['/live/a/', 'an empty last segment'],
    ['/live?topic=a//b', 'an empty segment in the query'], ['/live?topic=/a', 'an empty first segment in the query'],
    ['/live/a%2F', 'an empty segment behind an encoded slash'],
    [`/live/${'n'.repeat(256)}`, '256 bytes'], [`/live/${enc('é'.repeat(128))}`, '256 bytes of UTF-8'],
    ['/live/a%00b', 'NUL'], ['/live/%01', 'a control character'], ['/live/%1f', 'a control character'],
    ['/live/%0A', 'LF'], ['/live/%0d', 'CR'], ['/live/%7F', 'DEL'], ['/live?topic=%07', 'a control character in the query'],
    ['/live/%ff', 'not UTF-8'], ['/live/%c3', 'UTF-8 cut short'], ['/live/%c0%af', 'overlong UTF-8'], ['/live/%ed%a0%80', 'a surrogate'],
    ['/live/%', 'a % alone'], ['/live/%4', 'half an escape'], ['/live/%zz', 'no hex digits'], ['/live?topic=%zz', 'no hex digits in the query'],
    ['/live/*a', 'a star inside a segment'], ['/live/a*', 'a star inside a segment'], ['/live/*/a', 'a wildcard that is not last'],
    ['/live/**/a', 'a wildcard that is not last'], ['/live/a/*/b', 'a wildcard that is not last'], ['/live/***', 'three stars'],
    ['/live/a/%2Ab', 'an encoded star inside a segment'], ['/live?topic=*/a', 'a wildcard that is not last, in the query'],
  ];
  for (const [target, why] of bad) {
    test(`topic_with_${why.replaceAll(' ', '_')}_is_400: ${target.slice(0, 30)}`, async () => {
      assertError(await get(d, target), 400);
      assertError(await post(d, target, 'x'), 400);
      assertError(await get(d, target + (target.includes('?') ? '&' : '?') + 'wait=1'), 400);
      assertError((await Sse.open(d, target)).refused, 400);
      const { r } = await upgrade(d, handshake(d, target));
      assertError(r, 400);
    });
  }

  test('topic_none_is_allowed_for_an_envelope_connection_alone', async () => {
    const e = await Envelope.open(d, '/live');
    await e.acked({ type: 'subscribe', topic: 'none/later' });
    e.close();
    assertError((await upgrade(d, handshake(d, '/live', [['Sec-WebSocket-Protocol', 'chat']]))).r, 400);
  });

  test('topics_of_a_query_are_read_together__alone_or_with_a_path', async () => {
    await publishAll(d, [['many/a', '1'], ['many/b', '2'], ['many/c', '3'], ['many/a', '4']]);
    assert.deepEqual(datas((await poll(d, '/live?topic=many/a&topic=many/b')).messages), ['1', '2', '4']);
    assert.deepEqual(datas((await poll(d, '/live/many/c?topic=many/a')).messages), ['1', '3', '4']);
    assert.deepEqual(datas((await poll(d, '/live/many/a?topic=many/a')).messages), ['1', '4'], 'named twice, sent once');
    assert.deepEqual(datas((await poll(d, '/live/many/a?topic=many/*')).messages), ['1', '2', '3', '4'], 'matched twice, sent once');
    const s = await sse(d, '/live/many/c?topic=many/b&since=earliest');
    assert.deepEqual(datas(await s.take(2)), ['2', '3']);
    s.close();
    const w = await Ws.open(d, '/live?topic=many/b&topic=many/c&since=earliest');
    await w.expectText('2');
    await w.expectText('3');
    w.close();
  });

  test('topics_of_one_reader_are_at_most_64', async () => {
    const target = (n) => `/live?${Array.from({ length: n }, (_, i) => `topic=t${i}`).join('&')}`;
    assert.equal((await get(d, target(64))).status, 200);
    const s = await sse(d, target(64));
    s.close();
    const r = await get(d, target(65));
    assertError(r, 400, 403, 413, 429, 503);
    assertError((await Sse.open(d, target(65))).refused, r.status);
    assertError((await upgrade(d, handshake(d, target(65)))).r, r.status);
  });

  test('publish_and_delete_name_exactly_one_topic', async () => {
    assert.equal((await post(d, '/live?topic=one', 'x')).status, 202);
    for (const method of ['POST', 'DELETE']) {
      for (const target of ['/live', '/live?topic=one&topic=two', '/live/one?topic=two']) {
        assertError(await request(d, method, target, {}, method === 'POST' ? 'x' : undefined), 400);
      }
    }
    assert.equal((await request(d, 'DELETE', '/live?topic=one')).status, 204);
    assert.deepEqual((await poll(d, '/live/two')).messages, []);
  });
});

describe('@ names', () => {
  test('at_user_is_read_by_that_identity_alone', async () => {
    assertError(await get(d, '/live/@user/ann'), 403);
    assertError(await get(d, '/live/@user/ann?wait=1'), 403);
    assertError((await Sse.open(d, '/live/@user/ann')).refused, 403);
    assertError((await upgrade(d, handshake(d, '/live/@user/ann'))).r, 403);
    assertError((await upgrade(d, handshake(d, '/live/@user/ann', [['Sec-WebSocket-Protocol', 'rtpush.v1']]))).r, 403);
    assertError(await get(d, '/live/open?topic=@user/ann'), 403);
    assertError(await get(d, '/live/%40user/ann'), 403);
    assertError(await get(d, '/live/@user/*'), 403);
    assertError(await get(d, '/live/@user/**'), 403);
  });

  test('at_presence_of_a_topic_without_presence_is_403', async () => {
    assertError(await get(d, '/live/@presence/room'), 403);
    assertError((await Sse.open(d, '/live/@presence/room')).refused, 403);
  });

  test('at_names_of_no_kind_are_403_without_an_authorisation_hook', async () => {
    assertError(await get(d, '/live/@other'), 403);
    assertError(await get(d, '/live/@'), 403);
    assertError(await get(d, '/live/@other/**'), 403);
  });

  test('at_names_are_never_published_to_by_a_client', async () => {
    for (const name of ['@user/ann', '@presence/room', '@other', '@']) {
      assertError(await post(d, `/live/${name}`, 'x'), 403);
      assertError(await post(d, `/live?topic=${name}`, 'x'), 403);
      assertError(await request(d, 'DELETE', `/live/${name}`), 403);
    }
    const e = await Envelope.open(d);
    for (const topic of ['@user/ann', '@presence/room', '@other']) await e.refused({ type: 'publish', topic, data: 'x' });
    await e.alive();
    e.close();
  });
});

describe('wildcard', () => {
  const at = (base, list) => publishAll(d, list.map((name) => [`${base}${name}`, name || '.']));

  test('wildcard_star_is_one_more_segment__two_stars_one_or_more', async () => {
    await at('sport', ['', '/a', '/a/b', '/b', '/a/b/c', 'y/a', '/@x']);
    assert.deepEqual(datas((await poll(d, '/live/sport/*')).messages), ['/a', '/b', '/@x']);
    assert.deepEqual(datas((await poll(d, '/live/sport/**')).messages), ['/a', '/a/b', '/b', '/a/b/c', '/@x']);
    assert.deepEqual(datas((await poll(d, '/live/sport/a/*')).messages), ['/a/b']);
    assert.deepEqual(datas((await poll(d, '/live/sport/%2A')).messages), ['/a', '/b', '/@x'], 'an encoded star is a star');
    assert.deepEqual(datas((await poll(d, '/live?topic=sport/*')).messages), ['/a', '/b', '/@x']);
  });

  test('wildcard_alone_is_every_name_of_one_segment__two_stars_every_name', async (t) => {
    const own = await daemon(t);
    await publishAll(own, [['a', 'a'], ['a/b', 'a/b'], ['c', 'c']]);
    assert.deepEqual(datas((await poll(own, '/live/*')).messages), ['a', 'c']);
    assert.deepEqual(datas((await poll(own, '/live/**')).messages), ['a', 'a/b', 'c']);
  });

  test('wildcard_reads_topics_made_before_and_after_it__on_every_transport', async () => {
    await pub(d, 'w/old', 'old');
    const s = await sse(d, '/live/w/*?since=earliest');
    const w = await Ws.open(d, '/live/w/*?since=earliest');
    const e = await Envelope.open(d, '/live/w/*?since=earliest');
    const held = poll(d, '/live/w/**?wait=5');
    await parked(d, 1);
    await pub(d, 'w/new', 'new');
    assert.deepEqual(datas((await held).messages), ['new']);
    assert.deepEqual(datas(await s.take(2)), ['old', 'new']);
    for (const want of ['old', 'new']) {
      await w.expectText(want);
      assert.equal((await e.expect('message')).data, want);
    }
    s.close(); w.close(); e.close();
  });

  test('wildcard_never_matches_a_name_whose_first_segment_starts_with_at', async (t) => {
    const own = await daemon(t, '--presence', 'room');
    const all = await sse(own, '/live/**');
    const one = await sse(own, '/live/*');
    const there = await sse(own, '/live/@presence/room');
    const member = await sse(own, '/live/room');
    for (;;) {
      const { data } = await there.next();
      if (JSON.parse(data).count === 1) break;
    }
    await pub(own, 'x', 'ordinary');
    assert.equal((await all.next()).data, 'ordinary', 'no presence message came before');
    assert.equal((await one.next()).data, 'ordinary');
    for (const s of [all, one, there, member]) s.close();
  });

  test('wildcard_in_a_publish_or_delete_is_400', async () => {
    for (const name of ['sport/*', 'sport/**', '*', '**', 'sport/%2A', 'a*b']) {
      assertError(await post(d, `/live/${name}`, 'x'), 400);
      assertError(await request(d, 'DELETE', `/live/${name}`), 400);
    }
    const e = await Envelope.open(d);
    await e.refused({ type: 'publish', topic: 'sport/*', data: 'x' });
    for (const topic of ['a*', '*/a', 'a//b', '', '/a', 'a/', 'x'.repeat(256), 'a\u0000', '***']) await e.refused({ type: 'subscribe', topic });
    await e.alive();
    e.close();
  });
});

describe('session', () => {
  test('session_is_16_to_64_of_letters_digits_underscore_hyphen', async () => {
    for (const ok of ['a'.repeat(16), 'Zz09_-'.repeat(10) + 'abcd', '0123456789abcdef']) {
      assert.equal((await get(d, `/live/s?session=${ok}`)).status, 200);
      const s = await sse(d, `/live/s?session=${ok}`);
      s.close();
    }
    for (const bad of ['a'.repeat(15), 'a'.repeat(65), 'a'.repeat(15) + '.', 'a'.repeat(15) + '%20', '%C3%A9'.repeat(10), 'a'.repeat(16) + '+']) {
      assertError(await get(d, `/live/s?session=${bad}`), 400);
      assertError(await get(d, `/live/s?session=${bad}&wait=1`), 400);
      assertError((await Sse.open(d, `/live/s?session=${bad}`)).refused, 400);
      assertError((await upgrade(d, handshake(d, `/live/s?session=${bad}`))).r, 400);
      assertError(await post(d, `/live/s?session=${bad}`, 'x'), 400);
    }
  });

  test('session_grants_nothing', async () => {
    assertError(await get(d, `/live/@user/ann?session=${'a'.repeat(20)}`), 403);
  });
});

describe('message, seq, epoch, cursor', () => {
  test('message_is_id_topic_event_data__event_only_where_given', async () => {
    const a = await pub(d, 'form', 'plain');
    const b = await pub(d, 'form?event=tick', 'named');
    assert.deepEqual((await poll(d, '/live/form')).messages, [
      { id: a.id, topic: 'form', data: 'plain' }, { id: b.id, topic: 'form', event: 'tick', data: 'named' },
    ]);
  });

  test('seq_grows_by_one_over_all_topics', async (t) => {
    const own = await daemon(t);
    const ids = (await publishAll(own, [['a', ''], ['b', ''], ['a', ''], ['c/d', '']])).map((m) => m.id);
    const first = seqOf(ids[0]);
    assert.deepEqual(ids.map(seqOf), [first, first + 1, first + 2, first + 3]);
    assertError(await post(own, '/live/*', 'refused, takes no number'), 400);
    assert.equal(seqOf((await pub(own, 'a')).id), first + 4);
  });

  test('epoch_is_8_of_a_to_z_0_to_9__new_after_a_restart', async (t) => {
    const seen = new Set();
    for (let i = 0; i < 3; i++) {
      const own = await daemon(t);
      const epoch = await epochOf(own);
      assert.match(epoch, /^[a-z0-9]{8}$/);
      assert.equal((await pub(own, 'x')).id.slice(0, 9), `${epoch}-`);
      seen.add(epoch);
    }
    assert.equal(seen.size, 3);
  });

  test('cursor_is_epoch_seq__a_message_id_is_the_cursor_just_behind_it', async () => {
    const ids = (await publishAll(d, [['cur', '1'], ['cur', '2'], ['cur', '3']])).map((m) => m.id);
    for (const id of ids) assert.match(id, /^[a-z0-9]{8}-[1-9][0-9]*$/);
    assert.deepEqual(datas((await poll(d, `/live/cur?since=${ids[0]}`)).messages), ['2', '3']);
    assert.deepEqual(datas((await poll(d, `/live/cur?since=${ids[1]}`)).messages), ['3']);
    assert.deepEqual(datas((await poll(d, `/live/cur?since=${ids[2]}`)).messages), []);
  });

  test('cursor_covers_all_topics_and_all_transports', async () => {
    const [a] = await publishAll(d, [['t/a', 'a1'], ['t/b', 'b1'], ['t/a', 'a2'], ['t/b', 'b2']]);
    const s = await sse(d, `/live/t/b?since=${a.id}`); // a's id, for b
    const [b1] = await s.take(1);
    assert.equal(b1.data, 'b1');
    s.close();
    const w = await Ws.open(d, `/live?topic=t/a&topic=t/b&since=${b1.id}`); // SSE's id, for a WebSocket
    await w.expectText('a2');
    await w.expectText('b2');
    w.close();
    const e = await Envelope.open(d, `/live/t/*?since=${b1.id}`);
    const { id } = await e.expect('message');
    e.close();
    assert.deepEqual(datas((await poll(d, `/live/t/*?since=${id}&wait=1`)).messages), ['b2']);
    const { cursor } = await poll(d, `/live/t/*?since=${id}`);
    const next = await Envelope.open(d, `/live/t/*?since=${cursor}`);
    await pub(d, 't/a', 'a3');
    assert.equal((await next.expect('message')).data, 'a3');
    next.close();
  });
});
