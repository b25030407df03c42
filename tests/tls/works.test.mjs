// Everything that works in the clear works over TLS: real peers on every transport.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import https from 'node:https';
import crypto from 'node:crypto';
import { createRequire } from 'node:module';
import { daemon, curl, rtcat, run, RTCAT, ca, wire, WebSocket, eventually, sleep, range, root } from './lib.mjs';

const { EventSource } = await import(createRequire(`${root}/tests/wire/package.json`).resolve('eventsource').replace(/index\.cjs$/, 'index.js'));
const SIZES = [0, 1, 125, 126, 65535, 65536, 1 << 20];
const text = (n) => { const s = crypto.randomBytes(Math.ceil(n / 2) || 1).toString('hex').slice(0, n); assert.equal(s.length, n); return s; };
const post = (d, topic, body, options = {}) => new Promise((done, failed) => {
  const r = https.request({ ...d.address, ...d.tls, method: 'POST', path: `/live/${topic}`, agent: false, ...options }, (answer) => {
    let got = '';
    answer.on('data', (x) => { got += x; }).on('end', () => done({ status: answer.statusCode, text: got, protocol: answer.socket.getProtocol() }));
  });
  r.on('error', failed);
  r.end(body);
});

describe('works', { concurrency: 4 }, () => {
  test('wss_echo_by_ws__text_and_binary_of_every_size', async (t) => {
    const d = await daemon(t);
    const w = new WebSocket(`${d.wss}/echo`, { ...d.tls, perMessageDeflate: false, lookup: (h, o, cb) => cb(null, o?.all ? [{ address: '127.0.0.1', family: 4 }] : '127.0.0.1', 4) });
    const got = [];
    w.on('message', (data, isBinary) => got.push({ data, isBinary }));
    await new Promise((done, failed) => w.on('open', done).on('error', failed));
    for (const n of SIZES) for (const isBinary of [true, false]) {
      const sent = isBinary ? crypto.randomBytes(n) : Buffer.from(text(n));
      w.send(sent, { binary: isBinary });
      const m = await eventually(() => got.shift(), `the echo of ${n} bytes`);
      assert.equal(m.isBinary, isBinary);
      assert.ok(m.data.equals(sent), `${n} bytes, binary ${isBinary}: ${m.data.length} came back`);
    }
    const closed = new Promise((done) => w.on('close', done));
    w.close(1000);
    assert.equal(await closed, 1000);
  });

  test('wss_echo_by_ws__many_in_flight__in_order', async (t) => {
    const d = await daemon(t);
    const w = await wire.Ws.open(d, '/echo');
    const sent = range(1, 300).map((n) => crypto.randomBytes((n * 7919) % 5000));
    for (const m of sent) w.binary(m);
    for (const m of sent) assert.ok((await w.next()).payload.equals(m));
    w.close();
  });

  test('wss_echo_by_rtcat_plain__every_size', async (t) => {
    const d = await daemon(t);
    for (const n of SIZES) {
      const line = text(n);
      const r = await rtcat(`${d.wss}/echo`, ['--plain', '--quiet', '--count', '1'], { input: `${line}\n` });
      assert.equal(r.code, 0, `${n}: ${r.err}`);
      assert.equal(r.out, `${line}\n`, `${n} bytes: ${r.out.length}`);
    }
  });

  test('https_post_and_polls_by_curl', async (t) => {
    const d = await daemon(t);
    const p = await curl(d, '/live/a', ['--data-binary', 'one', '-w', '\n%{http_code} %{ssl_verify_result}']);
    assert.equal(p.code, 0, p.err);
    assert.match(p.out, /"id":"[a-z0-9]{8}-1"[^]*\n202 0$/);
    const s = await curl(d, '/live/a?since=earliest');
    assert.deepEqual(JSON.parse(s.out).messages.map((m) => m.data), ['one']);
    const { cursor } = JSON.parse(s.out);
    const held = curl(d, `/live/a?since=${cursor}&wait=20`);
    await wire.parked(d, 1);
    await curl(d, '/live/a', ['--data-binary', 'two']);
    assert.deepEqual(JSON.parse((await held).out).messages.map((m) => m.data), ['two']);
    const twice = await curl(d, '/hello', [`${d.url}/hello`, '-w', '%{num_connects},']); // one connection carries both
    assert.equal(twice.out, 'hello1,hello0,');
  });

  test('https_large_post_by_curl_and_back_by_a_poll', async (t) => {
    const d = await daemon(t);
    const body = text(1 << 20);
    const p = await run('curl', ['-sS', '--http1.1', '--cacert', ca.cert, '--resolve', `localhost:${d.port}:127.0.0.1`, '--data-binary', '@-', `${d.url}/live/big`], { input: body });
    assert.match(p.out, /"id"/, p.err);
    const s = await curl(d, '/live/big?since=earliest');
    assert.equal(JSON.parse(s.out).messages[0].data, body);
  });

  test('https_sse_by_curl', async (t) => {
    const d = await daemon(t);
    const reading = curl(d, '/live/a?since=earliest', ['-N', '-H', 'Accept: text/event-stream'], { onStart: (child) => child.stdout.on('data', (x) => { if (String(x).includes('m20')) child.kill(); }) });
    await wire.readers(d, 'a', 1);
    await wire.publishAll(d, range(1, 20).map((n) => ['a', `m${n}`]));
    const r = await reading;
    assert.equal(r.code, 'SIGTERM', r.err); // by us
    assert.deepEqual([...r.out.matchAll(/^data: (m\d+)$/gm)].map((m) => m[1]), range(1, 20).map((n) => `m${n}`));
  });

  test('https_sse_by_an_event_source', async (t) => {
    const d = await daemon(t);
    const { Agent } = https;
    const agent = new Agent({ ...d.tls });
    t.after(() => agent.destroy());
    // Its fetch is ours: by https, so that the certificate is checked against our authority.
    const byHttps = (url, init) => new Promise((done, failed) => {
      const r = https.get({ ...d.address, path: new URL(url).pathname, headers: init.headers, agent, signal: init.signal }, (answer) => {
        done({ status: answer.statusCode, url: String(url), redirected: false, headers: new Headers(answer.headers), body: new ReadableStream({ start(c) { answer.on('data', (x) => c.enqueue(new Uint8Array(x))).on('end', () => c.close()).on('error', (e) => c.error(e)); } }) });
      });
      r.on('error', failed);
    });
    const source = new EventSource(`${d.url}/live/a`, { fetch: byHttps });
    t.after(() => source.close());
    const got = [];
    source.onmessage = (e) => got.push([e.lastEventId, e.data]);
    await wire.readers(d, 'a', 1);
    got.length = 0; // the probes
    const ids = (await wire.publishAll(d, range(1, 20).map((n) => ['a', `m${n}`]))).map(({ id }, i) => [id, `m${i + 1}`]);
    await eventually(() => got.filter(([, data]) => data !== 'probe').length === 20, '20 events');
    assert.deepEqual(got.filter(([, data]) => data !== 'probe'), ids);
  });

  test('https_post_by_node__1_2_and_1_3', async (t) => {
    const d = await daemon(t);
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      const r = await post(d, 'a', version, { minVersion: version, maxVersion: version });
      assert.equal(r.status, 202, r.text);
      assert.equal(r.protocol, version);
    }
    assert.deepEqual((await wire.poll(d, '/live/a?since=earliest')).messages.map((m) => m.data), ['TLSv1.2', 'TLSv1.3']);
  });

  for (const [name, flag] of [['WebSocket', 'ws'], ['SSE', 'sse'], ['long_poll', 'lp'], ['short_poll', 'sp']]) {
    test(`rtcat_over_${name}__reads_and_publishes`, async (t) => {
      const d = await daemon(t);
      const lines = (from, to) => range(from, to).map((n) => `m${n}\n`).join('');
      const flags = ['--transport', flag, '--count', '40', '--since', 'earliest'];
      const reading = rtcat(`${d.url}/live/a`, flags);
      await wire.publishAll(d, range(1, 20).map((n) => ['a', `m${n}`]));
      const writing = rtcat(`${d.url}/live/a`, flags, { input: lines(21, 40) });
      for (const r of [await reading, await writing]) {
        assert.equal(r.code, 0, r.err);
        assert.equal(r.out, lines(1, 40));
      }
    });
  }

  test('rtcat_auto_takes_a_WebSocket__and_a_wss_url_does_the_same', async (t) => {
    const d = await daemon(t);
    for (const url of [d.url, d.wss]) {
      const reading = rtcat(`${url}/live/${url.slice(0, 3)}`, ['--count', '1']);
      await eventually(async () => (await wire.stats(d)).websockets === 1, 'a WebSocket');
      await wire.pub(d, url.slice(0, 3), 'x');
      assert.equal((await reading).out, 'x\n');
      await eventually(async () => (await wire.stats(d)).websockets === 0, 'its end');
    }
  });

  test('a_pipelined_request_and_one_that_comes_byte_by_byte__each_in_a_record_of_its_own', async (t) => {
    const d = await daemon(t);
    const all = await wire.pipeline(d, range(1, 50).map((n) => ['POST', '/hello', {}, `n${n}`]));
    assert.deepEqual(all.map((r) => r.text), range(1, 50).map((n) => `n${n}`));
    const c = await d.connect();
    for (const byte of wire.requestBytes(d.host, 'POST', '/hello', {}, 'slow')) { c.write(Buffer.from([byte])); if (byte === 10) await sleep(1); }
    assert.equal((await c.response()).text, 'slow');
    c.destroy();
  });

  test('http_and_https_listeners_of_one_daemon_share_the_topics', async (t) => {
    const d = await daemon(t, '--listen', 'https://127.0.0.1:0', '--listen', 'http://127.0.0.1:0');
    const plain = Number(new URL(d.listening[1]).port);
    const s = await wire.sse(d, '/live/a');
    const r = await run('curl', ['-sS', '--data-binary', 'x', `http://127.0.0.1:${plain}/live/a`], { input: '' });
    assert.match(r.out, /"id"/, r.err);
    assert.equal((await s.next()).data, 'x');
    s.close();
  });

  // What one segment brings in one read: data, and the notice that no more will come. No FIN follows: the peer waits for
  // our notice first, as SSL_shutdown and Python's unwrap() do.
  for (const [name, last] of [['alone', ''], ['with_its_last_data', 'passed over']]) {
    test(`close_notify_that_comes_${name}_ends_a_stream`, async (t) => {
      const d = await daemon(t);
      const { tap, socket } = await d.tapped({}, { keepsFin: true });
      socket.write(wire.requestBytes(d.host, 'GET', '/live/a', { Accept: 'text/event-stream' }));
      await eventually(async () => (await wire.stats(d)).event_streams === 1, 'a stream');
      tap.hold();
      if (last) socket.write(last);
      socket.end();
      await eventually(() => tap.isEnded, 'our close_notify');
      tap.release();
      await eventually(async () => (await wire.stats(d)).event_streams === 0, 'the stream goes when its reader has said that he has', 5000);
      tap.destroy();
    });
  }
});
