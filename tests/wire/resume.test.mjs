// One conversation over all transports: its order, and that nobody loses or doubles anything however often the
// connection breaks. SEED repeats a run.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, post, poll, pub, sse, Sse, Ws, Envelope, pollBody, requestBytes, random, seqOf, range, sleep, readers, epochOf, parked } from './lib.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1000000);
const broken = (error) => /^the connection ended/.test(error.message);

// Publishes n numbered messages from three sides at once; the answer: data -> id.
async function publishers(d, rnd, n, topics, pause) {
  const ids = new Map();
  const http = async (from) => {
    const c = await d.connect();
    for (let i = from; i < n; i += 3) {
      const data = `${i}`;
      c.write(requestBytes(d.host, 'POST', `/live/${rnd.pick(topics)}`, {}, data));
      ids.set(data, (await c.response()).json.id);
      await sleep(rnd.below(pause));
    }
    c.destroy();
  };
  const envelope = async (from) => {
    const e = await Envelope.open(d);
    for (let i = from; i < n; i += 3) {
      const data = `${i}`;
      ids.set(data, (await e.acked({ type: 'publish', topic: rnd.pick(topics), data })).id);
      await sleep(rnd.below(pause));
    }
    e.close();
  };
  const raw = async (from) => { // its own frames tell it that they were published, not under which id
    const by = await Promise.all(topics.map((topic) => Ws.open(d, `/live/${topic}`)));
    for (let i = from; i < n; i += 3) {
      const w = rnd.pick(by);
      const data = `${i}`;
      w.text(data);
      while ((await w.next()).text !== data);
      await sleep(rnd.below(pause));
    }
    for (const w of by) w.close();
  };
  await Promise.all([http(0), envelope(1), raw(2)]);
  return ids;
}

const truth = async (d, target) => {
  const all = [];
  for (let since = 'earliest', more = true; more;) {
    const body = await poll(d, `${target}${target.includes('?') ? '&' : '?'}since=${since}`);
    all.push(...body.messages);
    ({ more, cursor: since } = body);
  }
  return all;
};

test(`conversation__every_transport_tells_the_same_in_the_same_order (SEED=${SEED})`, async (t) => {
  const d = await daemon(t, '--set', 'history=5000');
  const rnd = random(SEED);
  const topics = ['talk/a', 'talk/b', 'talk/c/d'];
  const both = '/live?topic=talk/a&topic=talk/b&topic=talk/c/d';
  const targets = [both, '/live/talk/**', '/live/talk/a?topic=talk/*&topic=talk/c/*', '/live/**'];
  const n = 400;
  const log = [];
  for (const target of targets) {
    const s = await sse(d, target);
    log.push(['SSE', (async () => (await s.take(n)).map((m) => m.data))(), s]);
    const w = await Ws.open(d, target);
    log.push(['raw', (async () => { const got = []; while (got.length < n) got.push((await w.next()).text); return got; })(), w]);
    const e = await Envelope.open(d, target);
    log.push(['envelope', (async () => { const got = []; while (got.length < n) got.push((await e.expect('message')).data); return got; })(), e]);
    for (const wait of ['&wait=20', '']) {
      const q = target.includes('?') ? '&' : '?';
      let { cursor } = await poll(d, `${target}${q}since=latest`);
      const follow = async () => {
        const got = [];
        while (got.length < n) {
          const body = await poll(d, `${target}${q}since=${cursor}${wait}`);
          assert.ok(!('gap' in body));
          got.push(...body.messages.map((m) => m.data));
          cursor = body.cursor;
          if (!wait) await sleep(rnd.below(100));
        }
        return got;
      };
      log.push([wait ? 'long poll' : 'short poll', follow(), null]);
    }
  }
  const ids = await publishers(d, rnd, n, topics, 6);
  const all = await truth(d, '/live/talk/**');
  assert.equal(all.length, n);
  for (const m of all) if (ids.has(m.data)) assert.equal(m.id, ids.get(m.data));
  for (const [i, m] of all.entries()) if (i) assert.equal(seqOf(m.id), seqOf(all[i - 1].id) + 1);
  for (const [name, got, reader] of log) {
    assert.deepEqual(await got, all.map((m) => m.data), name);
    reader?.close();
  }
});

// A client that breaks off at random moments and goes on from its cursor. got: [seq, data] as they came.
class Wanderer {
  constructor(d, rnd, target, transports, cursor, idOf) {
    Object.assign(this, { d, rnd, target, transports, cursor, idOf, got: [], gaps: [], breaks: 0 });
  }

  with(query) { return `${this.target}${this.target.includes('?') ? '&' : '?'}${query}`; }
  take(m) { this.got.push([seqOf(m.id), m.data]); this.cursor = m.id; }

  cutter(conn) {
    const begin = this.cursor;
    let timer, patience = 40;
    const cut = () => {
      if (this.cursor === begin && patience--) { timer = setTimeout(cut, 10); return; } // a slow machine must get on too
      const how = this.rnd.below(3);
      if (how === 0) conn.socket.resetAndDestroy(); else if (how === 1) conn.destroy(); else { conn.end(); setTimeout(() => conn.destroy(), 5); }
    };
    timer = setTimeout(cut, this.rnd.below(60));
    return () => { clearTimeout(timer); conn.destroy(); };
  }

  async sse() {
    const header = this.rnd.below(2);
    const s = await Sse.open(this.d, header ? this.target : this.with(`since=${this.cursor}`), header ? { 'Last-Event-ID': this.cursor } : {});
    assert.ok(!s.refused, s.refused?.text);
    const stop = this.cutter(s.c);
    try {
      for (let b; (b = await s.block()) !== null;) {
        if (b.event === 'gap') this.gaps.push(JSON.parse(b.data));
        else if (b.data !== undefined) this.got.push([seqOf(b.id), b.data]);
        if (b.id !== undefined) this.cursor = b.id;
      }
    } finally { stop(); }
  }

  async envelope() {
    const e = await Envelope.open(this.d, this.with(`since=${this.cursor}`));
    const stop = this.cutter(e.c);
    try {
      for (;;) {
        const o = await e.any();
        if (o.type === 'gap') this.gaps.push(o);
        if (o.type === 'message') this.take(o);
        if (o.type === 'heartbeat') this.cursor = o.cursor;
      }
    } finally { stop(); }
  }

  // Without topics in the URL: what a subscribe replays counts when its ack has come.
  async subscribe() {
    const e = await Envelope.open(this.d, '/live');
    const stop = this.cutter(e.c);
    try {
      e.say({ type: 'subscribe', topic: this.target.slice('/live/'.length), since: this.cursor, ref: 1 });
      let replayed = [], gaps = [], acked = false;
      for (;;) {
        const o = await e.any();
        if (o.type === 'gap') { if (acked) this.gaps.push(o); else gaps.push(o); }
        if (o.type === 'message') {
          assert.equal(o.replay === true, !acked);
          if (acked) this.take(o); else replayed.push(o);
        }
        if (o.type === 'ack') {
          acked = true;
          this.gaps.push(...gaps);
          for (const m of replayed) this.got.push([seqOf(m.id), m.data]);
          this.cursor = o.cursor;
        }
        assert.notEqual(o.type, 'error', JSON.stringify(o));
      }
    } finally { stop(); }
  }

  async raw() {
    const w = await Ws.open(this.d, this.with(`since=${this.cursor}`));
    const gap = w.r.headers['rtpush-gap'];
    if (gap) { const [from, to, reason] = gap.split(' '); this.gaps.push({ from, to, reason }); }
    const stop = this.cutter(w.c);
    const seen = [];
    try {
      for (;;) {
        const m = await w.next();
        if (m.opcode === 8) { assert.equal(m.code, 4100); break; }
        seen.push(m.text);
      }
    } finally {
      stop();
      for (const data of seen) this.take({ id: await this.idOf(data), data });
    }
  }

  async longPoll() {
    const c = await this.d.connect();
    const stop = this.cutter(c);
    try {
      for (;;) {
        c.write(requestBytes(this.d.host, 'GET', this.with(`wait=5&since=${this.cursor}`)));
        this.answer(pollBody(await c.response()));
      }
    } finally { stop(); }
  }

  async shortPoll() {
    const r = await get(this.d, this.target, { 'If-None-Match': `"${this.cursor}"` });
    if (r.status === 304) this.cursor = r.headers.etag.slice(1, -1);
    else this.answer(pollBody(r));
    await sleep(this.rnd.below(60));
  }

  answer(body) {
    if (body.gap) this.gaps.push(body.gap);
    for (const m of body.messages) this.got.push([seqOf(m.id), m.data]);
    this.cursor = body.cursor;
  }

  async run(enough, pause) {
    const end = Date.now() + 60000;
    while (!enough(this)) {
      assert.ok(Date.now() < end, `${this.transports} did not come to an end: ${this.got.length} messages, cursor ${this.cursor}`);
      try { await this[this.rnd.pick(this.transports)](); } catch (error) { if (!broken(error)) throw error; }
      this.breaks++;
      await sleep(this.rnd.below(pause));
    }
    return this;
  }
}

const TRANSPORTS = ['sse', 'envelope', 'subscribe', 'raw', 'longPoll', 'shortPoll'];

// The id of a message by its data, also for those who were not told: from the history, as the publisher would.
const lookup = (d, target) => {
  const known = new Map();
  return async (data) => {
    if (!known.has(data)) for (const m of await truth(d, target)) known.set(m.data, m.id);
    return known.get(data) ?? assert.fail(`unknown message ${data}`);
  };
};

test(`resume__none_lost_none_doubled_on_any_transport_and_between_them (SEED=${SEED})`, async (t) => {
  const d = await daemon(t, '--set', 'history=5000', '--set', 'sse_heartbeat_ms=40', '--set', 'heartbeat_ms=40');
  const rnd = random(SEED + 1);
  const topics = ['fuzz/a', 'fuzz/b'];
  const epoch = await epochOf(d);
  const idOf = lookup(d, '/live/fuzz/*');
  const n = 600;
  let total = Infinity;
  const plans = [...TRANSPORTS.flatMap((x) => [[x], [x]]), ...range(1, 6).map(() => TRANSPORTS)];
  const clients = plans.map((transports, i) => {
    const single = transports.includes('subscribe');
    return new Wanderer(d, random(SEED + 100 + i), single || i % 2 ? '/live/fuzz/*' : '/live?topic=fuzz/a&topic=fuzz/b', transports, `${epoch}-0`, idOf);
  });
  const runs = clients.map((c) => c.run((x) => x.got.length >= total, 30));
  const done = Promise.all(runs);
  done.catch(() => {});
  await publishers(d, rnd, n, topics, 12);
  const all = (await truth(d, '/live/fuzz/*')).map((m) => [seqOf(m.id), m.data]);
  assert.equal(all.length, n);
  total = n;
  await done;
  for (const c of clients) {
    assert.deepEqual(c.gaps, [], `${c.transports}: no gap`);
    assert.deepEqual(c.got, all, `${c.transports}`);
    assert.ok(c.breaks >= 2);
    assert.deepEqual((await poll(d, `/live/fuzz/*?since=${c.cursor}`)).messages, [], 'and nothing more');
  }
});

test(`resume__what_is_missing_was_told_as_a_gap__and_no_more_than_that (SEED=${SEED})`, async (t) => {
  const d = await daemon(t, '--set', 'history=6', '--set', 'slow=skip', '--set', 'sse_heartbeat_ms=40', '--set', 'heartbeat_ms=40');
  const rnd = random(SEED + 2);
  const topics = ['gap/a', 'gap/b'];
  const epoch = await epochOf(d);
  const target = '/live/gap/*';
  const witness = await Envelope.open(d, target); // reads all the time and so sees all
  const all = [];
  const n = 500;
  const seeing = (async () => { while (all.length < n) { const o = await witness.expect('message'); all.push([seqOf(o.id), o.topic, o.data]); } })();
  let last = Infinity;
  const names = TRANSPORTS.filter((x) => x !== 'raw');
  const clients = [...names.map((x) => [x]), names, names, names].map((transports, i) => new Wanderer(d, random(SEED + 200 + i), target, transports, `${epoch}-0`));
  const done = Promise.all(clients.map((c) => c.run((x) => seqOf(x.cursor) >= last, 120)));
  done.catch(() => {});
  await publishers(d, rnd, n, topics, 8);
  await seeing;
  last = all.at(-1)[0];
  await done;
  let gaps = 0;
  for (const c of clients) {
    const who = `${c.transports}`;
    const got = new Map(c.got);
    assert.equal(got.size, c.got.length, `${who}: none doubled`);
    const missing = all.filter(([seq]) => !got.has(seq)).map(([seq]) => seq);
    for (const [seq, data] of c.got) assert.equal(all.find(([s]) => s === seq)?.[2], data);
    for (const seq of missing) assert.ok(c.gaps.some((g) => seqOf(g.from) < seq && seq <= seqOf(g.to)), `${who}: ${seq} was lost in silence`);
    for (const g of c.gaps) {
      assert.equal(g.reason, 'evicted');
      assert.ok(missing.includes(seqOf(g.to)), `${who}: a gap to ${g.to}, which was not lost`);
    }
    gaps += c.gaps.length;
  }
  assert.ok(gaps > 0, 'the run had gaps');
  witness.close();
});

test('conversation__a_message_of_1_mib_comes_whole_by_every_transport', async (t) => {
  const d = await daemon(t, '--set', 'history_bytes=8388608');
  const data = 'é'.repeat(512 * 1024);
  const s = await sse(d, '/live/big');
  const w = await Ws.open(d, '/live/big');
  const e = await Envelope.open(d, '/live/*');
  const p = poll(d, '/live/big?wait=20');
  await parked(d, 1);
  await pub(d, 'big', data);
  const got = [(await s.next()).data, (await w.next()).text, (await e.expect('message')).data, (await p).messages[0].data, (await poll(d, '/live/big')).messages[0].data];
  for (const x of got) assert.ok(x === data);
  for (const x of [s, w, e]) x.close();
});

describe('resume by one transport after another', () => {
  test('resume__every_pair_of_transports_hands_over_at_the_same_place', async (t) => {
    const d = await daemon(t);
    const epoch = await epochOf(d);
    const idOf = lookup(d, '/live/pair');
    let n = 0;
    for (const from of TRANSPORTS) {
      for (const to of TRANSPORTS) {
        const before = await post(d, '/live/pair', `${n++}`);
        const w = new Wanderer(d, random(SEED + n), '/live/pair', [from], `${epoch}-${seqOf(before.json.id) - 1}`, idOf);
        await w.run((x) => x.got.length === 1, 1);
        const away = [await pub(d, 'pair', `${n++}`), await pub(d, 'pair', `${n++}`)];
        w.transports = [to];
        await w.run((x) => x.got.length >= 3, 1);
        assert.deepEqual(w.got.map(([seq]) => seq), [before.json.id, ...away.map((m) => m.id)].map(seqOf), `${from} to ${to}`);
        assert.deepEqual(w.gaps, []);
      }
    }
    await readers(d, 'pair', 0);
  });
});
