// Redis comes back as another, or without what it had: each reader has all that was acknowledged, or was told of a gap; no
// id is given twice.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { Scene } from './scene.mjs';
import { Redis, Reader, Proxy, Publisher, node, goesThrough, epochOf, sleep, eventually, poll, pub, seqOf } from './lib.mjs';

describe('back as another', { concurrency: 5 }, () => {
  test('another_flushed_while_it_runs', async (t) => {
    const s = await Scene.set(t);
    await s.redis.call('FLUSHALL');
    await s.flows(10);
    await s.endOfEpoch();
    await s.agree();
  });

  test('another_flushed_and_filled_by_one_node_while_the_other_was_away', async (t) => {
    const s = await Scene.set(t, { every: 10 });
    s.proxies[0].away();
    await s.redis.call('FLUSHALL');
    await pub(s.nodes[1], 'x', 'meanwhile').then((m) => s.before.push({ id: m.id, data: 'meanwhile' }));
    const other = new Publisher([s.nodes[1]], 'x', { every: 5 }), old = s.publisher.acked.length;
    await eventually(() => other.acked.length > old + 20, 'the new log is longer than the old one', 30000);
    await other.stop();
    s.before.push(...other.acked);
    s.proxies[0].mode = 'pass';
    await s.endOfEpoch();
  });

  for (const [name, spoil] of [
    ['its_counter_gone', (s) => s.redis.call('DEL', s.key('seq'))],
    ['its_counter_set_back', (s) => s.redis.call('SET', s.key('seq'), 3)],
    ['its_counter_no_number', (s) => s.redis.call('SET', s.key('seq'), 'what')],
    ['its_counter_a_list', async (s) => { await s.redis.call('RPUSH', s.key('list'), 'a'); await s.redis.call('RENAME', s.key('list'), s.key('seq')); }],
    ['its_counter_beyond_1e15', (s) => s.redis.call('SET', s.key('seq'), '1000000000000000')],
    ['its_counter_beyond_2_to_the_53', (s) => s.redis.call('SET', s.key('seq'), '9007199254740993')],
    ['its_counter_at_the_end_of_numbers', (s) => s.redis.call('SET', s.key('seq'), '9223372036854775807')],
    ['its_epoch_gone', (s) => s.redis.call('DEL', s.key('epoch'))],
    ['its_epoch_another', (s) => s.redis.call('SET', s.key('epoch'), 'abcdefgh')],
    ['its_epoch_rubbish', (s) => s.redis.call('SET', s.key('epoch'), 'X\r\n"\x00 ')],
    ['its_stream_gone', (s) => s.redis.call('DEL', s.key('log'))],
    ['its_stream_trimmed_to_nothing', (s) => s.redis.call('XTRIM', s.key('log'), 'MAXLEN', 0)],
    ['its_stream_a_string', (s) => s.redis.call('SET', s.key('log'), 'not a stream')],
    ['its_stream_and_counter_gone', (s) => s.redis.call('DEL', s.key('log'), s.key('seq'))],
  ]) {
    test(`another_${name}`, async (t) => {
      const s = await Scene.set(t, { aof: false });
      await spoil(s);
      const healed = await s.flows(10, 8000).then(() => true, () => false);
      // A type that is wrong need not be healed by itself, but then nothing is taken and nothing is said to be there.
      if (!healed) {
        assert.match(name, /list|string|no_number|rubbish/, `it was to go on: ${s.said()}`);
        assert.ok(s.publisher.refused.length > 5);
        t.diagnostic(`${name}: refused until a person repairs it`);
        await s.redis.call('FLUSHALL');
        await s.flows(10);
      }
      await s.end();
      t.diagnostic(`${name}: ${s.newEpoch === s.epoch ? 'the epoch is kept' : 'another epoch'}`);
      const late = await s.agree();
      // Who was here before and comes to a new node must not be told that he has all: gap, or all that came since.
      const body = await poll(late, `/live/x?since=${s.before[0].id}`);
      const missed = s.publisher.acked.filter((a) => epochOf(a.id) === s.epoch && seqOf(a.id) > seqOf(s.before[0].id));
      assert.ok(body.gap || missed.every((a) => body.messages.some((m) => m.data === a.data)), `${missed.length} lost in silence on a new node`);
    });
  }

  for (const [name, spoil] of [['flushed', (s) => s.redis.call('FLUSHALL')], ['restarted_without_its_data', (s) => s.redis.restart({ keep: false })]]) {
    test(`another_${name}__who_is_here_is_known_again`, async (t) => {
      const s = await Scene.set(t, { aof: false, every: 0, args: ['--presence', 'room/*', '--set', 'linger_ms=400'] });
      const members = await Promise.all(s.nodes.map((d, n) => Reader.open(d, 'room/a', `?session=${'member'.padEnd(16, n)}`)));
      const here = async (d) => (await poll(d, '/live/@presence/room/a')).messages[0].data;
      const both = (...list) => Promise.all(list.map((d) => eventually(async () => (await here(d)).count === 2, 'both are here', 20000)));
      await both(...s.nodes);
      await spoil(s);
      await goesThrough(s.nodes[0], 'x').then((m) => s.before.push(m));
      const late = await node(t, s.redis, { log: s.log, name: 'later', args: ['--presence', 'room/*'] });
      await both(...s.nodes, late);
      members[0].close();
      await Promise.all([...s.nodes, late].map((d) => eventually(async () => (await here(d)).count === 1, 'one has left', 20000)));
      members[1].close();
      await s.endOfEpoch();
    });
  }

  // A replica behind a proxy of its own.
  async function pair(t) {
    const master = await Redis.start(t, {}), link = await Proxy.start(t, master), replica = await Redis.start(t, {});
    await replica.call('REPLICAOF', '127.0.0.1', link.port);
    await eventually(async () => /master_link_status:up/.test(await replica.call('INFO', 'replication')), 'replication', 20000);
    return { master, replica, link };
  }
  const offset = async (r) => Number(/(?:slave_repl|master_repl)_offset:(\d+)/.exec(await r.call('INFO', 'replication'))[1]);
  async function promote(s, replica) {
    await s.redis.kill();
    await replica.call('REPLICAOF', 'NO', 'ONE');
    for (const p of s.proxies) { p.target = replica; p.cut(); }
    s.redis = replica;
  }

  test('another_a_replica_that_lacks_nothing_is_promoted__nothing_is_lost', async (t) => {
    const { master, replica } = await pair(t), s = await Scene.set(t, { redis: master });
    for (const p of s.proxies) p.away(); // so that what is acknowledged is there too
    await eventually(async () => await offset(master) === await offset(replica), 'the replica is level');
    await promote(s, replica);
    for (const p of s.proxies) p.mode = 'pass';
    await s.flows(10);
    await s.end();
    t.diagnostic(s.newEpoch === s.epoch ? 'the epoch is kept' : 'another epoch');
    await s.agree();
  });

  test('another_a_replica_that_lags_is_promoted__another_epoch__all_are_told', async (t) => {
    const { master, replica, link } = await pair(t), s = await Scene.set(t, { redis: master });
    link.stall();
    await s.flows(30);
    await promote(s, replica);
    await s.flows(10);
    await s.endOfEpoch();
    await s.agree();
  });

  test('another_a_replica_that_lags_is_promoted__one_node_does_not_know_what_was_lost', async (t) => {
    const { master, replica, link } = await pair(t), s = await Scene.set(t, { redis: master, every: 20 });
    const [ignorant, knowing] = s.nodes;
    await s.publisher.stop();
    for (const a of s.publisher.acked) for (const r of s.readers) await r.until(a.data);
    await eventually(async () => await offset(master) === await offset(replica), 'the replica is level');
    link.stall();
    s.proxies[0].away();
    const lost = new Publisher([knowing], 'x', { every: 0 });
    for (let i = 0; i < 5; i++) await lost.one();
    await s.readers[1].until(lost.acked[4].data);
    s.proxies[1].away();
    await promote(s, replica);
    // The one that does not know comes first, and gives new messages numbers.
    s.proxies[0].mode = 'pass';
    const after = new Publisher([ignorant], 'x', { every: 0 });
    await goesThrough(ignorant, 'x').then((m) => s.before.push(m));
    for (let i = 0; i < 8; i++) await after.one();
    s.proxies[1].mode = 'pass';
    s.before.push(...lost.acked, ...after.acked);
    await s.end();
    assert.ok(s.readers[1].gaps.length > 0, 'who had read what is lost is told');
  });

  test('another_a_master_that_became_a_replica_takes_nothing__until_the_new_one_is_there', async (t) => {
    const { master, replica } = await pair(t), s = await Scene.set(t, { redis: master, every: 50 });
    await replica.call('REPLICAOF', 'NO', 'ONE');
    await master.call('REPLICAOF', '127.0.0.1', replica.port);
    await sleep(1000);
    for (const p of s.proxies) { p.target = replica; p.cut(); }
    s.redis = replica;
    await s.flows(10);
    await s.end();
  });
});
