// Who is where, over all nodes: presence, what becomes of the members of a node that dies, users and their queues.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { Redis, Reader, node, nodes, logName, wire, sleep, eventually, range, get, post, poll, pub, sse, datas } from './lib.mjs';

const { Ws, Envelope, assertError } = wire;
const redis = await Redis.start({ after });

const sid = (name) => name.padEnd(16, '_');
const PRESENCE = ['--presence', 'room/*', '--set', 'linger_ms=400'];
const join = (d, name, room = 'room/a') => sse(d, `/live/${room}?session=${sid(name)}`);
const here = async (d, room = 'room/a') => { const [m] = (await poll(d, `/live/@presence/${room}`)).messages; return { here: m.data.here?.map((n) => n.replace(/_+$/, '')).sort(), count: m.data.count }; };
const isHere = (d, ...names) => eventually(async () => JSON.stringify(await here(d)) === JSON.stringify({ here: [...names].sort(), count: names.length }), `${names} are here`, 20000);

// Follows the members by what it is told: nobody may join or leave twice.
class Watcher {
  static async open(d, topic = 'room/a') {
    const w = new Watcher();
    w.r = await Reader.open(d, `@presence/${topic}`);
    await eventually(() => w.r.log.length, 'who is here');
    w.first = JSON.parse(w.r.log[0].data);
    w.at = 1;
    w.members = new Set(w.first.here);
    w.told = [];
    return w;
  }

  look() {
    for (; this.at < this.r.log.length; this.at++) {
      const x = this.r.log[this.at];
      assert.ok(!x.gap, JSON.stringify(x));
      const change = JSON.parse(x.data);
      for (const m of change.leave ?? []) assert.ok(this.members.delete(m), `${m} left and was not there`);
      // Who came while the first list was made may be in it and be told of once more.
      for (const m of change.join ?? []) { assert.ok(!this.members.has(m) || this.first.here.splice(this.first.here.indexOf(m) >>> 0, 1).length, `${m} joined twice`); this.members.add(m); }
      assert.equal(change.count, this.members.size);
      this.told.push({ ...change, at: Date.now() });
    }
    return [...this.members].map((n) => n.replace(/_+$/, '')).sort();
  }

  until(...names) { return eventually(() => JSON.stringify(this.look()) === JSON.stringify([...names].sort()), `${names} are there; told ${JSON.stringify(this.told)}`, 20000); }
  close() { this.r.close(); }
}

describe('presence', { concurrency: 6 }, () => {
  test('redis_presence_is_told_on_each_node__join_leave_count', async (t) => {
    const [a, b, c] = await nodes(t, redis, 3, { args: PRESENCE });
    const ws = await Promise.all([a, b, c].map((d) => Watcher.open(d)));
    for (const w of ws) assert.deepEqual(w.first, { here: [], count: 0 });
    const ann = await join(a, 'ann'), bob = await join(b, 'bob');
    for (const w of ws) await w.until('ann', 'bob');
    for (const d of [a, b, c]) await isHere(d, 'ann', 'bob');
    ann.close();
    for (const w of ws) await w.until('bob');
    const late = await Watcher.open(c);
    assert.deepEqual(late.first, { here: [sid('bob')], count: 1 });
    bob.close();
    for (const w of [...ws, late]) { await w.until(); w.close(); }
  });

  test('redis_presence_a_node_that_starts_later_knows_who_is_here', async (t) => {
    const log = logName(), a = await node(t, redis, { log, name: 'a', args: PRESENCE });
    const ann = await join(a, 'ann');
    await isHere(a, 'ann');
    const b = await node(t, redis, { log, name: 'b', args: PRESENCE });
    await isHere(b, 'ann');
    const w = await Watcher.open(b);
    ann.close();
    await w.until();
    w.close();
  });

  test('redis_presence_one_member_on_two_nodes_is_one__until_he_has_left_both', async (t) => {
    const [a, b] = await nodes(t, redis, 2, { args: PRESENCE }), w = await Watcher.open(b);
    const one = await join(a, 'ann');
    await w.until('ann');
    const two = await join(b, 'ann'), bob = await join(b, 'bob');
    await w.until('ann', 'bob');
    one.close();
    await sleep(1200);
    assert.deepEqual(w.look(), ['ann', 'bob']);
    await isHere(a, 'ann', 'bob');
    two.close();
    await w.until('bob');
    await isHere(a, 'bob');
    bob.close(); w.close();
  });

  test('redis_presence_a_member_who_moves_to_another_node_within_his_linger_has_not_left', async (t) => {
    const log = logName(), all = await nodes(t, redis, 3, { log, args: ['--presence', 'room/*', '--set', 'linger_ms=2000'] });
    const w = await Watcher.open(all[2]);
    let s = await join(all[0], 'ann');
    await w.until('ann');
    for (const n of range(1, 5)) {
      s.close();
      await sleep(150);
      s = await join(all[n % 2], 'ann');
    }
    await sleep(2600); // beyond the linger of each
    assert.deepEqual(w.look(), ['ann']);
    assert.equal(w.told.length, 1, JSON.stringify(w.told));
    s.close(); w.close();
  });

  test('redis_presence_a_node_that_drains_takes_its_members_with_it_at_once', async (t) => {
    const [a, b] = await nodes(t, redis, 2, { args: PRESENCE }), w = await Watcher.open(b);
    await join(a, 'ann');
    const bob = await join(b, 'bob');
    await w.until('ann', 'bob');
    const began = Date.now();
    await a.stop();
    await w.until('bob');
    assert.ok(Date.now() - began < 5000, `${Date.now() - began} ms`);
    bob.close(); w.close();
  });

  test('redis_presence_the_members_of_a_dead_node_leave_within_12_s__and_only_once', async (t) => {
    const [a, b, c] = await nodes(t, redis, 3, { args: PRESENCE });
    const ws = [await Watcher.open(b), await Watcher.open(c)];
    await join(a, 'ann'); await join(a, 'ann2');
    const bob = await join(b, 'bob'), both = [await join(a, 'cy'), await join(c, 'cy')];
    for (const w of ws) await w.until('ann', 'ann2', 'bob', 'cy');
    const began = Date.now();
    await a.kill();
    for (const w of ws) await w.until('bob', 'cy');
    const took = Date.now() - began;
    assert.ok(took < 12500, `${took} ms`);
    for (const d of [b, c]) await isHere(d, 'bob', 'cy');
    await sleep(1000);
    for (const w of ws) {
      w.look(); // would find one who leaves twice
      assert.equal(w.told.flatMap((x) => x.leave ?? []).filter((m) => m.startsWith('ann')).length, 2);
      w.close();
    }
    bob.close(); both[1].close();
  });

  test('redis_presence_a_killed_node_comes_back_at_once_under_its_name__its_old_members_leave', async (t) => {
    const log = logName(), a = await node(t, redis, { log, name: 'a', args: PRESENCE }), b = await node(t, redis, { log, name: 'b', args: PRESENCE });
    const w = await Watcher.open(b);
    await join(a, 'ann');
    const bob = await join(b, 'bob');
    await w.until('ann', 'bob');
    await a.kill();
    const began = Date.now(), again = await node(t, redis, { log, name: 'a', args: PRESENCE });
    assert.ok(Date.now() - began < 4000, `it listened after ${Date.now() - began} ms`);
    const cy = await join(again, 'cy');
    await w.until('bob', 'cy');
    for (const d of [again, b]) await isHere(d, 'bob', 'cy');
    await pub(again, 'x', 'm');
    await eventually(async () => datas((await poll(b, '/live/x')).messages).includes('m'), 'it is there');
    bob.close(); cy.close(); w.close();
  });

  test('redis_presence_the_members_of_a_stopped_node_leave__and_are_back_when_it_goes_on', async (t) => {
    const [a, b] = await nodes(t, redis, 2, { args: PRESENCE }), w = await Watcher.open(b);
    const ann = await join(a, 'ann'), bob = await join(b, 'bob');
    await w.until('ann', 'bob');
    a.signal('SIGSTOP');
    await w.until('bob');
    a.signal('SIGCONT');
    await w.until('ann', 'bob');
    for (const d of [a, b]) await isHere(d, 'ann', 'bob');
    ann.close();
    await w.until('bob');
    bob.close(); w.close();
  });

  test('redis_presence_above_100_members_only_the_count__over_all_nodes', async (t) => {
    const [a, b] = await nodes(t, redis, 2, { args: PRESENCE });
    const all = await Promise.all(range(1, 101).map((n) => join(n % 2 ? a : b, `member${n}`)));
    for (const d of [a, b]) await eventually(async () => JSON.stringify(await here(d)) === '{"count":101}', '101 members');
    all.pop().close();
    for (const d of [a, b]) await eventually(async () => (await here(d)).here?.length === 100, '100 members');
    for (const s of all) s.close();
  });
});

// --- users: the daemon with a login ---

describe('users', { concurrency: 3 }, () => {
  const named = (t, log, name) => node(t, redis, { log, name, use: 'login' });

  test('redis_a_message_to_a_user_reaches_her_on_any_node__and_nobody_else', async (t) => {
    const log = logName(), [a, b, c] = await Promise.all(['a', 'b', 'c'].map((name) => named(t, log, name)));
    const r = await Reader.open(b, '@user/ann', '?token=ann'), w = await Ws.open(c, '/live/@user/ann?token=ann');
    for (const d of [a, b, c]) assert.equal((await post(d, '/to/ann', `from ${d.port}`)).status, 202);
    for (const d of [a, b, c]) await r.until(`from ${d.port}`);
    for (const d of [a, b, c]) assert.ok([a, b, c].map((x) => `from ${x.port}`).includes((await w.next()).text), String(d.port));
    assertError(await get(b, '/live/@user/ann?token=bob'), 403);
    r.close(); w.close();
  });

  test('redis_the_queue_of_a_user_who_is_away_survives_the_restart_of_every_node__exactly', async (t) => {
    const log = logName(), first = await Promise.all(['a', 'b'].map((name) => named(t, log, name)));
    for (const n of range(1, 7)) await post(first[n % 2], '/to/ann', `m${n}`);
    await post(first[0], '/to/bob', 'for bob');
    await pub(first[0], 'x', 'no user');
    const mine = async (d, since = 'earliest', who = 'ann') => poll(d, `/live/@user/${who}?since=${since}&token=${who}`);
    await eventually(async () => (await mine(first[0])).messages.length === 7, 'seven messages');
    const had = await mine(first[0]);
    assert.deepEqual(datas(had.messages).sort(), range(1, 7).map((n) => `m${n}`));
    await Promise.all(first.map((d) => d.stop()));
    // The window of the log goes on without her: a durable topic has a stream of its own.
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const [c, d] = await Promise.all(['a', 'other'].map((name) => named(t, log, name)));
    for (const x of [c, d]) {
      assert.deepEqual((await mine(x)).messages, had.messages);
      assert.deepEqual(datas((await mine(x, undefined, 'bob')).messages), ['for bob']);
      const body = await mine(x, had.messages[3].id);
      assert.deepEqual([body.gap, body.messages], [undefined, had.messages.slice(4)], 'from a cursor in its middle');
    }
    const r = await Reader.open(d, '@user/ann', `?token=ann&since=${had.messages[6].id}`);
    await post(c, '/to/ann', 'new');
    await r.until('new');
    assert.equal(r.log.length, 1, JSON.stringify(r.log));
    r.close();
  });

  test('redis_a_user_is_one_member_under_her_name_on_all_nodes', async (t) => {
    const log = logName(), args = PRESENCE, [a, b] = await Promise.all(['a', 'b'].map((name) => node(t, redis, { log, name, args, use: 'login' })));
    const one = await sse(a, '/live/room/a?token=ann'), two = await sse(b, '/live/room/a?token=ann'), three = await sse(b, '/live/room/a?token=bob');
    for (const d of [a, b]) await isHere(d, 'ann', 'bob');
    one.close();
    await sleep(1000);
    for (const d of [a, b]) await isHere(d, 'ann', 'bob');
    two.close();
    for (const d of [a, b]) await isHere(d, 'bob');
    three.close();
  });

  const whereIs = async (d, name) => (await get(d, `/where/${name}`)).text.split('\n').filter(Boolean).sort();
  const isOn = (d, name, ...where) => eventually(async () => JSON.stringify(await whereIs(d, name)) === JSON.stringify(where), `${name} is on ${where}`, 20000);

  test('redis_where_a_user_is_is_known_on_each_node__also_when_a_node_dies', async (t) => {
    const log = logName(), all = await Promise.all(['a', 'b', 'c'].map((name) => named(t, log, name))), [a, b, c] = all;
    const one = await sse(a, '/live/x?token=ann'), two = await Ws.open(b, '/live/y?token=ann'), bob = await sse(c, '/live/x?token=bob');
    for (const d of all) { await isOn(d, 'ann', 'a', 'b'); await isOn(d, 'bob', 'c'); assert.deepEqual(await whereIs(d, 'nobody'), []); }
    two.close();
    for (const d of all) await isOn(d, 'ann', 'a');
    const late = await named(t, log, 'late');
    await isOn(late, 'ann', 'a');
    await a.kill();
    for (const d of [b, c, late]) await isOn(d, 'ann');
    for (const d of [b, c, late]) await isOn(d, 'bob', 'c');
    for (const x of [one, bob]) x.close();
  });
});

// --- durable topics: streams of their own ---

describe('durable', { concurrency: 3 }, () => {
  const durable = (t, log, name, ...args) => node(t, redis, { log, name, args: ['--durable', 'keep/**', ...args] });
  // All of it, part after part.
  async function whole(d, topic, since = 'earliest') {
    const all = [];
    for (let cursor = since, more = true; more;) {
      const body = await poll(d, `/live/${topic}?since=${cursor}`);
      assert.equal(body.gap, undefined, JSON.stringify(body.gap));
      all.push(...body.messages);
      ({ cursor, more } = body);
    }
    return all;
  }

  test('redis_durable_is_longer_than_any_history__and_read_by_each_transport_of_a_new_node', async (t) => {
    const log = logName(), a = await durable(t, log, 'a');
    const ids = (await wire.publishAll(a, range(1, 250).map((n) => ['keep/x', `m${n}`]))).map((m) => m.id);
    await pub(a, 'other', 'not durable');
    assert.deepEqual((await whole(a, 'keep/x')).map((m) => m.id), ids);
    await a.stop();
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const wanted = range(1, 250).map((n) => `m${n}`);
    // A node for each: the first question is the one that has to wait for Redis.
    const b = await durable(t, log, 'b'), c = await durable(t, log, 'c'), d = await durable(t, log, 'd'), e = await durable(t, log, 'e');
    assert.deepEqual((await whole(b, 'keep/x')).map((m) => [m.id, m.data]), ids.map((id, i) => [id, wanted[i]]));
    const s = await sse(c, '/live/keep/x', { 'Last-Event-ID': ids[99] });
    assert.deepEqual((await s.take(150)).map((m) => [m.id, m.data]), ids.slice(100).map((id, i) => [id, wanted[100 + i]]));
    const w = await Ws.open(d, '/live/keep/x?since=earliest');
    for (const text of wanted) await w.expectText(text);
    const env = await Envelope.open(e), ack = await env.acked({ type: 'subscribe', topic: 'keep/x', since: ids[239] });
    while (ack.before.length < 10) ack.before.push(await env.expect('message'));
    assert.deepEqual(ack.before.map((m) => [m.type, m.id]), ids.slice(240).map((id) => ['message', id]));
    for (const x of [b, c, d, e]) assert.deepEqual(datas((await poll(x, '/live/other')).messages), []);
    for (const x of [s, w, env]) x.close();
  });

  test('redis_durable_what_comes_while_it_is_read_comes_behind_it__once', async (t) => {
    const log = logName(), a = await durable(t, log, 'a');
    const ids = (await wire.publishAll(a, range(1, 100).map((n) => ['keep/x', `m${n}`]))).map((m) => m.id);
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const b = await durable(t, log, 'b');
    const open = range(101, 150).map((n) => pub(a, 'keep/x', `m${n}`)), rs = await Promise.all(range(1, 5).map(() => Reader.open(b, 'keep/x', `?since=${ids[0]}`)));
    const later = (await Promise.all(open)).map((m) => m.id);
    const all = [...ids.slice(1), ...later].sort((x, y) => wire.seqOf(x) - wire.seqOf(y));
    for (const r of rs) {
      await eventually(() => r.messages.length >= all.length, `all, not ${r.messages.length}`);
      assert.deepEqual(r.log.map((m) => m.id), all);
      r.close();
    }
  });

  test('redis_durable_a_delete_is_for_good__an_ephemeral_is_not_kept', async (t) => {
    const log = logName(), a = await durable(t, log, 'a');
    await pub(a, 'keep/x', 'gone');
    await pub(a, 'keep/x?ephemeral=1', 'typing');
    assert.equal((await wire.request(a, 'DELETE', '/live/keep/x')).status, 204);
    const { id } = await pub(a, 'keep/x', 'after');
    await a.stop();
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const b = await durable(t, log, 'b');
    assert.deepEqual((await poll(b, '/live/keep/x?since=earliest')).messages, [{ id, topic: 'keep/x', data: 'after' }]);
  });

  test('redis_durable_is_read_by_each_of_many_loops', async (t) => {
    const log = logName(), a = await durable(t, log, 'a');
    const ids = (await wire.publishAll(a, range(1, 250).map((n) => ['keep/x', `m${n}`]))).map((m) => m.id);
    await a.stop();
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const b = await durable(t, log, 'b', '--threads', '3'), wanted = range(1, 250).map((n) => `m${n}`);
    // Connections are dealt round: each loop has some of each kind.
    const all = await Promise.all(range(1, 6).map(async (n) => {
      const w = await Ws.open(b, '/live/keep/x?since=earliest'), s = await sse(b, '/live/keep/x', { 'Last-Event-ID': ids[99] }), env = await Envelope.open(b);
      const ack = await env.acked({ type: 'subscribe', topic: 'keep/x', since: ids[239] });
      for (const text of wanted) await w.expectText(text);
      assert.deepEqual((await s.take(150)).map((m) => [m.id, m.data]), ids.slice(100).map((id, i) => [id, wanted[100 + i]]));
      while (ack.before.length < 10) ack.before.push(await env.expect('message'));
      assert.deepEqual(ack.before.map((m) => [m.type, m.id]), ids.slice(240).map((id) => ['message', id]));
      assert.deepEqual((await whole(b, 'keep/x')).map((m) => [m.id, m.data]), ids.map((id, i) => [id, wanted[i]]), `poll ${n}`);
      return [w, s, env];
    }));
    const { id } = await pub(b, 'keep/x', 'new');
    for (const [w, s, env] of all) {
      await w.expectText('new');
      assert.equal((await s.take(1))[0].id, id);
      assert.equal((await env.expect('message')).id, id);
      for (const x of [w, s, env]) x.close();
    }
  });

  test('redis_durable_two_topics_in_one_request_are_both_read', async (t) => {
    const log = logName(), a = await durable(t, log, 'a');
    const ids = (await wire.publishAll(a, range(1, 40).map((n) => [`keep/${n % 2}`, `m${n}`]))).map((m) => m.id);
    await a.stop();
    await redis.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    for (const threads of [1, 3]) {
      const b = await durable(t, log, `b${threads}`, '--threads', `${threads}`);
      for (const n of range(1, 3)) {
        const body = await poll(b, '/live/keep/0?topic=keep/1&since=earliest');
        assert.equal(body.gap, undefined, `${threads} ${n}`);
        assert.deepEqual(body.messages.map((m) => m.id), ids);
      }
      await b.stop();
    }
  });

  test('redis_durable_is_asked_for_while_redis_stands_still__an_answer_comes__not_a_wrong_one', async (t) => {
    const own = await Redis.start(t, {}), log = logName(), args = ['--durable', 'keep/**'], a = await node(t, own, { log, name: 'a', args });
    const { id } = await pub(a, 'keep/x', 'm1');
    await pub(a, 'keep/x', 'm2');
    await own.call('XTRIM', `{${log}}:log`, 'MAXLEN', 0);
    const b = await node(t, own, { log, name: 'b', args });
    own.signal('SIGSTOP');
    const r = await get(b, `/live/keep/x?since=${id}`);
    own.signal('SIGCONT');
    // It does not know, and must not say that there is nothing.
    if (r.status === 200) assert.ok(r.json.gap || r.json.messages.length === 1, r.text);
    else assert.equal(r.status, 503, r.text);
    await eventually(async () => (await whole(b, 'keep/x').catch(() => [])).length === 2, 'then it is there');
  });
});
