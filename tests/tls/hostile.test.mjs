// Slow, half-finished and hostile peers; writes that the socket takes in parts; the end by SIGTERM.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import crypto from 'node:crypto';
import { daemon, smallDaemon, issue, curl, run, sClient, rtcat, ca, wire, eventually, sleep, range, WebSocket } from './lib.mjs';

const only = (version) => ({ minVersion: version, maxVersion: version });
const alone = (d) => eventually(async () => (await wire.stats(d)).connections === 1, 'only the one that asks is left', 8000);
const goesOn = async (d) => { assert.equal((await wire.get(d, '/hello')).text, 'hello'); await alone(d); };

// A ClientHello as Node makes it.
async function clientHello() {
  const hello = new Promise((done) => {
    const server = net.createServer((s) => s.once('data', (d) => { s.destroy(); server.close(); done(d); }));
    server.listen(0, '127.0.0.1', () => run('openssl', ['s_client', '-connect', `127.0.0.1:${server.address().port}`, '-servername', 'localhost'], { input: '' }));
  });
  return hello;
}

describe('the handshake', { concurrency: 3 }, () => {
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`${version}_byte_by_byte`, async (t) => {
      const d = await daemon(t);
      const { tap, socket } = await d.tapped(only(version), { isBytewise: true });
      const conn = new wire.Conn(socket, d);
      conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
      assert.equal((await conn.response()).text, 'hello');
      assert.ok(tap.writes > 300, `${tap.writes} writes`);
      tap.destroy();
      await goesOn(d);
    });
  }

  test('that_is_not_done_within_header_timeout_ms_is_closed__silent_half_and_dripping', async (t) => {
    const d = await daemon(t, '--set', 'header_timeout_ms=700');
    const hello = await clientHello();
    const took = async (say) => {
      const c = await d.raw(), begin = Date.now();
      const timer = say(c);
      await c.eof(5000, { reset: true });
      clearInterval(timer);
      c.destroy();
      return Date.now() - begin;
    };
    const all = await Promise.all([
      took(() => {}), took((c) => { c.write(hello.subarray(0, 50)); }), took((c) => { c.write(hello); }), // all but the client's last flight
      took((c) => { let at = 0; return setInterval(() => { if (!c.over) c.write(hello.subarray(at, ++at)); }, 20); }),
    ]);
    for (const ms of all) assert.ok(ms > 500 && ms < 2500, `${all}`);
    const c = await d.connect(); // and one that is done, and says half a head
    c.write('GET /hello HT');
    assert.equal((await c.response()).status, 408);
    await goesOn(d);
  });

  test('garbage_instead_of_a_hello', async (t) => {
    const d = await daemon(t);
    const hello = await clientHello();
    const changed = (at, byte) => { const b = Buffer.from(hello); b[at] = byte; return b; };
    const pieces = [
      crypto.randomBytes(1000), Buffer.alloc(1000), Buffer.alloc(70000, 0xff), Buffer.from([22, 3, 1, 0xff, 0xff, ...Buffer.alloc(100)]), Buffer.from([22, 3, 1, 0, 0]),
      Buffer.from([21, 3, 1, 0, 2, 2, 40]), Buffer.from([20, 3, 1, 0, 1, 1]), Buffer.from([23, 3, 3, 0, 5, 1, 2, 3, 4, 5]), Buffer.from('\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10', 'latin1'), // an SSL 2 hello
      ...range(0, 60).map((at) => changed(at, hello[at] ^ 0xff)), hello.subarray(0, 40), Buffer.concat([hello, hello]), Buffer.concat([hello, crypto.randomBytes(500)]),
    ];
    for (const bytes of pieces) {
      const c = await d.raw();
      c.write(bytes);
      c.end();
      await c.eof(5000, { reset: true });
    }
    await goesOn(d);
  });

  test('two_hundred_half_open_ones_that_drop__while_others_are_served', async (t) => {
    const d = await daemon(t);
    const hello = await clientHello();
    const half = await Promise.all(range(1, 200).map(async (n) => { const c = await d.raw(); c.write(hello.subarray(0, n % 3 ? hello.length : n)); return c; }));
    assert.equal((await wire.get(d, '/hello')).text, 'hello');
    await eventually(async () => (await wire.stats(d)).connections === 201, '200, and the one that asks');
    for (const [n, c] of half.entries()) { if (n % 2) c.socket.resetAndDestroy(); else c.destroy(); }
    await goesOn(d);
  });

  test('what_is_changed_on_the_way_ends_the_connection__and_no_byte_of_it_is_taken', async (t) => {
    const d = await daemon(t);
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      const { tap, socket } = await d.tapped(only(version));
      tap.hold();
      socket.write(wire.requestBytes(d.host, 'POST', '/live/a', {}, 'x'.repeat(100)));
      await eventually(() => tap.held.length, 'a record');
      tap.held[tap.held.length - 1][60] ^= 1;
      tap.release();
      await eventually(() => tap.isPeerEnded || tap.error, 'its end');
      tap.destroy();
    }
    assert.deepEqual((await wire.poll(d, '/live/a?since=earliest')).messages, []);
    await goesOn(d);
  });

  test('a_certificate_of_40_KB_through_a_send_buffer_of_4__the_handshake_waits_for_room', async (t) => {
    const long = issue('long', { ca, names: ['DNS:localhost', ...range(1, 1200).map((n) => `DNS:${n}.a-name-of-some-length.example`)].join(',') });
    const d = await smallDaemon(t, 4608, '--cert', long.cert, '--key', long.key);
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      const s = await d.socket(only(version));
      const conn = new wire.Conn(s, d);
      conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
      assert.equal((await conn.response()).text, 'hello');
      s.destroy();
    }
    await goesOn(d);
  });

  test('one_too_many_is_told_503_over_TLS', async (t) => {
    const d = await daemon(t, '--set', 'connections_max=3');
    const held = await Promise.all(range(1, 3).map(() => d.raw()));
    const r = await curl(d, '/hello', ['-i']);
    assert.match(r.out, /^HTTP\/1\.1 503 [^]*\r\nRetry-After: /i, r.err);
    for (const c of held) c.destroy();
    await eventually(async () => (await curl(d, '/hello')).out === 'hello', 'room again');
  });

  // RFC 9112 §9.6: a close that finds unread bytes resets the connection, and the answer is lost with it.
  for (const isTls of [true, false]) {
    test(`a_body_that_is_refused_at_its_head_and_still_comes__the_answer_arrives_without_a_reset__${isTls ? 'TLS' : 'plain'}`, async (t) => {
      const d = await daemon(t, '--listen', 'https://127.0.0.1:0', '--listen', 'http://127.0.0.1:0');
      for (const n of range(1, 5)) {
        const c = isTls ? await d.connect() : await d.raw({ host: '127.0.0.1', port: Number(new URL(d.listening[1]).port) });
        c.pause();
        c.write('POST /live/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n');
        for (const k of range(1, 5)) { await sleep(10 * n); c.write(Buffer.alloc(5000)); }
        await sleep(20);
        c.resume();
        const r = await c.response();
        assert.equal(r.status, 413);
        await c.eof();
        c.destroy();
      }
      await goesOn(d);
    });
  }
});

describe('writes', { concurrency: 3 }, () => {
  test('a_reader_that_stops_in_the_middle_of_a_record_and_goes_on__exact_bytes', async (t) => {
    const d = await smallDaemon(t, 20000, '--set', 'history_bytes=10000000');
    const w = await wire.Ws.open(d, '/live/a?since=earliest');
    const sent = range(1, 8).map((n) => crypto.randomBytes(400000).toString('base64') + n);
    w.c.pause();
    for (const s of sent) await wire.pub(d, 'a', s);
    const held = (await wire.stats(d)).bytes_out;
    await sleep(400);
    assert.ok((await wire.stats(d)).bytes_out - held < 20000, 'it waits: only our own answers went out');
    w.c.resume();
    for (const s of sent) { const m = await w.next(); assert.ok(m.text === s, `${m.text?.length} of ${s.length} bytes`); }
    await w.alive();
    w.close();
    await goesOn(d);
  });

  test('fan_out_through_small_buffers__each_reader_gets_every_number_in_order', async (t) => {
    const d = await smallDaemon(t, 4608, '--set', 'history=3000', '--set', 'history_bytes=20000000', '--set', 'message_max=200000');
    const wires = await Promise.all(range(1, 12).map(() => wire.Ws.open(d, '/live/a')));
    const streams = await Promise.all(range(1, 6).map(() => wire.sse(d, '/live/a')));
    const sizes = range(1, 60).map((n) => [10, 700, 16380, 16384, 17000, 40000][n % 6] + n);
    const message = (n) => `${n}:${'abcdefghij'.repeat(Math.ceil(sizes[n - 1] / 10)).slice(0, sizes[n - 1])}`;
    const all = [
      ...wires.map(async (w, k) => { for (const n of range(1, 60)) { if (k % 4 === 0 && n % 10 === 0) { w.c.pause(); await sleep(30); w.c.resume(); } assert.equal((await w.next(40000)).text === message(n), true, `WebSocket ${k}, message ${n}`); } }),
      ...streams.map(async (s, k) => { for (const n of range(1, 60)) assert.equal((await s.next(40000)).data === message(n), true, `stream ${k}, message ${n}`); }),
    ];
    const publishing = wire.publishAll(d, range(1, 60).map((n) => ['a', message(n)]));
    await Promise.all([...all, publishing]);
    for (const c of [...wires, ...streams]) c.close();
    await goesOn(d);
  });

  test('echo_both_ways_at_once_through_small_buffers', async (t) => {
    const d = await smallDaemon(t, 4608);
    const w = await wire.Ws.open(d, '/echo');
    const sent = range(1, 40).map((n) => crypto.randomBytes(n * 1000));
    for (const m of sent) w.binary(m);
    for (const [n, m] of sent.entries()) assert.ok((await w.next(30000)).payload.equals(m), `message ${n}`);
    w.close();
    await goesOn(d);
  });

  test('a_reader_that_goes_with_a_record_half_written', async (t) => {
    const d = await smallDaemon(t, 20000);
    for (const n of range(1, 6)) {
      const w = await wire.Ws.open(d, `/live/${n}`);
      w.c.pause();
      await wire.pub(d, String(n), 'x'.repeat(900000));
      await sleep(50);
      if (n % 2) w.c.socket.destroy(); else { w.c.socket.end(); await sleep(20); w.c.socket.destroy(); }
    }
    await goesOn(d);
  });

  test('a_reader_that_never_reads_on_does_not_hold_the_drain_beyond_its_deadline', async (t) => {
    const d = await smallDaemon(t, 20000, '--drain-spread', '100', '--drain-deadline', '1000');
    const w = await wire.Ws.open(d, '/live/a');
    w.c.pause();
    for (const n of range(1, 3)) await wire.pub(d, 'a', String(n).repeat(900000));
    const begin = Date.now();
    d.process.kill('SIGTERM');
    assert.deepEqual(await d.exit, { code: 0, signal: null });
    assert.ok(Date.now() - begin < 5000);
  });
});

describe('drain', { concurrency: 3 }, () => {
  test('wss_gets_1012__SSE_its_end_with_close_notify__polls_their_answer', async (t) => {
    const d = await daemon(t, '--drain-spread', '300');
    const ws = range(1, 5).map(() => new WebSocket(`wss://127.0.0.1:${d.port}/live/a`, { ...d.tls }));
    const closes = ws.map((w) => new Promise((done, failed) => w.on('close', (code, reason) => done(`${code} ${String(reason).replace(/\d+/, 'N')}`)).on('error', failed)));
    const streams = range(1, 5).map(() => curl(d, '/live/a', ['-N', '-H', 'Accept: text/event-stream']));
    const polls = range(1, 3).map(() => curl(d, '/live/a?wait=20'));
    const s = sClient(d, ['-ign_eof'], { input: 'GET /live/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n' });
    await eventually(async () => { const n = await wire.stats(d); return n.websockets === 5 && n.event_streams === 6 && n.parked_polls === 3; }, 'all of them');
    d.process.kill('SIGTERM');
    assert.deepEqual(await Promise.all(closes), range(1, 5).map(() => '1012 retry=N'));
    for (const r of await Promise.all(streams)) { assert.equal(r.code, 0, r.err); assert.equal(r.err, ''); } // 56: no close_notify
    for (const r of await Promise.all(polls)) { assert.equal(r.code, 0, r.err); assert.ok('reconnect' in JSON.parse(r.out)); }
    const r = await s;
    assert.doesNotMatch(r.err + r.out, /unexpected eof|read:errno|errno=/, 's_client');
    assert.match(r.out, /text\/event-stream/);
    assert.deepEqual(await d.exit, { code: 0, signal: null });
  });

  test('close_notify_comes_before_the_end__also_of_1_0_and_Connection_close', async (t) => {
    const d = await daemon(t);
    for (const head of ['GET /hello HTTP/1.0\r\n\r\n', 'GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', 'BROKEN\r\n\r\n']) {
      const { tap, socket } = await d.tapped(only('TLSv1.2'));
      let got = '';
      socket.on('data', (x) => { got += x; });
      socket.write(head);
      await eventually(() => tap.isPeerEnded, 'the end');
      assert.equal(tap.records.at(-1)[0], 21, `${head}: the last record is no alert: ${JSON.stringify(tap.records)}`);
      assert.equal(tap.records.filter(([type]) => type === 21).length, 1);
      assert.match(got, /^HTTP\/1\.1 /);
      tap.destroy();
    }
  });

  test('close_notify_waits_for_a_slow_reader__small_buffers__50_times', async (t) => {
    const d = await smallDaemon(t, 4608);
    const body = 'y'.repeat(30000), lost = [];
    for (const n of range(1, 50)) {
      const { tap, socket } = await d.tapped(only('TLSv1.2'));
      let size = 0;
      tap.c.pause();
      socket.on('data', (x) => { size += x.length; });
      socket.write(wire.requestBytes(d.host, 'POST', '/hello', { Connection: 'close' }, body.slice(0, n * 600)));
      await sleep(3);
      tap.c.resume();
      await eventually(() => tap.isPeerEnded, 'the end');
      if (tap.records.at(-1)[0] !== 21) lost.push(n);
      assert.ok(size > n * 600);
      tap.destroy();
    }
    assert.deepEqual(lost, [], 'sizes without a close_notify');
  });

  test('rtcat_comes_again_after_a_drain_by_its_session', async (t) => {
    const d = await daemon(t, '--drain-spread', '50');
    const reading = rtcat(`${d.url}/live/a`, ['--transport', 'sse', '--no-reconnect', '--count', '2']);
    await wire.readers(d, 'a', 1);
    d.process.kill('SIGTERM');
    const r = await reading;
    assert.doesNotMatch(r.err, /broke off/, 'it was told');
    assert.deepEqual(await d.exit, { code: 0, signal: null });
  });
});
