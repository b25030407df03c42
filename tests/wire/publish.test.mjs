// PROTOCOL §4: publishing.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { daemon, get, post, request, poll, pub, publishAll, pipeline, assertError, requestBytes, sse, Ws, Envelope, datas, seqOf, epochOf, range, readers, parked, eventually } from './lib.mjs';

const ORIGIN = 'https://app.example';
const d = await daemon({ after }, '--set', `origin=${ORIGIN},http://localhost:3000`);
const epoch = await epochOf(d);
const last = async (topic) => (await poll(d, `/live/${topic}?since=-1`)).messages[0];

describe('content types', () => {
  const kinds = {
    json: ['application/json', 'Application/JSON', 'application/json; charset=utf-8', 'application/problem+json', 'application/vnd.api+json;v=1'],
    text: ['text/plain', 'text/html; charset=utf-8', 'TEXT/Markdown', 'text/plain;charset=UTF-8', null, 'application/x-www-form-urlencoded'],
    binary: ['application/octet-stream', 'image/png', 'application/xml', 'application/jsonp', 'application/jsonx', 'x'],
  };
  for (const [kind, types] of Object.entries(kinds)) {
    for (const type of types) {
      test(`publish_content_type_${type}_is_${kind}`, async () => {
        await pub(d, 'ct', '{"a": 1}', type === null ? {} : { 'Content-Type': type });
        const m = await last('ct');
        if (kind === 'json') assert.deepEqual([m.data, m.encoding], [{ a: 1 }, undefined]);
        if (kind === 'text') assert.deepEqual([m.data, m.encoding], ['{"a": 1}', undefined]);
        if (kind === 'binary') assert.deepEqual([m.data, m.encoding], [Buffer.from('{"a": 1}').toString('base64'), 'base64']);
      });
    }
  }

  const notJson = ['', ' ', '{', '{"a":}', "{'a':1}", '[1,]', '01', '+1', '1.', '.5', 'NaN', 'undefined', 'tru', '"\t"', '"\\x"', '"\\u12"', '{"a":1}}', '1 2', '\uFEFF1', '{"a":1,}', '//c\n1', '-', '1e', '"open', '\u00a01', `${'['.repeat(65)}${']'.repeat(65)}`];
  test('publish_malformed_json_is_400_and_publishes_nothing', async () => {
    const before = (await poll(d, '/live/nojson')).cursor;
    for (const text of [...notJson, Buffer.from('22ff22', 'hex'), Buffer.from('22eda08022', 'hex'), Buffer.from('310032', 'hex')]) {
      assertError(await post(d, '/live/nojson', text, { 'Content-Type': 'application/json' }), 400);
    }
    assert.deepEqual(await poll(d, '/live/nojson'), { cursor: before, messages: [] });
  });

  test('publish_text_that_is_not_utf8_is_400', async () => {
    for (const hex of ['ff', 'c3', 'c080', 'eda080', 'f4908080', '61ff']) {
      for (const headers of [{}, { 'Content-Type': 'text/plain' }, { 'Content-Type': 'application/x-www-form-urlencoded' }]) {
        assertError(await post(d, '/live/notext', Buffer.from(hex, 'hex'), headers), 400);
      }
      await pub(d, 'notext', Buffer.from(hex, 'hex'), { 'Content-Type': 'application/octet-stream' });
    }
    assert.equal((await poll(d, '/live/notext')).messages.length, 6);
  });

  test('publish_bytes_are_not_changed', async () => {
    const w = await Ws.open(d, '/live/bytes');
    for (const text of ['', '\u0000', '\r\n', 'x'.repeat(200000), '\uFEFFbom', ' \t ']) {
      await pub(d, 'bytes', text);
      assert.ok((await w.next()).payload.equals(Buffer.from(text)));
    }
    w.close();
  });

  test('publish_a_chunked_body', async () => {
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'POST', '/live/chunked', { 'Transfer-Encoding': 'chunked' }), Buffer.from('3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n')]));
    assert.equal((await c.response()).json.topic, 'chunked');
    assert.equal((await last('chunked')).data, 'abcde');
  });
});

describe('?event=', () => {
  test('publish_event_is_a_name_without_control_characters__not_gap__empty_is_none', async () => {
    for (const [query, event] of [['tick', 'tick'], ['a+b', 'a b'], ['%C3%A9', 'é'], ['message', 'message'], ['gaps', 'gaps'], ['Gap', 'Gap'], ['', undefined]]) {
      await pub(d, `ev?event=${query}`, 'x');
      assert.equal((await last('ev')).event, event, query);
    }
    const { length } = (await poll(d, '/live/ev')).messages;
    for (const query of ['gap', '%67ap', 'a%0ab', 'a%0db', '%00', 'a%00', '%1f', '%7f', '%ff']) assertError(await post(d, `/live/ev?event=${query}`, 'x'), 400);
    assert.equal((await poll(d, '/live/ev')).messages.length, length);
  });
});

describe('the answer', () => {
  test('publish_202_where_no_reader_was__201_where_one_was__with_id_topic_subscribers', async () => {
    const none = await post(d, '/live/an', 'x');
    assert.equal(none.status, 202);
    assert.match(none.headers['content-type'], /^application\/json/);
    assert.match(none.text, /^\{[^\n]*\}\n$/);
    assert.deepEqual(none.json, { id: (await last('an')).id, topic: 'an', subscribers: 0 });
    const s = await sse(d, '/live/an');
    const one = await post(d, '/live/an', 'y');
    assert.equal(one.status, 201);
    assert.deepEqual(one.json, { id: (await s.next()).id, topic: 'an', subscribers: 1 });
    s.close();
  });

  test('publish_subscribers_are_the_matching_subscriptions__parked_polls_included', async () => {
    const s = await sse(d, '/live/sub/a');
    const w = await Ws.open(d, '/live/sub/*');
    const e = await Envelope.open(d, '/live?topic=sub/a&topic=sub/b');
    const p = poll(d, '/live/sub/**?wait=20');
    await parked(d, 1);
    assert.equal((await pub(d, 'sub/c', '')).subscribers, 2);
    await p;
    assert.equal((await pub(d, 'sub/b', '')).subscribers, 2);
    assert.equal((await pub(d, 'sub/a', '')).subscribers, 3);
    assert.equal((await pub(d, 'sub', '')).subscribers, 0);
    await e.acked({ type: 'subscribe', topic: 'sub/*' });
    assert.equal((await pub(d, 'sub/a', '')).subscribers, 4, 'each subscription that matches');
    s.close(); w.close(); e.close();
  });
});

describe('Idempotency-Key', () => {
  const keyed = (topic, data, key, query = '') => pub(d, `${topic}${query}`, data, { 'Idempotency-Key': key });

  test('publish_the_same_key_on_the_same_topic_answers_the_first_id_and_publishes_nothing', async () => {
    const one = await keyed('idem', '1', 'k1');
    const head = (await poll(d, '/live/idem')).cursor;
    for (const data of ['1', 'other data']) assert.equal((await keyed('idem', data, 'k1')).id, one.id);
    assert.deepEqual(await poll(d, '/live/idem'), { cursor: head, messages: [{ id: one.id, topic: 'idem', data: '1' }] });
    assert.equal(seqOf((await keyed('idem', '2', 'k2')).id), seqOf(head) + 1, 'another key is another message');
    assert.equal(seqOf((await keyed('idem/other', '3', 'k1')).id), seqOf(head) + 2, 'on another topic too');
    assert.equal(seqOf((await pub(d, 'idem', '4')).id), seqOf(head) + 3, 'and without a key');
  });

  test('publish_a_refused_one_does_not_take_the_key', async () => {
    assertError(await post(d, '/live/idem/r', '{', { 'Content-Type': 'application/json', 'Idempotency-Key': 'r' }), 400);
    await keyed('idem/r', 'good', 'r');
    assert.deepEqual(datas((await poll(d, '/live/idem/r')).messages), ['good']);
  });

  test('publish_a_key_of_an_ephemeral_message_holds_too', async () => {
    const s = await sse(d, '/live/idem/e');
    const one = await keyed('idem/e', '1', 'e', '?ephemeral=1');
    assert.equal((await keyed('idem/e', '2', 'e', '?ephemeral=1')).id, one.id);
    await pub(d, 'idem/e', 'end');
    assert.deepEqual(datas(await s.take(2)), ['1', 'end']);
    s.close();
  });

  test('publish_the_same_key_pipelined_is_one_message', async () => {
    const answers = await pipeline(d, range(1, 20).map((i) => ['POST', '/live/idem/p', { 'Idempotency-Key': 'p' }, `${i}`]));
    assert.equal(new Set(answers.map((r) => r.json.id)).size, 1);
    assert.deepEqual(datas((await poll(d, '/live/idem/p')).messages), ['1']);
  });

  test('publish_at_most_65536_keys_are_kept__the_oldest_is_dropped', async (t) => {
    const own = await daemon(t);
    const n = 65537;
    const c = await own.connect();
    const ids = [];
    for (let i = 0; i < n; i += 4096) {
      const part = range(i, Math.min(i + 4095, n - 1));
      c.write(Buffer.concat(part.map((k) => Buffer.from(`POST /live/t HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k${k}\r\nContent-Length: 1\r\n\r\nx`))));
      for (let k = 0; k < part.length; k++) ids.push((await c.response()).json.id);
    }
    const again = async (k) => (await post(own, '/live/t', 'x', { 'Idempotency-Key': `k${k}` })).json.id;
    assert.equal(await again(n - 1), ids[n - 1]);
    assert.equal(await again(1), ids[1], '65,536 are kept');
    assert.equal(seqOf(await again(0)), seqOf(ids[n - 1]) + 1, 'the oldest is not');
  });
});

describe('?ephemeral=1', () => {
  test('publish_ephemeral_is_delivered_to_live_readers_and_parked_polls__given_an_id__never_stored__never_a_gap', async () => {
    const before = await pub(d, 'eph', 'kept');
    const s = await sse(d, '/live/eph');
    const w = await Ws.open(d, '/live/eph');
    const e = await Envelope.open(d, '/live/eph');
    const p = poll(d, '/live/eph?wait=20');
    await parked(d, 1);
    const r = await post(d, '/live/eph?ephemeral=1', 'gone', {});
    assert.deepEqual([r.status, r.json.topic, r.json.subscribers], [201, 'eph', 4]);
    assert.equal(seqOf(r.json.id), seqOf(before.id) + 1);
    assert.deepEqual(await p, { cursor: r.json.id, messages: [{ id: r.json.id, topic: 'eph', data: 'gone' }] });
    const block = await s.next();
    assert.deepEqual([block.id, block.data], [r.json.id, 'gone']);
    await w.expectText('gone');
    assert.deepEqual(await e.recv(), { type: 'message', id: r.json.id, topic: 'eph', data: 'gone' });
    assert.deepEqual(datas((await poll(d, '/live/eph')).messages), ['kept']);
    assert.deepEqual(await poll(d, `/live/eph?since=${before.id}`), { cursor: r.json.id, messages: [] }, 'no gap');
    s.close(); w.close(); e.close();
  });

  test('publish_ephemeral_to_nobody_is_202', async () => {
    assert.equal((await post(d, '/live/eph/none?ephemeral=1', 'x')).status, 202);
    const a = await pub(d, 'eph/none', '1');
    await publishAll(d, range(1, 5).map((i) => ['eph/none?ephemeral=1', `${i}`]));
    const body = await poll(d, `/live/eph/none?since=${a.id}`);
    assert.deepEqual([body.messages, 'gap' in body, seqOf(body.cursor)], [[], false, seqOf(a.id) + 5]);
    const s = await sse(d, `/live/eph/none?since=${a.id}`);
    assert.equal(s.first.id, a.id, 'no gap by SSE either');
    await pub(d, 'eph/none', '2');
    assert.equal((await s.next()).data, '2');
    s.close();
  });
});

describe('DELETE', () => {
  test('delete_is_204_and_drops_the_history__readers_behind_it_see_a_gap', async () => {
    const ids = (await publishAll(d, [['del', '1'], ['del', '2'], ['del/other', 'o'], ['del', '3'], ['del?ephemeral=1', 'e']])).map((m) => m.id);
    const live = await sse(d, '/live/del');
    const r = await request(d, 'DELETE', '/live/del');
    assert.equal(r.status, 204);
    assert.equal(r.headers['content-length'], undefined);
    assert.deepEqual(await poll(d, '/live/del'), { cursor: ids[4], messages: [] });
    assert.deepEqual((await poll(d, `/live/del?since=${ids[0]}`)).gap, { from: ids[0], to: ids[3], reason: 'evicted' });
    assert.ok(!('gap' in await poll(d, `/live/del?since=${ids[3]}`)), 'who had all of it sees none');
    assert.deepEqual(datas((await poll(d, '/live/del/other')).messages), ['o']);
    await pub(d, 'del', 'new');
    assert.equal((await live.next()).data, 'new', 'a live reader goes on without a gap');
    const late = await sse(d, `/live/del?since=${ids[0]}`);
    const gap = await late.next();
    assert.deepEqual([gap.event, JSON.parse(gap.data).to], ['gap', ids[3]]);
    assert.equal((await late.next()).data, 'new');
    live.close(); late.close();
  });

  test('delete_of_a_topic_that_never_was_is_204', async () => {
    assert.equal((await request(d, 'DELETE', '/live/del/never')).status, 204);
    assert.ok(!('gap' in await poll(d, `/live/del/never?since=${epoch}-0`)));
  });

  test('delete_keeps_the_connection', async () => {
    const answers = await pipeline(d, [['DELETE', '/live/del/x', {}], ['GET', '/live/del/x', {}], ['DELETE', '/live/del/x', {}]]);
    assert.deepEqual(answers.map((r) => r.status), [204, 200, 204]);
  });

  test('publish_off_refuses_post_and_delete_with_403_and_still_lets_read', async (t) => {
    const own = await daemon(t, '--publish', 'off');
    assertError(await post(own, '/live/t', 'x'), 403);
    assertError(await request(own, 'DELETE', '/live/t'), 403);
    assert.deepEqual((await poll(own, '/live/t')).messages, []);
    const open = await daemon(t, '--publish', 'open');
    assert.equal((await post(open, '/live/t', 'x')).status, 202);
  });
});

describe('OPTIONS and CORS', () => {
  const list = (value = '') => value.toLowerCase().split(/\s*,\s*/);
  const preflight = (origin, method = 'POST', target = '/live/cors') => request(d, 'OPTIONS', target, {
    Origin: origin, 'Access-Control-Request-Method': method, 'Access-Control-Request-Headers': 'content-type,idempotency-key,last-event-id,if-none-match,authorization',
  });

  test('options_answers_a_preflight_of_an_allowed_origin', async () => {
    for (const origin of [ORIGIN, 'http://localhost:3000']) {
      const r = await preflight(origin);
      assert.ok([200, 204].includes(r.status), r.text);
      assert.equal(r.headers['access-control-allow-origin'], origin);
      assert.ok(list(r.headers.vary).includes('origin'));
      const methods = list(r.headers['access-control-allow-methods']);
      for (const m of ['get', 'post', 'delete']) assert.ok(methods.includes(m), m);
      const headers = list(r.headers['access-control-allow-headers']);
      for (const h of ['content-type', 'idempotency-key', 'last-event-id', 'authorization']) assert.ok(headers.includes(h) || headers.includes('*') && h !== 'authorization', h);
    }
  });

  test('options_of_another_origin_allows_nothing', async () => {
    for (const origin of ['https://evil.example', `${ORIGIN}.evil.example`, 'http://app.example', `${ORIGIN}:444`, 'null']) {
      const r = await preflight(origin);
      assert.equal(r.headers['access-control-allow-origin'], undefined, origin);
    }
  });

  test('options_without_an_origin_says_what_is_allowed', async () => {
    const r = await request(d, 'OPTIONS', '/live/cors');
    assert.ok([200, 204].includes(r.status));
    assert.equal(r.headers['access-control-allow-origin'], undefined);
  });

  test('cors_every_answer_to_an_allowed_origin_names_it', async () => {
    const headers = { Origin: ORIGIN };
    const s = await sse(d, '/live/cors', headers);
    const bad = await get(d, '/live/cors?since=bad', headers);
    assert.equal(bad.status, 400);
    const { cursor } = await poll(d, '/live/cors');
    const answers = [await get(d, '/live/cors', headers), await post(d, '/live/cors', 'x', headers), await get(d, '/live/cors/none', { ...headers, 'If-None-Match': `"${cursor}"` }), s.r, bad];
    for (const r of answers) {
      assert.equal(r.headers['access-control-allow-origin'], ORIGIN, `${r.status}`);
      assert.ok(list(r.headers.vary).includes('origin'), `${r.status}`);
    }
    s.close();
    assert.equal((await get(d, '/live/cors')).headers['access-control-allow-origin'], undefined);
  });

  test('cors_star_allows_all', async (t) => {
    const own = await daemon(t, '--set', 'origin=*');
    const r = await get(own, '/live/t', { Origin: 'https://any.example' });
    assert.equal(r.status, 200);
    assert.ok(['*', 'https://any.example'].includes(r.headers['access-control-allow-origin']));
    assert.ok(!(r.headers['access-control-allow-origin'] === '*' && r.headers['access-control-allow-credentials']));
    const w = await Ws.open(own, '/live/t', { Origin: 'https://any.example' });
    w.close();
  });
});

describe('methods', () => {
  test('other_methods_are_405_with_allow__rfc9110_15_5_6', async () => {
    for (const method of ['PUT', 'PATCH', 'TRACE', 'PROPFIND', 'FOO', 'get', 'Post']) {
      const r = assertError(await request(d, method, '/live/m'), 405);
      const allow = r.headers.allow.split(/\s*,\s*/);
      for (const m of ['GET', 'HEAD', 'POST', 'DELETE', 'OPTIONS']) assert.ok(allow.includes(m), `${m} in ${r.headers.allow}`);
      assert.ok(!allow.includes(method));
    }
  });
});

test('readers_of_a_published_topic_are_counted_down_when_they_leave', async () => {
  const s = await sse(d, '/live/leave');
  await readers(d, 'leave', 1);
  s.close();
  await readers(d, 'leave', 0);
});

describe('curl', { skip: spawnSync('curl', ['--version']).status !== 0 && 'no curl' }, () => {
  const curl = (args, input) => new Promise((done) => {
    const p = execFile('curl', ['-sS', '--max-time', '10', ...args], (error, stdout) => done({ code: error?.code ?? 0, stdout }));
    p.stdin.end(input);
  });

  test('curl_d_publishes_text__and_reads_it', async () => {
    const r = await curl(['-d', 'a=b&c', '-w', '%{http_code}', `${d.url}/live/curl`]);
    assert.match(r.stdout, /^\{"id":"[a-z0-9]{8}-\d+","topic":"curl","subscribers":0\}\n202$/);
    assert.equal((await last('curl')).data, 'a=b&c');
    assert.deepEqual(datas(JSON.parse((await curl([`${d.url}/live/curl`])).stdout).messages), ['a=b&c']);
  });

  test('curl_stdin_is_published_chunked', async () => {
    await curl(['-X', 'POST', '-T', '-', '-H', 'Content-Type: application/octet-stream', `${d.url}/live/curl/in`], Buffer.from([0, 1, 255]));
    assert.equal((await last('curl/in')).data, 'AAH/');
  });

  test('curl_n_follows_the_stream', async () => {
    const p = spawn('curl', ['-sSN', '--max-time', '10', '-H', 'Accept: text/event-stream', `${d.url}/live/curl/n`]);
    let text = '';
    p.stdout.on('data', (x) => { text += x; });
    await eventually(() => text.includes('retry:'), 'the first bytes');
    const { id } = await pub(d, 'curl/n', 'streamed');
    await eventually(() => text.endsWith(`id: ${id}\ndata: streamed\n\n`), 'the message');
    p.kill();
  });

  test('curl_i_shows_the_head_and_no_body', async () => {
    assert.match((await curl(['-I', `${d.url}/live/curl?wait=9`])).stdout, /^HTTP\/1\.1 200 [^\r]*\r\n/);
  });

  test('curl_asks_before_it_sends_much_and_is_refused', async () => {
    const r = await curl(['--data-binary', '@-', '-w', '%{http_code} %{size_upload}', '-o', '/dev/null', '-H', 'Expect: 100-continue', `${d.url}/live/curl/big`], Buffer.alloc(2 * 1024 * 1024, 'x'));
    assert.equal(r.stdout, '413 0');
  });
});
