// tools/rtpush.js in Chromium: real tabs, real locks and channels, over a proxy that breaks what can break.
//
//   FAULT_SECONDS=120 FAULT_SEED=7 node --test client.test.js      a longer run of faults, the same again
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { daemon, eventually, random } from '../wire/lib.mjs';
import { build, launch, screens, serve, sleep, tab } from './lib.js';
import { Proxy } from './proxy.js';
import { tabs } from './tabs.js';

const ALL = ['websocket', 'sse', 'longpoll', 'shortpoll'];
const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => i + from);

// Writes down all it is told, in order. On a reload it goes on where it was: `since` is the former page's cursor.
const PAGE = `<!doctype html><meta charset="utf-8"><title>client</title><script src="/rtpush.js"></script><script>
const { topics, options } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const kept = JSON.parse(sessionStorage.getItem("kept") || "{}");
const got = kept.got || [], states = [], errors = [], shows = [];
addEventListener("pageshow", (e) => shows.push(e.persisted));
addEventListener("pagehide", () => sessionStorage.setItem("kept", JSON.stringify({ got, cursor: live.cursor })));
const live = rtpush("/live", Object.assign({ since: kept.cursor || "" }, options));
live.on("gap", (gap) => got.push({ gap }));
live.on("state", (state, { transport, delay }) => states.push({ state, transport, delay, at: Date.now() }));
live.on("error", (e) => errors.push(String(e)));
const subs = topics.map((topic) => live.subscribe(topic, (m) => got.push({ topic: m.topic, n: m.data })));
const ready = Promise.all(subs.map((off) => off.ready));
</script>`;
const OPTIONS = { interval: 150, backoff: 50, backoffMax: 400, firstByte: 2500, timeout: 4000, wait: 5 };

let browser;
before(async () => { browser = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] }); });
after(() => browser.close());

async function setup(t, ...args) {
  const d = await daemon(t, ...args);
  const proxy = await new Proxy(d.port, { '/page': PAGE, '/else': '<!doctype html><title>else</title>' }).listen();
  t.after(() => proxy.close());
  return { d, proxy };
}

const address = (proxy, options, topics = ['n']) =>
  `${proxy.url}/page#${encodeURIComponent(JSON.stringify({ topics, options: { ...OPTIONS, ...options } }))}`;

// A tab; those of one context share. It ends with the test, and a script's error fails it.
async function open(t, proxy, { context, topics = ['n'], isReady = true, ...options } = {}) {
  const own = context || await newContext(t);
  const page = await own.newPage(), wrong = [];
  page.on('pageerror', e => wrong.push(String(e)));
  t.after(() => assert.deepEqual(wrong, []));
  page.setDefaultTimeout(30000);
  await page.goto(address(proxy, options, topics));
  if (isReady) await page.evaluate(() => ready.then(() => 1));
  return page;
}
async function newContext(t) {
  const context = await browser.newContext();
  t.after(() => context.close());
  return context;
}

const publish = async (port, n, topic = 'n') => {
  const r = await fetch(`http://127.0.0.1:${port}/live/${topic}`, { method: 'POST', body: JSON.stringify(n), headers: { 'Content-Type': 'application/json' } });
  assert.ok(r.ok, `POST: ${r.status}`);
  return (await r.json()).id;
};
const got = page => page.evaluate(() => got);
const values = async page => (await got(page)).map(m => m.gap ? `gap ${m.gap.reason}` : m.n);
const has = (page, n) => page.waitForFunction(k => got.length >= k, n, { polling: 50 });
const transport = page => page.evaluate(() => live.transport);
const on = (page, name) => page.waitForFunction(n => live.state === 'open' && (!n || live.transport === n), name, { polling: 50 });
const isLeader = page => page.evaluate(() => !!live.share.isLeader);

// --- transports ---

describe('transports', { concurrency: 2 }, () => {
  for (const [i, last] of ALL.entries()) {
    it(`${ALL.slice(0, i).join('_and_') || 'nothing'}_blocked__${last}_brings_all_once_and_in_order`, async t => {
      const { d, proxy } = await setup(t);
      for (const kind of ALL.slice(0, i)) proxy.refused.add(kind);
      const page = await open(t, proxy);
      assert.equal(await transport(page), last);
      for (const n of numbers(100)) {
        await publish(d.port, n);
        if (n % 25 === 24) proxy.cut();
      }
      await has(page, 100);
      await sleep(200);
      assert.deepEqual(await values(page), numbers(100));
      assert.equal(await transport(page), last);
    });
  }
  it('websocket_refused_and_sse_buffered__long_poll', async t => {
    const { d, proxy } = await setup(t);
    proxy.refused.add('websocket');
    proxy.silent.add('sse');
    const page = await open(t, proxy, { firstByte: 1000 });
    assert.equal(await transport(page), 'longpoll');
    for (const n of numbers(20)) await publish(d.port, n);
    await has(page, 20);
    assert.deepEqual(await values(page), numbers(20));
  });
  it('websocket_comes_back_beside_sse_without_a_break', async t => {
    const { d, proxy } = await setup(t);
    proxy.refused.add('websocket');
    const page = await open(t, proxy, { remember: 500 });
    assert.equal(await transport(page), 'sse');
    proxy.refused.clear();
    await page.evaluate(() => { states.length = 0; });
    let n = 0;
    while (await transport(page) !== 'websocket') await publish(d.port, n++);
    await publish(d.port, n++);
    await has(page, n);
    assert.deepEqual(await values(page), numbers(n));
    assert.deepEqual(await page.evaluate(() => states.map(s => `${s.state} ${s.transport}`)), ['open websocket']);
  });
});

// --- the server ends ---

describe('the server ends', { concurrency: 2 }, () => {
  for (const name of ALL) {
    it(`killed_and_started_again__${name}_tells_the_gap_before_what_follows`, async t => {
      const { d, proxy } = await setup(t);
      const page = await open(t, proxy, { transports: [name] });
      await publish(d.port, 0);
      await has(page, 1);
      d.process.kill('SIGKILL');
      await d.exit;
      d.over = d.exit = { code: 0, signal: null };
      const e = await daemon(t);
      await publish(e.port, 1);
      proxy.target = e.port;
      proxy.cut();
      await has(page, 3);
      await publish(e.port, 2);
      await has(page, 4);
      assert.deepEqual(await values(page), [0, 'gap epoch', 1, 2]);
    });
  }
  for (const name of ['websocket', 'sse', 'longpoll']) {
    it(`drained__${name}_obeys_its_delay`, async t => {
      const { d, proxy } = await setup(t);
      const page = await open(t, proxy, { transports: [name] });
      await publish(d.port, 0);
      await has(page, 1);
      await page.evaluate(() => { states.length = 0; });
      d.process.kill('SIGTERM');
      await page.waitForFunction(() => states.length > 0);
      const e = await daemon(t);
      proxy.target = e.port;
      await publish(e.port, 1);
      await has(page, 3);
      assert.deepEqual(await values(page), [0, 'gap epoch', 1]);
      const [told, tried] = await page.evaluate(() => states);
      assert.deepEqual([told.state, tried.state], ['waiting', 'connecting']);
      assert.ok(tried.at - told.at >= told.delay - 5 && tried.at - told.at < told.delay + 1500, `${tried.at - told.at} of ${told.delay}`);
    });
  }
});

// --- the network, the tab ---

describe('the network and the tab', { concurrency: 2 }, () => {
  for (const name of ALL) {
    it(`offline_and_back_on_${name}_brings_what_was_missed_at_once`, async t => {
      const { d, proxy } = await setup(t), context = await newContext(t);
      const page = await open(t, proxy, { context, transports: [name], backoff: 60000, backoffMax: 60000 });
      await publish(d.port, 0);
      await has(page, 1);
      await context.setOffline(true);
      proxy.refused = new Set(ALL); // Chromium sends a poll that was cut again by itself, offline or not
      proxy.cut();
      for (const n of numbers(5, 1)) await publish(d.port, n);
      await sleep(300);
      assert.deepEqual(await values(page), [0]);
      proxy.refused.clear();
      await context.setOffline(false);
      await has(page, 6);
      assert.deepEqual(await values(page), numbers(6));
    });
  }
  for (const name of ['websocket', 'sse']) {
    it(`a_stalled_${name}_is_replaced_after_two_heartbeats`, async t => {
      const { d, proxy } = await setup(t, '--set', 'heartbeat_ms=500', '--set', 'sse_heartbeat_ms=500');
      const page = await open(t, proxy, { transports: [name], firstByte: 1000 });
      await sleep(1500);
      assert.equal(await page.evaluate(() => states.filter(s => s.state === 'open').length), 1, 'heartbeats keep it');
      proxy.stall(true);
      for (const n of numbers(3)) await publish(d.port, n);
      await page.waitForFunction(() => states.filter(s => s.state === 'connecting').length > 1);
      proxy.stall(false);
      await has(page, 3);
      await on(page, name);
      await sleep(300);
      assert.deepEqual(await values(page), numbers(3));
    });
  }
  for (const name of ALL) {
    it(`frozen_and_thawed_on_${name}`, async t => {
      const { d, proxy } = await setup(t), { page, other } = await hidden(t, proxy, name);
      await publish(d.port, 0);
      await has(page, 1);
      await page.freeze(true);
      await page.waitForFunction(() => live.state === 'paused');
      await eventually(() => ['websocket', 'sse', 'longpoll'].every(kind => !proxy.count(kind)), 'it lets go of its connection');
      for (const n of numbers(5, 1)) await publish(d.port, n);
      assert.deepEqual(await values(page), [0]);
      await page.freeze(false);
      await has(page, 6);
      assert.deepEqual(await values(page), numbers(6));
      assert.equal(await other.evaluate(() => document.visibilityState), 'visible');
    });

    it(`away_and_back_by_the_browsers_cache_on_${name}`, async t => {
      const { d, proxy } = await setup(t), { page } = await hidden(t, proxy, name);
      await publish(d.port, 0);
      await has(page, 1);
      await page.evaluate(() => { location.href = '/else'; });
      await page.waitForFunction(() => document.title === 'else');
      for (const n of numbers(5, 1)) await publish(d.port, n);
      await page.evaluate(() => { history.back(); });
      await page.waitForFunction(() => document.title === 'client' && shows.length);
      assert.deepEqual(await page.evaluate(() => shows), [false, true], 'Chromium kept the page: its pageshow is persisted');
      await has(page, 6);
      assert.deepEqual(await values(page), numbers(6));
    });
  }
});

// A tab behind another, so that it can be frozen.
async function hidden(t, proxy, name) {
  const those = await tabs(browser);
  t.after(() => those.close());
  const page = await those.open(address(proxy, { transports: [name] })), other = await those.open(`${proxy.url}/else`);
  await those.front(other);
  await page.waitForFunction(() => document.visibilityState === 'hidden' && live.state === 'open');
  await page.evaluate(() => ready.then(() => 1));
  return { page, other, those };
}

describe('publishing', { concurrency: 2 }, () => {
  for (const name of ['websocket', 'sse']) {
    it(`what_a_page_publishes_on_${name}_through_cuts_and_refusals_arrives_once_and_in_order`, async t => {
      const { proxy } = await setup(t), page = await open(t, proxy, { transports: [name] });
      await page.evaluate(() => {
        window.ids = [];
        window.sent = (async () => {
          for (let n = 0; n < 90; n += 3) {
            ids.push(...await Promise.all([n, n + 1, n + 2].map(k => live.publish('n', k))));
            await new Promise(done => setTimeout(done, 60));
          }
        })();
      });
      let isSent = false, rounds = 0;
      const sent = page.evaluate(() => sent).then(() => { isSent = true; });
      for (; !isSent; rounds++) {
        await sleep(170);
        if (rounds % 4 === 2) proxy.refused = new Set(ALL.concat('post')); else proxy.refused.clear();
        proxy.cut();
      }
      proxy.refused.clear();
      await sent;
      await has(page, 90);
      assert.deepEqual(await values(page), numbers(90));
      const ids = (await page.evaluate(() => ids)).map(id => Number(id.slice(9)));
      assert.deepEqual(ids, numbers(90, 1));
      assert.ok(rounds > 5, `${rounds}`);
    });
  }
});

// --- tabs that share ---

describe('tabs', { concurrency: 2 }, () => {
  it('leaders_closed_while_messages_flow__the_others_miss_nothing', async t => {
    const { d, proxy } = await setup(t), those = await tabs(browser);
    t.after(() => those.close());
    let all = [];
    for (let i = 0; i < 4; i++) all.push(await those.open(address(proxy, {})));
    for (const one of all) await one.waitForFunction(() => live.state === 'open' && ready.then(() => true));
    assert.equal(proxy.seen.filter(kind => kind === 'websocket').length, 1, 'one connection');
    for (const n of numbers(150)) {
      await publish(d.port, n);
      await sleep(5);
      if (n % 50 !== 25) continue;
      const leads = await Promise.all(all.map(isLeader)), at = leads.indexOf(true);
      if (at < 0) continue;
      const seen = await values(all[at]);
      assert.deepEqual(seen, numbers(seen.length));
      await all[at].close();
      all.splice(at, 1);
    }
    assert.ok(all.length < 4);
    for (const one of all) {
      await has(one, 150);
      assert.deepEqual(await values(one), numbers(150));
    }
  });

  for (const name of ['websocket', 'sse']) {
    it(`a_restart_of_the_server_under_tabs_that_share_${name}__each_is_told_of_one_gap_before_what_follows`, async t => {
      const { d, proxy } = await setup(t), those = await tabs(browser), all = [];
      t.after(() => those.close());
      for (let i = 0; i < 3; i++) all.push(await those.open(address(proxy, { transports: [name] })));
      for (const one of all) await one.waitForFunction(() => live.state === 'open' && ready.then(() => true));
      for (const n of numbers(3)) await publish(d.port, n);
      for (const one of all) await has(one, 3);
      const leads = await Promise.all(all.map(isLeader)), frozen = all.find((one, i) => !leads[i]);
      await those.front(all[leads.indexOf(true)]);
      await frozen.waitForFunction(() => document.visibilityState === 'hidden');
      await frozen.freeze(true);
      d.process.kill('SIGKILL');
      await d.exit;
      d.over = d.exit = { code: 0, signal: null };
      const e = await daemon(t);
      for (const n of numbers(3, 3)) await publish(e.port, n);
      proxy.target = e.port;
      proxy.cut();
      for (const one of all) if (one !== frozen) await has(one, 7);
      for (const n of numbers(3, 6)) await publish(e.port, n);
      await frozen.freeze(false);
      for (const one of all) {
        await has(one, 10);
        assert.deepEqual(await values(one), [...numbers(3), 'gap epoch', ...numbers(6, 3)]);
      }
    });
  }

  for (const [name, options, kind] of [['share_one_stream', {}, 'sse'], ['that_cannot_share_poll_now_and_then', { locks: null }, 'shortpoll']]) {
    it(`eight_tabs_without_websocket_${name}__and_the_site_does_not_freeze`, async t => {
      const { d, proxy } = await setup(t), those = await tabs(browser), all = [];
      t.after(() => those.close());
      proxy.refused.add('websocket');
      for (let i = 0; i < 8; i++) all.push(await those.open(address(proxy, options)));
      for (const one of all) await one.waitForFunction(() => live.state === 'open' && ready.then(() => true));
      for (const one of all) assert.equal(await transport(one), kind);
      for (const n of numbers(30)) await publish(d.port, n);
      for (const one of all) {
        const ms = await one.evaluate(async () => { const begin = Date.now(); await (await fetch('/healthz')).text(); return Date.now() - begin; });
        assert.ok(ms < 2000, `a plain fetch took ${ms} ms`);
      }
      for (const one of all) {
        await has(one, 30);
        assert.deepEqual(await values(one), numbers(30));
      }
      assert.equal(proxy.count('sse'), kind === 'sse' ? 1 : 0);
    });
  }
});

// --- faults at random ---

// Three publishers number their messages, each in its own topic. Two tabs share, one is alone; all read all three.
async function faultRun(t, { seconds, history, longest }) {
  const seed = Number(process.env.FAULT_SEED || Date.now() % 1e6), { below, pick } = random(seed);
  t.diagnostic(`FAULT_SEED=${seed}`);
  const { d, proxy } = await setup(t, '--set', `history=${history}`, '--set', 'heartbeat_ms=1000', '--set', 'sse_heartbeat_ms=1000');
  const topics = [0, 1, 2].map(k => `f/${k}`), readers = [], counts = {};
  for (const options of [[{}, {}], [{ share: false }]]) {
    const those = await tabs(browser);
    t.after(() => those.close());
    for (const one of options) readers.push(Object.assign(await those.open(address(proxy, { remember: 1500, firstByte: 1500, ...one }, topics)), { those }));
    readers.push(Object.assign(await those.open(`${proxy.url}/else`), { those, isElse: true }));
  }
  const clients = readers.filter(one => !one.isElse), loaded = one => one.waitForFunction(() => typeof live === 'object' && ready.then(() => true));
  for (const one of clients) await loaded(one);

  let isOver = false;
  const ids = topics.map(() => []);
  const publishers = topics.map(async (topic, k) => {
    while (!isOver) {
      const n = ids[k].push(0) - 1;
      ids[k][n] = Number((await publish(d.port, n, topic)).slice(9));
      await sleep(5 + Math.random() * 25);
    }
  });

  const until = ms => sleep(ms / 3 + below(ms * 2 / 3));
  const faults = {
    cut: () => proxy.cut(),
    stall: async () => { proxy.stall(true); await until(3000); proxy.stall(false); },
    refuse: async () => { proxy.refused = new Set([...ALL, 'post']); proxy.cut(); await until(longest); proxy.refused.clear(); },
    block: async () => { const kind = pick(ALL.slice(0, 3)); proxy.refused.add(kind); proxy.cut(kind); await until(3000); proxy.refused.clear(); },
    offline: async () => {
      const one = pick(clients);
      await one.offline(true);
      proxy.cut();
      await until(longest);
      await one.offline(false);
    },
    reload: async () => { const one = pick(clients); await one.reload(); await sleep(100); await loaded(one); },
    front: async () => { const one = pick(readers); await one.those.front(one); },
    freeze: async () => {
      const one = pick(clients), other = readers.find(o => o !== one && o.those === one.those);
      await one.those.front(other);
      await one.waitForFunction(() => document.visibilityState === 'hidden');
      await one.freeze(true);
      await until(longest);
      await one.freeze(false);
    },
  };
  for (const end = Date.now() + seconds * 1000; Date.now() < end; await sleep(200 + below(800))) {
    const name = pick(Object.keys(faults));
    counts[name] = (counts[name] || 0) + 1;
    await faults[name]();
  }
  if (history < 1000) { // at last one break that surely loses something
    proxy.refused = new Set([...ALL, 'post']);
    proxy.cut();
    for (const at = ids.map(list => list.length); ids.some((list, k) => list.length < at[k] + 2 * history);) await sleep(50);
    proxy.refused.clear();
  }
  isOver = true;
  await Promise.all(publishers);
  const sent = ids.reduce((sum, list) => sum + list.length, 0), told = { lost: 0, doubled: 0, disordered: 0, gaps: 0, jumps: 0, silent: 0, idle: 0 };
  for (const one of clients) {
    await one.waitForFunction(lasts => lasts.every(([topic, n]) => got.some(m => m.topic === topic && m.n === n)), topics.map((topic, k) => [topic, ids[k].length - 1]))
      .catch(async e => { throw new Error(`${e} ${JSON.stringify(await one.evaluate(() => [live.state, live.transport, live.cursor, got.slice(-3), states.slice(-5), errors]))}`); });
    check(await got(one), topics, ids, told);
  }
  t.diagnostic(`${sent} messages to ${clients.length} readers in ${seconds} s, faults ${JSON.stringify(counts)}: ${JSON.stringify(told)}`);
  return told;
}

// Numbers that are missing must lie between the `from` and the `to` of a gap that was told before what follows.
function check(all, topics, ids, told) {
  const gaps = [], next = topics.map(() => 0), used = new Set();
  for (const { gap, topic, n } of all) {
    if (gap) { gaps.push([gap.from, gap.to].map(cursor => Number(cursor.slice(9)))); continue; }
    const k = topics.indexOf(topic);
    if (n < next[k]) { n === next[k] - 1 ? told.doubled++ : told.disordered++; continue; }
    if (n > next[k]) told.jumps++;
    for (let m = next[k]; m < n; m++) {
      const at = gaps.findIndex(([from, to]) => ids[k][m] > from && ids[k][m] <= to);
      at < 0 ? told.silent++ : used.add(at);
      told.lost++;
    }
    next[k] = n + 1;
  }
  told.gaps += gaps.length;
  told.idle += gaps.length - used.size;
}

describe('faults at random', { concurrency: 2 }, () => {
  const seconds = Number(process.env.FAULT_SECONDS || 20);
  it('nothing_is_lost_doubled_or_out_of_order_and_no_gap_is_told', async t => {
    assert.deepEqual(await faultRun(t, { seconds, history: 100000, longest: 2000 }), { lost: 0, doubled: 0, disordered: 0, gaps: 0, jumps: 0, silent: 0, idle: 0 });
  });
  it('with_a_small_history_no_jump_is_silent', async t => {
    const { doubled, disordered, silent, gaps, jumps } = await faultRun(t, { seconds: Math.min(seconds, 60), history: 20, longest: 4000 });
    assert.deepEqual({ doubled, disordered, silent }, { doubled: 0, disordered: 0, silent: 0 });
    assert.ok(gaps && jumps, 'something was lost, and told');
  });
});

// The chat example has a client of its own; it is under the same faults, and somebody looks at it.
describe('chat', () => {
  it('a_conversation_through_faults_looks_as_if_there_were_none', async t => {
    const server = await serve(build('chat')), proxy = await new Proxy(server.port).listen(), expected = [];
    t.after(async () => { await proxy.close(); assert.equal(await server.stop(), 0); });
    const page = await tab(browser, `${proxy.url}/#storm`);
    await page.locator('#first').fill('Ann');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#state[data-state=on]');
    const faults = [() => proxy.cut(), async () => { proxy.stall(true); await sleep(1000); proxy.stall(false); },
      async () => { proxy.refused = new Set([...ALL, 'post']); proxy.cut(); await sleep(700); proxy.refused.clear(); },
      async () => { await page.context().setOffline(true); proxy.cut(); await sleep(500); await page.context().setOffline(false); }];
    for (const n of numbers(8)) {
      const [name, text] = n % 3 ? ['Bob', `Bob says ${n}`] : ['Ann', `Ann says ${n}`];
      expected.push(text);
      if (name === 'Ann') {
        await page.getByLabel('Message', { exact: true }).fill(text);
        await page.keyboard.press('Enter');
      }
      const fault = faults[n % 4]();
      if (name === 'Bob') {
        const r = await fetch(`${server.url}/live/chat/storm`, { method: 'POST', body: JSON.stringify({ from: name, text }), headers: { 'Content-Type': 'application/json' } });
        assert.ok(r.ok);
      }
      await fault;
      await page.waitForFunction(k => document.querySelectorAll('#log .msg').length > k, n);
    }
    await page.waitForSelector('#state[data-state=on]');
    await page.waitForFunction(() => !document.getElementById('outbox').children.length);
    await page.screenshot({ path: join(screens, 'chat-faults.png') });
    assert.deepEqual(await page.$$eval('#log .msg p', all => all.map(p => p.textContent)), expected);
    assert.equal(await page.locator('[data-gap]').count(), 0);
    await page.check_();
  });
});
