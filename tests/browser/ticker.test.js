// examples/ticker.c in a browser: prices arrive ten times a second on either transport.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { build, launch, screens, serve, sleep, tab } from './lib.js';

const program = build('ticker');
let browser, server;
before(async () => {
  browser = await launch();
  server = await serve(program);
});
after(async () => {
  await browser.close();
  assert.equal(await server.stop(), 0);
});

const points = page => page.$$eval('#cards polyline', all =>
  all.map(l => (l.getAttribute('points') || '').split(' ').length));
const grows = (page, by) => page.waitForFunction(n => {
  const now = Array.from(document.querySelectorAll('#cards polyline'),
    l => (l.getAttribute('points') || '').split(' ').length);
  return now.length === 8 && Math.min.apply(null, now) >= n;
}, by);

describe('ticker', () => {
  it('eight_symbols_with_prices_and_lines_over_sse_then_websocket', async () => {
    const page = await tab(browser, server.url + '/');
    await page.waitForSelector('#state[data-state=on]');
    await grows(page, 15);
    await page.locator('label', { hasText: 'WebSocket' }).click();
    await page.waitForSelector('#state[data-state=on]');
    const n = Math.min(...await points(page));
    await grows(page, n + 15);
    const symbols = await page.$$eval('#cards li', all => all.map(li => li.dataset.symbol));
    assert.equal(new Set(symbols).size, 8);
    const prices = await page.$$eval('#cards b', all => all.map(b => b.textContent));
    for (const p of prices) assert.match(p, /^\d+\.\d\d$/);
    await page.locator('label', { hasText: 'SSE' }).click();
    await page.waitForSelector('#state[data-state=on]');
    await grows(page, n + 30);
    await page.check_();
  });
  it('ten_prices_a_second_each', async () => {
    const page = await tab(browser, server.url + '/');
    await grows(page, 1);
    const before_ = await points(page), from = Date.now();
    await sleep(3000);
    const after_ = await points(page), seconds = (Date.now() - from) / 1000;
    for (const [i, n] of after_.entries()) {
      const rate = (n - before_[i]) / seconds;
      assert.ok(rate > 5 && rate < 13, `${rate} a second`);
    }
    await page.check_();
  });
  it('one_who_comes_gets_the_last_price_of_each_symbol_and_no_more', async () => {
    const r = await (await fetch(server.url + '/live/price/*?since=-1')).json();
    assert.equal(r.messages.length, 8);
    const all = await (await fetch(server.url + '/live/price/*?since=earliest')).json();
    assert.equal(all.messages.length, 8);
    assert.equal((await fetch(server.url + '/live/price/ACME', { method: 'POST', body: '1' })).status, 403);
  });
  it('a_restart_is_survived_on_both_transports', async () => {
    let one = await serve(program);
    const pages = [await tab(browser, one.url + '/'), await tab(browser, one.url + '/')];
    await pages[1].locator('label', { hasText: 'WebSocket' }).click();
    for (const page of pages) await grows(page, 3);
    await one.stop();
    for (const page of pages) await page.waitForSelector('#state[data-state=wait]');
    one = await serve(program, one.port);
    for (const page of pages) {
      await page.waitForSelector('#state[data-state=on]');
      await grows(page, Math.min(...await points(page)) + 5);
      await page.check_();
    }
    await one.stop();
  });
  for (const [name, options] of Object.entries({
    'phone-light': { viewport: { width: 360, height: 740 }, colorScheme: 'light', deviceScaleFactor: 2 },
    'phone-dark': { viewport: { width: 360, height: 740 }, colorScheme: 'dark', deviceScaleFactor: 2 },
    'desktop-light': { viewport: { width: 1180, height: 620 }, colorScheme: 'light' },
    'desktop-dark': { viewport: { width: 1180, height: 620 }, colorScheme: 'dark' } })) {
    it(`${name}_fits`, async () => {
      const page = await tab(browser, server.url + '/', options);
      await grows(page, 60);
      await page.screenshot({ path: join(screens, `ticker-${name}.png`) });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
      await page.check_();
    });
  }
});
