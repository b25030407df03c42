// The daemon: its flags, its exit status, its listeners; PROTOCOL §8: what is served besides the log.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import fs from 'node:fs';
import os from 'node:os';
import net from 'node:net';
import path from 'node:path';
import vm from 'node:vm';
import { daemon, run, get, post, request, poll, pub, sse, Ws, assertError, datas, parked, stats, readers, eventually } from './lib.mjs';

const FLAGS = ['--listen', '--mount', '--echo', '--hello', '--presence', '--publish', '--set', '--verbose', '--help', '--version'];
const SETTINGS = ['history', 'history_bytes', 'history_ms', 'history_total_bytes', 'heartbeat_ms', 'sse_heartbeat_ms', 'poll_max_ms', 'body_max', 'message_max', 'fragments_max', 'header_timeout_ms', 'idle_timeout_ms',
  'connections_max', 'connections_per_ip_max', 'ring_max', 'linger_ms', 'slow', 'backend', 'origin'];

describe('flags', () => {
  test('daemon_help_names_every_flag_and_setting__and_exits_0', async () => {
    const { code, stdout } = await run('--help');
    assert.equal(code, 0);
    for (const name of [...FLAGS, ...SETTINGS]) assert.ok(stdout.includes(name), name);
  });

  test('daemon_version_says_its_version__and_exits_0', async () => {
    const { code, stdout } = await run('--version');
    assert.equal(code, 0);
    assert.match(stdout, /\d+\.\d+\.\d+/);
  });

  const bad = [
    ['--nonsense'], ['-x'], ['nonsense'], ['--listen'], ['--set'], ['--publish', 'maybe'], ['--set', 'nonsense=1'], ['--set', 'history'], ['--set', 'history=many'], ['--set', 'history=1x'], ['--set', 'history='], ['--set', 'body_max=-7'],
    ['--set', 'slow=drop'], ['--set', 'backend=select'], ['--listen', 'nonsense'], ['--listen', 'ftp://127.0.0.1:0'], ['--listen', 'http://127.0.0.1:99999'], ['--listen', 'http://127.0.0.1'], ['--presence', 'a/*/b'], ['--mount', 'live'],
  ];
  for (const args of bad) {
    test(`daemon_a_bad_flag_says_which_and_exits_2: ${args.join(' ')}`, async () => {
      const all = args[0] === '--listen' ? args : [...args, '--listen', 'http://127.0.0.1:0'];
      const { code, stderr } = await run(...(args.length === 1 && ['--listen', '--set'].includes(args[0]) ? args : all));
      assert.equal(code, 2, stderr);
      assert.ok(stderr.includes(args.length > 1 ? args[1].split('=')[0] : args[0]), `which: ${stderr}`);
      assert.match(stderr, /^[^\n]+\n$/, 'in one line');
    });
  }

  test('daemon_takes_every_setting', async (t) => {
    const values = { slow: 'latest', backend: 'poll', origin: 'https://a.example' };
    const d = await daemon(t, ...SETTINGS.flatMap((name) => ['--set', `${name}=${values[name] ?? 50000}`]));
    assert.equal((await get(d, '/healthz')).status, 200);
  });

  test('daemon_a_port_in_use_says_so_and_exits_1', async (t) => {
    const server = net.createServer().listen(0, '127.0.0.1');
    t.after(() => server.close());
    await new Promise((done) => server.once('listening', done));
    const { code, stderr } = await run('--listen', `http://127.0.0.1:${server.address().port}`);
    assert.equal(code, 1);
    assert.match(stderr, /in use/);
  });

  test('daemon_verbose_says_more_and_still_works', async (t) => {
    const d = await daemon(t, '--verbose');
    const s = await sse(d, '/live/t?token=secret-token');
    await pub(d, 't', 'x');
    assert.equal((await s.next()).data, 'x');
    s.close();
    await readers(d, 't', 0);
    assert.doesNotMatch(d.stderr, /secret-token/);
  });
});

describe('listeners', () => {
  test('daemon_prints_one_line_for_each_listener__with_the_port_it_got', async (t) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'wire-'));
    t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
    const socket = path.join(dir, 's');
    const d = await daemon(t, '--listen', 'http://127.0.0.1:0', '--listen', `unix:${socket}`, '--listen', 'http://127.0.0.1:0');
    assert.match(d.stdout, /^listening on http:\/\/127\.0\.0\.1:[1-9]\d*\nlistening on unix:[^\n]+\nlistening on http:\/\/127\.0\.0\.1:[1-9]\d*\n$/);
    const ports = d.listening.filter((u) => u.startsWith('http')).map((u) => Number(new URL(u).port));
    assert.notEqual(ports[0], ports[1]);
    await pub(d, 't', 'one log');
    for (const address of [{ host: '127.0.0.1', port: ports[0] }, { host: '127.0.0.1', port: ports[1] }, { path: socket }]) {
      const c = await d.connect(address);
      c.write('GET /live/t HTTP/1.1\r\nHost: localhost\r\n\r\n');
      assert.deepEqual(datas((await c.response()).json.messages), ['one log']);
    }
  });

  test('daemon_on_a_unix_socket_alone', async (t) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'wire-'));
    t.after(() => fs.rmSync(dir, { recursive: true, force: true }));
    const d = await daemon(t, '--listen', `unix:${path.join(dir, 's')}`);
    const s = await sse(d, '/live/t');
    const w = await Ws.open(d, '/live/t');
    await pub(d, 't', 'x');
    assert.equal((await s.next()).data, 'x');
    await w.expectText('x');
    s.close(); w.close();
  });

  test('daemon_on_ipv6', { skip: !Object.values(os.networkInterfaces()).flat().some((a) => a.address === '::1') && 'no ::1 here' }, async (t) => {
    const d = await daemon(t, '--listen', 'http://[::1]:0');
    assert.match(d.listening[0], /^http:\/\/\[::1\]:\d+$/);
    await pub(d, 't', 'x');
    assert.deepEqual(datas((await poll(d, '/live/t')).messages), ['x']);
  });

  for (const backend of ['epoll', 'poll']) {
    test(`daemon_with_the_backend_${backend}`, async (t) => {
      const d = await daemon(t, '--set', `backend=${backend}`, '--echo', '/echo');
      const s = await sse(d, '/live/t');
      const w = await Ws.open(d, '/live/t');
      const p = poll(d, '/live/t?wait=20');
      await parked(d, 1);
      await pub(d, 't', 'x');
      assert.equal((await s.next()).data, 'x');
      await w.expectText('x');
      assert.deepEqual(datas((await p).messages), ['x']);
      const e = await Ws.open(d, '/echo');
      e.text('y'.repeat(300000));
      await e.expectText('y'.repeat(300000));
      for (const x of [s, w, e]) x.close();
    });
  }

  test('daemon_mount_moves_the_topics', async (t) => {
    const d = await daemon(t, '--mount', '/push/v1');
    assert.equal((await post(d, '/push/v1/a/b', 'x')).json.topic, 'a/b');
    assert.deepEqual(datas((await poll(d, '/push/v1?topic=a/b')).messages), ['x']);
    assertError(await get(d, '/live/a/b'), 404);
    assertError(await get(d, '/push/v1x'), 404);
  });

  test('daemon_hello_answers_hello_or_the_body__by_any_method__also_at_the_root', async (t) => {
    const d = await daemon(t, '--hello', '/');
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'FOO']) {
      assert.equal((await request(d, method, '/')).text, 'hello', method);
      assert.equal((await request(d, method, '/', {}, 'a body')).text, 'a body', method);
    }
    assert.deepEqual((await poll(d, '/live/t')).messages, [], 'the topics are still there');
    assert.equal((await get(d, '/healthz')).text.trim(), 'ok');
  });
});

describe('besides the log', () => {
  test('healthz_is_200_ok', async (t) => {
    const d = await daemon(t);
    const r = await get(d, '/healthz');
    assert.equal(r.status, 200);
    assert.match(r.text, /^ok\n?$/);
    assert.equal((await request(d, 'HEAD', '/healthz')).status, 200);
  });

  test('the_browser_client_is_the_file_byte_for_byte_and_revalidates', async (t) => {
    const d = await daemon(t);
    const r = await get(d, '/rtpush.js');
    assert.equal(r.status, 200);
    assert.equal(r.text, readFileSync(new URL('../../tools/rtpush.js', import.meta.url), 'utf8'));
    assert.match(r.headers['content-type'], /^text\/javascript/);
    const tag = r.headers.etag;
    assert.match(tag, /^"[^"]+"$/);
    for (const tags of [tag, `W/${tag}`, `"other", ${tag}`, '*'])
      assert.equal((await request(d, 'GET', '/rtpush.js', { 'If-None-Match': tags })).status, 304, tags);
    assert.equal((await request(d, 'GET', '/rtpush.js', { 'If-None-Match': '"other"' })).status, 200);
  });

  test('metrics_are_prometheus_text_0_0_4__names_rtpush', async (t) => {
    const d = await daemon(t);
    await pub(d, 't', 'x');
    const r = await get(d, '/metrics');
    assert.equal(r.status, 200);
    assert.match(r.headers['content-type'], /^text\/plain; *version=0\.0\.4/);
    assert.ok(r.text.endsWith('\n'));
    const typed = new Set(), helped = new Set();
    let samples = 0;
    for (const line of r.text.slice(0, -1).split('\n')) {
      let m;
      if ((m = /^# HELP (rtpush_[a-z0-9_]+) \S.*$/.exec(line))) helped.add(m[1]);
      else if ((m = /^# TYPE (rtpush_[a-z0-9_]+) (counter|gauge)$/.exec(line))) { assert.ok(!typed.has(m[1]), 'one TYPE for a name'); typed.add(m[1]); }
      else if ((m = /^(rtpush_[a-z0-9_]+)(\{[^{}]*\})? (\d+)$/.exec(line))) { samples++; assert.ok(typed.has(m[1]) && helped.has(m[1]), `${m[1]} has its TYPE and HELP before it`); } else assert.fail(`a line of the format: ${line}`);
    }
    assert.ok(samples >= 25);
    assert.match(r.text, /^rtpush_published(_total)? 1$/m);
  });

  test('stats_is_the_same_as_json__and_the_counters_add_up', async (t) => {
    const d = await daemon(t);
    const s = await sse(d, '/live/t');
    const w = await Ws.open(d, '/live/*');
    for (const x of ['a', 'b', 'c']) await pub(d, 't', x);
    await s.take(3);
    for (const x of ['a', 'b', 'c']) await w.expectText(x);
    const r = await get(d, '/stats');
    assert.match(r.headers['content-type'], /^application\/json/);
    const now = r.json;
    const metrics = (await get(d, '/metrics')).text;
    for (const name of Object.keys(now).filter((x) => x !== 'cursor')) {
      assert.equal(typeof now[name], 'number', name);
      assert.match(metrics, new RegExp(`^rtpush_${name}(_total)? \\d+$`, 'm'));
    }
    for (const [name, value] of Object.entries({ published: 3, websockets: 1, event_streams: 1, parked_polls: 0, subscriptions: 2, topics: 1, patterns: 1, messages_held: 3, owed: 6, delivered: 6, pending: 0 })) assert.equal(now[name], value, name);
    assert.equal(now.owed, now.delivered + now.skipped + now.abandoned + now.pending);
    assert.ok(now.history_bytes > 0 && now.bytes_in > 0 && now.bytes_out > 0);
    s.close(); w.close();
    await readers(d, 't', 0);
    const end = await stats(d);
    assert.deepEqual([end.websockets, end.event_streams, end.subscriptions, end.patterns], [0, 0, 0, 0]);
  });

  test('stats_come_back_to_nothing_when_all_have_gone', async (t) => {
    const d = await daemon(t, '--set', 'linger_ms=100', '--set', 'history_ms=300', '--presence', 'a', '--echo', '/echo');
    for (let round = 0; round < 5; round++) {
      const all = await Promise.all(Array.from({ length: 40 }, async (_, i) => {
        const session = `?session=${`s${round}_${i}`.padEnd(16, '_')}`;
        if (i % 4 === 0) return (await sse(d, `/live/a${session}`)).c;
        if (i % 4 === 1) return (await Ws.open(d, `/live/a?topic=b/*&session=${session.slice(9)}`)).c;
        if (i % 4 === 2) return (await Ws.open(d, '/echo')).c;
        const c = await d.connect();
        c.write(`GET /live/a${session}&wait=20 HTTP/1.1\r\nHost: h\r\n\r\n`);
        return c;
      }));
      await pub(d, 'a', 'x'.repeat(1000));
      for (const [i, c] of all.entries()) if (i % 3) c.destroy(); else c.socket.resetAndDestroy();
    }
    await eventually(async () => {
      const s = await stats(d);
      return s.connections === 1 && ['sessions', 'websockets', 'event_streams', 'parked_polls', 'subscriptions', 'topics', 'patterns', 'messages_held', 'history_bytes', 'pending'].every((name) => s[name] === 0);
    }, 'nothing but the one who asks');
  });

  test('besides_the_log_only_get_and_head', async (t) => {
    const d = await daemon(t);
    for (const target of ['/healthz', '/metrics', '/stats', '/rtpush.js']) {
      const r = assertError(await post(d, target, 'x'), 405);
      assert.match(r.headers.allow, /GET/);
      const full = await get(d, target);
      const head = await request(d, 'HEAD', target);
      assert.deepEqual([head.status, head.headers['content-type']], [full.status, full.headers['content-type']]);
    }
  });
});
