// PROTOCOL §3: server-sent events, byte by byte (WHATWG HTML §9.2).
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import { daemon, get, request, post, poll, pub, publishAll, sse, Sse, requestBytes, datas, epochOf, range, readers, eventually, parked } from './lib.mjs';

const d = await daemon({ after });
const JSON_TYPE = { 'Content-Type': 'application/json' };

describe('the stream', () => {
  test('sse_headers__200_chunked_event_stream_not_cached_not_buffered', async () => {
    const s = await sse(d, '/live/h');
    assert.equal(s.r.status, 200);
    assert.equal(s.r.headers['content-type'], 'text/event-stream');
    assert.equal(s.r.headers['cache-control'], 'no-cache, no-transform');
    assert.equal(s.r.headers['x-accel-buffering'], 'no');
    assert.equal(s.r.headers['transfer-encoding'], 'chunked');
    await s.quiet(100);
    s.close();
  });

  test('sse_is_asked_for_by_accept__among_others_and_in_any_case', async () => {
    for (const accept of ['text/event-stream', 'text/html, text/event-stream;q=0.9, */*;q=0.1', 'TEXT/Event-Stream', 'text/event-stream;charset=utf-8']) {
      const c = await d.connect();
      c.write(requestBytes(d.host, 'GET', '/live/h', { Accept: accept }));
      assert.equal((await c.head()).headers['content-type'], 'text/event-stream', accept);
    }
    const two = await d.connect(); // one list in two lines (RFC 9110 §5.3)
    two.write(requestBytes(d.host, 'GET', '/live/h', [['Accept', 'text/html'], ['Accept', 'text/event-stream']]));
    assert.equal((await two.head()).headers['content-type'], 'text/event-stream');
    for (const accept of ['*/*', 'text/*', 'text/event-streams', 'application/json', 'x-text/event-stream']) {
      assert.match((await get(d, '/live/h', { Accept: accept })).headers['content-type'], /^application\/json/, accept);
    }
  });

  test('sse_first_bytes__retry_a_comment_the_cursor_an_empty_line__at_once', async (t) => {
    const own = await daemon(t);
    const epoch = await epochOf(own);
    await publishAll(own, [['x', '1'], ['x', '2'], ['x', '3']]);
    for (const [target, seq] of [['/live/t', 3], ['/live/x', 3], [`/live/x?since=${epoch}-1`, 1], [`/live/t?since=${epoch}-2`, [2, 3]]]) { // t: nothing is pending
      const s = await Sse.open(own, target);
      const raw = await s.raw();
      const m = /^retry: (\d+)\n:[^\n]*\nid: ([^\n]*)\n\n$/.exec(raw) ?? assert.fail(JSON.stringify(raw));
      assert.ok(m[1] >= 2400 && m[1] <= 3600, 'retry is 3,000 with up to 20 % jitter');
      assert.ok([seq].flat().includes(Number(m[2].slice(9))) && m[2].startsWith(epoch), `${target} starts at ${m[2]}`);
      s.close();
    }
  });

  test('sse_message__id_event_data_empty_line', async (t) => {
    const own = await daemon(t);
    const epoch = await epochOf(own);
    const s = await sse(own, '/live/t');
    await pub(own, 't', 'plain');
    assert.equal(await s.raw(), `id: ${epoch}-1\ndata: plain\n\n`);
    await pub(own, 't?event=tick', 'named');
    assert.equal(await s.raw(), `id: ${epoch}-2\nevent: tick\ndata: named\n\n`);
    await pub(own, 't', '{"a":1}', JSON_TYPE);
    assert.equal(await s.raw(), `id: ${epoch}-3\ndata: {"a":1}\n\n`);
    s.close();
  });

  const splits = [
    ['a\nb', ['a', 'b']], ['a\rb', ['a', 'b']], ['a\r\nb', ['a', 'b']], ['a\n\rb', ['a', '', 'b']], ['a\r\r\nb', ['a', '', 'b']],
    ['\n', ['', '']], ['\r', ['', '']], ['\r\n', ['', '']], ['a\n', ['a', '']], ['\na', ['', 'a']], ['', ['']], ['\n\n\n', ['', '', '', '']],
    ['a\rb\nc\r\nd', ['a', 'b', 'c', 'd']], [' leading', [' leading']], [':comment?', [':comment?']], ['id: 9', ['id: 9']],
    ['x\nevent: evil\ndata: y\n\nid: z', ['x', 'event: evil', 'data: y', '', 'id: z']], ['x\revent: evil', ['x', 'event: evil']],
    ['\u2028\u0085\u000b\u000c', ['\u2028\u0085\u000b\u000c']], ['a\u0000b', ['a\u0000b']], ['é☃😀', ['é☃😀']],
  ];
  for (const [text, lines] of splits) {
    test(`sse_data_is_split_at_cr_lf_and_crlf: ${JSON.stringify(text)}`, async () => {
      const s = await sse(d, '/live/split');
      const { id } = await pub(d, 'split', text, { 'Content-Type': 'text/plain' });
      assert.equal(await s.raw(), `id: ${id}\n${lines.map((l) => `data: ${l}\n`).join('')}\n`);
      s.close();
      const again = await sse(d, '/live/split?since=-1'); // from the history too
      assert.equal(await again.raw(), `id: ${id}\n${lines.map((l) => `data: ${l}\n`).join('')}\n`);
      again.close();
    });
  }

  test('sse_json_on_several_lines_is_still_the_same_json', async () => {
    const s = await sse(d, '/live/pretty');
    const value = { a: [1, 2], b: 'line\nbreak' };
    await pub(d, 'pretty', JSON.stringify(value, null, 2).replaceAll('\n', '\r\n'), JSON_TYPE);
    assert.deepEqual(JSON.parse((await s.next()).data), value);
    s.close();
  });

  test('sse_binary_is_base64__event_binary_where_none_was_given', async () => {
    const s = await sse(d, '/live/bin');
    const bytes = Buffer.from(range(0, 255));
    const type = { 'Content-Type': 'application/octet-stream' };
    const a = await pub(d, 'bin', bytes, type);
    assert.equal(await s.raw(), `id: ${a.id}\nevent: binary\ndata: ${bytes.toString('base64')}\n\n`);
    const b = await pub(d, 'bin?event=pic', bytes, type);
    assert.equal(await s.raw(), `id: ${b.id}\nevent: pic\ndata: ${bytes.toString('base64')}\n\n`);
    s.close();
  });

  test('sse_large_message_comes_whole', async () => {
    const s = await sse(d, '/live/large');
    const line = 'x'.repeat(1000);
    const text = range(1, 900).map(() => line).join('\n');
    await pub(d, 'large', text);
    assert.ok((await s.next()).data === text);
    s.close();
  });

  test('sse_http_1_0_gets_the_stream_without_chunks_until_the_end', async () => {
    const s = await sse(d, '/live/old', {}, { version: '1.0' });
    assert.equal(s.r.headers['transfer-encoding'], undefined);
    assert.equal(s.r.headers['content-length'], undefined);
    const { id } = await pub(d, 'old', 'x');
    assert.equal(await s.raw(), `id: ${id}\ndata: x\n\n`);
    s.close();
  });

  test('sse_head_is_the_head_alone', async () => {
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'HEAD', '/live/h', { Accept: 'text/event-stream' }), requestBytes(d.host, 'GET', '/live/hh')]));
    const head = await c.response('HEAD');
    assert.equal(head.status, 200);
    assert.match((await c.response()).headers['content-type'], /^application\/json/, 'the connection goes on: no stream was opened');
  });

  test('sse_client_that_ends_is_no_reader_any_more', async () => {
    for (const go of ['end', 'destroy']) {
      const s = await sse(d, '/live/leaves');
      await readers(d, 'leaves', 1);
      s.c[go]();
      await readers(d, 'leaves', 0);
    }
  });
});

describe('heartbeat', () => {
  test('sse_heartbeat_is_a_comment_and_the_head__without_data', async (t) => {
    const own = await daemon(t, '--set', 'sse_heartbeat_ms=150');
    const epoch = await epochOf(own);
    const s = await sse(own, '/live/t');
    const beat = /^:[^\n]*\nid: ([^\n]*)\n\n$/;
    for (let i = 0; i < 2; i++) assert.equal(beat.exec(await s.raw())[1], `${epoch}-0`);
    await publishAll(own, [['other', '1'], ['other', '2']]);
    await eventually(async () => beat.exec(await s.raw())[1] === `${epoch}-2`, 'the head in a heartbeat');
    await pub(own, 't', 'x');
    assert.equal((await s.next()).id, `${epoch}-3`, 'a message between heartbeats');
    assert.equal(beat.exec(await s.raw())[1], `${epoch}-3`);
    s.close();
    const again = await sse(own, '/live/t', { 'Last-Event-ID': s.lastId });
    await pub(own, 't', 'y');
    assert.equal((await again.next()).data, 'y');
    again.close();
  });

  test('sse_heartbeat_can_be_switched_off', async (t) => {
    const own = await daemon(t, '--set', 'sse_heartbeat_ms=-1');
    const s = await sse(own, '/live/t');
    await s.quiet(300);
    s.close();
  });
});

describe('several topics', () => {
  const open = (query) => sse(d, `/live?topic=ev/a&topic=ev/b&topic=gap${query}`);

  test('sse_event_is_the_topic_only_where_asked_for__and_not_for_an_event_of_its_own__nor_a_topic_named_gap', async () => {
    const asked = await open('&events=topic');
    const plain = await open('');
    const list = [['ev/a', '1'], ['ev/b', '2'], ['ev/a?event=own', '3'], ['gap', '4'], ['ev/b', '5']];
    await publishAll(d, list);
    assert.deepEqual((await asked.take(5)).map((m) => [m.event, m.data]), [['ev/a', '1'], ['ev/b', '2'], ['own', '3'], [undefined, '4'], ['ev/b', '5']]);
    assert.deepEqual((await plain.take(5)).map((m) => [m.event, m.data]), [[undefined, '1'], [undefined, '2'], ['own', '3'], [undefined, '4'], [undefined, '5']]);
    asked.close(); plain.close();
    const wild = await sse(d, '/live/ev/*?events=topic&since=-1');
    assert.deepEqual((await wild.take(2)).map((m) => [m.event, m.data]), [['own', '3'], ['ev/b', '5']]);
    wild.close();
  });

  test('sse_events_with_another_value_is_not_events_topic', async () => {
    const s = await open('&events=1');
    await pub(d, 'ev/a', 'x');
    assert.equal((await s.next()).event, undefined);
    s.close();
  });
});

describe('the envelope in events', () => {
  const told = (m) => ({ ...m, data: JSON.parse(m.data) });
  const open = (query, version) => Sse.open(d, `/live/env/**?events=envelope${query}`, {}, { version });

  for (const version of ['1.1', '1.0']) {
    test(`sse_events_envelope_says_topic_kind_and_event__http_${version}`, async () => {
      const s = await open('', version);
      assert.equal(s.r.headers['rtpush-events'], 'envelope');
      const hello = told(await s.next());
      assert.deepEqual([hello.data.type, hello.data.cursor, hello.data.heartbeat, hello.event], ['hello', hello.id, 15000, undefined]);
      const first = await pub(d, 'env/a', 'a\r\n"b"');
      await post(d, '/live/env/b?event=own', '{"x":[1]}', { 'Content-Type': 'application/json' });
      await post(d, '/live/env/c', Buffer.from([0, 255]), { 'Content-Type': 'application/octet-stream' });
      const got = (await s.take(3)).map(told);
      assert.equal(got[0].id, got[0].data.id);
      assert.deepEqual(got.map((m) => { const { type, topic, event, data, encoding } = m.data; return [m.event, type, topic, event, data, encoding]; }), [
        [undefined, 'message', 'env/a', undefined, 'a\r\n"b"', undefined],
        [undefined, 'message', 'env/b', 'own', { x: [1] }, undefined],
        [undefined, 'message', 'env/c', undefined, 'AP8=', 'base64'],
      ]);
      assert.equal(got[0].id, first.id ?? got[0].id);
      s.close();
    });
  }

  test('sse_events_envelope_tells_a_gap_as_ever_and_resumes', async () => {
    await pub(d, 'env/g', 'held');
    const s = await open('&since=abcdefgh-7');
    assert.equal(told(await s.next()).data.cursor, 'abcdefgh-7');
    const gap = told(await s.next());
    assert.deepEqual([gap.event, gap.data.from, gap.data.reason], ['gap', 'abcdefgh-7', 'epoch']);
    const m = told(await s.next());
    s.close();
    await pub(d, 'env/g', 'later');
    const again = await open(`&since=${m.id}`);
    const hello = told(await again.next());
    assert.deepEqual([hello.data.type, hello.data.cursor], ['hello', m.id]);
    again.close();
  });

  test('sse_events_envelope_says_when_to_come_back_before_a_drain_ends_it', async (t) => {
    const own = await daemon(t);
    const s = await Sse.open(own, '/live/t?events=envelope');
    assert.equal(told(await s.next()).data.type, 'hello');
    own.process.kill('SIGTERM');
    const bye = told(await s.next(6000));
    assert.equal(bye.data.type, 'reconnect');
    assert.ok(bye.data.after >= 0 && bye.data.after <= 3000);
    s.close();
  });
});

describe('resume', () => {
  test('sse_last_event_id_goes_on_where_it_was', async () => {
    const first = await sse(d, '/live/res');
    await publishAll(d, [['res', '1'], ['res', '2']]);
    assert.deepEqual(datas(await first.take(2)), ['1', '2']);
    first.close();
    await publishAll(d, [['res', '3'], ['res', '4']]);
    const second = await sse(d, '/live/res', { 'Last-Event-ID': first.lastId });
    assert.equal(second.first.id, first.lastId);
    assert.deepEqual(datas(await second.take(2)), ['3', '4']);
    second.close();
  });

  test('sse_reader_of_a_quiet_topic_resumes_from_the_first_block', async () => {
    const first = await sse(d, '/live/quiet');
    first.close();
    await pub(d, 'quiet', 'while it was away');
    const second = await sse(d, '/live/quiet', { 'Last-Event-ID': first.lastId });
    assert.equal((await second.next()).data, 'while it was away');
    second.close();
  });
});

describe('an EventSource of others', () => {
  const open = (t, url, init) => { const es = new EventSource(url, init); t.after(() => es.close()); return es; };
  const opened = (es) => new Promise((done, failed) => { es.onopen = done; es.onerror = (e) => failed(new Error(e.message)); });

  test('eventsource_package__messages_named_events_ids_and_lines', async (t) => {
    const es = open(t, `${d.url}/live/es`);
    const got = [];
    es.onmessage = (e) => got.push(['message', e.data, e.lastEventId]);
    es.addEventListener('tick', (e) => got.push(['tick', e.data, e.lastEventId]));
    es.addEventListener('binary', (e) => got.push(['binary', e.data, e.lastEventId]));
    await opened(es);
    const a = await pub(d, 'es', 'one\r\ntwo\rthree\n');
    const b = await pub(d, 'es?event=tick', '{"p":1}', JSON_TYPE);
    const c = await pub(d, 'es', Buffer.from([255, 254]), { 'Content-Type': 'image/png' });
    await eventually(() => got.length === 3, 'three events');
    assert.deepEqual(got, [['message', 'one\ntwo\nthree\n', a.id], ['tick', '{"p":1}', b.id], ['binary', '//4=', c.id]]);
  });

  test('eventsource_package__a_gap_is_an_event_before_the_messages__and_sets_the_last_event_id', async (t) => {
    const own = await daemon(t, '--set', 'history=2');
    const ids = (await publishAll(own, range(1, 5).map((i) => ['g', `${i}`]))).map((m) => m.id);
    const es = open(t, `${own.url}/live/g?since=${ids[0]}`);
    const got = [];
    es.addEventListener('gap', (e) => got.push(['gap', JSON.parse(e.data), e.lastEventId]));
    es.onmessage = (e) => got.push([e.data, e.lastEventId]);
    await eventually(() => got.length === 3, 'a gap and two messages');
    assert.deepEqual(got, [['gap', { from: ids[0], to: ids[2], reason: 'evicted' }, ids[2]], ['4', ids[3]], ['5', ids[4]]]);
  });
});

test('sse_and_polls_and_head_share_one_url', async () => {
  await pub(d, 'same', 'x');
  const s = await sse(d, '/live/same?since=earliest');
  assert.equal((await s.next()).data, 'x');
  s.close();
  assert.deepEqual(datas((await poll(d, '/live/same')).messages), ['x']);
  assert.equal((await request(d, 'HEAD', '/live/same')).status, 200);
  const held = poll(d, '/live/same?wait=9', { Accept: '*/*' });
  await parked(d, 1);
  await pub(d, 'same', 'y');
  assert.deepEqual(datas((await held).messages), ['y']);
});
