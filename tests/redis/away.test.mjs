// Redis goes away and comes back. Readers stay where they are; publishes wait, within bounds; what was acknowledged came
// to each reader once.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { Scene } from './scene.mjs';
import { Redis, Reader, Middle, Publisher, node, tryNode, logName, judgeWhole, goesThrough, epochOf, sleep, eventually, range, post, poll, pub, seqOf, datas, freePort } from './lib.mjs';

describe('away and back', { concurrency: 5 }, () => {
  test('away_a_redis_that_stands_still_for_2_s__all_are_kept_waiting_and_taken', async (t) => {
    const s = await Scene.set(t);
    s.redis.signal('SIGSTOP');
    await sleep(2000);
    const waiting = s.publisher.open.size;
    s.redis.signal('SIGCONT');
    await s.flows(20);
    await s.end({ whole: true });
    assert.ok(waiting > 20, `${waiting} waited`);
    assert.deepEqual(s.publisher.refused, []);
    assert.ok(s.publisher.acked.some((a) => a.took > 1000), 'some had waited long');
  });

  test('away_a_redis_that_stands_still_for_8_s__503_after_5_s__readers_stay', async (t) => {
    const s = await Scene.set(t, { every: 100 });
    s.redis.signal('SIGSTOP');
    const began = Date.now();
    await eventually(() => s.publisher.refused.length > 5, 'a few are refused', 9000);
    const poll0 = await poll(s.nodes[0], '/live/x'); // what is known is read meanwhile
    assert.ok(poll0.messages.length > 0);
    await sleep(Math.max(0, began + 8000 - Date.now()));
    s.redis.signal('SIGCONT');
    await s.flows(5);
    await s.end({ whole: true });
    for (const x of [...s.publisher.refused, ...s.publisher.acked]) assert.ok(x.took < 8000, `an answer after ${x.took} ms`);
  });

  test('away_a_publish_refused_while_redis_stood_still_and_tried_again_with_its_key_is_there_once', async (t) => {
    const s = await Scene.set(t, { every: 0 });
    s.redis.signal('SIGSTOP');
    const key = { 'Idempotency-Key': 'again' };
    const r = await post(s.nodes[0], '/live/x', 'again', key);
    assert.equal(r.status, 503, r.text);
    s.redis.signal('SIGCONT');
    const { id } = await eventually(async () => { const a = await post(s.nodes[1], '/live/x', 'again', key); return a.status < 300 && a.json; }, 'it is taken');
    s.before.push({ id, data: 'again' });
    await s.end({ whole: true });
  });

  test('away_more_than_4_MiB_waiting_is_refused_at_once__what_was_taken_is_delivered', async (t) => {
    const s = await Scene.set(t, { every: 200 });
    s.redis.signal('SIGSTOP');
    await sleep(100);
    const big = new Publisher([s.nodes[0]], 'x', { every: 0, body: 'b'.repeat(900000) }), began = Date.now();
    const all = range(1, 9).map(() => big.one());
    await eventually(() => big.refused.length >= 3, `some are refused, not ${big.refused.length}`, 4000);
    assert.ok(Date.now() - began < 4000);
    s.redis.signal('SIGCONT');
    await Promise.all(all);
    assert.ok(big.acked.length >= 2 && big.acked.length <= 6, `${big.acked.length} were taken`);
    s.before.push(...big.acked);
    await s.end({ whole: true });
  });

  test('away_killed_and_restarted_with_its_data__nothing_is_lost', async (t) => {
    const s = await Scene.set(t);
    const began = Date.now();
    await s.redis.kill();
    await sleep(700);
    await s.redis.run();
    const took = Date.now() - began;
    await s.flows(20);
    await s.end({ whole: true });
    if (took < 3000) assert.deepEqual(s.publisher.refused, []); // on a machine that is not too busy
    await s.agree();
  });

  // What happens on a node does not depend on somebody publishing there.
  test('away_restarted_with_its_data__one_node_is_idle__nothing_is_lost__and_soon', async (t) => {
    const s = await Scene.set(t, { every: 0 });
    for (let i = 0; i < 3; i++) {
      await s.redis.restart({ keep: true });
      const began = Date.now(), { id, data } = await goesThrough(s.nodes[0], 'x');
      await s.readers[1].until(data);
      s.took = Math.max(s.took ?? 0, Date.now() - began);
      s.before.push({ id, data });
    }
    await s.end({ whole: true });
    assert.ok(s.took < 4000, `${s.took} ms until the other node had it`);
  });

  test('away_restarted_with_its_data_six_times_under_load', async (t) => {
    const s = await Scene.set(t, { every: 10 });
    for (let i = 0; i < 6; i++) {
      await s.redis.restart({ keep: true });
      await s.flows(10);
    }
    await s.end({ whole: true });
  });

  test('away_restarted_without_its_data__another_epoch__all_are_told', async (t) => {
    const s = await Scene.set(t, { aof: false });
    await s.redis.restart({ keep: false });
    await s.flows(10);
    await s.endOfEpoch();
    await s.agree();
  });

  test('away_connections_killed_again_and_again', async (t) => {
    const s = await Scene.set(t, { every: 10 });
    for (let i = 0; i < 6; i++) {
      await s.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await s.flows(10);
    }
    await s.end({ whole: true });
    assert.deepEqual(s.publisher.refused, []);
  });

  test('away_the_network_cuts_in_the_middle_of_bytes', async (t) => {
    const s = await Scene.set(t, { every: 5 });
    for (let i = 0; i < 12; i++) {
      s.proxies[i % 2].cut();
      await s.flows(5);
    }
    await s.end({ whole: true });
  });

  test('away_the_network_passes_a_byte_at_a_time', async (t) => {
    const s = await Scene.set(t, { every: 100 });
    for (const p of s.proxies) p.mode = 'slow';
    for (const p of s.proxies) p.cut();
    await s.flows(10);
    await s.end({ whole: true });
  });

  test('away_scripts_flushed', async (t) => {
    const s = await Scene.set(t, { every: 10 });
    for (let i = 0; i < 3; i++) {
      await s.redis.call('SCRIPT', 'FLUSH');
      await s.flows(10);
    }
    await s.end({ whole: true });
    assert.deepEqual(s.publisher.refused, []);
  });

  test('away_one_node_is_cut_off_for_4_s__the_other_goes_on__the_first_catches_up', async (t) => {
    const s = await Scene.set(t);
    s.proxies[0].away();
    const other = new Publisher([s.nodes[1]], 'x', { every: 10 });
    await sleep(4000);
    s.proxies[0].mode = 'pass';
    await other.stop();
    assert.deepEqual(other.refused, []);
    s.before.push(...other.acked);
    await s.end({ whole: true });
  });

  test('away_a_black_hole__no_byte_and_no_end__is_noticed', async (t) => {
    const s = await Scene.set(t, { every: 100 });
    const connections = s.proxies[0].accepted.length;
    s.proxies[0].stall();
    await eventually(() => s.proxies[0].accepted.length > connections, 'a new connection is tried', 25000);
    s.proxies[0].mode = 'pass'; // for new ones; what hangs, hangs
    await goesThrough(s.nodes[0], 'x');
    await s.end({ whole: true });
  });

  test('away_answers_lost__what_redis_has_appended_is_not_appended_again', async (t) => {
    const redis = await Redis.start(t, {}), log = logName(), m = await Middle.start(t, redis);
    const a = await node(t, m, { log, name: 'a' }), b = await node(t, redis, { log, name: 'b' });
    const rs = await Promise.all([a, b].map((d) => Reader.open(d, 'x'))), p = new Publisher([a], 'x', { every: 10 });
    for (let i = 0; i < 8; i++) {
      const from = p.acked.length;
      let left = 1 + (i % 3); // the command is done, its answer is not heard, the connection ends
      m.rule = ({ name }) => (/^EVAL/.test(name) && left-- > 0 ? { change: () => Buffer.alloc(0), close: true } : undefined);
      await eventually(() => p.acked.length > from + 10, 'it goes on');
    }
    m.rule = null;
    await p.stop();
    const last = await goesThrough(a, 'x');
    for (const r of rs) await r.until(last.data);
    judgeWhole(rs, [...p.acked, last]);
    assert.deepEqual([p.refused, p.failed], [[], []]);
    // Nor is there anything in the log that nobody published.
    assert.equal(rs[0].log.length, p.acked.length + 1);
    for (const r of rs) r.close();
  });

  test('away_a_node_drains_though_redis_is_gone', async (t) => {
    const s = await Scene.set(t, { every: 0 });
    s.redis.signal('SIGSTOP');
    const open = post(s.nodes[0], '/live/x', 'on its way');
    await sleep(50);
    for (const d of s.nodes) d.signal('SIGTERM');
    for (const d of s.nodes) await eventually(() => d.over, 'its end', 20000);
    assert.deepEqual(s.nodes.map((d) => d.over), [{ code: 0, signal: null }, { code: 0, signal: null }]);
    const r = await open;
    assert.ok([201, 202, 503].includes(r.status), r.text);
    for (const d of s.nodes) d.isKilled = true;
    s.redis.signal('SIGCONT');
    const d = await node(t, s.redis, { log: s.log, name: 'n0' }), { messages } = await poll(d, '/live/x');
    assert.ok(r.status === 503 ? messages.length <= 2 : messages.length === 2, JSON.stringify([r.status, messages]));
  });

  test('away_out_of_memory_and_back', async (t) => {
    const s = await Scene.set(t, { every: 50 });
    await s.redis.call('CONFIG', 'SET', 'maxmemory', '1');
    await eventually(() => s.publisher.refused.length > 3, 'a few are refused', 9000);
    await s.redis.call('CONFIG', 'SET', 'maxmemory', '0');
    await s.flows(10);
    await s.end({ whole: true });
  });
});

describe('at the start', { concurrency: 3 }, () => {
  test('start_without_redis__a_clear_line__and_it_comes_up_or_ends_with_1', async (t) => {
    const port = await freePort(), url = `redis://ann:sesame-secret@127.0.0.1:${port}`, d = tryNode(t, url, { log: logName(), name: 'a' });
    await eventually(() => d.over || /redis/i.test(d.stderr), 'a line');
    await eventually(() => d.over, 'its end', 8000).catch(() => {});
    assert.match(d.stderr, /127\.0\.0\.1/, 'which one');
    assert.doesNotMatch(d.stderr, /sesame-secret/);
    if (d.over) { assert.equal(d.over.code, 1, d.stderr); t.diagnostic(`without Redis the daemon ends with 1: ${d.lines.at(-1)}`); return; }
    assert.deepEqual(d.listening, [], 'no reader is let in before the tail is loaded');
    t.diagnostic(`without Redis the daemon waits: ${d.lines.at(-1)}`);
    const r = await Redis.start(t, { port, args: ['--user', 'ann', 'on', '>sesame-secret', '~*', '&*', '+@all'] });
    assert.ok(r);
    await d.start(1);
    await pub(d, 'x', 'm');
    assert.ok(d.cpu < 3, `${d.cpu} s of CPU`);
  });

  test('start_after_the_stream_was_trimmed__older_cursors_hear_a_gap', async (t) => {
    const s = await Scene.set(t, { every: 10 });
    await s.flows(50);
    const acked = await s.end({ whole: true });
    await Promise.all(s.nodes.map((d) => d.stop()));
    s.nodes.forEach((d) => { d.isKilled = true; });
    await s.redis.call('XTRIM', s.key('log'), 'MAXLEN', 10);
    const left = (await s.redis.call('XRANGE', s.key('log'), '-', '+')).map(([id]) => Number(id.split('-')[0]));
    const kept = acked.map((a) => a.id).filter((id) => left.includes(seqOf(id))).sort((x, y) => seqOf(x) - seqOf(y));
    const lost = acked.map((a) => a.id).filter((id) => seqOf(id) < left[0]).sort((x, y) => seqOf(x) - seqOf(y));
    const d = await node(t, s.redis, { log: s.log, name: 'fresh' }), body = await poll(d, '/live/x');
    assert.ok(kept.length > 2 && lost.length > 20);
    assert.deepEqual(body.messages.map((m) => m.id), kept);
    assert.equal((await poll(d, `/live/x?since=${kept[0]}`)).gap, undefined);
    const behind = await poll(d, `/live/x?since=${lost.at(-2)}`);
    assert.deepEqual([behind.gap?.reason, behind.messages.length], ['evicted', kept.length]);
    assert.ok(seqOf(behind.gap.to) >= seqOf(lost.at(-1)) && seqOf(behind.gap.to) < seqOf(kept[0]), JSON.stringify(behind.gap));
    const next = await pub(d, 'x', 'next');
    assert.equal(epochOf(next.id), s.epoch);
    assert.deepEqual(datas((await poll(d, `/live/x?since=${kept.at(-1)}`)).messages), ['next']);
  });
});
