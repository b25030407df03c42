// kill -9 at random moments under load. Whatever was acknowledged is there after the restart, once, under the same id;
// every reader that comes back by its cursor has read everything once, in order, and heard of no gap. A publish that had
// no answer is tried again under its key, as a client would.
//
// JOURNAL_ROUNDS: how often (10; by hand 200). SEED repeats the moments.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { begin, start, folder, held, headOf } from './lib.mjs';
import { Sse, Ws, Envelope, OP, poll, requestBytes, random, sleep, eventually } from '../wire/lib.mjs';

const ROUNDS = Number(process.env.JOURNAL_ROUNDS ?? 10);
const SEED = Number(process.env.SEED ?? Date.now() % 1000000);
const PUBLISHERS = 4, TOPICS = ['k/a', 'k/b', 'k/c'];
const WIDE = ['--set', 'history=10000000', '--set', 'history_bytes=1000000000', '--set', 'history_total_bytes=2000000000'];

// The daemon of the moment; who loses it waits for the next.
class Place {
  async up(after) {
    await eventually(() => this.d && this.d !== after, 'the daemon is back', 10000);
    return this.d;
  }
}

class Publisher {
  constructor(place, name, rnd) { Object.assign(this, { place, name, rnd, acked: new Map(), retried: 0, isOn: true }); this.done = this.run(); }

  async run() {
    for (let n = 0, d, c; this.isOn; n++) {
      const data = `${this.name}-${n} ${'x'.repeat(this.rnd.below(10) ? this.rnd.below(200) : this.rnd.below(20000))}`, topic = this.rnd.pick(TOPICS);
      for (;;) {
        try {
          if (!c) { d = await this.place.up(); c = await d.connect(); }
          c.write(requestBytes(d.host, 'POST', `/live/${topic}`, { 'Idempotency-Key': `${this.name}-${n}` }, data));
          const r = await c.response();
          assert.ok(r.status < 300, `${r.status} ${r.text}`);
          this.acked.set(data, r.json.id);
          break;
        } catch (e) {
          if (e instanceof assert.AssertionError) throw e;
          c?.destroy();
          c = null;
          this.retried++;
          await this.place.up(d);
        }
      }
    }
  }
}

// What each kind does with one connection, until it breaks.
const KINDS = {
  async sse(r, d) {
    const s = await Sse.open(d, '/live/k/*', { 'Last-Event-ID': r.cursor });
    for (let block; (block = await s.block(60000));) {
      if (block.event === 'gap') r.gaps.push(block.data);
      else if (block.data !== undefined) r.got.push(block.data);
      if (block.id) r.cursor = block.id;
    }
    throw new Error('the stream ended');
  },
  async envelope(r, d) {
    const e = await Envelope.open(d, `/live/k/*?since=${r.cursor}`);
    for (;;) {
      const m = await e.recv(60000);
      if (m.type === 'gap') r.gaps.push(JSON.stringify(m));
      if (m.type === 'message') { r.got.push(m.data); r.cursor = m.id; }
    }
  },
  // Its frames have no ids: what it has read last, it finds in the log.
  async raw(r, d) {
    const last = r.got.at(-1);
    if (last !== undefined && r.got.length !== r.known) {
      const found = (await held(d, 'k/*', r.cursor)).find((m) => m.data === last);
      if (!found) r.gaps.push(`read, and no longer there: ${last.slice(0, 20)}`);
      r.cursor = found?.id ?? r.cursor;
      r.known = r.got.length;
    }
    const w = await Ws.open(d, `/live/k/*?since=${r.cursor}`);
    if (w.r.headers['rtpush-gap']) r.gaps.push(w.r.headers['rtpush-gap']);
    for (;;) {
      const m = await w.next(60000);
      if (m.opcode === OP.CLOSE) throw new Error(`closed ${m.code}`);
      r.got.push(m.text);
    }
  },
  async poll(r, d) {
    for (;;) {
      const body = await poll(d, `/live/k/*?wait=20&since=${r.cursor}`, {}, 60000);
      if (body.gap) r.gaps.push(JSON.stringify(body.gap));
      r.got.push(...body.messages.map((m) => m.data));
      r.cursor = body.cursor;
    }
  },
};

class Reader {
  constructor(place, kind, cursor) { Object.assign(this, { place, kind, cursor, got: [], gaps: [], breaks: 0, isOn: true }); this.done = this.run(); }

  async run() {
    while (this.isOn) {
      const d = await this.place.up();
      try { await KINDS[this.kind](this, d); } catch (e) {
        if (e instanceof assert.AssertionError) throw e;
        this.breaks++;
        if (this.isOn) await this.place.up(d).catch(() => {});
      }
    }
  }
}

for (const [mode, rounds] of [['always', ROUNDS], ['30', Math.ceil(ROUNDS / 3)]]) {
  test(`killed_${rounds}_times__fsync_${mode} (SEED=${SEED})`, async (t) => {
    const dir = folder(t), args = ['--fsync', mode, ...WIDE, '--listen', `unix:${folder(t)}/s`], rnd = random(SEED), place = new Place();
    place.d = await start(t, dir, args);
    const head = await headOf(place.d), epoch = head.slice(0, 8);
    const readers = ['sse', 'sse', 'envelope', 'envelope', 'raw', 'raw', 'poll', 'poll'].map((kind) => new Reader(place, kind, head));
    const publishers = Array.from({ length: PUBLISHERS }, (_, i) => new Publisher(place, `p${i}`, rnd));
    const all = [...readers, ...publishers], failed = Promise.all(all.map((x) => x.done));
    failed.catch(() => {});
    t.after(() => { for (const x of all) x.isOn = false; place.d = null; }); // of a failed test, too
    const count = () => publishers.reduce((n, p) => n + p.acked.size, 0);
    let startsKilled = 0;
    for (let round = 0, checked = head; round < rounds; round++) {
      const before = count();
      await Promise.race([eventually(() => count() > before, 'something is acknowledged'), failed]);
      await sleep(rnd.below(300));
      const acked = new Map(publishers.flatMap((p) => [...p.acked])), { d } = place;
      place.d = null;
      await d.kill();
      for (; rnd.below(3) === 0; startsKilled++) { // and while it loads
        const early = begin(t, dir, args);
        await sleep(rnd.below(120));
        await early.kill();
      }
      const next = await start(t, dir, args);
      // Before anybody publishes anew: all that this round acknowledged is there.
      const there = new Map((await held(next, 'k/*', checked)).map((m) => [m.data, m.id]));
      assert.equal((await headOf(next)).slice(0, 8), epoch, `another epoch: ${next.stderr}`);
      for (const [data, id] of acked) if (Number(id.slice(9)) > Number(checked.slice(9))) assert.equal(there.get(data), id, data.slice(0, 20));
      checked = await headOf(next);
      place.d = next;
    }
    for (const p of publishers) p.isOn = false;
    await Promise.all(publishers.map((p) => p.done));
    const truth = await held(place.d, 'k/*'), acked = new Map(publishers.flatMap((p) => [...p.acked]));
    assert.equal(new Set(truth.map((m) => m.data)).size, truth.length, 'a message twice');
    assert.deepEqual(truth.map((m) => Number(m.id.slice(9))), truth.map((_, i) => i + 1), 'the ids have a hole');
    assert.deepEqual(new Map(truth.map((m) => [m.data, m.id])), new Map([...acked].sort((a, b) => Number(a[1].slice(9)) - Number(b[1].slice(9)))));
    const datas = truth.map((m) => m.data);
    for (const r of readers) {
      await Promise.race([eventually(() => r.got.length >= datas.length, `${r.kind} has all ${datas.length}, not ${r.got.length}`), failed]);
      assert.deepEqual(r.gaps, [], r.kind);
      assert.ok(r.got.length === datas.length && r.got.every((x, i) => x === datas[i]), `${r.kind} read something else: the first difference is at ${r.got.findIndex((x, i) => x !== datas[i])} of ${datas.length}`);
      assert.ok(r.breaks >= rounds, `${r.kind} was cut off ${r.breaks} times`);
    }
    t.diagnostic(`${truth.length} messages, ${publishers.reduce((n, p) => n + p.retried, 0)} tried again, ${startsKilled} starts killed`);
    for (const x of all) x.isOn = false;
    await place.d.kill();
    await failed;
  });
}
