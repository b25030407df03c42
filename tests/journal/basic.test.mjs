// A restart, clean or by kill -9, changes nothing that a reader or a publisher can see: the epoch, the ids, what is held,
// which cursor gets a gap, what a key answers. And a folder has one process at a time, and a size that is bounded.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { begin, start, refused, folder, held, headOf, verdicts, sizeOf, ENDS, fastDaemon } from './lib.mjs';
import { post, poll, pub, get, request, sse, Ws, Envelope, pipeline, publishAll, readers, parked, eventually, run, sleep, seqOf, stats, epochOf } from '../wire/lib.mjs';

const FAST = fastDaemon();
const MODES = ['always', '50', 'off'];
const epochIn = (id) => id.slice(0, 8);
const LONG = `${'ü'.repeat(60)}/${'日'.repeat(44)}/x`; // 255 bytes

// One of each kind: [topic, data, headers].
const KINDS = [
  ['kinds', 'a text', {}],
  ['kinds', '', {}],
  ['kinds', 'lines\r\nof\rthree\nkinds\n', {}],
  ['kinds', '{"a":[1,2,{"ü":null}],"n":1e400}', { 'Content-Type': 'application/json' }],
  ['kinds', '"a string"', { 'Content-Type': 'application/problem+json' }],
  ['kinds', Buffer.from(Array.from({ length: 256 }, (_, i) => i)), { 'Content-Type': 'application/octet-stream' }],
  ['kinds', Buffer.alloc(0), { 'Content-Type': 'application/octet-stream' }],
  ['kinds?event=m%C3%BCde', 'with an event', {}],
  ['kinds?event=e', '', {}],
  [encodeURIComponent(LONG).replaceAll('%2F', '/'), 'a long name', {}],
  ['a%20b/%3F%23%25', 'a name that needs its quotes', {}],
  ['big', 'x'.repeat(1 << 20), {}],
  ['big', Buffer.alloc(1 << 20, 0xff), { 'Content-Type': 'application/octet-stream' }],
];
const KIND_TOPICS = [...new Set(KINDS.map(([topic]) => topic.split('?')[0]))];
const HUGE = ['--set', 'history_bytes=8000000'];

describe('restart', { concurrency: 2 }, () => {
  for (const mode of MODES) for (const how of Object.keys(ENDS)) {
    test(`every_kind_is_there_again__${how}__fsync_${mode}`, async (t) => {
      const dir = folder(t), args = ['--fsync', mode, ...HUGE];
      let d = await start(t, dir, args);
      const ids = [];
      for (const [topic, data, headers] of KINDS) ids.push((await pub(d, topic, data, headers)).id);
      assert.deepEqual(ids.map(seqOf), KINDS.map((_, i) => i + 1));
      const all = async () => { const o = {}; for (const topic of KIND_TOPICS) o[topic] = await held(d, topic); return o; };
      const before = await all(), head = await headOf(d);
      assert.deepEqual(Object.values(before).flat().map((m) => m.id).sort(), [...ids].sort());
      for (let times = 2; times--;) { // the second restart is of a process that has published nothing
        await ENDS[how](d);
        d = await start(t, dir, args);
        assert.equal(await headOf(d), head);
        assert.deepEqual(await all(), before);
      }
      const { id } = await pub(d, 'kinds', 'one more');
      assert.equal(id, `${epochIn(head)}-${KINDS.length + 1}`);
    });
  }

  for (const how of Object.keys(ENDS)) {
    // Some topics have lost messages, one was deleted, one has died, some never were: each cursor is told the same.
    test(`verdicts_are_the_same_to_the_byte__${how}`, async (t) => {
      const dir = folder(t), args = ['--fsync', 'off', '--set', 'history=4'];
      const targets = ['r', 's/1', 's/2', 's/*', 's/**', '**', 'gone', 'partly', 'never', 'kept/short'];
      let d = await start(t, dir, args);
      await publishAll(d, Array.from({ length: 24 }, (_, i) => [['r', 's/1', 'r', 's/2', 'r', 'gone', 'r', 'partly'][i % 8], `${i}`]));
      for (const topic of ['gone', 'partly']) assert.equal((await request(d, 'DELETE', `/live/${topic}`)).status, 204);
      await pub(d, 'partly', 'after the DELETE');
      await pub(d, 'kept/short', 'x');
      await pub(d, 's/1?ephemeral=1', 'to nobody');
      const before = await verdicts(d, targets);
      const gaps = Object.values(before).filter((text) => text.includes('"gap"')).length;
      assert.ok(gaps > 20 && gaps < Object.keys(before).length - 60, `${gaps} gaps: both verdicts are to be there`);
      for (let times = 2; times--;) {
        await ENDS[how](d);
        d = await start(t, dir, args);
        assert.deepEqual(await verdicts(d, targets), before);
      }
      // And it goes on evicting from there.
      const next = await pub(d, 'r', 'next');
      assert.deepEqual((await held(d, 'r')).map((m) => m.data), ['18', '20', '22', 'next']);
      assert.equal((await poll(d, `/live/r?since=${epochIn(next.id)}-16`)).gap.reason, 'evicted');
      assert.equal((await poll(d, `/live/r?since=${epochIn(next.id)}-17`)).gap, undefined);
    });

    test(`ephemeral_messages_are_not_stored_and_their_ids_not_given_again__${how}`, async (t) => {
      const dir = folder(t);
      let d = await start(t, dir, ['--fsync', 'always']);
      const epoch = epochIn((await pub(d, 't', 'stored')).id), given = new Set([`${epoch}-1`]);
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 3; i++) {
          const { id } = await pub(d, 't?ephemeral=1', `passing ${round} ${i}`);
          assert.ok(!given.has(id), `${id} twice`);
          given.add(id);
        }
        const last = [...given].at(-1);
        await ENDS[how](d);
        d = await start(t, dir, ['--fsync', 'always']);
        // Who has read the last ephemeral one has missed nothing.
        const body = await poll(d, `/live/t?since=${last}`);
        assert.deepEqual({ gap: body.gap, messages: body.messages, epoch: epochIn(body.cursor) }, { gap: undefined, messages: [], epoch });
        assert.deepEqual((await held(d, 't')).map((m) => m.data), ['stored']);
        assert.ok(seqOf(body.cursor) >= seqOf(last), `the head fell from ${last} to ${body.cursor}`);
      }
      const { id } = await pub(d, 't', 'stored, too');
      assert.ok(!given.has(id), `${id} twice`);
      assert.equal((await poll(d, `/live/t?since=${[...given].at(-1)}`)).messages[0].id, id);
    });

    test(`a_DELETE_is_the_last_thing_said__${how}`, async (t) => {
      const dir = folder(t);
      let d = await start(t, dir, ['--fsync', 'always']);
      await publishAll(d, [['t', '1'], ['u', '2'], ['t', '3']]);
      assert.equal((await request(d, 'DELETE', '/live/t')).status, 204);
      await ENDS[how](d);
      d = await start(t, dir, ['--fsync', 'always']);
      assert.deepEqual(await held(d, 't'), []);
      assert.deepEqual((await held(d, 'u')).map((m) => m.data), ['2']);
      const epoch = await epochOf(d);
      assert.equal((await poll(d, `/live/t?since=${epoch}-2`)).gap.to, `${epoch}-3`);
      assert.equal((await poll(d, `/live/t?since=${epoch}-3`)).gap, undefined);
      assert.equal(seqOf((await pub(d, 't', '4')).id) > 3, true);
    });

    // The DELETE is in another file than what it drops.
    test(`a_DELETE_of_what_an_earlier_process_took__${how}`, async (t) => {
      const dir = folder(t);
      let d = await start(t, dir);
      const [, last] = await publishAll(d, [['u', '1'], ['t', '2']]);
      await ENDS[how](d);
      d = await start(t, dir);
      assert.equal((await request(d, 'DELETE', '/live/t')).status, 204);
      const before = await verdicts(d, ['t', 'u', '**']);
      for (let times = 2; times--;) {
        await ENDS[how](d);
        d = await start(t, dir);
        assert.deepEqual(await verdicts(d, ['t', 'u', '**']), before);
      }
      assert.equal(seqOf((await pub(d, 't', '3')).id), seqOf(last.id) + 1);
    });

    test(`a_key_answers_the_same_id__${how}`, async (t) => {
      const dir = folder(t), key = (k) => ({ 'Idempotency-Key': k });
      let d = await start(t, dir, ['--fsync', '50', '--set', 'history=2']);
      const first = await pub(d, 't', 'once', key('k1')), other = await pub(d, 'u', 'once', key('k1'));
      const e = await Envelope.open(d), by = await e.acked({ type: 'publish', topic: 't', data: 'by envelope', key: 'k2' });
      const passing = await pub(d, 't?ephemeral=1', 'passing', key('k3'));
      for (const data of ['a', 'b', 'c']) await pub(d, 't', data); // the key outlives its message
      e.close();
      for (let times = 2; times--;) {
        await ENDS[how](d);
        d = await start(t, dir, ['--fsync', '50', '--set', 'history=2']);
        const head = await headOf(d);
        assert.equal((await pub(d, 't', 'again', key('k1'))).id, first.id);
        assert.equal((await pub(d, 'u', 'again', key('k1'))).id, other.id);
        assert.equal((await pub(d, 't', 'again', key('k2'))).id, by.id);
        assert.equal((await pub(d, 't?ephemeral=1', 'again', key('k3'))).id, passing.id);
        assert.equal(await headOf(d), head, 'nothing was published');
      }
      assert.notEqual((await pub(d, 'v', 'new', key('k1'))).id, first.id);
      assert.deepEqual((await held(d, 't')).map((m) => m.data), ['b', 'c']);
    });
  }

  // The age of a message is that of its publishing, not of the load.
  test('what_was_too_old_is_gone_at_once', async (t) => {
    const dir = folder(t), args = ['--set', 'history_ms=1500'];
    let d = await start(t, dir, args);
    const { id } = await pub(d, 't', 'old'), at = Date.now();
    await d.kill();
    await sleep(at + 1800 - Date.now());
    d = await start(t, dir, args);
    assert.deepEqual(await held(d, 't'), []);
    assert.equal((await poll(d, `/live/t?since=${epochIn(id)}-0`)).gap.to, id);
    assert.equal((await poll(d, `/live/t?since=${id}`)).gap, undefined);
    await pub(d, 't', 'young');
    assert.deepEqual((await held(d, 't')).map((m) => m.data), ['young']);
  });

  // Settings may change in between. Whatever is held then: who is told of no gap gets all that followed his cursor.
  test('another_history_never_hides_a_gap', async (t) => {
    const dir = folder(t), data = [];
    let epoch;
    for (const history of [3, 50, 2, 1, 50, 0, 50]) {
      const d = await start(t, dir, ['--set', `history=${history}`]);
      for (const { id } of await publishAll(d, [['t', `${data.length + 1}`], ['t', `${data.length + 2}`]])) {
        epoch ??= epochIn(id);
        assert.equal(id, `${epoch}-${data.length + 1}`);
        data.push(`${data.length + 1}`);
      }
      await (data.length % 4 ? d.kill() : d.end());
      const again = await start(t, dir, ['--set', `history=${history}`]);
      for (let seq = 0; seq <= data.length; seq++) {
        const { gap, messages } = await poll(again, `/live/t?since=${epoch}-${seq}`), from = gap ? seqOf(gap.to) : seq;
        assert.ok(!gap || from > seq);
        assert.deepEqual(messages.map((m) => m.data), data.slice(from), `history ${history}, since ${seq}`);
        assert.ok(messages.length <= Math.max(history, 0) || history === 50);
      }
      await again.end();
    }
  });

  test('an_empty_journal_keeps_its_epoch', async (t) => {
    const dir = path.join(folder(t), 'new');
    let d = await start(t, dir);
    const head = await headOf(d);
    assert.match(head, /-0$/);
    for (const how of ['clean', 'kill', 'kill']) {
      await ENDS[how](d);
      d = await start(t, dir);
      assert.equal(await headOf(d), head);
    }
    assert.equal((await pub(d, 't', 'first')).id, `${epochIn(head)}-1`);
  });

  // The sabotage that shows that the tests above would notice a loss: without its files it is another log.
  test('without_its_files_it_is_another_epoch', async (t) => {
    const dir = folder(t);
    let d = await start(t, dir);
    const { id } = await pub(d, 't', 'lost');
    await d.end();
    fs.rmSync(dir, { recursive: true });
    d = await start(t, dir);
    const { cursor, gap } = await poll(d, `/live/t?since=${id}`);
    assert.notEqual(epochIn(cursor), epochIn(id));
    assert.equal(gap.reason, 'epoch');
  });
});

describe('readers', { concurrency: 2 }, () => {
  for (const how of Object.keys(ENDS)) {
    // Each has read 1 and 2; 3 it may have got, or not, when the end comes; 4 is published after the restart.
    test(`a_waiting_reader_comes_back_exactly__${how}`, async (t) => {
      const dir = folder(t), args = ['--fsync', 'always', '--listen', `unix:${folder(t)}/s`];
      let d = await start(t, dir, args);
      const [s, w, e] = [await sse(d, '/live/t'), await Ws.open(d, '/live/t'), await Envelope.open(d, '/live/t')];
      const first = await pub(d, 't', '1'), second = await pub(d, 't', '2');
      const p = await poll(d, '/live/t?since=earliest'), waiting = get(d, `/live/u?since=${second.id}&wait=50`).catch((x) => x);
      assert.deepEqual((await s.take(2)).map((b) => b.id), [first.id, second.id]);
      for (const data of ['1', '2']) await w.expectText(data);
      for (const { id } of [first, second]) assert.equal((await e.expect('message')).id, id);
      await parked(d, 1);
      const third = await pub(d, 't', '3');
      await ENDS[how](d);
      await waiting;
      d = await start(t, dir, args);
      const fourth = await pub(d, 't', '4'), since = `since=${second.id}`;
      const again = await sse(d, '/live/t', { 'Last-Event-ID': s.lastId });
      assert.deepEqual((await again.take(2)).map(({ id, event, data }) => ({ id, event, data })), [{ id: third.id, event: undefined, data: '3' }, { id: fourth.id, event: undefined, data: '4' }]);
      const raw = await Ws.open(d, `/live/t?${since}`);
      assert.equal(raw.r.headers['rtpush-gap'], undefined);
      for (const data of ['3', '4']) await raw.expectText(data);
      const envelope = await Envelope.open(d, `/live/t?${since}`);
      assert.equal(envelope.hello.cursor, second.id);
      for (const { id } of [third, fourth]) assert.equal((await envelope.expect('message')).id, id);
      const body = await poll(d, `/live/t?wait=20&since=${p.cursor}`);
      assert.deepEqual([body.gap, body.messages.map((m) => m.id)], [undefined, [third.id, fourth.id]]);
      // The one that waited where nothing came waits on, and has not missed what comes now.
      const parkedAgain = poll(d, `/live/u?wait=50&since=${second.id}`);
      await parked(d, 1);
      const fifth = await pub(d, 'u', '5');
      const late = await parkedAgain;
      assert.deepEqual([late.gap, late.messages.map((m) => m.id)], [undefined, [fifth.id]]);
      for (const x of [again, raw, envelope]) x.close();
    });
  }
});

describe('one_process', { concurrency: 3 }, () => {
  test('a_second_one_is_refused_and_harms_nothing', async (t) => {
    const dir = folder(t), d = await start(t, dir);
    await pub(d, 't', '1');
    const before = await verdicts(d, ['t']);
    const { code, signal, stderr, stdout } = await refused(dir);
    assert.deepEqual({ code, signal, stdout }, { code: 1, signal: null, stdout: '' }, stderr);
    assert.ok(stderr.includes(dir) && /another|other|lock|in use|held/i.test(stderr), `not a clear message: ${stderr}`);
    assert.deepEqual(await verdicts(d, ['t']), before);
    await pub(d, 't', '2');
    await d.kill();
    assert.deepEqual((await held(await start(t, dir), 't')).map((m) => m.data), ['1', '2']);
  });

  for (const value of ['sometimes', '', '-1', '10x', '1e9999', 'ALWAYS']) {
    test(`fsync_${value || 'empty'}_is_exit_status_2`, async (t) => {
      const { code, stderr } = await run('--listen', 'http://127.0.0.1:0', '--journal', folder(t), '--fsync', value);
      assert.equal(code, 2, stderr);
      assert.match(stderr, /--fsync/);
    });
  }

  test('journal_without_a_value_is_exit_status_2', async () => {
    const { code, stderr } = await run('--journal');
    assert.equal(code, 2, stderr);
  });

  for (const [name, make] of [['a_file', (at) => fs.writeFileSync(at, 'x')], ['below_a_file', (at) => { fs.writeFileSync(path.dirname(at), 'x'); }]]) {
    test(`a_folder_that_is_${name}_is_a_clear_error`, async (t) => {
      const dir = path.join(folder(t), ...(name === 'a_file' ? ['x'] : ['x', 'y']));
      make(dir);
      const { code, stderr, stdout } = await refused(dir);
      assert.ok(code === 1 || code === 2, `${code} ${stderr}`);
      assert.equal(stdout, '', 'it does not listen');
      assert.ok(stderr.includes(dir), `not a clear message: ${stderr}`);
    });
  }
});

describe('hand_over', () => {
  // A deploy: the new one is started first and waits for the folder; the old one has readers and a publisher, is told
  // to drain, and gives the folder away while its last readers are still leaving.
  test('the_next_process_takes_it_while_the_old_one_drains', async (t) => {
    const dir = folder(t), flags = ['--set', 'history=100000', '--drain-spread', '4000'];
    const a = await start(t, dir, flags), streams = [];
    for (let i = 0; i < 20; i++) streams.push(await sse(a, '/live/n'));
    await readers(a, 'n', 20);
    const read = streams.map(async (s) => {
      const got = [];
      for (let block; (block = await s.next().catch(() => null));) got.push(Number(block.data));
      return { got: got.filter((n) => n), last: s.lastId };
    });
    const acked = [], refusals = [];
    let current = a, n = 0, isOn = true;
    const publisher = (async () => {
      for (n = 1; isOn; n++) for (;;) {
        const r = await post(current, '/live/n', `${n}`, { 'Idempotency-Key': `n${n}` }).catch((e) => ({ status: e.code ?? e.message }));
        if (r.status < 300) { acked.push({ n, id: r.json.id }); break; }
        refusals.push(r.status);
        await sleep(5);
      }
    })();
    await eventually(() => acked.length > 10, 'it publishes');
    const b = begin(t, dir, flags);
    await sleep(300);
    assert.equal(b.listening.length, 0, 'the folder is taken');
    a.process.kill('SIGTERM');
    await b.start(1);
    assert.equal(a.over, undefined, 'the old one is still there, as its readers are not all gone');
    current = b;
    const then = acked.length;
    await eventually(() => acked.length > then + 10, 'it publishes to the new one');
    isOn = false;
    await publisher;
    assert.deepEqual(await a.exit, { code: 0, signal: null }, a.stderr);
    const epoch = epochIn(acked[0].id);
    assert.deepEqual([...new Set(acked.map((x) => epochIn(x.id)))], [epoch], 'one epoch');
    assert.deepEqual([...new Set(acked.map((x) => x.id))].length, acked.length, 'an id twice');
    const truth = (await held(b, 'n')).map((m) => ({ n: Number(m.data), id: m.id }));
    assert.deepEqual(truth, acked);
    for (const { got, last } of await Promise.all(read)) {
      const rest = await poll(b, `/live/n?since=${last}`);
      assert.equal(rest.gap, undefined);
      assert.deepEqual([...got, ...rest.messages.map((m) => Number(m.data))], acked.map((x) => x.n));
    }
  });
});

describe('size', () => {
  // 300 MB through topics that keep 10: the folder must not keep the rest.
  test('it_stays_bounded_by_what_is_held', async (t) => {
    const dir = folder(t), args = ['--set', 'history=10', '--fsync', 'off'], how = { program: FAST };
    let d = await start(t, dir, args, how);
    const body = Buffer.alloc(100000, 0xfe), total = 300e6, each = 30;
    await pub(d, 'rare', 'the first message of all');
    let most = 0;
    for (let sent = 0, i = 0; sent < total; sent += each * body.length) {
      const list = Array.from({ length: each }, () => ['POST', `/live/t/${i % 3}`, { 'Content-Type': 'application/octet-stream' }, (body.writeUInt32BE(++i), Buffer.from(body))]);
      for (const r of await pipeline(d, list)) assert.ok(r.status === 201 || r.status === 202, `${r.status} ${r.text}`);
      most = Math.max(most, sizeOf(dir));
    }
    t.diagnostic(`the most: ${(most / 1e6).toFixed(1)} MB; now ${(sizeOf(dir) / 1e6).toFixed(1)} MB: ${fs.readdirSync(dir)}`);
    assert.ok(most < 150e6, `${most} bytes for 3 MB that are held`);
    const before = await held(d, '**'), head = await headOf(d);
    assert.equal(before.length, 31);
    await d.kill();
    d = await start(t, dir, args, how);
    assert.equal(await headOf(d), head);
    assert.deepEqual((await held(d, '**')).map((m) => m.id), before.map((m) => m.id));
    assert.deepEqual(await held(d, '**'), before);
    // Still exact for cursors, whichever files are gone.
    const last = before.filter((m) => m.topic === 't/0')[0].id, epoch = epochIn(head);
    assert.equal((await poll(d, `/live/rare?since=${epoch}-1`)).gap, undefined);
    assert.equal((await poll(d, `/live/t/0?since=${epoch}-${seqOf(last) - 1}`)).gap, undefined);
    assert.equal((await poll(d, `/live/t/0?since=${epoch}-${seqOf(last) - 4}`)).gap.reason, 'evicted');
    await d.end();
  });

  // Small ones, too: each is more frame than data, and the names of the topics that come and go are many.
  test('many_topics_that_come_and_go', async (t) => {
    const dir = folder(t), args = ['--set', 'history=2', '--fsync', 'off'], how = { program: FAST };
    let d = await start(t, dir, args, how);
    for (let round = 0; round < 10; round++) await publishAll(d, Array.from({ length: 500 }, (_, i) => [`come/${round}/${i % 100}`, `${round} ${i}`]));
    await pipeline(d, Array.from({ length: 500 }, (_, i) => ['DELETE', `/live/come/${i % 5}/${Math.floor(i / 5)}`, {}]));
    const targets = ['come/0/3', 'come/9/3', 'come/9/*', '**'], sample = async () => {
      const epoch = await epochOf(d), out = [await headOf(d), await held(d, '**')];
      for (const target of targets) for (let seq = 0; seq <= 5000; seq += 97) out.push((await get(d, `/live/${target}?since=${epoch}-${seq}`)).text);
      return out;
    };
    const before = await sample();
    await d.kill();
    d = await start(t, dir, args, how);
    assert.deepEqual(await sample(), before);
    assert.equal((await stats(d)).messages_held, before[1].length);
  });
});
