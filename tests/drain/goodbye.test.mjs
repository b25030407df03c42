// Each transport's goodbye (PROTOCOL §6): whose delay, when, and how the drain ends.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { sleep, deviation } from './lib.mjs';
import { daemon, Ws, Envelope, sse, parked, range, requestBytes, pollBody, publishAll, pub } from '../wire/lib.mjs';

const MANY = 500, LATE = 30000;
const term = (d) => d.process.kill('SIGTERM');
const ended = async (d, ms) => {
  const began = Date.now();
  const late = sleep(ms).then(() => assert.fail(`no exit within ${ms} ms`));
  assert.deepEqual(await Promise.race([d.exit, late]), { code: 0, signal: null });
  return Date.now() - began;
};

// Opens n of a kind, a hundred at a time: a listener's queue has its limit.
async function openAll(n, open) {
  const all = [];
  while (all.length < n) all.push(...await Promise.all(range(1, Math.min(100, n - all.length)).map(open)));
  return all;
}

// Kind -> how one is opened, and how its goodbye is read: the delay told to it.
const KINDS = {
  raw_websocket: [(d) => Ws.open(d, '/live/t'), async (w) => Number(/^retry=(\d+)$/.exec((await w.expectClose(1012, undefined, LATE)).reason)[1])],
  envelope: [(d) => Envelope.open(d, '/live/t'), async (e) => {
    const { after } = await e.expect('reconnect', LATE);
    await e.expectClose(1012, `retry=${after}`, LATE);
    return after;
  }],
  sse: [(d) => sse(d, '/live/t'), async (s) => {
    const { retry } = await s.block(LATE);
    assert.equal(await s.block(LATE), null);
    return Number(retry);
  }],
  longpoll: [async (d) => {
    const c = await d.connect();
    c.write(requestBytes(d.host, 'GET', '/live/t?wait=50'));
    return c;
  }, async (c) => {
    const r = await c.response('GET', LATE);
    assert.equal(r.headers.connection.toLowerCase(), 'close');
    return pollBody(r).reconnect;
  }],
};

async function goodbyes(d, all) {
  const began = Date.now();
  term(d);
  return Promise.all(all.map(async ([kind, one]) => ({ kind, delay: await KINDS[kind][1](one), at: Date.now() - began })));
}

describe('goodbye', { concurrency: 2 }, () => {
  for (const kind of Object.keys(KINDS)) {
    test(`${kind}_${MANY}_delays_are_spread_evenly__and_the_closes_too`, async (t) => {
      const spread = 3000, d = await daemon(t, '--drain-spread', `${spread}`);
      const all = (await openAll(MANY, () => KINDS[kind][0](d))).map((one) => [kind, one]);
      if (kind === 'longpoll') await parked(d, MANY);
      const told = await goodbyes(d, all);
      const delays = told.map((x) => x.delay), times = told.map((x) => x.at);
      assert.equal(new Set(delays).size, MANY, 'delays of their own');
      assert.ok(delays.every((x) => Number.isInteger(x) && x >= 0 && x <= spread));
      assert.ok(deviation(delays, spread) < 0.1, `delays deviate by ${deviation(delays, spread)}`);
      if (kind === 'longpoll') assert.ok(Math.max(...times) < 2500, `a parked poll was answered after ${Math.max(...times)} ms`);
      else {
        const first = Math.min(...times), off = deviation(times.map((x) => x - first), spread); // less how long the signal took
        assert.ok(first < 2500 && off < 0.1, `the first close after ${first} ms; closes deviate by ${off}`);
      }
      await ended(d, 10000);
    });
  }

  test('mixed__each_kind_is_spread_over_all_of_it', async (t) => {
    const spread = 2000, d = await daemon(t, '--drain-spread', `${spread}`), all = [], names = Object.keys(KINDS);
    await openAll(400, async () => {
      const kind = names[all.length % names.length], slot = all.push([kind, null]) - 1;
      all[slot][1] = await KINDS[kind][0](d);
    });
    await parked(d, 100);
    const told = await goodbyes(d, all);
    assert.ok(deviation(told.map((x) => x.delay), spread) < 0.05);
    for (const kind of names) {
      const off = deviation(told.filter((x) => x.kind === kind).map((x) => x.delay), spread);
      assert.ok(off < 0.2, `${kind}: ${off}`);
    }
    await ended(d, 10000);
  });

  // Who came as a block stays one: 100 polls behind 300 streams. The moments when all are back must be spread, too.
  test('mixed_in_blocks__the_moments_of_coming_back_are_bounded', async (t) => {
    const spread = 2000, d = await daemon(t, '--drain-spread', `${spread}`), all = [];
    for (const kind of ['envelope', 'sse', 'longpoll']) all.push(...(await openAll(100, () => KINDS[kind][0](d))).map((one) => [kind, one]));
    await parked(d, 100);
    const told = await goodbyes(d, all);
    const back = told.map((x) => x.at + x.delay).sort((a, b) => a - b);
    const mean = 300 / (spread / 100);
    const most = Math.max(...back.map((at) => back.filter((x) => x >= at && x < at + 100).length));
    assert.ok(most <= 3 * mean, `${most} come back within 100 ms; the mean is ${mean}`);
    await ended(d, 10000);
  });

  test('spread_0__all_go_at_once_and_come_back_at_once', async (t) => {
    const d = await daemon(t, '--drain-spread', '0');
    const all = [];
    for (const kind of Object.keys(KINDS)) all.push(...(await openAll(20, () => KINDS[kind][0](d))).map((one) => [kind, one]));
    await parked(d, 20);
    const told = await goodbyes(d, all);
    assert.deepEqual([...new Set(told.map((x) => x.delay))], [0]);
    assert.ok(Math.max(...told.map((x) => x.at)) < 2500);
    await ended(d, 2000);
  });

  test('deadline_cuts_who_reads_nothing', async (t) => {
    const d = await daemon(t, '--drain-spread', '100', '--drain-deadline', '1000', '--set', 'history=1000', '--set', 'history_bytes=60000000');
    const w = await Ws.open(d, '/live/t'), s = await sse(d, '/live/t');
    for (const x of [w, s]) x.c.pause();
    for (let i = 0; i < 12; i++) await publishAll(d, range(1, 16).map((k) => ['t', 'x'.repeat(60000) + k])); // more than a socket's buffers hold
    const began = Date.now();
    term(d);
    await ended(d, 8000);
    const took = Date.now() - began;
    assert.ok(took >= 900 && took < 8000, `it ended after ${took} ms`);
    for (const x of [w, s]) x.close();
  });

  // The same without a deadline near: the drain waits for the slow one, who gets all.
  test('who_reads_late_gets_all_before_he_is_sent_away', async (t) => {
    const d = await daemon(t, '--drain-spread', '100', '--drain-deadline', '20000', '--set', 'history=1000', '--set', 'history_bytes=60000000');
    const w = await Ws.open(d, '/live/t'), s = await sse(d, '/live/t');
    for (const x of [w, s]) x.c.pause();
    for (let i = 0; i < 12; i++) await publishAll(d, range(1, 16).map((k) => ['t', 'x'.repeat(60000) + (i * 16 + k)]));
    term(d);
    await sleep(1200);
    assert.equal(d.over, undefined, 'it waits');
    for (const x of [w, s]) x.c.resume();
    const { seen } = await w.expectClose(1012, /^retry=\d+$/, LATE);
    const blocks = [];
    for (let b; (b = await s.next(LATE)) !== null;) blocks.push(b.data);
    const want = range(1, 192).map(String), number = (text) => text.slice(60000);
    assert.deepEqual(seen.map((m) => number(m.text)), want);
    assert.deepEqual(blocks.map(number), want);
    await ended(d, 5000);
  });

  test('a_second_sigterm_ends_at_once__with_0', async (t) => {
    const d = await daemon(t, '--drain-spread', '20000', '--drain-deadline', 'off');
    const all = await openAll(20, () => Envelope.open(d, '/live/t'));
    term(d);
    await sleep(500);
    assert.equal(d.over, undefined, 'the first one waits for them');
    term(d);
    assert.ok(await ended(d, 3000) < 2900);
    for (const e of all) e.close();
  });

  // Who has a request under way when the drain begins is answered, and told to go.
  test('a_request_under_way_is_answered__and_its_connection_ends', async (t) => {
    const d = await daemon(t, '--drain-spread', '100');
    const keep = await Ws.open(d, '/live/other'); // so that it lasts
    const c = await d.connect();
    c.write('POST /live/t HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab');
    await sleep(200);
    term(d);
    await sleep(50);
    c.write('cde');
    const r = await c.response('POST');
    assert.ok([201, 202, 503].includes(r.status), `${r.status}`);
    assert.equal(r.headers.connection?.toLowerCase(), 'close');
    await c.eof();
    keep.close();
    await ended(d, 12000);
  });

  // A request that the server's kernel had before SIGTERM is not thrown away with its idle connection.
  test('a_request_on_a_kept_connection_sent_before_sigterm_is_answered', async (t) => {
    const d = await daemon(t, '--drain-spread', '100');
    let lost = 0;
    const all = await openAll(40, async () => {
      const c = await d.connect();
      c.write(requestBytes(d.host, 'GET', '/live/t'));
      await c.response();
      return c;
    });
    d.process.kill('SIGSTOP'); // both arrive while it looks away
    await sleep(50);
    for (const c of all) c.write(requestBytes(d.host, 'POST', '/live/t', {}, 'x'));
    await sleep(50);
    term(d);
    d.process.kill('SIGCONT');
    for (const c of all) await c.response('POST').then((r) => { if (r.status > 202 && r.status !== 503) lost++; }, () => { lost++; });
    assert.equal(lost, 0, 'requests without an answer');
    await ended(d, 5000);
  });

  // A 201 is a promise: the message reaches the readers who were there when it came, or it is refused (503, to be tried
  // again elsewhere). It came before SIGTERM, on a new connection; so did the reader.
  for (const kind of ['longpoll', 'envelope']) {
    test(`a_publish_sent_before_sigterm_reaches_a_reader_by_${kind}__or_is_refused`, async (t) => {
      const d = await daemon(t, '--drain-spread', '0');
      const one = await KINDS[kind][0](d);
      if (kind === 'longpoll') await parked(d, 1);
      d.process.kill('SIGSTOP');
      await sleep(50);
      const c = await d.connect();
      c.write(requestBytes(d.host, 'POST', '/live/t', {}, 'x'));
      await sleep(50);
      term(d);
      d.process.kill('SIGCONT');
      const { status } = await c.response('POST');
      const got = kind === 'longpoll' ? pollBody(await one.response('GET', LATE)).messages.length
        : (await one.expectClose(1012, undefined, LATE)).seen.filter((m) => JSON.parse(m.text).type === 'message').length;
      assert.ok(status === 503 || got === 1, `answered ${status}, and the reader got ${got} messages`);
      await ended(d, 12000);
    });
  }
});
