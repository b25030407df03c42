// examples/chat.c in a browser: one conversation, whatever the transport and whatever happens to it.
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { join } from 'node:path';
import { build, launch, run, screens, serve, sleep, tab } from './lib.js';

const TRANSPORTS = ['ws', 'sse', 'long', 'short'];
const program = build('chat');
let browser, server, count = 0;
const someRoom = () => 'room' + ++count;

before(async () => {
  browser = await launch();
  server = await serve(program);
});
after(async () => {
  await browser.close();
  assert.equal(await server.stop(), 0);
});

// --- a person at the page ---

async function enter(name, room, via, options = {}) {
  const page = await tab(browser, `${(options.server || server).url}/#${encodeURIComponent(room)}`, options);
  await page.locator('#first').fill(name);
  await page.keyboard.press('Enter');
  if (via) await page.locator('#via').evaluate((select, v) => { select.value = v; select.onchange(); }, via);
  await connected(page, via);
  return page;
}
const connected = (page, via) =>
  page.waitForSelector(via ? `#state[data-state=on][data-via=${via}]` : '#state[data-state=on]');

async function say(page, text) {
  await page.getByLabel('Message', { exact: true }).fill(text);
  await page.keyboard.press('Enter');
}
const log = page => page.$$eval('#log .msg p', all => all.map(p => p.textContent));
// All that the log shows, gaps as their reason.
const lines = page => page.$$eval('#log > *', all =>
  all.map(el => el.dataset.gap ? `gap ${el.dataset.gap}` : el.querySelector('p').textContent));
const shows = (page, text) => page.waitForFunction(t =>
  Array.from(document.querySelectorAll('#log .msg p')).some(p => p.textContent === t), text);
const has = (page, n) => page.waitForFunction(k => document.querySelectorAll('#log .msg').length >= k, n);
const present = (page, name, is) => page.waitForFunction(([n, want]) =>
  Array.from(document.querySelectorAll('#people li')).some(li => li.dataset.name === n) === want, [name, is]);

// Somebody without a browser.
async function post(room, text, { from = 'curl', at = server } = {}) {
  const r = await fetch(`${at.url}/live/chat/${room}`, { method: 'POST', body: JSON.stringify({ from, text }),
    headers: { 'Content-Type': 'application/json' } });
  assert.ok(r.ok, `POST: ${r.status}`);
}

// --- the program ---

describe('the program', () => {
  it('port_0_prints_the_port_it_got', async () => {
    assert.ok(server.port > 0);
    const r = await fetch(server.url + '/');
    assert.equal(r.status, 200);
    assert.match(r.headers.get('content-type'), /^text\/html/);
    assert.match(r.headers.get('content-security-policy'), /default-src 'none'/);
    const page = await r.text();
    assert.ok(page.startsWith('<!doctype html>') && page.trimEnd().endsWith('</script>'), 'the page is whole');
    assert.equal((await fetch(server.url + '/nothing')).status, 404);
  });
  it('a_port_in_use_is_said_plainly_and_exits_1', async () => {
    const { code, err } = await run(program, String(server.port));
    assert.equal(code, 1);
    assert.match(err, new RegExp(`port ${server.port} is in use`));
  });
  it('sigint_and_sigterm_end_it_cleanly_with_readers_on_every_transport', async () => {
    for (const signal of ['SIGINT', 'SIGTERM']) {
      const one = await serve(program);
      const pages = await Promise.all(TRANSPORTS.map(via => enter(via, 'a', via, { server: one })));
      assert.equal(await one.stop(signal), 0);
      for (const page of pages) await page.check_();
    }
  });
  it('nobody_may_delete_or_publish_elsewhere', async () => {
    const status = async (method, path) =>
      (await fetch(server.url + path, { method, body: method === 'POST' ? 'x' : undefined })).status;
    assert.equal(await status('DELETE', '/live/chat/lobby'), 403);
    assert.equal(await status('POST', '/live/other'), 403);
    assert.equal(await status('POST', '/live/@presence/chat/lobby'), 403);
    assert.equal(await status('GET', '/live/other'), 403);
    assert.equal(await status('GET', '/live/@user/Ann?token=Bob'), 403);
  });
});

// --- one conversation ---

describe('one conversation', { concurrency: 3 }, () => {
  // A ring of pairs has each transport twice; all ten with BROWSER_LONG=1.
  for (const [i, a] of TRANSPORTS.entries()) for (const [k, b] of TRANSPORTS.entries()) {
    if (k < i || (!process.env.BROWSER_LONG && k - i !== 1 && k - i !== TRANSPORTS.length - 1)) continue;
    it(`two_tabs_on_${a}_and_${b}_see_the_same_in_the_same_order`, async () => {
      const room = someRoom(), ann = await enter('Ann', room, a), bob = await enter('Bob', room, b);
      const talk = async (page, name) => { for (let k = 0; k < 8; k++) await say(page, `${name} ${k}`); };
      await Promise.all([talk(ann, 'Ann'), talk(bob, 'Bob')]);
      await Promise.all([has(ann, 16), has(bob, 16)]);
      const seen = await log(ann);
      assert.deepEqual(await log(bob), seen);
      for (const name of ['Ann', 'Bob'])
        assert.deepEqual(seen.filter(t => t.startsWith(name)), Array.from({ length: 8 }, (_, k) => `${name} ${k}`));
      assert.equal(seen.length, 16);
      for (const page of [ann, bob]) {
        await page.waitForFunction(() => !document.getElementById('outbox').children.length);
        await page.check_();
      }
    });
  }

  it('changing_transport_loses_and_doubles_nothing_while_another_keeps_talking', async () => {
    const room = someRoom(), page = await enter('Ann', room, 'ws'), all = [];
    let talking = true;
    const talk = (async () => {
      for (let k = 0; talking && k < 900; k++) {    // the page keeps 1,000
        await post(room, `m${k}`);
        all.push(`m${k}`);
        await sleep(20);
      }
    })();
    for (let round = 0; round < 3; round++)
      for (const via of ['sse', 'long', 'short', 'ws', 'short', 'sse', 'ws', 'long']) {
        await page.getByLabel('Transport').selectOption(via);
        await connected(page, via);
        await sleep(40 * round);
      }
    talking = false;
    await talk;
    await shows(page, all[all.length - 1]);
    assert.ok(all.length > 50, `${all.length} messages said meanwhile`);
    assert.deepEqual(await lines(page), all);
    await page.check_();
  });

  it('one_who_comes_later_sees_the_last_50', async () => {
    const room = someRoom();
    for (let k = 0; k < 60; k++) await post(room, `m${k}`);
    for (const via of TRANSPORTS) {
      const page = await enter('Ann', room, via);
      assert.deepEqual(await lines(page), Array.from({ length: 50 }, (_, k) => `m${k + 10}`));
      await page.check_();
    }
  });

  it('rooms_are_apart_and_a_typed_one_works', async () => {
    const ann = await enter('Ann', 'lobby', 'ws'), room = someRoom();
    await ann.getByLabel('Another room').fill(room + ' é?&');
    await ann.keyboard.press('Enter');
    await ann.waitForFunction(r => document.getElementById('title').textContent === r, `# ${room} é?&`);
    await connected(ann);
    await say(ann, 'in here');
    await shows(ann, 'in here');
    await ann.getByRole('button', { name: '# help' }).click();
    await connected(ann);
    assert.ok(!(await log(ann)).includes('in here'));
    await ann.goBack();
    await shows(ann, 'in here');
    await ann.check_();
  });

  it('a_post_whose_answer_was_lost_is_said_once', async () => {
    const room = someRoom(), page = await enter('Ann', room, 'sse');
    let posts = 0;
    await page.route('**/live/chat/**', async route => {
      if (route.request().method() !== 'POST' || route.request().url().includes('ephemeral')) return route.continue();
      if (posts++ < 2) {
        await route.fetch();    // it arrives, but the page does not hear of it
        return route.abort();
      }
      return route.continue();
    });
    await say(page, 'once');
    await say(page, 'then this');
    await shows(page, 'then this');
    await page.waitForFunction(() => !document.getElementById('outbox').children.length);
    assert.deepEqual(await log(page), ['once', 'then this']);
    assert.ok(posts >= 3, `${posts} posts`);
    await page.check_();
  });

  it('text_is_text_never_markup', async () => {
    const room = someRoom(), evil = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>';
    const page = await enter('<b>Ann</b>', room, 'ws');
    await say(page, evil);
    await post(room, evil, { from: evil });
    const raw = (type, body) => fetch(`${server.url}/live/chat/${room}`,
      { method: 'POST', body, headers: { 'Content-Type': type } });
    await raw('application/x-www-form-urlencoded', 'plain, as by curl -d');
    for (const odd of ['null', '[]', '17', '{"from":{},"text":7}', '"quoted"']) await raw('application/json', odd);
    await post(room, 'last');
    await shows(page, 'last');
    const seen = await log(page);
    assert.deepEqual(seen.slice(0, 3), [evil, evil, 'plain, as by curl -d']);
    assert.equal(await page.evaluate(() => window.pwned), undefined);
    assert.equal(await page.evaluate(() => document.querySelectorAll('#log img, #log script, #people b').length), 0);
    for (const via of ['sse', 'long', 'short']) {
      const other = await enter('Bob', room, via);
      assert.deepEqual(await log(other), seen);
      await other.check_();
    }
    await page.check_();
  });
});

// --- trouble ---

describe('trouble', { concurrency: 3 }, () => {
  it('a_server_restart_shows_one_gap_on_every_transport_and_goes_on', async () => {
    let one = await serve(program);
    const pages = await Promise.all(TRANSPORTS.map(via => enter(via, 'a', via, { server: one })));
    await post('a', 'before', { at: one });
    await Promise.all(pages.map(page => shows(page, 'before')));
    assert.equal(await one.stop(), 0);
    await Promise.all(pages.map(page => page.waitForSelector('#state[data-state=wait]')));
    assert.match(await pages[0].textContent('#state'), /reconnecting/);
    one = await serve(program, one.port);
    await Promise.all(pages.map((page, i) => connected(page, TRANSPORTS[i])));
    await post('a', 'after', { at: one });
    await Promise.all(pages.map(page => shows(page, 'after')));
    for (const page of pages) {
      assert.deepEqual(await lines(page), ['before', 'gap epoch', 'after']);
      assert.ok(await page.locator('[data-gap]').isVisible());
    }
    await pages[0].screenshot({ path: join(screens, 'chat-gap.png') });
    await say(pages[3], 'still one conversation');
    await Promise.all(pages.map(page => shows(page, 'still one conversation')));
    for (const page of pages) await page.check_();
    assert.equal(await one.stop(), 0);
  });

  for (const via of TRANSPORTS) {
    it(`offline_and_back_on_${via}_brings_what_was_missed_once`, async () => {
      const room = someRoom(), page = await enter('Ann', room, via);
      await say(page, 'one');
      await shows(page, 'one');
      await page.context().setOffline(true);
      await page.waitForSelector('#state[data-state=off]');
      assert.match(await page.textContent('#state'), /offline/);
      await say(page, 'written offline');
      for (let k = 0; k < 5; k++) await post(room, `missed ${k}`);
      assert.deepEqual(await log(page), ['one']);
      await page.context().setOffline(false);
      await connected(page, via);
      await shows(page, 'written offline');
      await shows(page, 'missed 4');
      const missed = Array.from({ length: 5 }, (_, k) => `missed ${k}`);
      assert.deepEqual(await lines(page), ['one', ...missed, 'written offline']);
      await page.check_();
    });

    it(`away_for_longer_than_the_history_on_${via}_is_told_before_what_is_left`, async () => {
      const room = someRoom(), page = await enter('Ann', room, via);
      await say(page, 'one');
      await shows(page, 'one');
      await page.context().setOffline(true);
      await page.waitForSelector('#state[data-state=off]');
      for (let k = 0; k < 230; k++) await post(room, `m${k}`);    // the history is 200
      await page.context().setOffline(false);
      await shows(page, 'm229');
      const seen = await lines(page), kept = Array.from({ length: 200 }, (_, k) => `m${k + 30}`);
      assert.deepEqual(seen, ['one', 'gap evicted', ...kept]);
      await page.check_();
    });
  }

  it('auto_goes_on_to_sse_where_websocket_does_not_get_through', async () => {
    const page = await tab(browser, server.url + '/#' + someRoom());
    await page.addInitScript(() => {
      window.WebSocket = class {
        constructor() { setTimeout(() => this.onclose({ code: 1006 }), 20); }
        close() {}
      };
    });
    await page.reload();
    await page.locator('#first').fill('Ann');
    await page.keyboard.press('Enter');
    await connected(page, 'sse');
    await say(page, 'through');
    await shows(page, 'through');
    await page.check_();
  });
  it('auto_stays_with_websocket_while_the_server_is_away', async () => {
    let one = await serve(program);
    const page = await enter('Ann', 'a', null, { server: one });
    await connected(page, 'ws');
    await one.stop();
    await page.waitForSelector('#state[data-state=wait]');
    await sleep(2500);
    one = await serve(program, one.port);
    await connected(page, 'ws');
    await page.check_();
    await one.stop();
  });
});

// --- people ---

describe('people', { concurrency: 3 }, () => {
  for (const via of TRANSPORTS) {
    it(`presence_shows_and_removes_a_name_on_${via}`, async () => {
      const room = someRoom(), ann = await enter('Ann', room, via);
      await present(ann, 'Ann', true);
      const bob = await enter('Bob', room, via);
      await present(ann, 'Bob', true);
      await present(bob, 'Ann', true);
      assert.match(await ann.textContent('#here'), /^2 people/);
      await ann.evaluate(() => new MutationObserver(() => {
        if (!document.querySelector('#people [data-name=Bob]')) window.flapped = true;
      }).observe(document.getElementById('people'), { childList: true }));
      for (const other of TRANSPORTS) {
        await bob.getByLabel('Transport').selectOption(other);
        await connected(bob, other);
      }
      await sleep(600);                   // presence is told at most every 250 ms
      assert.equal(await ann.evaluate(() => window.flapped), undefined, 'a change of transport is no leaving');
      await bob.check_();
      await present(ann, 'Bob', false);
      assert.match(await ann.textContent('#here'), /^1 person/);
      await ann.check_();
    });
  }
  it('another_name_is_another_member', async () => {
    const room = someRoom(), ann = await enter('Ann', room, 'ws'), bob = await enter('Bob', room, 'sse');
    await bob.locator('#name').fill('Robert');
    await bob.locator('#name').press('Enter');
    await present(ann, 'Robert', true);
    await present(ann, 'Bob', false);
    for (const page of [ann, bob]) await page.check_();
  });
  for (const via of ['ws', 'sse', 'long']) {
    it(`typing_is_seen_on_${via}_and_ends_with_the_message`, async () => {
      const room = someRoom(), ann = await enter('Ann', room, via), bob = await enter('Bob', room, 'ws');
      await bob.locator('#text').pressSequentially('hello');
      await ann.waitForFunction(() => document.getElementById('typing').textContent === 'Bob is typing…');
      await bob.keyboard.press('Enter');
      await shows(ann, 'hello');
      assert.equal(await ann.textContent('#typing'), '');
      assert.deepEqual(await log(ann), ['hello']);    // typing is not stored, and no line
      const late = await enter('Cem', room, 'long');
      assert.deepEqual(await lines(late), ['hello']);
      for (const page of [ann, bob, late]) await page.check_();
    });
  }
});

// --- the look ---

describe('the look', () => {
  for (const scheme of ['light', 'dark'])
    for (const [device, width, height] of [['phone', 360, 740], ['desktop', 1180, 760]]) {
      it(`${device}_${scheme}_fits_and_is_usable`, async () => {
        const room = `weekend-${scheme[0]}${device[0]}`;
        const ann = await enter('Ann', room, 'ws',
          { viewport: { width, height }, colorScheme: scheme, deviceScaleFactor: 2 });
        const bob = await enter('Bob', room, 'sse'), cleo = await enter('Cleo', room, 'long');
        await say(ann, 'Morning! I am on the train, so I will drop out now and then.');
        await shows(bob, 'Morning! I am on the train, so I will drop out now and then.');
        await say(bob, 'No problem. You get what you miss.');
        await shows(cleo, 'No problem. You get what you miss.');
        await say(bob, 'Same order for everybody, too.');
        await shows(cleo, 'Same order for everybody, too.');
        await say(cleo, 'I am on long polling behind an old proxy.\nWorks: ' + 'x'.repeat(80));
        await has(ann, 4);
        await say(ann, 'Good enough for me.');
        await has(bob, 5);
        await bob.locator('#text').pressSequentially('…');
        await ann.waitForFunction(() => document.getElementById('typing').textContent);
        await present(ann, 'Cleo', true);
        await ann.screenshot({ path: join(screens, `chat-${device}-${scheme}.png`) });
        const wide = await ann.evaluate(() => document.documentElement.scrollWidth > innerWidth ||
          Array.from(document.querySelectorAll('main *')).some(el =>
            el.checkVisibility() && el.getBoundingClientRect().right > innerWidth + 1));
        assert.equal(wide, false, 'nothing is wider than the screen');
        const small = await ann.evaluate(() => Array.from(document.querySelectorAll('button, input, select, textarea'))
          .filter(el => el.checkVisibility({ checkVisibilityCSS: true }) && el.getBoundingClientRect().height < 44)
          .map(el => el.id || el.textContent));
        assert.deepEqual(small, [], 'every control can be hit with a finger');
        const below = await ann.locator('#scroll').evaluate(el => el.scrollHeight - el.scrollTop - el.clientHeight);
        assert.ok(below <= 2, `the newest is in view: ${below} px below`);
        if (device === 'phone') {
          await ann.getByRole('button', { name: 'Rooms and settings' }).click();
          await sleep(300);
          await ann.screenshot({ path: join(screens, `chat-phone-menu-${scheme}.png`) });
        }
        for (const page of [ann, bob, cleo]) await page.check_();
      });
    }

  it('a_keyboard_is_enough', async () => {
    const page = await tab(browser, server.url + '/#' + someRoom(), { viewport: { width: 360, height: 740 } });
    const focus = () => page.evaluate(() => document.activeElement.id);
    assert.equal(await focus(), 'first');
    await page.keyboard.type('Ann');
    await page.keyboard.press('Enter');
    await connected(page);
    assert.equal(await focus(), 'text');
    await page.keyboard.type('a');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('b');
    await page.keyboard.press('Enter');
    await shows(page, 'a\nb');
    await page.locator('#menu').focus();
    await page.keyboard.press('Enter');
    assert.ok(await page.evaluate(() => document.activeElement.closest('#side')), 'the focus goes into the menu');
    for (let k = 0; k < 12; k++) {
      await page.keyboard.press('Tab');
      assert.ok(await page.evaluate(() => document.activeElement === document.body ||
        document.activeElement.closest('#side')), 'and stays there');
    }
    await page.keyboard.press('Escape');
    assert.equal(await focus(), 'menu');
    await page.check_();
  });

  it('a_screen_reader_hears_messages_and_the_state', async () => {
    const page = await enter('Ann', someRoom(), 'ws');
    assert.equal(await page.getByRole('log').getAttribute('aria-live'), 'polite');
    assert.match(await page.getByRole('status').textContent(), /connected/);
    const nameless = await page.$$eval('input, select, textarea, button', all => all
      .filter(el => !el.labels?.length && !el.getAttribute('aria-label') && !el.textContent.trim())
      .map(el => el.outerHTML));
    assert.deepEqual(nameless, [], 'every control has a name');
    await page.check_();
  });

  it('reading_further_up_is_not_disturbed', async () => {
    const room = someRoom(), page = await enter('Ann', room, 'ws');
    for (let k = 0; k < 40; k++) await post(room, `line ${k}`);
    await has(page, 40);
    await page.locator('#scroll').evaluate(el => new Promise(done => {
      el.addEventListener('scroll', () => requestAnimationFrame(done), { once: true });
      el.scrollTop = 100;
    }));
    await post(room, 'new below');
    await shows(page, 'new below');
    assert.equal(await page.evaluate(() => document.getElementById('scroll').scrollTop), 100);
    await page.getByRole('button', { name: 'New messages' }).click();
    await page.waitForFunction(() => document.getElementById('newer').hidden);
    await page.check_();
  });
});
