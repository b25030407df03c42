// Figures, printed; the only claim is that an idle TLS connection costs less than 64 KiB.
// node tests/tls/measure.test.mjs --throughput: a fan-out of 100 MB over TLS and in the clear, three times.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { TlsDaemon, fastDaemon, run, curl, ca, good, wire, eventually, sleep, range } from './lib.mjs';

async function fast(t, ...args) {
  const d = new TlsDaemon(['--program', fastDaemon(), '--listen', 'https://127.0.0.1:0', '--listen', 'http://127.0.0.1:0', '--cert', good.cert, '--key', good.key, '--hello', '/hello', ...args]);
  t.after(() => d.stop());
  await d.start(2);
  d.plain = Number(new URL(d.listening[1]).port);
  return d;
}
const rss = (d) => Number(/^VmRSS:\s*(\d+) kB$/m.exec(fs.readFileSync(`/proc/${d.process.pid}/status`))[1]) * 1024;
const cpu = (d) => { const f = fs.readFileSync(`/proc/${d.process.pid}/stat`, 'latin1').split(') ')[1].split(' '); return (Number(f[11]) + Number(f[12])) / 100; };

test('an_idle_TLS_connection_costs_less_than_64_KiB', async (t) => {
  const d = await fast(t);
  const open = async (n) => { for (let left = n; left > 0; left -= 25) await Promise.all(range(1, 25).map(() => wire.Ws.open(d, '/live/a'))); };
  await open(100); // what the first ones need once
  await sleep(200);
  const before = rss(d);
  await open(500);
  await sleep(300);
  assert.equal((await wire.stats(d)).websockets, 600);
  const each = Math.round((rss(d) - before) / 500);
  console.log(`# idle TLS connection: ${each} bytes`);
  assert.ok(each < 65536, `${each} bytes`);
});

test('handshakes_per_second', async (t) => {
  const d = await fast(t);
  for (const [name, flag] of [['whole', '-new'], ['resumed', '-reuse']]) {
    const before = (await wire.stats(d)).accepted, used = cpu(d);
    const r = await run('openssl', ['s_time', '-connect', `127.0.0.1:${d.port}`, '-CAfile', ca.cert, flag, '-time', '2', '-www', '/hello'], { ms: 15000 });
    const count = (await wire.stats(d)).accepted - before;
    assert.match(r.out, /(\d+) connections in (\d+) real seconds/, r.err);
    assert.ok(count > 20, `${count} connections`);
    console.log(`# handshakes, ${name}, a request each: ${Math.round(count / 2)} in a second; of the daemon's time ${((cpu(d) - used) / count * 1e6).toFixed(0)} us each`);
  }
});

if (process.argv.includes('--throughput')) test('throughput', async (t) => {
  const readers = 8, messages = 200, size = 65536;
  for (const round of [1, 2, 3]) for (const isTls of [false, true]) {
    const d = await fast(t, '--set', 'history_bytes=60000000', '--set', 'history=1000');
    const base = isTls ? `https://127.0.0.1:${d.port}` : `http://127.0.0.1:${d.plain}`;
    const all = range(1, readers).map(() => run('sh', ['-c', `curl -sN --http1.1 --cacert ${ca.cert} -H 'Accept: text/event-stream' ${base}/live/a | { head -c ${messages * size} >/dev/null; echo done; }`], { ms: 60000, onStart: (child) => child.stdout.on('data', () => { child.kill(); child.stdout.destroy(); child.stderr.destroy(); }) }));
    await eventually(async () => (await wire.stats(d)).event_streams === readers, 'the readers');
    const begin = performance.now(), used = cpu(d), body = 'x'.repeat(size);
    await wire.publishAll({ ...d, host: d.host, connect: () => d.raw({ host: '127.0.0.1', port: d.plain }) }, range(1, messages).map(() => ['a', body]));
    await Promise.all(all);
    const ms = performance.now() - begin;
    console.log(`# ${readers} readers, ${messages} messages of 64 KiB, ${isTls ? 'TLS' : 'plain'}: ${(readers * messages * size / 1e3 / ms).toFixed(0)} MB/s, ${ms.toFixed(0)} ms, daemon ${(cpu(d) - used).toFixed(2)} s`);
  }
});
