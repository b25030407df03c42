// examples/hello.c and examples/own_loop.c, which have no page.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { readFileSync, writeFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { describe, it } from 'node:test';
import { join } from 'node:path';
import { build, launch, root, run, serve, sleep, tab } from './lib.js';

const freePort = () => new Promise(done => {
  const s = createServer().listen(0, '127.0.0.1', () => {
    const { port } = s.address();
    s.close(() => done(port));
  });
});

describe('hello', () => {
  it('what_a_websocket_sends_every_reader_of_the_topic_gets', async () => {
    // The program has its port in its text; another one, so that the test does not depend on 8080 being free.
    const port = await freePort(), source = join(root, 'build', 'hello_port.c');
    const text = readFileSync(join(root, 'examples', 'hello.c'), 'utf8');
    assert.ok(text.includes('127.0.0.1:8080"'));
    writeFileSync(source, text.replace('127.0.0.1:8080"', `127.0.0.1:${port}"`));
    const child = spawn(build('hello_port', source), { stdio: 'inherit' });
    const browser = await launch();
    try {
      const url = `http://127.0.0.1:${port}`;
      for (let tries = 100; tries; await sleep(50))
        tries = await fetch(url + '/healthz').then(() => 0, () => tries - 1);
      const page = await tab(browser, url + '/healthz');    // any page of that host: the origin must match
      const poll = fetch(url + '/live/t?wait=20').then(r => r.json());
      const got = await page.evaluate(() => new Promise((done, fail) => {
        const open = () => new WebSocket(location.origin.replace('http', 'ws') + '/live/t');
        const a = open(), b = open(), got = [];
        a.onmessage = b.onmessage = e => { if (got.push(e.data) === 2) done(got); };
        a.onclose = b.onclose = e => fail(new Error('closed ' + e.code));
        const both = () => { if (a.readyState === 1 && b.readyState === 1) a.send('hello'); };
        a.onopen = b.onopen = both;
      }));
      assert.deepEqual(got, ['hello', 'hello']);
      assert.deepEqual((await poll).messages.map(m => [m.topic, m.data]), [['t', 'hello']]);
      await page.check_();
    } finally {
      await browser.close();
      child.kill();
    }
  });
});

describe('own_loop', () => {
  // The same with a back-end that has no descriptor for the host's loop: rtpush_fd is -1.
  const blind = join(root, 'build', 'own_loop_poll.c');
  const text = readFileSync(join(root, 'examples', 'own_loop.c'), 'utf8');
  assert.ok(text.includes('.publish_off = true'));
  writeFileSync(blind, text.replace('.publish_off = true', '.publish_off = true, .backend_name = "poll"'));
  const program = build('own_loop'), programs = { default: program, poll: build('own_loop_poll', blind) };
  for (const backend of Object.keys(programs)) it(`lines_are_published_and_readers_served__backend_${backend}`, async () => {
    const server = await serve(programs[backend]);
    const reader = await fetch(server.url + '/live/lines', { headers: { Accept: 'text/event-stream' } });
    let text = '';
    const reading = (async () => {
      for await (const chunk of reader.body) text += Buffer.from(chunk).toString();
    })().catch(() => {});                                     // it is cut when the server ends
    const until = async what => {
      for (let k = 0; !what(text); k++) {
        assert.ok(k < 200, text);
        await sleep(25);
      }
    };
    server.stdin.write('one\ntwo\nhal');
    await until(t => t.includes('data: two\n'));
    await sleep(100);
    server.stdin.write('f\n' + 'x'.repeat(5000) + '\nlast');
    server.stdin.end();                                       // the host's descriptor ends; the guest goes on
    await until(t => t.includes('data: last\n'));
    const data = text.split('\n').filter(l => l.startsWith('data: ')).map(l => l.slice(6));
    assert.deepEqual(data.slice(0, 3), ['one', 'two', 'half']);
    assert.equal(data.slice(3, -1).join(''), 'x'.repeat(5000));
    const held = await (await fetch(server.url + '/live/lines')).json();
    assert.deepEqual(held.messages.map(m => m.data), data);
    assert.equal((await fetch(server.url + '/live/lines', { method: 'POST', body: 'x' })).status, 403);
    assert.equal(await server.stop(), 0);
    await reading;
  });
  it('timers_of_the_guest_run_in_the_hosts_loop', async () => {
    const server = await serve(program), from = Date.now();
    const r = await (await fetch(server.url + '/live/lines?wait=1')).json();
    assert.deepEqual(r.messages, []);
    assert.ok(Date.now() - from > 800 && Date.now() - from < 5000, `${Date.now() - from} ms`);
    assert.equal(await server.stop('SIGINT'), 0);
  });
  it('an_idle_guest_costs_no_time', async () => {
    const server = await serve(program);
    await fetch(server.url + '/live/lines');
    if (process.platform === 'linux') {
      const ticks = () => {   // user and system time, fields 14 and 15 of proc(5) stat
        const fields = readFileSync(`/proc/${server.pid}/stat`, 'utf8').split(') ')[1].split(' ');
        return Number(fields[11]) + Number(fields[12]);
      };
      const before = ticks();
      await sleep(1000);
      assert.ok(ticks() - before <= 5, `${ticks() - before} ticks of 10 ms in a second`);
    }
    await server.stop();
  });
  it('a_port_in_use_is_said_and_exits_1', async () => {
    const server = await serve(program), { code, err } = await run(program, String(server.port));
    assert.equal(code, 1);
    assert.match(err, /in use/);
    await server.stop();
  });
});
