// SIGHUP: new certificates while twenty clients of every kind read, and nobody notices.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { spawn } from 'node:child_process';
import { daemon, curl, run, issue, ca, serialOf, file, wire, eventually, sleep, range, WebSocket, RTCAT } from './lib.mjs';

const issued = range(0, 10).map((n) => issue(`reload-${n}`, { ca, serial: BigInt(1000 + n) }));
const install = (c, name) => { for (const kind of ['cert', 'key']) { const at = file(`${name}.${kind}`); fs.copyFileSync(c[kind], `${at}.new`); fs.renameSync(`${at}.new`, at); } };
const flags = (name) => ['--cert', file(`${name}.cert`), '--key', file(`${name}.key`)];
const serial = async (d) => { const s = await d.socket(); const n = serialOf(s.getPeerCertificate()); s.destroy(); return n; };

describe('reload', () => {
  test('ten_reloads_under_load__no_connection_drops__nothing_is_lost_or_doubled', async (t) => {
    install(issued[0], 'live');
    const d = await daemon(t, ...flags('live'), '--set', 'history=5000');
    const got = [], drops = [], children = [];
    t.after(() => { for (const c of children) c.kill('SIGKILL'); });
    let isOver = false;
    const reader = (name) => { const list = []; got.push([name, list]); return list; };
    const lines = (child, list, pick) => {
      let text = '', err = '';
      child.stdout.on('data', (x) => { text += x; const end = text.lastIndexOf('\n') + 1; for (const line of text.slice(0, end).split('\n')) { const m = pick(line); if (m !== undefined) list.push(m); } text = text.slice(end); });
      child.stderr.on('data', (x) => { err += x; });
      child.on('close', (code) => { if (!isOver) drops.push(`${child.spawnargs.join(' ')}: ${code} ${err}`); });
      children.push(child);
    };

    for (const n of range(1, 5)) {
      const list = reader(`WebSocket of ws ${n}`);
      const w = new WebSocket(`wss://127.0.0.1:${d.port}/live/n`, { ...d.tls, ...(n % 2 ? {} : { maxVersion: 'TLSv1.2' }) });
      w.on('message', (m) => list.push(String(m))).on('close', (code) => { if (!isOver) drops.push(`ws ${n}: ${code}`); }).on('error', (e) => drops.push(`ws ${n}: ${e}`));
      t.after(() => w.terminate());
    }
    for (const n of range(1, 3)) lines(spawn('curl', ['-sSN', '--http1.1', '--cacert', ca.cert, '-H', 'Accept: text/event-stream', `https://127.0.0.1:${d.port}/live/n`]), reader(`SSE of curl ${n}`), (line) => /^data: (.*)$/.exec(line)?.[1]);
    for (const flag of ['ws', 'sse', 'ws', 'sse', 'lp', 'sp']) lines(spawn(RTCAT, ['--ca', ca.cert, '--transport', flag, '--since', 'earliest', `https://localhost:${d.port}/live/n`], { stdio: ['ignore', 'pipe', 'pipe'] }), reader(`rtcat ${flag}`), (line) => line || undefined);
    for (const n of range(1, 3)) { // long polls over one connection each
      const list = reader(`long poll ${n}`);
      (async () => {
        const c = await d.connect();
        for (let cursor = 'earliest'; !isOver;) {
          c.write(wire.requestBytes(d.host, 'GET', `/live/n?since=${cursor}&wait=20`));
          const r = await c.response();
          list.push(...r.json.messages.map((m) => m.data));
          cursor = r.json.cursor;
        }
        c.destroy();
      })().catch((e) => { if (!isOver) drops.push(`poll ${n}: ${e}`); });
    }
    for (const n of range(1, 3)) { // and envelopes
      const list = reader(`envelope ${n}`);
      (async () => {
        const e = await wire.Envelope.open(d, '/live/n');
        while (!isOver) { const o = await e.recv(); if (o.type === 'message') list.push(o.data); }
      })().catch((e) => { if (!isOver) drops.push(`envelope ${n}: ${e}`); });
    }
    await eventually(async () => { const s = await wire.stats(d); return s.websockets === 10 && s.event_streams === 5 && s.parked_polls === 4; }, 'the readers');

    const publisher = await d.connect(), count = 600;
    const publishing = (async () => { for (const n of range(1, count)) { publisher.write(wire.requestBytes(d.host, 'POST', '/live/n', {}, `m${n}`)); await publisher.response(); await sleep(5); } })();
    for (const n of range(1, 10)) {
      const begin = Date.now();
      install(issued[n], 'live');
      d.process.kill('SIGHUP');
      await eventually(async () => (await serial(d)) === issued[n].serial, `the certificate ${n}`, 5000);
      await sleep(Math.max(0, 200 - (Date.now() - begin)));
    }
    await publishing;
    const wanted = range(1, count).map((n) => `m${n}`);
    await eventually(() => got.every(([, list]) => list.length >= count), 'all of it by all').catch(() => {});
    await sleep(100);
    isOver = true;
    assert.deepEqual(drops, []);
    for (const [name, list] of got) assert.deepEqual(list, wanted, name);
    assert.equal(got.length, 20);
    assert.equal(d.stderr, '');
    publisher.destroy();
  });

  test('a_broken_file_changes_nothing_and_is_told__and_the_next_good_one_is_taken', async (t) => {
    const two = issue('reload-two', { ca, names: 'DNS:two.example' });
    install(issued[0], 'a');
    install(two, 'b');
    const d = await daemon(t, ...flags('a'), ...flags('b'));
    const held = await wire.Ws.open(d, '/echo');
    const broken = [
      () => fs.writeFileSync(file('b.cert'), 'nonsense'), () => fs.truncateSync(file('b.cert'), 300), () => fs.writeFileSync(file('b.key'), ''), () => fs.rmSync(file('b.cert')),
      () => fs.copyFileSync(issued[5].key, file('b.key')), // of another certificate
    ];
    for (const [n, breaks] of broken.entries()) {
      install(issued[n + 1], 'a'); // the first is good, the second is not: neither may be taken
      breaks();
      const before = d.stderr.length;
      d.process.kill('SIGHUP');
      const line = await eventually(() => /^rtpushd: .*\n/.exec(d.stderr.slice(before))?.[0], 'a line on stderr');
      assert.match(line, /^rtpushd: the certificates stay as they are: .*\(.+\)\n$/);
      assert.equal(await serial(d), issued[0].serial, `${breaks}`);
      const s = await d.socket({ servername: 'two.example', rejectUnauthorized: false });
      assert.equal(serialOf(s.getPeerCertificate()), two.serial);
      s.destroy();
      held.text(`m${n}`);
      await held.expectText(`m${n}`);
      install(two, 'b');
    }
    install(issued[9], 'a');
    d.process.kill('SIGHUP');
    await eventually(async () => (await serial(d)) === issued[9].serial, 'the good one');
    held.text('still');
    await held.expectText('still');
    held.close();
  });

  test('SIGHUP_without_a_certificate_and_twenty_in_a_row', async (t) => {
    install(issued[0], 'row');
    const d = await daemon(t, ...flags('row'));
    for (const n of range(1, 20)) { d.process.kill('SIGHUP'); if (n % 5 === 0) assert.equal((await curl(d, '/hello')).out, 'hello'); }
    const plain = await wire.daemon(t);
    plain.process.kill('SIGHUP');
    await sleep(100);
    assert.equal((await wire.get(plain, '/healthz')).status, 200);
    assert.equal(plain.stderr, '');
  });

  test('a_handshake_that_a_reload_comes_between_is_finished_with_what_it_began', async (t) => {
    install(issued[0], 'between');
    const d = await daemon(t, ...flags('between'));
    for (const version of ['TLSv1.2', 'TLSv1.3']) {
      const done = d.tapped({ minVersion: version, maxVersion: version }, { isBytewise: true, slowness: 1 });
      for (const n of range(1, 10)) { install(issued[n], 'between'); d.process.kill('SIGHUP'); await sleep(30); }
      const { tap, socket } = await done;
      const conn = new wire.Conn(socket, d);
      conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
      assert.equal((await conn.response()).text, 'hello');
      tap.destroy();
    }
  });

  test('start__a_certificate_that_is_none_ends_it_with_2_and_a_reason', async () => {
    for (const args of [['--cert', '/nowhere.pem'], ['--cert', issued[0].cert], ['--cert', issued[0].cert, '--key', issued[1].key], ['--cert', issued[0].cert, '--key', issued[0].key, '--client-ca', '/nowhere.pem'], []]) {
      const r = await wire.run('--listen', 'https://127.0.0.1:0', ...args);
      assert.equal(r.code, 2, `${args}: ${r.stderr}`);
      assert.match(r.stderr, /^rtpushd: [^\n]+: [^\n]{5,}\n$/);
    }
  });
});
