// What blocks of the README do beyond what their kind shows by itself. Each entry must meet a block (one with `within`
// where the page has that section), or the test fails.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { top, get, publish, read, answers, eventually, Terminal, sleep } from './lib.mjs';

const WebSocket = createRequire(`${top}/tests/wire/package.json`)('ws');
const at = (page, shown = 8080) => `http://127.0.0.1:${page.copy.port(shown)}/live`;
const held = async (url) => (await read(url)).messages.map((m) => m.data);

export const effects = [
  { // hello.c
    kind: 'c', when: /rtpush_publish\(hub, m->topic, m->data/,
    async after(page) {
      const ws = new WebSocket(`${at(page).replace('http', 'ws')}/t`);
      await new Promise((done, failed) => ws.on('open', done).on('error', failed));
      ws.send('said by a WebSocket');
      await eventually(async () => (await held(`${at(page)}/t`)).includes('said by a WebSocket'), 'a poll has what the WebSocket sent');
      ws.close();
      return 'what a WebSocket sent, a poll had';
    },
  },
  { // Try it
    kind: 'sh', when: /since=-3/,
    async during(page, { text }) {
      if (/curl '[^?]*live\/t' /.test(text)) assert.match(page.said, /"data":"hello"/, 'the short poll has what was published');
    },
  },
  { // a client in C
    kind: 'c', when: /rtpush_connect\(hub/,
    async after(page, block) {
      await page.daemon();
      const terminal = new Terminal(page.copy);
      try {
        terminal.type(`./${block.name}`);
        await eventually(async () => { await publish(`${at(page)}/t`, 'for the client'); return / for the client\n/.test(terminal.out); }, () => `it prints a message: ${terminal.out}`);
      } finally { await terminal.end(); }
      return 'it printed what was published, with its id';
    },
  },
  { // the journal in C: the second run finds what the first one published
    kind: 'c', when: /rtpush_journal\(/,
    code: { after: `rtpush_hub *made = rtpush_create(&desc);
      rtpush_stats held;
      if (!made) return 1;
      rtpush_get_stats(made, &held);
      printf("%d held\\n", (int)held.messages_held);
      rtpush_publish(made, "t", "kept", 4);
      rtpush_step(made, 0);
      rtpush_destroy(made);` },
    edit: (text, page) => text.replace(/rtpush_journal\("[^"]*"/, `rtpush_journal("${page.copy.path('log')}"`),
    after: async (page, block) => {
      const said = [];
      for (let i = 0; i < 2; i++) said.push((await page.copy.run(`./${block.name}`)).out.trim());
      assert.deepEqual(said, ['0 held', '1 held']);
      return 'a second run had the message of the first';
    },
  },
  { // the journal of the daemon
    kind: 'sh', when: /--journal DIR --fsync always/,
    async after(page) {
      const { text } = await publish(`${at(page)}/kept`, 'before kill -9');
      process.kill(page.session.pid(), 'SIGKILL');
      await eventually(async () => !(await answers(page.copy.port(8080))), 'it is dead');
      const terminal = new Terminal(page.copy);
      page.session.terminals.push(terminal);
      terminal.isBusy = true;
      terminal.type(await page.filled('./rtpushd --journal DIR --fsync always', page.session));
      await eventually(() => answers(page.copy.port(8080)), 'it is back');
      const r = await read(`${at(page)}/kept`);
      assert.deepEqual(r.messages.map((m) => [m.id, m.data]), [[JSON.parse(text).id, 'before kill -9']]);
      return 'after kill -9 it has the message under its id';
    },
  },
  { // TLS of the daemon: where the page has no certificate, one is made
    kind: 'sh', when: /--cert chain\.pem --key key\.pem/,
    async before(page) {
      const { status, out } = await page.copy.run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-keyout', 'key.pem', '-out', 'chain.pem');
      assert.equal(status, 0, out);
    },
    async after(page) {
      assert.equal((await get(page.copy.port(8443), '/healthz', { isTls: true })).status, 200);
      return 'it answers https, also after SIGHUP';
    },
  },
  { // two nodes
    kind: 'sh', when: /--redis redis:[^\n]*--node n2/,
    async before(page) {
      const port = page.copy.port(6379), terminal = page.session.terminal();
      terminal.type(`redis-server --port ${port} --bind 127.0.0.1 --save '' --dir ${page.copy.folder} >redis.log &`);
      await eventually(() => answers(port), 'redis-server listens');
    },
    async after(page) {
      const { id } = JSON.parse((await publish(`${at(page, 8081)}/t`, 'at one node')).text);
      await eventually(async () => (await read(`${at(page, 8082)}/t`)).messages[0]?.id === id, 'the other node has it, under its id');
      return 'what was published at one node was read at the other, under its id';
    },
  },
  { // a deploy on an inherited socket
    kind: 'sh', when: /--listen fd:3[^]*kill -TERM OLD_PID/,
    async before(page) {
      const { session, copy } = page, made = await copy.run('cc', 'tests/readme/inherit.c', '-o', 'inherit');
      assert.equal(made.status, 0, made.out);
      if (!fs.existsSync(copy.path('rtpushd'))) await session.command({ text: 'cc -O2 tools/rtpushd.c -o rtpushd' });
      fs.rmSync(copy.path('journal'), { recursive: true, force: true });
      session.terminal([copy.path('inherit'), copy.port(8080)]).type(await page.filled('./rtpushd --listen fd:3 --journal DIR &', session));
      await eventually(() => answers(copy.port(8080)), 'the socket is there');
      session.first = JSON.parse((await publish(`${at(page)}/t`, 'to the old one')).text).id;
      session.old = session.pid();
    },
    async after(page) {
      await eventually(() => !fs.existsSync(`/proc/${page.session.old}/exe`) || !fs.readlinkSync(`/proc/${page.session.old}/exe`), 'the old one ends').catch(() => {});
      const { id } = JSON.parse((await publish(`${at(page)}/t`, 'to the new one')).text), [was, is] = [page.session.first, id];
      assert.equal(is.slice(0, 8), was.slice(0, 8), 'one epoch');
      assert.ok(Number(is.slice(9)) > Number(was.slice(9)));
      assert.notEqual(page.session.pid(), page.session.old);
      return 'the new process answers on the same socket, with the same log';
    },
  },
  { // tabs share one connection: in a real browser
    kind: 'html', when: /share:/, within: /^### Many tabs/m,
    after: (page, block) => inTwoTabs(page, block.text),
  },
];

// Two tabs of one browser get each message over one connection.
async function inTwoTabs(page, html) {
  const launched = await browser();
  if (!launched) {
    page.listed.push('many tabs: under Node only, as there is no playwright-core or no Chromium');
    return 'no browser here';
  }
  try {
    const context = await launched.newContext(), url = `http://127.0.0.1:${page.copy.port(8080)}/shown.html`, said = [[], []];
    await context.route(url, (route) => route.fulfill({ contentType: 'text/html', body: `<!doctype html>${html}` }));
    for (const list of said) {
      const tab = await context.newPage();
      tab.on('console', (m) => list.push(m.text()));
      tab.on('pageerror', (e) => list.push(`error: ${e}`));
      await tab.goto(url);
    }
    const topic = /subscribe\("([^"*]*)/.exec(html)[1] + (/subscribe\("[^"]*\*/.test(html) ? 'one' : '');
    const all = async () => {
      await publish(`${at(page)}/${topic}`, 'for all tabs');
      await sleep(200);
      return said.every((list) => list.join().includes('for all tabs'));
    };
    await eventually(all, () => `each tab prints it: ${JSON.stringify(said)}`);
    const { websockets, event_streams: streams, parked_polls: polls } = await read(`http://127.0.0.1:${page.copy.port(8080)}/stats`);
    assert.equal(websockets + streams + polls, 1, 'one connection for both'); // a stream where the browser was slow to open the other
    assert.doesNotMatch(said.join(), /error/);
    return 'two tabs of Chromium, both got it, one connection';
  } finally {
    await launched.close();
  }
}

async function browser() {
  try {
    const { launch } = await import('../browser/lib.js');
    return await launch();
  } catch (e) {
    if (/Cannot find package|ERR_MODULE_NOT_FOUND|Executable doesn't exist|ENOENT/.test(`${e.code} ${e.message}`)) return null;
    throw e;
  }
}
