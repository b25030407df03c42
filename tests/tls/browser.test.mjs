// Chromium: a page of an https: origin reads with the daemon's own /rtpush.js by wss, and with an EventSource.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import fs from 'node:fs';
import { daemon, issue, root, wire, eventually, range } from './lib.mjs';

const { chromium } = await import(pathToFileURL(path.join(root, 'tests/browser/node_modules/playwright-core/index.mjs')));
const executablePath = process.env.CHROMIUM ?? ['chromium', 'chromium-browser', 'google-chrome'].flatMap((name) => process.env.PATH.split(':').map((at) => path.join(at, name))).find((at) => fs.existsSync(at));

test('a_page_reads_by_wss_and_by_an_event_source_over_https', async (t) => {
  const self = issue('browser'); // by no authority that Chromium knows
  const d = await daemon(t, '--cert', self.cert, '--key', self.key);
  d.tls = { rejectUnauthorized: false };
  const browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'] });
  t.after(() => browser.close());
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const page = await context.newPage();
  const errors = [], sockets = [];
  page.on('pageerror', (e) => errors.push(String(e)));
  page.on('websocket', (w) => sockets.push(w.url()));
  await page.goto(`https://localhost:${d.port}/hello`);
  assert.equal(await page.evaluate(() => isSecureContext), true);
  await page.addScriptTag({ url: '/rtpush.js' });
  await page.evaluate(() => {
    window.byScript = [];
    window.byEvents = [];
    window.live = rtpush('/live');
    const sub = live.subscribe('a', (m) => byScript.push(m.data));
    window.source = new EventSource('/live/a');
    source.onmessage = (e) => byEvents.push(e.data);
    return Promise.all([sub.ready, new Promise((done, failed) => { source.onopen = done; source.onerror = () => failed(new Error('EventSource')); })]);
  });
  await eventually(async () => { const s = await wire.stats(d); return s.websockets === 1 && s.event_streams === 1; }, 'both');
  await wire.publishAll(d, range(1, 50).map((n) => ['a', `m${n} grüße ${'x'.repeat(n * 100)}`]));
  const wanted = range(1, 50).map((n) => `m${n} grüße ${'x'.repeat(n * 100)}`);
  await page.waitForFunction(() => byScript.length >= 50 && byEvents.length >= 50, null, { timeout: 15000 });
  assert.deepEqual(await page.evaluate(() => byScript), wanted);
  assert.deepEqual(await page.evaluate(() => byEvents), wanted);
  await page.evaluate(() => live.publish('a', 'by the page'));
  await page.waitForFunction(() => byEvents.at(-1) === 'by the page' && byScript.at(-1) === 'by the page', null, { timeout: 15000 });
  assert.ok(sockets.length === 1 && sockets[0].startsWith(`wss://localhost:${d.port}/live`), `${sockets}`);
  assert.deepEqual(errors, []);
  assert.equal((await wire.poll(d, '/live/a?since=-1')).messages[0].data, 'by the page');
});

test('a_page_is_refused_where_the_certificate_is_not_believed', async (t) => {
  const d = await daemon(t);
  const browser = await chromium.launch({ executablePath, args: ['--headless', '--no-sandbox', '--disable-gpu'] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  await assert.rejects(page.goto(`https://localhost:${d.port}/hello`), /ERR_CERT_AUTHORITY_INVALID/);
  assert.equal((await wire.get(d, '/hello')).text, 'hello');
});
