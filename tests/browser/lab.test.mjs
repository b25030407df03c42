// examples/lab.html in a browser: what the page shows is what the server counted and what arithmetic says; all eight
// lessons are walked (with ?fast=1, which is real, only shorter).
//
//   node --test lab.test.mjs                             LAB names the program; the page is examples/lab.html
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { build, launch, root, screens, sleep } from './lib.js';

const program = build('lab'), LANES = ['short', 'long', 'sse', 'ws'];
let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

// A lab of its own for each test, on a free port.
async function lab() {
  const child = spawn(program, ['--listen', 'http://127.0.0.1:0', '--page', join(root, 'examples', 'lab.html')],
    { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise(done => child.on('exit', (code, signal) => done(signal || code)));
  const url = await new Promise((done, fail) => {
    let out = '';
    child.stdout.on('data', d => { const m = /http:\/\/[^/\s]+:\d+/.exec(out += d); if (m) done(m[0]); });
    ended.then(code => fail(new Error(`${program} ended with ${code}`)));
  });
  const stop = async () => {
    child.kill();
    assert.equal(await ended, 0);
  };
  return { url, stop, stats: async () => (await fetch(url + '/lab/stats')).json() };
}

// What the browser says on the console of connections that a test means to cut.
const CUTS = /^Failed to load resource: net::ERR_|^WebSocket connection to /;

// A tab whose script makes no error and which asks nobody but this host; `allows` is what may stand on the console.
async function tab(url, { allows = /^$/, ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage(), wrong = [];
  page.on('pageerror', e => wrong.push(String(e.stack || e)));
  page.on('console', m => { if (['error', 'warning'].includes(m.type()) && !allows.test(m.text())) wrong.push(m.text()); });
  page.on('request', r => {
    if (!/^data:/.test(r.url()) && new URL(r.url()).hostname !== new URL(url).hostname) wrong.push('request to ' + r.url());
  });
  page.setDefaultTimeout(15000);
  page.check_ = async () => {
    await context.close();
    assert.deepEqual(wrong, []);
  };
  await page.goto(url);
  await page.waitForFunction(() => window.lab && lab.isReady);
  return page;
}

// A test with a server and a tab, both ended whatever happens.
const walk = (path, options, body) => async () => {
  const server = await lab();
  try {
    const page = await tab(server.url + path, options);
    await body(page, server);
    await page.check_();
  } finally {
    await server.stop();
  }
};

// What a person reads in a lane's card.
const shown = (page, lane, name) => page.locator(`[data-lane=${lane}] [data-figure=${name}]`).first().textContent();
const digits = text => Number(text.replace(/\u202f/g, ''));
const near = (is, should, by, what) =>
  assert.ok(Math.abs(is - should) <= Math.abs(should) * by, `${what}: ${is}, not ${should} to within ${by * 100} %`);
const setTo = async (page, key, value) => {
  await page.fill(`#set-${key}`, String(value));
  const answered = page.waitForResponse(r => r.url().includes('/lab/set'));
  await page.keyboard.press('Enter');
  await answered;
};

// What takes time takes longer on a busy machine: such a measurement may be taken three times.
const calmly = body => async (...args) => {
  for (let tries = 1; ; tries++) {
    try {
      return await body(...args);
    } catch (e) {
      if (tries === 3) throw e;
      console.log(`# again: ${e.message.split('\n')[0]}`);
    }
  }
};

// Predicts, runs, and reads the result from the page: { verdict, rows: [[what, hand, measured]], text, stats }, where
// stats is what the server answered last while it ran.
async function lesson(page, id, guess, start) {
  const answers = [], listen = r => { if (r.url().endsWith('/lab/stats')) answers.push(r.json()); };
  page.on('response', listen);
  await (start || (async () => {
    await page.click('#lesson-' + id);
    const box = page.locator('#lesson-guess');
    await (typeof guess === 'number' ? box.locator('input').fill(String(guess)) : box.getByLabel(guess, { exact: true }).check());
    await page.click('#lesson-run');
  }))();
  await page.waitForSelector('#lesson-progress progress');
  await page.waitForFunction(() => lab.lesson.state !== 'runs', null, { timeout: 60000 });
  page.off('response', listen);
  assert.equal(await page.evaluate(() => lab.lesson.state), 'done', await page.textContent('#status'));
  const stats = (await Promise.all(answers)).pop();
  const result = await page.evaluate(() => ({
    verdict: Object.fromEntries(Array.from(document.querySelectorAll('[data-result]'), e => [e.dataset.result, e.textContent])),
    rows: Array.from(document.querySelectorAll('#rows tbody tr'), tr =>
      Array.from(tr.children, e => e.dataset.value === undefined ? e.textContent : e.dataset.value)),
    text: document.getElementById('conclusion').textContent,
  }));
  Object.assign(result, { stats, id });
  result.row = start => {
    const row = result.rows.find(([what]) => what.startsWith(start));
    assert.ok(row, `${start} among ${result.rows.map(r => r[0])}`);
    return { hand: Number(row[1]), measured: Number(row[2]), texts: row };
  };
  assert.ok(result.text.length > 100 && !/NaN|undefined|Infinity/.test(result.text), result.text);
  for (const row of result.rows) assert.doesNotMatch(row.join(' '), /NaN|undefined|Infinity/);
  return result;
}

// The lanes hold the figures of the run: each number in them is the server's.
async function holds(page, stats) {
  for (const lane of LANES) for (const name of ['requests', 'empty', 'delivered', 'connections'])
    assert.equal(digits(await shown(page, lane, name)), stats.lanes[lane][name], `${lane} ${name}`);
  for (const lane of LANES) for (const name of ['received', 'lost', 'gap', 'replayed', 'doubled'])
    assert.equal(digits(await shown(page, lane, 'c-' + name)), stats.lanes[lane].clients[name], `${lane} ${name} of the C clients`);
}

describe('lab', { concurrency: 2 }, () => {
  it('after_reset_and_quiet_the_page_shows_what_the_server_counted_and_each_lane_got_each_message', walk('/', {}, async (page, server) => {
    await setTo(page, 'rate', 0);
    await setTo(page, 'interval', 200);
    await sleep(700);
    await page.click('#do-reset');
    await page.waitForFunction(() => lab.figures.published === 0);
    for (let i = 0; i < 5; i++) await page.click('#do-publish');
    await page.waitForFunction(() => Object.values(lab.lanes).every(l => l.received === 5));
    await setTo(page, 'interval', 60000);
    await sleep(1500);
    const f = await server.stats();
    for (const lane of LANES) {
      const l = f.lanes[lane];
      for (const name of ['requests', 'empty', 'delivered', 'connections']) {
        assert.equal(digits(await shown(page, lane, name)), l[name], `${lane} ${name}`);
        if (name in l.server) assert.equal(l[name], l.server[name]);
      }
      assert.equal(l.delivered, 5);
      assert.equal(l.payload, 5 * 128);
      assert.equal(digits(await shown(page, lane, 'received')), 5);
      for (const name of ['lost', 'gap', 'doubled', 'replayed']) assert.equal(digits(await shown(page, lane, name)), 0, `${lane} ${name}`);
      const bar = await page.locator(`[data-lane=${lane}] [data-figure^=each-]`).evaluateAll(all => all.map(e => Number(e.dataset.value)));
      assert.deepEqual(bar, [128, (l.bytes_out - l.payload) / 5, l.bytes_in / 5]);
    }
    const own = await page.evaluate(() => Object.values(lab.lanes).map(l => l.ids.join()));
    assert.equal(new Set(own).size, 1, 'one log: the same ids in the same order in each lane');
    assert.equal(f.lanes.ws.requests, 0);
    assert.equal(f.lanes.sse.requests, 0);
    assert.equal(f.lanes.long.requests, 5);
  }));

  it('lesson_1_cost_of_polling__empty_answers_and_half_the_interval', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'polling', 60), s = r.stats.lanes.short, interval = r.stats.state.interval;
    assert.match(r.verdict.guess, /^60 /);
    assert.equal(r.row('requests').measured, s.requests);
    assert.equal(r.row('empty answers').measured, s.empty);
    await holds(page, r.stats);
    // On a busy machine a poll takes a while itself: as long as there and back of a message that nothing holds up.
    const { mean_us, p50_us } = r.stats.lanes.ws.clients.latency, way = mean_us / 1000;
    const readers = s.clients.want + 1, polls = readers * r.stats.seconds * 1000 / (interval + 2 * p50_us / 1000);
    near(s.requests, polls, .1, 'requests');
    near(s.empty, polls - readers * r.stats.published, .1, 'empty answers');
    near(s.empty, r.row('empty answers').hand, .1 + 3 * way / interval, 'empty answers against the page\'s arithmetic');
    assert.equal(s.delivered, readers * r.stats.published);
    near(s.clients.latency.mean_us / 1000, interval / 2 + way, .15, 'mean latency of the C clients');
    near(r.row('mean latency').measured, interval / 2 + way, .15, 'mean latency');
    assert.equal(r.row('mean latency').hand, interval / 2);
    assert.equal(r.row('requests of the WebSocket lane').measured, 0);
  })));

  it('lesson_2_why_long_poll_batches__a_round_trip_in_each_answer__by_keyboard', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const at = () => page.evaluate(() => document.activeElement.id || document.activeElement.name);
    const tabTo = async id => {
      for (let i = 0; i < 60 && await at() !== id; i++) await page.keyboard.press('Tab');
      assert.equal(await at(), id);
    };
    const r = await lesson(page, 'batches', 8, async () => {
      await tabTo('lesson-batches');
      await page.keyboard.press('Enter');
      assert.equal(await at(), 'lesson-title');
      await tabTo('guess');
      await page.keyboard.press('Enter');       // nothing predicted: it does not run
      assert.equal(await page.evaluate(() => lab.lesson.state), 'asks');
      await page.keyboard.type('8');
      await page.keyboard.press('Enter');
      await page.waitForFunction(() => document.activeElement.id === 'lesson-stop');
    });
    assert.equal(await at(), 'lesson-result');
    assert.match(await page.textContent('#lesson-live'), /^Measured: \d.* By hand: 8 messages\. Your prediction: 8 messages\.$/);
    const l = r.stats.lanes.long, { latency, rate } = { latency: 200, rate: 20 };
    const way = r.row('mean latency of WebSocket').measured;   // the one way as it was: longer on a busy machine
    assert.ok(way >= latency && way < latency * 1.5, `one way ${way} ms`);
    near(l.delivered / (l.requests - l.empty), rate * 2 * r.stats.lanes.ws.clients.latency.p50_us / 1e6, .15, 'messages an answer');
    near(r.row('messages an answer').measured, l.delivered / (l.requests - l.empty), .001, 'the page\'s');
    assert.equal(r.row('messages an answer').hand, 8);
    near(r.row('mean latency of long poll').measured, 2 * way, .2, 'latency of long poll');
    await holds(page, r.stats);
    await tabTo('go-on');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#held', { state: 'hidden' });
    await page.evaluate(() => document.getElementById('lesson-close').focus());
    await page.keyboard.press('Enter');
    assert.equal(await at(), 'lesson-batches');
    assert.equal(await page.isVisible('#lesson'), false);
  })));

  it('lesson_3_heartbeats_and_nat__forgotten_without_them_remembered_with_them', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'nat', 5);
    assert.match(r.verdict.measured, /^0 of 5/);
    for (const what of ['WebSocket', 'SSE']) {
      assert.deepEqual([r.row(`${what}, heartbeat every 20 s`).measured, r.row(`${what}, heartbeat every 1 s`).measured], [0, 5]);
      assert.deepEqual([r.row(`${what}, heartbeat every 20 s`).hand, r.row(`${what}, heartbeat every 1 s`).hand], [0, 5]);
    }
    assert.equal(r.row('long poll, held for 25 s').measured, 0);
    assert.equal(r.row('short poll').measured, 5);
    assert.equal(r.stats.lanes.ws.clients.received, 5 * r.stats.lanes.ws.clients.want);
    assert.match(r.text, /had 5 of the first five/);
    await holds(page, r.stats);
  })));

  it('lesson_4_sequence_numbers__a_second_away_is_lost_without_a_cursor', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'sequence', 0);
    for (const what of ['lost without a cursor: WebSocket', '... SSE', 'replayed with a cursor']) {
      assert.equal(r.row(what).hand, 20);
      near(r.row(what).measured, 20, .25, what);
    }
    for (const what of ['... short poll', 'lost with a cursor', 'doubled']) assert.equal(r.row(what).measured, 0, what);
    const c = r.stats.lanes.ws.clients;
    assert.deepEqual([c.lost, c.gap, c.doubled, c.reconnects], [0, 0, 0, c.want]);
    assert.equal(c.received, c.want * r.stats.published);
    await holds(page, r.stats);
  })));

  it('lesson_5_thundering_herd__all_at_once_or_spread', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'herd', 40), n = r.stats.lanes.ws.clients.want + 1;
    assert.equal(r.row('worst fifth of a second with jitter').hand, n * .2);
    const [herd, spread] = ['without', 'with'].map(how => r.row(`worst fifth of a second ${how} jitter`).measured);
    assert.ok(herd > n * .6 && herd <= n, `${herd} of ${n} without jitter`);
    assert.ok(spread >= n * .2 && spread < n * .4 && spread < herd / 2, `${spread} of ${n} with jitter`);
    assert.equal(r.stats.lanes.ws.clients.open, n - 1);
    assert.equal(await page.locator('#charts svg').count(), 2);
    await page.locator('#charts summary').click();
    const table = await page.locator('#charts table tr').evaluateAll(all =>
      all.slice(1).map(tr => Array.from(tr.children, e => Number(e.textContent))));
    near(table.reduce((sum, row) => sum + row[2], 0), n, .02, 'the chart\'s table has each connection');
  })));

  it('lesson_6_slow_reader__the_share_that_the_way_carries_and_every_hole_told', calmly(walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'slow', 25), { throttle, size } = r.stats.state, c = r.stats.lanes.ws.clients;
    const hand = throttle / (100 * size) * 100;
    assert.equal(r.row('share that arrived, skip').hand, hand);
    for (const policy of ['skip', 'latest']) near(r.row('share that arrived, ' + policy).measured, hand, .2, policy);
    assert.equal(r.row('missing and not told').measured, 0);
    assert.ok(c.gap > 0 && c.gaps > 0 && c.lost === 0, JSON.stringify(c));
    assert.ok(r.row('age of what came last, skip').measured > r.row('age of what came last, skip').hand * .9);
    await holds(page, r.stats);
  })));

  it('lesson_7_drain__nothing_lost_and_each_at_its_own_moment', walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'drain', 'nothing'), n = r.stats.lanes.ws.clients.want + 1;
    assert.deepEqual([r.verdict.guess, r.verdict.hand, r.verdict.measured], ['nothing', 'nothing', 'nothing']);
    assert.equal(r.row('messages lost at the restart').measured, 0);
    assert.equal(r.row('messages lost at the drain').measured, 0);
    const all = r.row('messages that the WebSocket readers got');
    assert.equal(all.measured, all.hand);
    assert.equal(all.hand, r.stats.published * n);
    assert.ok(r.row('worst fifth of a second at the drain').measured < n / 3, r.row('worst fifth of a second at the drain').texts.join());
    await holds(page, r.stats);
  }));

  it('lesson_8_fallback__websocket_then_sse_then_long_poll_and_nothing_lost', walk('/?fast=1', { allows: CUTS }, async page => {
    const r = await lesson(page, 'fallback', 'long poll');
    assert.equal(r.verdict.measured, 'long poll');
    assert.deepEqual(r.rows.slice(0, 3).map(row => row[2]), ['WebSocket', 'SSE', 'long poll']);
    const s = r.stats.lanes.ws.server;
    assert.deepEqual([s.websockets, s.event_streams, s.parked_polls], [0, 0, 1]);
    assert.equal(r.row('messages lost').measured, 0);
    await page.waitForFunction(() => lab.lanes.ws.via === 'websocket' && lab.lanes.ws.state === 'open');   // the boxes are gone
  }));

  it('an_arrow_opens_the_bytes_that_decode_to_its_message', walk('/', { allows: CUTS }, async page => {
    const open = async selector => {
      await page.waitForSelector(selector);
      await page.click('#pause');
      await page.locator(selector).last().click();
      const text = await page.textContent('#hex'), lines = text.split('\n');
      return Buffer.from(lines.map(line => line.slice(6, 54)).join(' ').replace(/\s+/g, ''), 'hex');
    };
    const close = async () => { await page.keyboard.press('Escape'); await page.click('#pause'); };
    const part = name => page.locator(`#parts tr[data-part="${name}"]`);

    const frame = await open('.arrow[data-of=ws][aria-label*="browser: n "]:not([data-n*=" "])');     // RFC 6455 5.2, by hand
    assert.equal(frame[0], 0x81);
    assert.equal(frame[1], 126);
    assert.equal(frame.readUInt16BE(2), frame.length - 4);
    const message = JSON.parse(frame.subarray(4)), id = await page.getAttribute('#bytes', 'data-id');
    assert.equal(message.data.n, Number(await page.getAttribute(`.arrow[data-id="${id}"]`, 'data-n')));
    assert.ok(await page.evaluate(id => lab.lanes.ws.ids.includes(id), message.id));
    assert.equal(JSON.parse(await part('payload').locator('code').textContent()).data.n, message.data.n);
    const bits = await page.locator('.frame .field').evaluateAll(all =>
      all.slice(0, 7).map(f => [f.dataset.field, Array.from(f.querySelectorAll('i'), i => i.textContent).join('')]));
    assert.deepEqual(bits,
      [['FIN', '1'], ['RSV1', '0'], ['RSV2', '0'], ['RSV3', '0'], ['opcode', '0001'], ['MASK', '0'], ['length', '1111110']]);
    await close();

    // RFC 9112 7.1 around HTML 9.2.5
    const chunk = (await open('.arrow[data-of=sse][aria-label*="browser: n "]:not([data-n*=" "])')).toString('latin1');
    const [, size, block] = /^([0-9a-f]+)\r\n([^]*)\r\n$/.exec(chunk);
    assert.equal(parseInt(size, 16), block.length);
    assert.match(block, /^id: \w{8}-\d+\ndata: \{"n":\d+,/);
    assert.match(await part('chunk size').textContent(), /RFC 9112 \u00a7 7\.1$/);
    assert.match(await part('id').textContent(), /HTML \u00a7 9\.2\.6$/);
    await close();

    const get = (await open('.arrow[data-of=long][data-dir=up]')).toString('latin1');
    assert.match(get, /^GET \/live\/lab\?since=\w+-\d+&wait=25&watch=1 HTTP\/1\.1\r\nHost: [^]*\r\n\r\n$/);
    assert.match(await part('request line').textContent(), /RFC 9112 \u00a7 3$/);
    assert.equal(await page.locator('#parts tbody tr').count(), get.split('\r\n').length - 1, 'each header line is a row');
    await close();

    await setTo(page, 'heartbeat', 500);                        // its pings are answered by masked frames
    const pong = await open('.arrow[data-of=ws][data-dir=up]:has-text("pong")');
    assert.deepEqual([pong[0], pong[1] >> 7], [0x8a, 1]);
    const key = await page.locator('.field[data-field="masking key"] i').allTextContents();
    assert.deepEqual(key.map(x => parseInt(x, 16)), [...pong.subarray(2, 6)]);
  }));

  it('the_diagram_is_walked_by_arrow_keys_and_has_a_list', walk('/', {}, async page => {
    await page.waitForFunction(() => document.querySelectorAll('.arrow').length > 8);
    await page.click('#pause');
    assert.equal(await page.locator('.arrow[tabindex="0"]').count(), 1, 'one stop of the tab key');
    await page.locator('.arrow[tabindex="0"]').focus();
    const at = () => page.evaluate(() => document.activeElement.dataset.id);
    await page.keyboard.press('End');
    const last = await at();
    await page.keyboard.press('ArrowUp');
    const before_ = await at();
    assert.notEqual(before_, last);
    await page.keyboard.press('Enter');
    assert.equal(await page.locator('#bytes').getAttribute('data-id'), before_);
    await page.keyboard.press('Escape');
    assert.equal(await at(), before_, 'the focus is back');
    await page.keyboard.press('ArrowDown');
    assert.equal(await at(), last);
    const count = await page.locator('.arrow').count();
    await sleep(1500);
    assert.equal(await page.locator('.arrow').count(), count, 'paused');
    await page.locator('#log summary').click();
    assert.ok(await page.locator('#log tbody tr').count() > 8);
  }));

  const refusals = RegExp(CUTS.source + '|status of 400');
  it('what_the_server_refuses_is_said__and_a_lost_log_is_a_gap_in_each_lane', walk('/', { allows: refusals }, async page => {
    await page.evaluate(() => { const i = document.getElementById('set-rate'); i.removeAttribute('max'); });
    await setTo(page, 'rate', 5000);
    await page.waitForSelector('#status.bad');
    assert.match(await page.textContent('#status'), /rate/);
    assert.equal(await page.inputValue('#set-rate'), '1');
    await setTo(page, 'interval', 300);
    await setTo(page, 'rate', 10);
    await page.click('#do-forget');
    await page.waitForFunction(() => Object.values(lab.lanes).every(l => l.gaps > 0 && l.state === 'open'), null, { timeout: 20000 });
    assert.deepEqual(await page.evaluate(() => Object.values(lab.lanes).map(l => l.lostCount)), [0, 0, 0, 0]);
  }));

  for (const [name, options] of Object.entries({
    'phone-light': { viewport: { width: 360, height: 740 }, colorScheme: 'light', deviceScaleFactor: 2 },
    'phone-dark': { viewport: { width: 360, height: 740 }, colorScheme: 'dark', deviceScaleFactor: 2, reducedMotion: 'reduce' },
    'desktop-light': { colorScheme: 'light' },
    'desktop-dark': { colorScheme: 'dark', reducedMotion: 'reduce' } })) {
    it(`${name}_fits`, walk('/', options, async page => {
      await page.click('#lesson-drain');
      await page.waitForFunction(() => document.querySelectorAll('.arrow').length > 6);
      const seen = await page.evaluate(() => ({
        wide: document.documentElement.scrollWidth > innerWidth, back: getComputedStyle(document.body).backgroundColor,
        moves: document.getAnimations().length, glides: getComputedStyle(document.getElementById('scroll')).scrollBehavior,
        narrow: Array.from(document.querySelectorAll('.lane, .panel')).filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.id),
        unnamed: Array.from(document.querySelectorAll('input, select, button'))
          .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()).map(e => e.id),
        silent: Array.from(document.querySelectorAll('svg[role=img], .bar')).filter(e => !e.getAttribute('aria-label')).length,
      }));
      assert.deepEqual([seen.wide, seen.narrow, seen.unnamed, seen.silent], [false, [], [], 0]);
      const isDark = options.colorScheme === 'dark', shade = seen.back.match(/\d+/g).map(Number);
      assert.ok(isDark ? Math.max(...shade) < 60 : Math.min(...shade) > 200, seen.back);
      if (options.reducedMotion) assert.deepEqual([seen.moves, seen.glides], [0, 'auto']);
      await page.screenshot({ path: join(screens, `lab-${name}.png`) });
    }));
  }
});
