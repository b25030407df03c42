// examples/notify.c in a browser: what is sent to somebody who is away is there when they return.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { build, launch, screens, serve, sleep, tab } from './lib.js';

const program = build('notify');
let browser, server, count = 0;
const someone = base => base + ++count;
before(async () => {
  browser = await launch();
  server = await serve(program);
});
after(async () => {
  await browser.close();
  assert.equal(await server.stop(), 0);
});

async function signIn(page, name) {
  await page.getByLabel('Your name').fill(name);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#state[data-state=on]');
  assert.equal(await page.getByLabel('Your name').isVisible(), false);
}
async function arrive(name, options) {
  const page = await tab(browser, server.url + '/', options);
  await signIn(page, name);
  return page;
}
async function send(page, to, text) {
  await page.getByLabel('To', { exact: true }).fill(to);
  await page.getByLabel('Text').fill(text);
  const answered = page.waitForResponse(r => r.url().includes('/send'));
  await page.getByRole('button', { name: 'Send' }).click();
  await answered;
  await page.waitForFunction(() => document.getElementById('sent').textContent);
  return page.textContent('#sent');
}
const list = page => page.$$eval('#list li', all =>
  all.map(li => [li.className, ...Array.from(li.children, el => el.textContent)]));
const shows = (page, n) => page.waitForFunction(k => document.querySelectorAll('#list li').length >= k, n);

describe('notify', () => {
  it('a_message_sent_while_away_is_there_on_return_and_is_new_once', async () => {
    const [annName, bobName] = [someone('ann'), someone('bob')];
    const bob = await arrive(bobName), ann = await arrive(annName);
    assert.match(await send(bob, annName, 'you are here'), /^Delivered/);
    await shows(ann, 1);
    await ann.goto('about:blank');                            // Ann leaves, with her cookie
    const sent = () => bob.evaluate(name => fetch('/send?to=' + name, { method: 'POST', body: 'first\nsecond line <b>&' })
      .then(r => r.text()), annName);
    while (!(await sent()).startsWith('Away')) await sleep(50);   // until the server has seen her go
    assert.match(await send(bob, annName, 'another'), /^Away/);
    await ann.goto(server.url + '/');
    await shows(ann, 3);
    await ann.locator('#list p', { hasText: 'another' }).waitFor();
    const seen = await list(ann);
    assert.deepEqual(seen[0], ['', bobName, 'you are here']);
    assert.deepEqual(seen[seen.length - 2], ['new', bobName, 'first\nsecond line <b>&']);
    assert.deepEqual(seen[seen.length - 1], ['new', bobName, 'another']);
    await ann.reload();
    await shows(ann, seen.length);
    assert.ok((await list(ann)).every(([is]) => !is), 'what was looked at is not new again');
    const other = await browser.newContext();                 // another browser of Ann's gets all that is held
    const there = await other.newPage();
    await there.goto(server.url + '/');
    await signIn(there, annName);
    await shows(there, seen.length);
    await other.close();
    for (const page of [ann, bob]) await page.check_();
  });

  it('two_browsers_of_one_user_both_get_it', async () => {
    const name = someone('ann'), a = await arrive(name), b = await arrive(name);
    assert.match(await send(a, name, 'to myself'), /^Delivered/);
    await Promise.all([shows(a, 1), shows(b, 1)]);
    for (const page of [a, b]) await page.check_();
  });

  it('the_cookie_is_httponly_samesite_and_unguessable', async () => {
    const page = await arrive(someone('ann'));
    const cookies = await page.context().cookies();
    assert.equal(cookies.length, 1);
    assert.equal(cookies[0].httpOnly, true);
    assert.equal(cookies[0].sameSite, 'Strict');
    assert.match(cookies[0].value, /^[0-9a-f]{32}$/);
    assert.equal(await page.evaluate(() => document.cookie), '');
    await page.check_();
  });

  it('only_ones_own_queue_may_be_read_and_nothing_published', async () => {
    const [annName, bobName] = [someone('ann'), someone('bob')];
    const page = await arrive(annName);
    const status = (path, init) => page.evaluate(async ([p, i]) => (await fetch(p, i)).status, [path, init]);
    assert.equal(await status('/live/@user/' + annName), 200);
    assert.equal(await status('/live/@user/' + bobName), 403);
    assert.equal(await status('/live/@user/*'), 403);
    assert.equal(await status('/live/anything'), 403);
    assert.equal(await status('/live/@user/' + annName, { method: 'POST', body: 'x' }), 403);
    assert.equal(await status('/live/@user/' + annName, { method: 'DELETE' }), 403);
    const bare = async (path, init) => (await fetch(server.url + path, { redirect: 'manual', ...init })).status;
    assert.equal(await bare('/live/@user/' + annName), 401);
    const guess = { headers: { Cookie: 'notify=' + '0'.repeat(32) } };
    assert.equal(await bare('/live/@user/' + annName, guess), 401);
    assert.equal(await bare('/send?to=' + annName, { method: 'POST', body: 'x' }), 401);
    for (const name of ['', 'a b', 'a/b', '%41', 'x'.repeat(33), "'><script>"])
      assert.equal(await bare('/login', { method: 'POST', body: 'name=' + name }), 400, name);
    await page.check_();
  });

  it('signing_out_ends_the_stream_and_the_cookie', async () => {
    const name = someone('ann'), page = await arrive(name);
    const cookie = (await page.context().cookies())[0].value;
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Your name').waitFor();
    assert.equal(await page.getByLabel('Text').isVisible(), false);
    assert.equal((await fetch(server.url + '/live/@user/' + name, { headers: { Cookie: 'notify=' + cookie } })).status, 401);
    await page.check_();
  });

  it('a_server_that_forgot_us_asks_for_the_name_again', async () => {
    let one = await serve(program);
    const page = await tab(browser, one.url + '/');
    await signIn(page, 'ann');
    await one.stop();
    one = await serve(program, one.port);
    await page.getByLabel('Your name').waitFor();
    await page.check_();
    await one.stop();
  });

  for (const scheme of ['light', 'dark']) {
    it(`phone_${scheme}_fits`, async () => {
      const viewport = { width: 360, height: 740 };
      const page = await arrive('ann-' + scheme, { viewport, colorScheme: scheme, deviceScaleFactor: 2 });
      const bot = await arrive('build-bot');
      await send(bot, 'ann-' + scheme, 'Build 1204 is green.');
      await send(bot, 'ann-' + scheme, 'Deploy to staging failed:\n' + 'x'.repeat(90));
      await shows(page, 2);
      await page.screenshot({ path: join(screens, `notify-phone-${scheme}.png`), fullPage: true });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth), false);
      for (const p of [page, bot]) await p.check_();
    });
  }
});
