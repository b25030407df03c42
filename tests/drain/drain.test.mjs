// The drain, proven (PROTOCOL §6). Without a journal a new process is a new log, so what is promised over a restart is:
//
// - ws, sse, parked lp: whatever the old process had accepted before SIGTERM, everyone reads before he is sent away;
// - what the new one accepts, everyone reads who comes back, also what it accepted while he was still on the old one:
//   his cursor is of another epoch, so he is sent all that the new log holds (history must be long enough);
// - between the two he is told one gap, reason "epoch": there is always one, as the new process cannot know that
//   nothing was missed;
// - a poller between two polls: what was accepted since his last poll is lost to him, as nobody holds it any more; the
//   gap tells him. So is, to whoever has gone already, what the old process still accepts while it drains.
// - Nobody is refused, as the supervisor's socket queues who connects between the two.
//
// SIGTERM goes to the old process first and the new one is started at once. The other way round both accept for a
// moment, and numbers of the two logs interleave: that is tested, too (new_process_first).
//
// CI: 300 clients, one restart. DRAIN_LONG=1: 2,000 clients, three restarts; DRAIN_CFLAGS=-O2 RTPUSHD=… for an -O2 build.
import { test, describe, before } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { build, top, BUILD, Supervisor, Herd, Publisher, post, sleep, deviation, crowd, histogram, svg, freePort } from './lib.mjs';
import { daemon, Ws, Envelope, sse, get, parked, range, eventually, publishAll } from '../wire/lib.mjs';

const isLong = process.env.DRAIN_LONG === '1';
const HISTORY = ['--set', 'history=100000', '--set', 'history_bytes=500000000'];
// Whose tail may be lost: a poller's between two polls, as he has no connection on which the old process could answer.
const TAIL = ['lp', 'sp'];
let supervisor, herd;
before(() => {
  supervisor = build('supervisor');
  herd = build('herd');
});

const byC = (t, counts, port, more) => Herd.begin(t, herd, [], counts, port, more);
const byJs = (t, counts, port, more) => Herd.begin(t, process.execPath, [path.join(top, 'tests/drain/herd.mjs')], counts, port, more);
const total = (list, f) => list.reduce((n, x) => n + f(x), 0);
const statsOf = async (port) => (await fetch(`http://127.0.0.1:${port}/stats`)).json();

// What each client lost, with what the publisher knows: accepted when, by which process? isLate: after its SIGTERM.
function losses(summary, publisher, terms) {
  const known = new Map(publisher.sent.map((x) => [x.n, x])), epochs = [...new Set(publisher.sent.map((x) => x.epoch))];
  return summary.losses.map(([kind, n, client]) => {
    const { epoch, answered } = known.get(n), term = terms[epochs.indexOf(epoch)];
    return { kind, n, client, epoch, isLate: answered >= term, before: term - answered };
  });
}

// A loss is the tail of a process's log, never a hole in it.
function assertTails(list, publisher) {
  const lost = new Set(list.map((x) => delta(x.client, x.n)));
  for (const { client, n, epoch, kind } of list) {
    const after = publisher.sent.find((x) => x.n > n && x.epoch === epoch);
    assert.ok(!after || lost.has(delta(client, after.n)), `${kind} ${client} lost ${n} and read ${after?.n} of the same process`);
  }
}
const delta = (client, n) => `${client} ${n}`;

// Restarts under load; returns what the herds and the publisher saw.
async function restarts(t, { c, js, times, spread, every, order = 'term', settle, patience }) {
  const s = await Supervisor.begin(t, supervisor);
  const args = [...HISTORY, '--drain-spread', `${spread}`, '--drain-deadline', `${spread + 10000}`];
  let pid = await s.start(...args);
  const herds = await Promise.all([byC(t, c, s.port), byJs(t, js, s.port)]);
  const p = new Publisher(s.port, { every });
  t.after(() => p.stop());
  await sleep(1000);
  const terms = [], statuses = [], drains = [];
  for (let i = 0; i < times; i++) {
    const old = pid;
    if (order === 'new') pid = await s.start(...args);
    terms.push(Date.now());
    process.kill(old, 'SIGTERM');
    if (order !== 'new') pid = await s.start(...args);
    statuses.push(await s.exit(old));
    drains.push(Date.now() - terms.at(-1));
    await sleep(2 * spread + settle - drains.at(-1)); // the last ones come back after twice the spread
  }
  await p.stop();
  await sleep(patience);
  const summaries = [];
  for (const h of herds) summaries.push(await h.summary());
  process.kill(pid, 'SIGTERM');
  assert.equal(await s.exit(pid), 0);
  return { summaries, p, terms, statuses, drains };
}

function figures({ summaries, p, terms, statuses, drains }, spread, clients) {
  const times = summaries.flatMap((s) => s.times), lost = summaries.map((s) => losses(s, p, terms));
  const mean = clients / (spread / 100);
  return {
    published: p.n, refusals: p.refusals.length, statuses, drains_ms: drains,
    lost: lost.map((all) => Object.fromEntries(['ws', 'sse', 'lp', 'sp'].map((k) => [k, all.filter((x) => x.kind === k).length]))),
    lost_late: lost.map((all) => all.filter((x) => x.isLate).length),
    doubled: summaries.map((s) => s.doubled), back: summaries.map((s) => s.back), back_in_epoch: summaries.map((s) => s.back_in_epoch),
    gaps: summaries.map((s) => s.gaps), gaps_most: summaries.map((s) => s.gaps_most), gaps_evicted: summaries.map((s) => s.gaps_evicted), gaps_twice: summaries.map((s) => s.gaps_twice),
    reconnects: times.length, mean_per_100ms: mean, most_in_any_100ms: crowd(times), most_by_mean: crowd(times) / mean,
    rows: terms.map((at, i) => ({ name: `restart ${i + 1}`, bars: histogram(times, at, at + 2 * spread + 1500) })), bound: 3 * mean, lost_list: lost,
  };
}

const total_of = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

describe('drain', () => {
  test(`herd_restarts_lose_nothing__${isLong ? '2000_clients_3_times' : '300_clients_once'}`, async (t) => {
    const spread = 3000, times = isLong ? 3 : 1;
    const c = isLong ? { ws: 600, sse: 500, lp: 300, sp: 100 } : { ws: 90, sse: 75, lp: 45, sp: 15 };
    const js = isLong ? { ws: 300, sse: 100, lp: 100 } : { ws: 45, sse: 15, lp: 15 };
    const clients = total_of(c) + total_of(js);
    const run = await restarts(t, { c, js, times, spread, every: isLong ? 200 : 50, settle: isLong ? 3000 : 1500, patience: isLong ? 3000 : 1500 });
    const f = figures(run, spread, clients);
    const { rows, bound, lost_list, ...said } = f;
    fs.writeFileSync(path.join(BUILD, 'drain.svg'), svg(rows, bound, `Reconnects per 100 ms, ${clients} clients, spread ${spread} ms`));
    fs.writeFileSync(path.join(BUILD, 'drain.json'), `${JSON.stringify(f, null, 1)}\n`);
    t.diagnostic(JSON.stringify(said));
    assert.deepEqual(run.statuses, Array(times).fill(0));
    assert.deepEqual(run.p.refusals, [], 'refused during the hand-over');
    // What a process accepted once it was told to drain is no longer promised: who went before it does not get it.
    const early = lost_list.map((all) => all.filter((x) => !x.isLate && !TAIL.includes(x.kind)));
    assert.deepEqual(early.flat().slice(0, 20), [], 'lost, though accepted before SIGTERM');
    for (const all of lost_list) assertTails(all, run.p);
    assert.equal(total(run.summaries, (s) => s.doubled), 0, 'doubled');
    assert.equal(total(run.summaries, (s) => s.back), 0, 'out of order');
    // Each client, each restart: one gap, of the epoch, and never the same twice.
    assert.equal(total(run.summaries, (s) => s.gaps_evicted), 0);
    assert.equal(total(run.summaries, (s) => s.gaps_twice), 0);
    assert.equal(total(run.summaries, (s) => s.gaps), clients * times, 'one gap per client and restart');
    assert.deepEqual(run.summaries.map((s) => s.gaps_most), [times, times]);
    // A poller's loss is what came since his last poll (sp: --interval 300), and no more.
    for (const x of lost_list.flat()) assert.ok(x.before < (isLong ? 5000 : 2500), `${x.kind}: ${x.n} was there ${x.before} ms before SIGTERM`);
    // A poller between two polls just polls on, at the new process: he has nothing to come back to.
    const streams = c.ws + c.sse + js.ws + js.sse;
    assert.ok(f.reconnects >= streams * times, `${f.reconnects} reconnects`);
    assert.ok(f.most_in_any_100ms <= bound, `${f.most_in_any_100ms} reconnects in 100 ms, more than ${bound}`);
  });

  // Both accept until SIGTERM: still everything once, but the two logs interleave.
  test('herd_new_process_first__each_number_once__in_order_within_an_epoch', async (t) => {
    const c = { ws: 30, sse: 30 }, js = { ws: 15 };
    const run = await restarts(t, { c, js, times: 1, spread: 800, every: 20, order: 'new', settle: 1500, patience: 1500 });
    const { rows, bound, lost_list, ...said } = figures(run, 800, 75);
    t.diagnostic(JSON.stringify(said));
    assert.deepEqual(run.p.refusals, []);
    assert.deepEqual(lost_list.flat().filter((x) => !x.isLate), []);
    assert.equal(total(run.summaries, (s) => s.doubled), 0);
    assert.equal(total(run.summaries, (s) => s.back_in_epoch), 0);
    assert.equal(total(run.summaries, (s) => s.gaps), 75);
  });

  // The old process owns its socket: who connects in between is refused and comes again.
  test('herd_without_hand_over__refusals_are_retried__nothing_is_lost', async (t) => {
    const port = await freePort(), spread = 600;
    const args = ['--listen', `http://127.0.0.1:${port}`, ...HISTORY, '--drain-spread', `${spread}`];
    const first = await daemon(t, ...args);
    const herds = await Promise.all([byC(t, { ws: 20, sse: 20, lp: 10 }, port), byJs(t, { ws: 10, lp: 5 }, port)]);
    const p = new Publisher(port, { every: 30 });
    t.after(() => p.stop());
    await sleep(700);
    const terms = [Date.now()];
    first.process.kill('SIGTERM');
    await sleep(300); // nobody listens
    await daemon(t, ...args);
    assert.deepEqual(await first.exit, { code: 0, signal: null });
    await sleep(2 * spread + 1500);
    await p.stop();
    await sleep(2500);
    const summaries = [];
    for (const h of herds) summaries.push(await h.summary());
    assert.ok(p.refusals.length >= 3, `${p.refusals.length} refusals`);
    assert.deepEqual([...new Set(p.refusals.map((x) => x.why))].filter((why) => !/ECONNREFUSED|ECONNRESET|EPIPE|socket hang up/.test(why)), []);
    const lost = summaries.map((s) => losses(s, p, terms));
    assert.deepEqual(lost.flatMap((all) => all.filter((x) => !x.isLate && !TAIL.includes(x.kind))), []);
    for (const all of lost) assertTails(all, p);
    assert.equal(total(summaries, (s) => s.doubled + s.back), 0);
    assert.equal(total(summaries, (s) => s.gaps), 65);
    assert.equal(p.sent.length, p.n);
  });
});

describe('tail', { concurrency: 3 }, () => {
  // Published, answered, SIGTERM at once: by each kind of client.
  for (const [name, begin, counts] of [
    ['ws_of_c', byC, { ws: 40 }], ['sse_of_c', byC, { sse: 40 }], ['longpoll_of_c', byC, { lp: 40 }],
    ['ws_of_js', byJs, { ws: 20 }], ['sse_of_js', byJs, { sse: 20 }], ['longpoll_of_js', byJs, { lp: 20 }],
  ]) {
    test(`last_message_before_sigterm_reaches_${name}`, async (t) => {
      const s = await Supervisor.begin(t, supervisor), args = [...HISTORY, '--drain-spread', '300'];
      const pid = await s.start(...args), h = await begin(t, counts, s.port, ['--until', '1']);
      await eventually(async () => (await statsOf(s.port)).subscriptions >= total_of(counts), 'all there');
      await post(s.port, 'n', '1');
      process.kill(pid, 'SIGTERM');
      const next = await s.start(...args);
      assert.equal(await s.exit(pid), 0);
      await sleep(1500);
      const { lost, doubled, gaps_most } = await h.summary();
      process.kill(next, 'SIGTERM');
      assert.equal(await s.exit(next), 0);
      assert.deepEqual({ lost, doubled, isOneGap: gaps_most <= 1 }, { lost: 0, doubled: 0, isOneGap: true });
    });
  }
});
