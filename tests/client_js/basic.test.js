// The four transports, and what a page sees of them.
'use strict';
const { test, describe } = require('node:test');
const assert = require('node:assert/strict');
const { setup, client, publish, sleep, eventually } = require('./lib.js');

const ALL = ['websocket', 'sse', 'longpoll', 'shortpoll'];
const numbers = (n) => Array.from({ length: n }, (_, i) => `${i}`);

for (const transport of ALL) {
  describe(transport, () => {
    test(`${transport}_delivers_text_json_and_binary_with_topic_and_event`, async (t) => {
      const { d, proxy } = await setup(t);
      const live = client(t, proxy.url, { transports: [transport] });
      const got = [];
      await live.subscribe('a/b', (m) => got.push(m)).ready;
      await live.subscribe('wild/*', (m) => got.push(m)).ready;
      assert.equal(live.transport, transport);
      const json = { 'Content-Type': 'application/json' };
      const ids = [
        await publish(d.port, 'a/b', 'text "☃"\n'), await publish(d.port, 'a/b?event=tick', '{"n":[1,null]}', json),
        await publish(d.port, 'a/b', '17'), await publish(d.port, 'wild/x', '17', json), await publish(d.port, 'a/b', ''),
        await publish(d.port, 'wild/x', new Uint8Array([0, 255]), { 'Content-Type': 'image/png' }),
      ];
      await eventually(() => got.length >= 6, '6 messages');
      assert.deepEqual(got, [
        { id: ids[0], topic: 'a/b', data: 'text "☃"\n' }, { id: ids[1], topic: 'a/b', event: 'tick', data: { n: [1, null] } },
        { id: ids[2], topic: 'a/b', data: '17' }, { id: ids[3], topic: 'wild/x', data: 17 }, { id: ids[4], topic: 'a/b', data: '' },
        { id: ids[5], topic: 'wild/x', data: new Uint8Array([0, 255]) },
      ]);
      assert.equal(live.cursor, ids[5]);
      assert.deepEqual(live.log.gaps, []);
    });

    test(`${transport}_cut_again_and_again__nothing_lost_or_doubled_and_in_order`, async (t) => {
      const { d, proxy } = await setup(t, '--set', 'history=5000');
      const live = client(t, proxy.url, { transports: [transport] });
      const got = [];
      await live.subscribe('n', (m) => got.push(m.data)).ready;
      const cutter = setInterval(() => proxy.cut(), 97);
      for (const n of numbers(400)) { await publish(d.port, 'n', n); if (n % 4 === 0) await sleep(5); }
      await eventually(() => got.length >= 400, '400 messages').catch(() => {});
      clearInterval(cutter);
      await eventually(() => got.length >= 400, `400 messages; ${got.length}`);
      await sleep(200);
      assert.deepEqual(got, numbers(400));
      assert.deepEqual(live.log.gaps, []);
    });

    test(`${transport}_late_subscribe_with_since_replays_and_the_cursor_does_not_move`, async (t) => {
      const { d, proxy } = await setup(t);
      for (const n of numbers(5)) await publish(d.port, 'old', n);
      const head = await publish(d.port, 'other', 'x');
      const live = client(t, proxy.url, { transports: [transport] });
      const got = [], cursors = [];
      await live.subscribe('now', (m) => got.push(m.data)).ready;
      assert.equal(live.cursor, head);
      await live.subscribe('old', (m) => { got.push(m.data); cursors.push(live.cursor); assert.equal(m.replay, true); }, { since: '-3' }).ready;
      assert.deepEqual(got, ['2', '3', '4']);
      assert.deepEqual(new Set(cursors), new Set([head]));
      const again = [];
      await live.subscribe('old', (m) => again.push(m.data), { since: 'earliest' }).ready; // the connection has it already
      assert.deepEqual(again, numbers(5));
      live.subscribe('old', (m) => got.push(m.data));
      assert.equal(live.cursor, head);
      assert.deepEqual(got.length, 3);
    });

    test(`${transport}_a_late_subscribe_without_since_begins_now`, async (t) => {
      const { d, proxy } = await setup(t);
      const live = client(t, proxy.url, { transports: [transport] });
      const got = [];
      await live.subscribe('a', (m) => got.push(m.data)).ready;
      await publish(d.port, 'b', 'before');
      await live.subscribe('b', (m) => got.push(m.data)).ready;
      await publish(d.port, 'b', 'after');
      await publish(d.port, 'a', 'end');
      await eventually(() => got.length >= 2, 'both');
      assert.deepEqual(got, ['after', 'end']);
    });

    test(`${transport}_gap_told_after_a_restart_of_the_daemon_before_what_follows`, async (t) => {
      const { d, proxy } = await setup(t);
      const live = client(t, proxy.url, { transports: [transport] });
      await live.subscribe('n', (m) => live.log.events.push(m.data)).ready;
      await publish(d.port, 'n', 'one');
      await eventually(() => live.log.events.length === 1, 'one');
      const from = live.cursor;
      d.process.kill('SIGKILL');
      await d.exit;
      d.over = d.exit = { code: 0, signal: null };
      const { daemon } = await require('./lib.js').lib;
      const e = await daemon(t);
      const to = await publish(e.port, 'n', 'two');
      await sleep(300);
      proxy.target = e.port;
      await eventually(() => live.log.events.length >= 3, 'gap and two');
      assert.deepEqual(live.log.events.slice(0, 3), ['one', { from, to: `${to.slice(0, 8)}-0`, reason: 'epoch', topic: undefined }, 'two']);
      proxy.cut();
      await publish(e.port, 'n', 'three');
      await eventually(() => live.log.events.length >= 4, 'three');
      assert.equal(live.log.events[3], 'three');
      assert.equal(live.log.gaps.length, 1);
    });

    test(`${transport}_presence_of_a_topic`, async (t) => {
      const { d, proxy } = await setup(t, '--presence', 'room/*', '--set', 'linger_ms=1500'); // a slow machine's pause between two polls is no leaving
      const live = client(t, proxy.url, { transports: [transport] });
      const other = client(t, `http://127.0.0.1:${d.port}/live`, { transports: ['websocket'] });
      let seen, second;
      await live.subscribe('room/a', () => {}).ready;
      await live.presence('room/a', (p) => { seen = p; }).ready;
      await other.subscribe('room/a', () => {}).ready;
      await eventually(() => seen && seen.count === 2 && seen.here && seen.here.includes(other.session), 'both here');
      live.presence('room/a', (p) => { second = p; });
      await eventually(() => second && second.count === 2, 'a second listener is told');
      other.close();
      await eventually(() => seen.count === 1, 'one left');
      assert.deepEqual(seen, { here: [live.session], count: 1 });
    });
  });
}

for (const transport of ['longpoll', 'sse', 'websocket']) {
  test(`${transport}_ephemeral_messages_arrive`, async (t) => {
    const { d, proxy } = await setup(t);
    const live = client(t, proxy.url, { transports: [transport] });
    const got = [];
    await live.subscribe('a', (m) => got.push(m.data)).ready;
    await live.subscribe('b', (m) => got.push(m.data)).ready;
    const { parked } = await import('../wire/lib.mjs');
    for (const n of numbers(10)) { // an ephemeral message is for the polls that are parked (PROTOCOL)
      if (transport === 'longpoll') await eventually(() => got.length >= n, `${n}; ${got}`), await parked(d, 1);
      await publish(d.port, n % 2 ? 'a?ephemeral=1' : 'b', `x${n}`);
    }
    await eventually(() => got.length >= 10, `10; ${got}`);
    assert.deepEqual(got, numbers(10).map((n) => `x${n}`));
  });
}

test('sse_an_ephemeral_message_with_an_event_and_json_of_more_lines', async (t) => {
  const { d, proxy } = await setup(t);
  const live = client(t, proxy.url, { transports: ['sse'] });
  const got = [];
  await live.subscribe('a/*', (m) => got.push(m)).ready;
  const id = await publish(d.port, 'a/b?ephemeral=1&event=tick', '{"n":\r\n[1,\n2,\rnull]}', { 'Content-Type': 'application/json' });
  const next = await publish(d.port, 'a/c?event=gap2', 'two\nlines\r\n\u2028\u2029\u0085\u0000');
  await eventually(() => got.length >= 2, 'both');
  assert.deepEqual(got, [{ id, topic: 'a/b', event: 'tick', data: { n: [1, 2, null] } }, { id: next, topic: 'a/c', event: 'gap2', data: 'two\nlines\r\n\u2028\u2029\u0085\u0000' }]);
  assert.deepEqual([...new Set(proxy.seen)], ['sse'], 'no poll beside it');
});

test('sse_heartbeats_move_the_cursor_of_a_quiet_topic', async (t) => {
  const { d, proxy } = await setup(t, '--set', 'sse_heartbeat_ms=200');
  const live = client(t, proxy.url, { transports: ['sse'] });
  await live.subscribe('quiet', () => {}).ready;
  const head = await publish(d.port, 'other', 'x');
  await eventually(() => live.cursor === head, 'the head');
});

test('sse_gap_of_an_evicted_past_is_told_before_what_is_left', async (t) => {
  const { d, proxy } = await setup(t, '--set', 'history=5');
  const live = client(t, proxy.url, { transports: ['sse'], backoff: 1000, backoffMax: 1000 });
  await live.subscribe('n', (m) => live.log.events.push(m.data)).ready;
  await publish(d.port, 'n', '0');
  await eventually(() => live.log.events.length === 1, 'the first');
  const from = live.cursor;
  proxy.refused.add('sse');
  proxy.cut();
  const ids = [];
  for (let n = 1; n <= 9; n++) ids.push(await publish(d.port, 'n', `${n}`));
  proxy.refused.clear();
  await eventually(() => live.log.events.length >= 7, 'the rest');
  assert.deepEqual(live.log.events, ['0', { from, to: ids[3], reason: 'evicted', topic: undefined }, '5', '6', '7', '8', '9']);
});

test('sse_a_new_topic_comes_by_a_stream_beside_the_old_one', async (t) => {
  const { d, proxy } = await setup(t);
  const live = client(t, proxy.url, { transports: ['sse'] });
  const got = [];
  await live.subscribe('a', (m) => got.push(m.data)).ready;
  live.log.states.length = 0;
  let n = 0, isOver = false;
  const publishing = (async () => { for (; !isOver; n++) { await publish(d.port, 'a', `${n}`); await sleep(1); } })();
  for (const topic of ['b', 'c', 'd', 'e']) {
    const other = [];
    const off = live.subscribe(topic, (m) => other.push(m.data));
    await off.ready;
    await publish(d.port, topic, topic);
    await eventually(() => other.length, topic);
    off();
  }
  isOver = true;
  await publishing;
  await eventually(() => got.length >= n, 'all');
  assert.deepEqual(got, numbers(n));
  assert.deepEqual(live.log.states, []);
  await eventually(() => [...proxy.pairs].filter((pair) => pair.kind === 'sse').length === 1, 'one stream is left');
});
