// Several loops in one process: one log, one order, whichever loop a reader or a publisher is dealt to.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, pub, sse, Ws, Envelope, poll, stats, request, eventually, seqOf } from './lib.mjs';

const TOPICS = 4, PUBLISHERS = 8, EACH = 30;

test('threads_storm__all_readers_on_all_loops_see_one_order', async (t) => {
  const d = await daemon(t, '--threads', '4', '--presence', 'storm/**', '--set', 'history=40'); // what is shared is let go meanwhile
  const got = []; // of each reader: [id, data]
  const streams = [];
  for (let i = 0; i < 12; i++) {
    const topic = i % 3 ? `storm/${i % TOPICS}` : 'storm/*', mine = [];
    got.push({ topic, mine });
    if (i % 2) {
      const s = await sse(d, `/live/${topic}?session=reader_of_storm_${i}`);
      streams.push(s);
      s.over = (async () => { for (;;) { const e = await s.next(20000); if (e.event !== 'heartbeat') mine.push([e.id, e.data]); } })().catch(() => {});
    } else {
      const e = await Envelope.open(d, `/live/${topic}`);
      streams.push(e);
      e.over = (async () => { for (;;) { const m = await e.expect('message', 20000); mine.push([m.id, m.data]); } })().catch(() => {});
    }
  }
  const acked = new Map();
  await Promise.all(Array.from({ length: PUBLISHERS }, async (_, p) => {
    for (let i = 0; i < EACH; i++) {
      const topic = `storm/${(p + i) % TOPICS}`, data = `${topic} by ${p}: ${i}${i % 4 ? '' : ` ${'x'.repeat(3000)}`}`; // each fourth is large: one copy for all loops
      const { id, status } = await pub(d, topic, data);
      assert.ok(status === 201 || status === 202, `${status}`);
      acked.set(id, data);
      if (i === EACH / 2) await request(d, 'DELETE', '/live/elsewhere');
    }
  }));
  assert.equal(acked.size, PUBLISHERS * EACH, 'no id twice');
  const all = [...acked].sort((a, b) => seqOf(a[0]) - seqOf(b[0]));
  for (const { topic, mine } of got) {
    const wanted = all.filter(([, data]) => topic === 'storm/*' || data.startsWith(`${topic} `));
    await eventually(() => mine.length >= wanted.length, `${topic} has ${mine.length} of ${wanted.length}`);
    assert.deepEqual(mine, wanted);
  }
  // Each publisher's own order is the log's.
  for (let p = 0; p < PUBLISHERS; p++) {
    const own = all.filter(([, data]) => data.includes(` by ${p}: `)).map(([, data]) => parseInt(data.split(': ')[1], 10));
    assert.deepEqual(own, [...own].sort((a, b) => a - b));
  }
  const before = await stats(d);
  assert.ok(before.connections >= 12 && before.published >= all.length, JSON.stringify(before));
  for (const s of streams) s.close();
});

test('threads_a_cursor_and_a_key_are_good_on_every_loop', async (t) => {
  const d = await daemon(t, '--threads', '3');
  const ids = [];
  for (let i = 0; i < 9; i++) ids.push((await pub(d, 't', `m${i}`)).id);
  for (let i = 0; i < 9; i++) { // each request is a connection of its own, dealt to the next loop
    const { messages, gap } = await poll(d, `/live/t?since=${ids[i]}`);
    assert.deepEqual([messages.map((m) => m.id), gap], [ids.slice(i + 1), undefined]);
  }
  const first = await pub(d, 't', 'once', { 'Idempotency-Key': 'k' });
  for (let i = 0; i < 4; i++) assert.equal((await pub(d, 't', 'once', { 'Idempotency-Key': 'k' })).id, first.id);
});
