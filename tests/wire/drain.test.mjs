// PROTOCOL §6: a drain, as SIGTERM begins one in the daemon (spread 3 s, deadline 10 s).
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, poll, pub, publishAll, pollBody, requestBytes, sse, Ws, Envelope, OP, datas, range, parked, eventually, sleep, closeBytes, stats } from './lib.mjs';

const term = (d) => d.process.kill('SIGTERM');
const refusesConnections = async (d) => {
  try { (await d.connect()).destroy(); return false; } catch (e) { assert.equal(e.code, 'ECONNREFUSED'); return true; }
};
const ended = async (d, ms = 15000) => {
  const late = sleep(ms).then(() => assert.fail(`no exit within ${ms} ms`));
  assert.deepEqual(await Promise.race([d.exit, late]), { code: 0, signal: null });
};

describe('drain', { concurrency: true }, () => {
  test('drain_without_a_reader_ends_at_once_with_0', async (t) => {
    const d = await daemon(t);
    await pub(d, 't', 'x');
    const begin = Date.now();
    term(d);
    await ended(d);
    assert.ok(Date.now() - begin < 3000);
  });

  test('drain_the_listener_closes_first__then_the_readers_are_told', async (t) => {
    const d = await daemon(t);
    const e = await Envelope.open(d, '/live/t');
    const s = await sse(d, '/live/t');
    const w = await Ws.open(d, '/live/t');
    const p = get(d, '/live/t?wait=20');
    await parked(d, 1);
    const first = Promise.race([e.recv(15000), s.block(15000), w.next(15000), p]);
    term(d);
    await first;
    assert.ok(await refusesConnections(d), 'a new connection is refused when the first reader is told');
  });

  test('drain_parked_polls_are_answered_at_once__with_reconnect_and_connection_close', async (t) => {
    const d = await daemon(t);
    const { id } = await pub(d, 'other', 'x');
    const held = await Promise.all(range(1, 5).map(async () => {
      const c = await d.connect();
      c.write(requestBytes(d.host, 'GET', '/live/t?wait=20'));
      return c;
    }));
    await parked(d, 5);
    const keep = await Ws.open(d, '/live/t'); // so that the drain lasts
    const begin = Date.now();
    term(d);
    for (const c of held) {
      const r = await c.response();
      const { reconnect, ...rest } = pollBody(r);
      assert.deepEqual(rest, { cursor: id, messages: [] });
      assert.ok(Number.isInteger(reconnect) && reconnect >= 0 && reconnect <= 4000, `reconnect ${reconnect}`);
      assert.equal(r.headers.connection.toLowerCase(), 'close');
      await c.eof();
    }
    assert.ok(Date.now() - begin < 2500, 'at once');
    keep.close();
    await ended(d);
  });

  test('drain_envelope_gets_reconnect_then_1012_with_the_same_delay', async (t) => {
    const d = await daemon(t);
    const e = await Envelope.open(d, '/live/t');
    term(d);
    const o = await e.expect('reconnect');
    assert.deepEqual(Object.keys(o).sort(), ['after', 'type']);
    assert.ok(Number.isInteger(o.after) && o.after >= 0 && o.after <= 4000);
    const { seen } = await e.expectClose(1012, `retry=${o.after}`);
    assert.deepEqual(seen, [], 'the close follows');
    e.close();
    await ended(d);
  });

  test('drain_raw_websocket_gets_1012_and_a_reason', async (t) => {
    const d = await daemon(t, '--echo', '/echo');
    for (const w of [await Ws.open(d, '/live/t'), await Ws.open(d, '/echo')]) {
      w.pending = w.expectClose(1012, /^retry=\d+$/);
      t.pending = [...(t.pending ?? []), w.pending];
    }
    term(d);
    await Promise.all(t.pending);
    await ended(d);
  });

  test('drain_sse_gets_retry_then_the_end_of_the_stream', async (t) => {
    const d = await daemon(t);
    const s = await sse(d, '/live/t');
    term(d);
    const block = await s.block();
    assert.match(block.retry, /^\d+$/);
    assert.deepEqual([block.data, block.event], [undefined, undefined]);
    assert.equal(await s.block(), null, 'the last chunk');
    await s.c.eof();
    s.close();
    await ended(d);
  });

  test('drain_each_client_gets_its_own_delay__spread_evenly__and_the_closes_are_spread_too', async (t) => {
    const d = await daemon(t);
    const n = 40;
    const all = await Promise.all(range(1, n).map(() => Envelope.open(d, '/live/t')));
    term(d);
    const begin = Date.now();
    const told = await Promise.all(all.map(async (e) => {
      const { after } = await e.expect('reconnect', 15000);
      await e.expectClose(1012, `retry=${after}`, 15000);
      return { after, at: Date.now() - begin };
    }));
    const delays = told.map((x) => x.after).sort((a, b) => a - b);
    assert.ok(new Set(delays).size >= n * 0.75, `delays of their own: ${delays}`);
    for (let third = 0; third < 3; third++) {
      const inside = delays.filter((x) => x >= third * 1000 && x < (third + 1) * 1000).length;
      assert.ok(inside >= n / 8, `${inside} of ${n} delays in second ${third}: ${delays}`);
    }
    const times = told.map((x) => x.at).sort((a, b) => a - b);
    assert.ok(times.at(-1) - times[0] >= 1000, `closes from ${times[0]} to ${times.at(-1)} ms`);
    assert.ok(times.at(-1) <= 9000, `the last close after ${times.at(-1)} ms`);
    await ended(d);
  });

  test('drain_nothing_accepted_before_it_is_lost', async (t) => {
    const d = await daemon(t, '--set', 'history=1000');
    const s = await sse(d, '/live/t');
    const w = await Ws.open(d, '/live/t');
    const e = await Envelope.open(d, '/live/*');
    const p = get(d, '/live/t?wait=20');
    await parked(d, 1);
    const want = range(1, 300).map((i) => `${i} ${'x'.repeat(500)}`);
    await publishAll(d, want.map((x) => ['t', x]));
    term(d); // all 300 were answered
    const bySse = [];
    for (let m; (m = await s.next(15000)) !== null;) bySse.push(m.data);
    assert.deepEqual(bySse, want);
    assert.deepEqual((await w.expectClose(1012, undefined, 15000)).seen.map((m) => m.text), want);
    const byEnvelope = (await e.expectClose(1012, undefined, 15000)).seen.map((m) => JSON.parse(m.text)).filter((o) => o.type === 'message');
    assert.deepEqual(datas(byEnvelope), want);
    assert.equal((await p).json.messages[0].data, want[0]);
    for (const x of [s, w, e]) x.close();
    await ended(d);
  });

  test('drain_healthz_is_503_meanwhile', async (t) => {
    const d = await daemon(t);
    const w = await Ws.open(d, '/live/t');
    const c = await d.connect();
    c.write('GET /healthz HTTP/1.1\r\nHost: h\r\n'); // half a request keeps its connection
    await eventually(async () => (await stats(d)).connections >= 3, 'it was read');
    term(d);
    await eventually(() => refusesConnections(d), 'the listener to close');
    c.write('\r\n');
    assert.equal((await c.response()).status, 503);
    w.close();
    c.destroy();
    await ended(d);
  });

  test('drain_ends_by_its_deadline_though_clients_do_nothing', async (t) => {
    const d = await daemon(t);
    const silent = [await Ws.open(d, '/live/t'), await Envelope.open(d, '/live/t'), await sse(d, '/live/t')];
    const half = await d.connect();
    half.write('POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nx');
    const begin = Date.now();
    term(d);
    await ended(d, 20000);
    assert.ok(Date.now() - begin < 16000);
    for (const x of silent) x.close();
  });

  test('drain_lets_a_closing_handshake_end', async (t) => {
    const d = await daemon(t);
    const w = await Ws.open(d, '/live/t');
    term(d);
    const f = await w.frame(15000);
    assert.equal(f.opcode, OP.CLOSE);
    const begin = Date.now();
    w.send(OP.CLOSE, closeBytes(1012));
    await w.c.eof();
    await ended(d);
    assert.ok(Date.now() - begin < 6000, 'the last one to go ends it, not the deadline');
  });

  test('drain_polls_after_it_start_where_they_were__a_new_process_is_a_new_epoch', async (t) => {
    const d = await daemon(t);
    const { id } = await pub(d, 't', 'x');
    term(d);
    await ended(d);
    const next = await daemon(t);
    const body = await poll(next, `/live/t?since=${id}`);
    assert.deepEqual([body.gap.from, body.gap.reason], [id, 'epoch']);
  });
});
