// PROTOCOL §2, §5 and DESIGN: a reader that does not read is a cursor; what happens when the log has moved on.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { daemon, poll, pub, sse, Ws, Envelope, OP, seqOf, range, stats, eventually, frameBytes, readers, requestBytes } from './lib.mjs';

// More than a socket takes while nobody reads: 20 MiB, of which the log holds 10 messages.
const N = 320;
const SIZE = 65536;
const payload = (i) => `${i} `.padEnd(SIZE, '.');
const number = (data) => parseInt(data, 10);
const flood = async (d, topic = 'flood') => {
  const ids = {};
  const c = await d.connect();
  for (let i = 1; i <= N; i++) {
    c.write(requestBytes(d.host, 'POST', `/live/${topic}`, {}, payload(i)));
    ids[i] = (await c.response()).json.id;
  }
  c.destroy();
  return ids;
};
const start = (t, policy) => daemon(t, '--set', 'history=10', '--set', `slow=${policy}`);
// A reader that has stopped reading and, when it reads again, what was sent to it.
const stopped = async (open) => { const r = await open(); r.c.pause(); return r; };

function check(got, ids) { // in order, whole, none twice
  for (const [i, m] of got.entries()) {
    assert.equal(m.data.length, SIZE);
    if (i) assert.ok(number(m.data) > number(got[i - 1].data));
    if (m.id) assert.equal(m.id, ids[number(m.data)]);
  }
}

describe('slow', { concurrency: 3 }, () => {
  test('slow_close__websocket_4100_slow__sse_ends__and_they_may_resume', async (t) => {
    const d = await start(t, 'close');
    const e = await stopped(() => Envelope.open(d, '/live/flood'));
    const w = await stopped(() => Ws.open(d, '/live/flood'));
    const s = await stopped(() => sse(d, '/live/flood'));
    const ids = await flood(d);
    e.c.resume(); w.c.resume(); s.c.resume();

    const byEnvelope = (await e.expectClose(4100, 'slow')).seen.map((m) => JSON.parse(m.text)).filter((o) => o.type === 'message');
    check(byEnvelope, ids);
    assert.deepEqual(byEnvelope.map((m) => number(m.data)), range(1, byEnvelope.length), 'without a hole up to the close');
    assert.ok(byEnvelope.length < N);

    const byWs = (await w.expectClose(4100, 'slow')).seen.map((m) => ({ data: m.text }));
    check(byWs, ids);
    assert.deepEqual(byWs.map((m) => number(m.data)), range(1, byWs.length));

    const bySse = [];
    for (let m; (m = await s.next()) !== null;) bySse.push(m);
    check(bySse, ids);
    assert.deepEqual(bySse.map((m) => number(m.data)), range(1, bySse.length));
    assert.ok((await stats(d)).closed_slow >= 3);

    const again = await sse(d, '/live/flood', { 'Last-Event-ID': s.lastId });
    const gap = await again.next();
    assert.deepEqual([gap.event, JSON.parse(gap.data)], ['gap', { from: s.lastId, to: ids[N - 10], reason: 'evicted' }]);
    assert.deepEqual((await again.take(10)).map((m) => number(m.data)), range(N - 9, N));
    again.close();
  });

  test('slow_skip__the_gap_is_told_and_the_reader_goes_on_from_the_oldest_held', async (t) => {
    const d = await start(t, 'skip');
    const e = await stopped(() => Envelope.open(d, '/live/flood'));
    const s = await stopped(() => sse(d, '/live/flood'));
    const before = e.hello.cursor;
    const ids = await flood(d);
    e.c.resume(); s.c.resume();

    const follow = async (next) => { // up to the last message; each gap must cover exactly what is missing
      let at = before, gaps = 0;
      for (;;) {
        const m = await next();
        if (m.gap) {
          gaps++;
          assert.deepEqual([m.gap.from, m.gap.reason], [at, 'evicted'], 'from is where the reader was');
          assert.ok(seqOf(m.gap.to) > seqOf(at));
          at = m.gap.to;
          continue;
        }
        assert.equal(m.data.length, SIZE);
        assert.equal(seqOf(m.id), seqOf(at) + 1, 'nothing is missing but what a gap told');
        assert.equal(m.id, ids[number(m.data)]);
        at = m.id;
        if (number(m.data) === N) return gaps;
      }
    };
    assert.ok(await follow(async () => { const o = await e.recv(); return o.type === 'gap' ? { gap: o } : o; }) >= 1);
    assert.ok(await follow(async () => {
      const m = await s.next();
      if (m.event !== 'gap') return m;
      const gap = JSON.parse(m.data);
      assert.equal(m.id, gap.to);
      return { gap };
    }) >= 1);
    const { id } = await pub(d, 'flood', payload(1));
    assert.equal((await e.expect('message')).id, id, 'and it is live again');
    assert.equal((await s.next()).id, id);
    e.close(); s.close();
  });

  test('slow_latest__the_gap_is_up_to_the_head_and_the_reader_goes_on_from_there', async (t) => {
    const d = await start(t, 'latest');
    const e = await stopped(() => Envelope.open(d, '/live/flood'));
    const s = await stopped(() => sse(d, '/live/flood'));
    const ids = await flood(d);
    const { id: head } = await pub(d, 'other', 'the head is not of this topic');
    e.c.resume(); s.c.resume();

    let at = e.hello.cursor;
    let o;
    while ((o = await e.recv()).type === 'message') { assert.equal(seqOf(o.id), seqOf(at) + 1); at = o.id; }
    assert.deepEqual(o, { type: 'gap', from: at, to: head, reason: 'evicted' });

    let m;
    at = s.first.id;
    while ((m = await s.next()).event !== 'gap') { assert.equal(seqOf(m.id), seqOf(at) + 1); at = m.id; }
    assert.deepEqual([JSON.parse(m.data), m.id], [{ from: at, to: head, reason: 'evicted' }, head]);

    const { id } = await pub(d, 'flood', payload(1));
    assert.equal((await e.expect('message')).id, id, 'nothing between the head and what came after');
    assert.equal((await s.next()).id, id);
    assert.ok(ids[N]);
    e.close(); s.close();
  });

  for (const policy of ['skip', 'latest']) {
    test(`slow_${policy}__a_raw_websocket_is_closed_with_4100_all_the_same`, async (t) => {
      const d = await start(t, policy);
      const w = await stopped(() => Ws.open(d, '/live/flood'));
      const ids = await flood(d);
      w.c.resume();
      const got = (await w.expectClose(4100)).seen.map((m) => ({ data: m.text }));
      check(got, ids);
      assert.deepEqual(got.map((m) => number(m.data)), range(1, got.length));
    });
  }

  test('slow_readers_do_not_disturb_the_others_nor_take_memory', async (t) => {
    const d = await start(t, 'skip');
    const slow = [];
    for (let i = 0; i < 5; i++) slow.push(await stopped(() => sse(d, '/live/flood')));
    const fast = await Envelope.open(d, '/live/flood');
    const s = await sse(d, '/live/flood');
    for (let i = 1; i <= N; i++) {
      await pub(d, 'flood', payload(i));
      assert.equal(number((await fast.expect('message')).data), i);
      assert.equal(number((await s.next()).data), i);
    }
    const now = await stats(d);
    assert.equal(now.messages_held, 10);
    assert.ok(now.history_bytes < 10 * SIZE * 6, `${now.history_bytes} bytes`);
    assert.equal(now.owed, now.delivered + now.skipped + now.abandoned + now.pending);
    for (const x of [...slow, fast, s]) x.close();
    await readers(d, 'flood', 0);
    const end = await stats(d);
    assert.equal(end.pending, 0);
    assert.equal(end.owed, end.delivered + end.skipped + end.abandoned);
  });

  test('slow_reader_within_the_history_loses_nothing', async (t) => {
    const d = await daemon(t, '--set', 'history=1000', '--set', 'history_bytes=67108864', '--set', 'history_total_bytes=268435456');
    const e = await stopped(() => Envelope.open(d, '/live/flood'));
    const w = await stopped(() => Ws.open(d, '/live/flood'));
    const s = await stopped(() => sse(d, '/live/flood'));
    await flood(d);
    e.c.resume(); w.c.resume(); s.c.resume();
    for (let i = 1; i <= N; i++) {
      assert.equal(number((await e.expect('message')).data), i);
      assert.equal((await w.next()).text, payload(i));
      assert.equal((await s.next()).data, payload(i));
    }
    for (const x of [e, w, s]) x.close();
  });

  test('slow_ephemeral_messages_are_passed_over_without_a_gap', async (t) => {
    const d = await start(t, 'close');
    const s = await stopped(() => sse(d, '/live/eph'));
    await flood(d, 'eph?ephemeral=1');
    await pub(d, 'eph', 'kept');
    s.c.resume();
    let m, last = 0;
    while ((m = await s.next()).data !== 'kept') {
      assert.notEqual(m.event, 'gap');
      assert.ok(number(m.data) > last);
      last = number(m.data);
    }
    assert.ok(last < N, 'some were never kept for it');
    s.close();
  });

  test('slow_echo_client_that_does_not_read_is_not_read__and_loses_nothing', async (t) => {
    const d = await daemon(t, '--echo', '/echo', '--set', 'ring_max=65536');
    const w = await Ws.open(d, '/echo');
    w.c.pause();
    const sent = [];
    for (let i = 0; i < 400; i++) {
      const data = crypto.randomBytes(32768);
      sent.push(data);
      w.c.write(frameBytes(OP.BINARY, data));
    }
    await eventually(async () => { const a = (await stats(d)).bytes_in; await new Promise((r) => setTimeout(r, 200)); return (await stats(d)).bytes_in - a < 5000; }, 'the server to stop reading');
    assert.ok(w.c.socket.writableLength > 0, 'what it does not read stays with the client');
    w.c.resume();
    for (const data of sent) {
      const m = await w.next();
      assert.equal(m.opcode, OP.BINARY, `closed: ${m.code} ${m.reason}`);
      assert.ok(m.payload.equals(data));
    }
    w.close();
  });
});

test('slow_polls_cannot_be_slow__the_answer_is_what_is_held', async (t) => {
  const d = await daemon(t, '--set', 'history=10', '--set', 'slow=latest');
  await pub(d, 'p', '0');
  const { cursor } = await poll(d, '/live/p');
  for (let i = 1; i <= 30; i++) await pub(d, 'p', `${i}`);
  const body = await poll(d, `/live/p?since=${cursor}`);
  assert.equal(body.gap.from, cursor);
  assert.equal(body.gap.reason, 'evicted');
});
