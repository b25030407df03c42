// PROTOCOL §5: every row of the table of refusals.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, post, request, poll, pub, assertError, requestBytes, sse, Ws, Envelope, upgrade, handshake, range, eventually, sleep } from './lib.mjs';

const raw = (s) => Buffer.from(s, 'latin1');
const send = async (d, bytes) => {
  const c = await d.connect();
  c.write(bytes);
  return { c, r: await c.response() };
};

describe('malformed, over a limit', () => {
  test('refuse_malformed_request_is_400', async (t) => {
    const d = await daemon(t);
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', 'x\r\n\r\n', 'GET /live/a HTTP/1.1\r\nHost: h\r\nBad\r\n\r\n']) {
      const { c, r } = await send(d, raw(bytes));
      assertError(r, 400);
      await c.eof(undefined, { reset: true });
    }
    assertError(await get(d, '/live/a?since=bad'), 400);
  });

  test('refuse_over_a_header_limit_is_431__rfc6585_5', async (t) => {
    const d = await daemon(t);
    const lines = (n, value) => range(1, n).map((i) => `H${i}: ${value}\r\n`).join('');
    for (const rest of [lines(64, 'x'), lines(200, 'x'), lines(20, 'x'.repeat(1000)), `A: ${'x'.repeat(20000)}\r\n`, `${'N'.repeat(20000)}: x\r\n`]) {
      const { c, r } = await send(d, raw(`GET /live/a HTTP/1.1\r\nHost: h\r\n${rest}\r\n`));
      assertError(r, 431);
      await c.eof(undefined, { reset: true });
    }
    const c = await d.connect(); // refused as soon as it is too much, not when it ends
    c.write(raw(`GET /live/a HTTP/1.1\r\nHost: h\r\nA: ${'x'.repeat(20000)}`));
    assertError(await c.response(), 431);
  });

  test('refuse_a_request_line_over_8_kib_is_414', async (t) => {
    const d = await daemon(t);
    assert.equal((await get(d, `/live/a?x=${'y'.repeat(8000)}`)).status, 200);
    assertError((await send(d, raw(`GET /live/a?x=${'y'.repeat(9000)} HTTP/1.1\r\nHost: h\r\n\r\n`))).r, 414, 431);
    const c = await d.connect();
    c.write(raw(`GET /live/a?x=${'y'.repeat(9000)}`));
    assertError(await c.response(), 414, 431);
  });

  test('refuse_over_a_body_limit_is_413__before_the_body_is_read', async (t) => {
    const d = await daemon(t, '--set', 'body_max=1000');
    assert.equal((await post(d, '/live/a', 'x'.repeat(1000))).status, 202);
    const { c, r } = await send(d, requestBytes(d.host, 'POST', '/live/a', { 'Content-Length': '1001' }));
    assertError(r, 413);
    await c.eof(undefined, { reset: true });
    assertError(await post(d, '/live/a', 'x'.repeat(1001)), 413);
    assertError((await send(d, Buffer.concat([requestBytes(d.host, 'POST', '/live/a', { 'Transfer-Encoding': 'chunked' }), raw(`3e9\r\n${'x'.repeat(1001)}\r\n0\r\n\r\n`)]))).r, 413);
    assert.equal((await poll(d, '/live/a')).messages.length, 1);
  });

  test('refuse_a_message_over_message_max_is_413_by_post_1009_by_websocket', async (t) => {
    const d = await daemon(t, '--set', 'message_max=1000');
    assert.equal((await post(d, '/live/a', 'x'.repeat(1000))).status, 202);
    assertError(await post(d, '/live/a', 'x'.repeat(1001)), 413);
    const w = await Ws.open(d, '/live/a');
    w.text('x'.repeat(1001));
    await w.expectClose(1009);
  });

  test('refuse_malformed_frame_is_1002', async (t) => {
    const d = await daemon(t);
    for (const open of [() => Ws.open(d, '/live/a'), () => Envelope.open(d, '/live/a')]) {
      const w = await open();
      w.send(1, 'x', { mask: false });
      await w.expectClose(1002);
    }
  });
});

describe('not allowed', () => {
  test('refuse_not_allowed_is_403__before_the_upgrade_too', async (t) => {
    const d = await daemon(t);
    assertError(await get(d, '/live/@user/ann'), 403);
    assertError((await upgrade(d, handshake(d, '/live/@user/ann'))).r, 403);
    assertError(await post(d, '/live/@user/ann', 'x'), 403);
  });

  test('refuse_wrong_origin_is_403__before_the_upgrade', async (t) => {
    const d = await daemon(t);
    const host = d.host;
    for (const origin of ['https://evil.example', `http://${host}.evil.example`, `http://evil.example/${host}`, 'http://127.0.0.1:1', 'null', `ftp://${host}x`, 'file://', host]) {
      const headers = { Origin: origin };
      assertError((await upgrade(d, handshake(d, '/live/a', headers))).r, 403);
      assertError((await upgrade(d, handshake(d, '/live/a', [...Object.entries(headers), ['Sec-WebSocket-Protocol', 'rtpush.v1']]))).r, 403);
      assertError(await post(d, '/live/a', 'x', headers), 403);
      assertError(await request(d, 'DELETE', '/live/a', headers), 403);
      assertError(await get(d, '/live/a', headers), 403);
      assertError(await get(d, '/live/a', { ...headers, Accept: 'text/event-stream' }), 403);
    }
    assert.deepEqual((await poll(d, '/live/a')).messages, []);
  });

  test('refuse_no_origin_and_the_same_host_are_let_in', async (t) => {
    const d = await daemon(t);
    for (const headers of [{}, { Origin: `http://${d.host}` }]) {
      (await Ws.open(d, '/live/a', headers)).close();
      assert.equal((await post(d, '/live/a', 'x', headers)).status, 202);
      (await sse(d, '/live/a', headers)).close();
      await poll(d, '/live/a', headers);
    }
  });

  test('refuse_origins_are_those_of_the_list__exactly', async (t) => {
    const d = await daemon(t, '--set', 'origin=https://a.example,https://b.example:8443');
    for (const [origin, good] of [['https://a.example', true], ['https://b.example:8443', true], ['http://a.example', false], ['https://b.example', false], ['https://a.example:8443', false], ['https://xa.example', false], ['https://a.example.evil', false], ['https://a.example, https://b.example:8443', false]]) {
      const { r, c } = await upgrade(d, handshake(d, '/live/a', { Origin: origin }));
      assert.equal(r.status, good ? 101 : 403, origin);
      c.destroy();
    }
  });

  test('refuse_wrong_websocket_version_is_426_and_says_13', async (t) => {
    const d = await daemon(t);
    const { r } = await upgrade(d, raw(`GET /live/a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 7\r\n\r\n`));
    assertError(r, 426);
    assert.equal(r.headers['sec-websocket-version'], '13');
    assert.match(r.headers.upgrade ?? '', /websocket/i, 'RFC 9110 §15.5.22: a 426 names the protocol');
  });
});

describe('too slow, too many', { concurrency: true }, () => {
  const ended = async (c) => { // 408, or just the end
    const rest = (await c.eof(20000, { reset: true })).toString('latin1');
    assert.match(rest, /^$|^HTTP\/1\.1 408 /);
    if (rest) assert.match(rest, /\r\nconnection: close\r\n/i);
  };

  test('refuse_a_head_that_is_too_slow_is_408_or_the_end', async (t) => {
    const d = await daemon(t, '--set', 'header_timeout_ms=400');
    const begin = Date.now();
    const trickle = await d.connect(); // bytes do not move the deadline
    const timer = setInterval(() => { if (!trickle.over) trickle.write('x'); }, 50);
    t.after(() => clearInterval(timer));
    trickle.write('GET /live/');
    const half = await d.connect();
    half.write('GET /live/a HTTP/1.1\r\nHost: h\r\n');
    const silent = await d.connect();
    await Promise.all([trickle, half, silent].map(ended));
    const took = Date.now() - begin;
    assert.ok(took >= 350 && took < 9000, `after ${took} ms`);
  });

  test('refuse_a_body_that_is_too_slow_is_408_or_the_end', async (t) => {
    const d = await daemon(t); // less than 1 KiB a second after 5 s
    const begin = Date.now();
    const c = await d.connect();
    c.write(requestBytes(d.host, 'POST', '/live/a', { 'Content-Length': '100000' }));
    const timer = setInterval(() => { if (!c.over) c.write('x'); }, 100);
    t.after(() => clearInterval(timer));
    await ended(c);
    const took = Date.now() - begin;
    assert.ok(took >= 4500 && took < 16000, `after ${took} ms`);
  });

  test('refuse_an_idle_connection_ends', async (t) => {
    const d = await daemon(t, '--set', 'idle_timeout_ms=300', '--set', 'header_timeout_ms=5000');
    const c = await d.connect();
    c.write(requestBytes(d.host, 'GET', '/healthz'));
    await c.response();
    const begin = Date.now();
    assert.equal((await c.eof()).length, 0);
    const took = Date.now() - begin;
    assert.ok(took >= 200 && took < 9000, `after ${took} ms`);
  });

  test('refuse_an_open_stream_is_not_idle', async (t) => {
    const d = await daemon(t, '--set', 'idle_timeout_ms=600', '--set', 'header_timeout_ms=600');
    const s = await sse(d, '/live/a');
    const w = await Ws.open(d, '/live/a');
    const p = poll(d, '/live/a?wait=20');
    await sleep(1500);
    await pub(d, 'a', 'x');
    assert.equal((await s.next()).data, 'x');
    await w.expectText('x');
    assert.equal((await p).messages.length, 1);
    s.close(); w.close();
  });

  for (const [name, flag, status] of [['too_many_connections_are_503', 'connections_max=3', 503], ['too_many_connections_of_one_address_are_429', 'connections_per_ip_max=3', 429]]) {
    test(`refuse_${name}__with_retry_after`, async (t) => {
      const d = await daemon(t, '--set', flag);
      const held = [await sse(d, '/live/a'), await Ws.open(d, '/live/a'), await d.connect()];
      held[2].write(requestBytes(d.host, 'GET', '/healthz'));
      await held[2].response();
      for (let i = 0; i < 5; i++) {
        const c = await d.connect();
        c.write(i % 2 ? handshake(d, '/live/a') : requestBytes(d.host, 'GET', '/live/a'));
        const r = await c.response();
        assertError(r, status);
        assert.match(r.headers['retry-after'], /^\d+$/);
        await c.eof(undefined, { reset: true });
        c.destroy();
      }
      held[0].close();
      await eventually(async () => {
        const c = await d.connect();
        c.write(requestBytes(d.host, 'GET', '/live/a', { Connection: 'close' }));
        const r = await c.response().catch(() => ({ status: 0 }));
        c.destroy();
        return r.status === 200;
      }, 'a place again');
      held[1].text('still there');
      await held[1].expectText('still there');
    });
  }
});

describe('the error body', () => {
  test('refuse_every_error_is_error_and_reason_and_a_newline', async (t) => {
    const d = await daemon(t, '--set', 'body_max=10');
    const codes = new Map();
    for (const [status, method, target, body] of [[400, 'GET', '/live'], [403, 'GET', '/live/@x'], [404, 'GET', '/none'], [405, 'PUT', '/live/a'], [413, 'POST', '/live/a', 'x'.repeat(11)]]) {
      const r = assertError(await request(d, method, target, {}, body), status);
      assert.deepEqual(Object.keys(r.json), ['error', 'reason']);
      codes.set(r.json.error, status);
    }
    assert.equal(codes.size, 5, `a code for each: ${[...codes.keys()]}`);
  });

  test('refuse_head_of_an_error_has_no_body', async (t) => {
    const d = await daemon(t);
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'HEAD', '/none'), requestBytes(d.host, 'GET', '/healthz')]));
    assert.equal((await c.response('HEAD')).status, 404);
    assert.equal((await c.response()).status, 200);
  });

  test('refuse_an_error_of_the_library_keeps_the_connection', async (t) => {
    const d = await daemon(t);
    const c = await d.connect();
    for (const [method, target, status] of [['GET', '/live/a?since=bad', 400], ['GET', '/live/@x', 403], ['GET', '/none', 404], ['PUT', '/live/a', 405], ['GET', '/live/a', 200]]) {
      c.write(requestBytes(d.host, method, target));
      assert.equal((await c.response()).status, status);
    }
  });
});
