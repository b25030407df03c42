// How Redis is reached: addresses, passwords, TLS, Sentinel; and how what is wrong with them is said.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { spawn, execFileSync } from 'node:child_process';
import { atEnd, Redis, REDIS, Resp, Reader, Publisher, node, tryNode, logName, judge, goesThrough, dir, freePort, wire, eventually, poll, pub } from './lib.mjs';

const works = async (t, url, options = {}) => {
  const log = logName(), [a, b] = await Promise.all(['a', 'b'].map((name) => node(t, url, { log, name, ...options }))), r = await Reader.open(b, 'x');
  await pub(a, 'x', 'm');
  await r.until('m');
  r.close();
  return { log, a, b };
};
// Ends with this status and a line that says what.
async function fails(t, url, code, says, options = {}) {
  const d = tryNode(t, url, { log: logName(), name: 'a', ...options });
  await eventually(() => d.over || d.listening.length || says.test(d.stderr), `${says} in ${d.stderr}`);
  assert.deepEqual(d.listening, []);
  assert.match(d.stderr, says);
  if (code !== undefined) { await eventually(() => d.over, 'its end'); assert.equal(d.over.code, code, d.stderr); }
  return d;
}

describe('addresses', { concurrency: 4 }, () => {
  test('connect_by_a_unix_socket', async (t) => {
    const r = await Redis.start(t, { path: true });
    await works(t, `unix:${r.path}`);
  });

  test('connect_by_name_and_by_ipv6', async (t) => {
    const r = await Redis.start(t, {});
    await works(t, `redis://localhost:${r.port}`);
    const six = await Redis.start(t, { args: ['--bind', '127.0.0.1', '-::1'] });
    await works(t, `redis://[::1]:${six.port}`);
  });

  test('connect_to_a_database_by_number', async (t) => {
    const r = await Redis.start(t, {}), { log } = await works(t, `redis://127.0.0.1:${r.port}/3`);
    assert.equal(await r.call('EXISTS', `{${log}}:log`), 0);
    await r.call('SELECT', 3);
    assert.equal(await r.call('EXISTS', `{${log}}:log`), 1);
    await fails(t, `redis://127.0.0.1:${r.port}/999`, undefined, /redis/i);
  });

  test('connect_the_default_log_is_rtpush__its_entries_are_as_documented', async (t) => {
    const r = await Redis.start(t, {}), d = await node(t, r, { name: 'a' }), { id } = await pub(d, 'x?event=ev', 'hello');
    const found = (await r.call('XRANGE', '{rtpush}:log', '-', '+')).find(([, f]) => f.includes('hello'));
    assert.equal(found[0], `${Number(id.slice(9))}-0`);
    const f = Object.fromEntries(found[1].flatMap((x, i, all) => (i % 2 ? [] : [[x, all[i + 1]]])));
    assert.deepEqual([f.t, f.v, f.d, f.e], ['x', 'ev', 'hello', id.slice(0, 8)]);
    assert.ok(Number(await r.call('GET', '{rtpush}:seq')) >= Number(id.slice(9)));
    // One slot of Redis Cluster: all keys have the one hash tag.
    for (const key of await r.call('KEYS', '*')) assert.ok(key.startsWith('{rtpush}'), key);
  });

  for (const url of ['nonsense', 'redis://', 'redis://:0', 'redis://127.0.0.1:99999', 'redis://127.0.0.1:1/x', 'http://127.0.0.1:6379', 'unix:', 'redis+sentinel://127.0.0.1:1', `redis://${'h'.repeat(3000)}:1`, 'redis://127.0.0.1:1,', 'redis://a b:1']) {
    test(`connect_a_bad_url_says_so_and_ends_with_2: ${url.slice(0, 40)}`, async (t) => {
      const d = tryNode(t, url, { name: 'a' });
      await eventually(() => d.over, `the end: ${d.stderr}`);
      assert.equal(d.over.code, 2, d.stderr);
      assert.match(d.stderr, /--redis/);
    });
  }

  for (const [flag, value] of [['--node', 'a b'], ['--node', 'n\n'], ['--node', 'n'.repeat(300)], ['--redis-log', ''], ['--redis-log', 'a}b{c'], ['--redis-log', 'n'.repeat(300)]]) {
    test(`connect_a_name_that_is_none_is_refused: ${flag} ${JSON.stringify(value.slice(0, 20))}`, async (t) => {
      const d = tryNode(t, 'redis://127.0.0.1:1', { args: [flag, value] });
      await eventually(() => d.over, `the end: ${d.stderr}`);
      assert.equal(d.over.code, 2, d.stderr);
    });
  }
});

describe('passwords', { concurrency: 4 }, () => {
  const PASSWORD = 'sesame-secret!@:/%';
  const escaped = encodeURIComponent(PASSWORD);

  test('connect_with_a_password', async (t) => {
    const r = await Redis.start(t, { args: ['--requirepass', PASSWORD], auth: [PASSWORD] });
    const { a, b } = await works(t, `redis://:${escaped}@127.0.0.1:${r.port}/0`);
    for (const d of [a, b]) assert.doesNotMatch(d.stderr, /sesame/);
    for (const url of [`redis://127.0.0.1:${r.port}`, `redis://:sesame-wrong@127.0.0.1:${r.port}`]) {
      const d = await fails(t, url, undefined, /NOAUTH|WRONGPASS|auth|password/i);
      assert.doesNotMatch(d.stderr, /sesame/);
    }
  });

  test('connect_as_a_user_with_the_least_rights_that_the_manual_names', async (t) => {
    const r = await Redis.start(t, { args: ['--user', 'push', 'on', `>${PASSWORD}`, '~{lim}:*', '&*', '+@all', '-@dangerous', '+info', '+client'] });
    await works(t, `redis://push:${escaped}@127.0.0.1:${r.port}`, { log: 'lim' }).catch((e) => assert.fail(e));
    const d = await fails(t, `redis://push:${escaped}@127.0.0.1:${r.port}`, undefined, /NOPERM/, { log: 'other' });
    assert.doesNotMatch(d.stderr, /sesame/);
  });

  test('connect_the_rights_are_taken_away_and_given_back', async (t) => {
    const r = await Redis.start(t, { args: ['--user', 'push', 'on', `>${PASSWORD}`, '~*', '&*', '+@all'] });
    const { a } = await works(t, `redis://push:${escaped}@127.0.0.1:${r.port}`), reader = await Reader.open(a, 'x');
    await r.call('ACL', 'SETUSER', 'push', 'off');
    await r.call('CLIENT', 'KILL', 'USER', 'push');
    const { status } = await wire.post(a, '/live/x', 'refused');
    assert.equal(status, 503);
    await r.call('ACL', 'SETUSER', 'push', 'on');
    const last = await goesThrough(a, 'x');
    await reader.until(last.data);
    assert.ok(!reader.has('refused'));
    reader.close();
  });
});

// --- TLS ---

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'], cwd: dir });
function certificate(name) {
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-subj', `/CN=${name}`, '-days', '2', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1');
  return { cert: path.join(dir, `${name}.pem`), key: path.join(dir, `${name}.key`) };
}
const hasTls = () => { try { return /libssl/.test(execFileSync('ldd', [execFileSync('sh', ['-c', `command -v ${REDIS}`]).toString().trim()]).toString()); } catch { return false; } };

describe('TLS', { skip: !hasTls() && 'this redis-server has no TLS' }, () => {
  const start = async (t, { cert, key }) => {
    const tls = await freePort(), r = await Redis.start(t, { args: ['--tls-port', tls, '--tls-cert-file', cert, '--tls-key-file', key, '--tls-auth-clients', 'no', '--tls-ca-cert-file', cert] });
    return Object.assign(r, { tls });
  };

  test('connect_by_rediss__a_certificate_that_is_believed', async (t) => {
    const good = certificate('good'), r = await start(t, good);
    process.env.SSL_CERT_FILE = good.cert;
    const { a, b } = await works(t, `rediss://localhost:${r.tls}`, { use: 'tls' });
    const big = 'x'.repeat(1 << 20);
    await pub(a, 'big', big);
    await eventually(async () => (await poll(b, '/live/big')).messages[0]?.data === big, '1 MiB');
    await r.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await goesThrough(a, 'x');
    // The same server under a name that is not in its certificate.
    await fails(t, `rediss://127.0.0.2:${r.tls}`, undefined, /redis/i, { use: 'tls' });
    const other = await start(t, certificate('stranger'));
    await fails(t, `rediss://localhost:${other.tls}`, undefined, /certificate|verif|TLS|tls/, { use: 'tls' });
    await fails(t, `rediss://localhost:${r.port}`, undefined, /redis/i, { use: 'tls' }); // speaks no TLS there
  });

  test('connect_by_rediss_without_OpenSSL__says_so_and_ends', async (t) => {
    const r = await Redis.start(t, {}), d = tryNode(t, `rediss://:sesame@127.0.0.1:${r.port}`, { name: 'a' });
    await eventually(() => d.over, 'the end', 20000);
    assert.ok([1, 2].includes(d.over.code));
    assert.match(d.stderr, /OPENSSL|OpenSSL|TLS/);
  });
});

// --- Sentinel ---

describe('Sentinel', { concurrency: 2 }, () => {
  async function sentinel(t, master) {
    const home = fs.mkdtempSync(path.join(dir, 'sentinel-')), port = await freePort(), conf = path.join(home, 'conf');
    fs.writeFileSync(conf, `port ${port}\nbind 127.0.0.1\ndir ${home}\nloglevel warning\nsentinel monitor mine 127.0.0.1 ${master.port} 1\nsentinel down-after-milliseconds mine 700\nsentinel failover-timeout mine 5000\n`);
    const p = spawn(REDIS, [conf, '--sentinel'], { stdio: 'ignore' });
    const over = new Promise((done) => p.on('close', done).on('error', done));
    atEnd(t, () => { p.kill('SIGKILL'); return over; });
    const client = await eventually(() => Resp.open({ host: '127.0.0.1', port }).catch(() => null), 'the sentinel');
    return { port, client };
  }

  test('connect_by_sentinel__and_follow_its_failover', async (t) => {
    const master = await Redis.start(t, {}), replica = await Redis.start(t, { args: ['--repl-diskless-sync-delay', '0'] });
    await replica.call('REPLICAOF', '127.0.0.1', master.port);
    const s = await sentinel(t, master), gone = await freePort();
    await eventually(async () => /master_link_status:up/.test(await replica.call('INFO', 'replication')), 'replication', 20000);
    await eventually(async () => (await s.client.call('SENTINEL', 'REPLICAS', 'mine')).length > 0, 'the sentinel knows the replica', 25000);
    // The first of the list is not there.
    const { a, b } = await works(t, `redis+sentinel://127.0.0.1:${gone},127.0.0.1:${s.port}/mine`);
    const rs = await Promise.all([a, b].map((d) => Reader.open(d, 'x')));
    const p = new Publisher([a, b], 'x', { every: 50 });
    await eventually(() => p.acked.length > 5, 'it flows');
    await master.kill();
    const from = () => p.acked.filter((x) => x.asked > promoted).length;
    // By a connection of each question's own: a sentinel that promotes may cut those that there are.
    const role = async () => {
      const c = await Resp.open({ host: '127.0.0.1', port: replica.port });
      try { return await c.call('INFO', 'replication'); } finally { c.socket.destroy(); }
    };
    await eventually(async () => /role:master/.test(await role().catch(() => '')), 'the replica is promoted', 25000);
    const promoted = Date.now();
    await eventually(() => from() > 5, `it flows again: ${a.lines.slice(-4)}`, 20000);
    await p.stop();
    const last = await goesThrough(a, 'x');
    for (const r of rs) await r.until(last.data);
    judge(rs, [...p.acked, last]);
    for (const r of rs) r.close();
  });

  test('connect_by_sentinel__a_master_it_does_not_know', async (t) => {
    const master = await Redis.start(t, {}), s = await sentinel(t, master);
    await fails(t, `redis+sentinel://127.0.0.1:${s.port}/nobody`, undefined, /nobody|sentinel/i);
  });
});
