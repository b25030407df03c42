// The handshake: versions, ALPN (RFC 7301), resumption, renegotiation, SNI (RFC 6066 §3), client certificates.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import tls from 'node:tls';
import { execFileSync } from 'node:child_process';
import { daemon, curl, rtcat, run, sClient, issue, authority, ca, good, serialOf, file, dir, wire, eventually, sleep, range, build, root, TlsDaemon } from './lib.mjs';

const VERSIONS = ['TLSv1.2', 'TLSv1.3'];
const only = (version) => ({ minVersion: version, maxVersion: version });
const flagOf = { 'TLSv1.2': '-tls1_2', 'TLSv1.3': '-tls1_3' };
// Old versions are off in today's openssl command unless the security level says otherwise.
const OLD = ['-cipher', 'ALL:@SECLEVEL=0'];
const refused = async (d, options) => {
  try { const s = await d.socket(options); s.destroy(); } catch (e) { return e; }
  return assert.fail('it was let in');
};

describe('versions', { concurrency: 2 }, () => {
  for (const version of VERSIONS) {
    test(`${version}_is_accepted`, async (t) => {
      const d = await daemon(t);
      const r = await sClient(d, [flagOf[version]]);
      assert.match(r.out, new RegExp(`Protocol *: ${version}|New, ${version}`), r.err);
      assert.match(r.out, /Verify return code: 0 \(ok\)/);
      const s = await d.socket(only(version));
      assert.equal(s.getProtocol(), version);
      s.destroy();
    });
  }

  for (const [version, flag] of [['1.1', '-tls1_1'], ['1.0', '-tls1']]) {
    test(`TLS_${version}_is_refused_by_the_server`, async (t) => {
      const d = await daemon(t);
      const r = await sClient(d, [flag, ...OLD]);
      assert.match(r.err, /alert protocol version/, r.err + r.out); // what the server said, not our own library
      assert.match(r.out, /no peer certificate/);
      assert.match((await sClient(d, ['-tls1_2', ...OLD])).out, /Verify return code: 0/);
    });
  }
});

describe('ALPN', { concurrency: 2 }, () => {
  test('http_1_1_is_chosen__h2_alone_is_refused__none_is_let_in', async (t) => {
    const d = await daemon(t);
    for (const version of VERSIONS) {
      for (const ALPNProtocols of [['h2', 'http/1.1'], ['http/1.1'], ['x', 'http/1.1', 'h2']]) {
        const s = await d.socket({ ALPNProtocols, ...only(version) });
        assert.equal(s.alpnProtocol, 'http/1.1');
        s.destroy();
      }
      for (const ALPNProtocols of [['h2'], ['http/1.0'], ['http/1.1x'], ['h2', 'h3']]) {
        const e = await refused(d, { ALPNProtocols, ...only(version) });
        assert.match(String(e.code), /NO_APPLICATION_PROTOCOL/, `${ALPNProtocols}: ${e}`);
      }
      const s = await d.socket({ ALPNProtocols: undefined, ...only(version) });
      assert.equal(s.alpnProtocol, false);
      s.destroy();
    }
    assert.match((await sClient(d, ['-alpn', 'h2'])).err, /alert no application protocol/);
    assert.equal((await wire.get(d, '/hello')).text, 'hello');
  });

  test('curl_that_prefers_http_2_gets_1_1', async (t) => {
    const d = await daemon(t);
    const r = await run('curl', ['-sS', '--http2', '--cacert', ca.cert, '--resolve', `localhost:${d.port}:127.0.0.1`, `${d.url}/hello`, '-w', ' %{http_version}'], { input: '' });
    assert.equal(r.out, 'hello 1.1', r.err);
  });
});

describe('resumption', { concurrency: 2 }, () => {
  for (const version of VERSIONS) {
    test(`${version}_by_s_client`, async (t) => {
      const d = await daemon(t);
      const at = file(`session-${version}`), request = 'GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n';
      const first = await sClient(d, [flagOf[version], '-ign_eof', '-sess_out', at], { input: request }); // the ticket of 1.3 comes behind the handshake
      assert.match(first.out, /\nNew, /, first.err);
      assert.ok(fs.existsSync(at), 'a session was kept');
      const second = await sClient(d, [flagOf[version], '-ign_eof', '-sess_in', at], { input: request });
      assert.match(second.out, /\nReused, /);
      assert.match(second.out, /\r\n\r\nhello/);
    });

    test(`${version}_by_node__and_its_first_request_is_answered`, async (t) => {
      const d = await daemon(t);
      const { isReused, session } = await sessionOf(d, only(version));
      assert.equal(isReused, false);
      const s = await d.socket({ ...only(version), session });
      assert.equal(s.isSessionReused(), true);
      const conn = new wire.Conn(s, d);
      conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
      assert.equal((await conn.response()).text, 'hello');
      s.destroy();
    });
  }

  test('s_client_reconnect__five_times_the_same_session', async (t) => {
    const d = await daemon(t);
    const r = await sClient(d, ['-tls1_2', '-reconnect'], { input: [1500, 'Q\n'] });
    assert.equal(r.out.match(/\nReused, TLSv1\.2/g)?.length, 5, r.out);
  });

  test('a_session_of_before_a_reload_or_of_another_server_makes_a_whole_handshake', async (t) => {
    const d = await daemon(t), other = await daemon(t);
    const { session } = await sessionOf(d);
    const there = await other.socket({ session });
    assert.equal(there.isSessionReused(), false);
    there.destroy();
    d.process.kill('SIGHUP');
    await eventually(async () => { const s = await d.socket({ session }); s.destroy(); return !s.isSessionReused(); }, 'the new context');
    assert.equal((await wire.get(d, '/hello')).text, 'hello');
  });
});

async function sessionOf(d, options = {}) {
  const c = await d.socket(options);
  let session;
  c.on('session', (s) => { session = s; });
  if (c.getProtocol() === 'TLSv1.2') session = c.getSession();
  const conn = new wire.Conn(c, d);
  conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
  assert.equal((await conn.response()).text, 'hello');
  await eventually(() => session, 'a session');
  const isReused = c.isSessionReused();
  c.destroy();
  return { isReused, session };
}

describe('after the handshake', { concurrency: 2 }, () => {
  test('renegotiation_is_refused__and_the_server_goes_on', async (t) => {
    const d = await daemon(t);
    const r = await sClient(d, ['-tls1_2', '-legacy_renegotiation'], { input: [200, 'R\n', 1000, 'Q\n'] });
    assert.match(r.out + r.err, /RENEGOTIATING/);
    assert.match(r.err, /no renegotiation/, r.out + r.err); // the alert that the server sent
    assert.equal((await wire.get(d, '/hello')).text, 'hello');
    await eventually(async () => (await wire.stats(d)).connections === 1, 'only the one that asks');
  });

  test('new_keys_of_1_3_in_the_middle__asked_for_and_not', async (t) => {
    const d = await daemon(t);
    const ask = 'POST /hello HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n';
    const r = await sClient(d, ['-tls1_3'], { input: [`${ask}a1`, 500, 'K\n', 500, `${ask}a2`, 500, 'k\n', 500, `${ask}a3`, 700, 'Q\n'] });
    assert.equal((r.out + r.err).match(/KEYUPDATE/g)?.length, 2, r.out + r.err);
    assert.deepEqual([...r.out.matchAll(/^(a[123])/gm)].map((m) => m[1]), ['a1', 'a2', 'a3'], r.out.slice(-2000));
  });
});

describe('SNI', { concurrency: 2 }, () => {
  test('the_name_picks_the_certificate__unknown_and_none_get_the_first', async (t) => {
    const other = issue('other', { ca, names: 'DNS:other.example,DNS:*.wild.example' }), third = issue('third', { ca, names: 'DNS:third.example' });
    const d = await daemon(t, ...[good, other, third].flatMap((c) => ['--cert', c.cert, '--key', c.key]));
    for (const version of VERSIONS) for (const [name, wanted] of [
      ['localhost', good], ['other.example', other], ['OTHER.example', other], ['a.wild.example', other], ['a.b.wild.example', good],
      ['wild.example', good], ['third.example', third], ['third.example.org', good], ['nobody.example', good], ['', good],
    ]) {
      const s = await d.socket({ ...only(version), servername: name, rejectUnauthorized: false });
      assert.equal(serialOf(s.getPeerCertificate()), wanted.serial, `${version} ${name}`);
      assert.equal(s.alpnProtocol, 'http/1.1');
      s.destroy();
    }
    const r = await run('curl', ['-sS', '--cacert', ca.cert, '--resolve', `other.example:${d.port}:127.0.0.1`, `https://other.example:${d.port}/hello`], { input: '' });
    assert.equal(r.out, 'hello', r.err);
  });

  test('a_chain_of_two_is_sent_whole__and_the_key_may_be_in_the_certificates_file', async (t) => {
    const middle = issue('middle', { ca, names: '', usage: 'serverAuth' });
    fs.writeFileSync(file('middle.ext'), 'basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n');
    execFileSync('openssl', ['x509', '-req', '-in', 'middle.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', '77', '-days', '2', '-extfile', 'middle.ext', '-out', 'middle.pem'], { cwd: dir, stdio: 'pipe' });
    const leaf = issue('leaf', { ca: { name: 'middle', cert: middle.cert } });
    fs.writeFileSync(file('chain.pem'), [leaf.cert, middle.cert, leaf.key].map((f) => fs.readFileSync(f)).join(''));
    const d = await daemon(t, '--cert', file('chain.pem'));
    assert.equal((await curl(d, '/hello')).out, 'hello');
    assert.equal((await rtcat(`${d.wss}/echo`, ['--plain', '--count', '1'], { input: 'x\n' })).out, 'x\n');
  });
});

describe('client certificates', { concurrency: 2 }, () => {
  const clients = authority('clients'), strangers = authority('strangers');
  const mine = issue('mine', { ca: clients, names: '', usage: 'clientAuth' });
  const stranger = issue('stranger', { ca: strangers, names: '', usage: 'clientAuth' });
  const expired = issue('was-mine', { ca: clients, names: '', usage: 'clientAuth', days: -1 });
  const server = issue('not-a-client', { ca: clients, usage: 'serverAuth' });
  const flags = (c) => (c ? ['--cert', c.cert, '--key', c.key] : []);
  const start = (t) => daemon(t, '--client-ca', clients.cert);

  for (const version of VERSIONS) {
    test(`curl_${version}`, async (t) => {
      const d = await start(t);
      const max = ['--tlsv1.2', '--tls-max', version.slice(4)];
      const ok = await curl(d, '/hello', [...max, ...flags(mine)]);
      assert.equal(ok.out, 'hello', ok.err);
      for (const [c, alert] of [[null, /certificate required|handshake failure/], [stranger, /unknown ca/], [expired, /certificate expired|\(60\) SSL certificate verification failed/], [server, /unsupported certificate|unsuitable|certificate unknown/]]) {
        const r = await curl(d, '/hello', [...max, ...flags(c)]);
        assert.ok([35, 56, 16, 55, 60].includes(r.code), `${c?.name}: exit ${r.code}, ${r.out}`);
        assert.equal(r.out, '');
        assert.match(r.err, alert, c?.name ?? 'none');
      }
      assert.equal((await curl(d, '/hello', flags(mine))).out, 'hello');
    });

    // In TLS 1.3 a client learns only after its handshake that its certificate is refused: with the first bytes.
    test(`node_${version}`, async (t) => {
      const d = await start(t);
      const attempt = async (c) => {
        const pair = c ? { cert: fs.readFileSync(c.cert), key: fs.readFileSync(c.key) } : {};
        try {
          const conn = new wire.Conn(await d.socket({ ...only(version), ...pair }), d);
          conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
          return (await conn.response()).text;
        } catch (e) { return null; }
      };
      assert.equal(await attempt(mine), 'hello');
      for (const c of [null, stranger, expired, server]) assert.equal(await attempt(c), null, c?.name ?? 'none');
      d.process.kill('SIGHUP'); // and the new context asks, too
      await sleep(300);
      assert.equal(await attempt(mine), 'hello');
      assert.equal(await attempt(null), null);
    });
  }

  for (const flag of ['ws', 'sse', 'lp', 'sp']) {
    test(`rtcat_by_${flag}__none_and_another_authoritys_are_refused_and_it_ends`, async (t) => {
      const d = await start(t);
      const how = ['--transport', flag, '--count', '1', '--since', 'earliest', '--timeout', '3000'];
      const ok = await rtcat(`${d.url}/live/a`, [...how, ...flags(mine)], { input: 'x\n' });
      assert.equal(ok.code, 0, ok.err);
      assert.equal(ok.out, 'x\n');
      for (const [c, why] of [[null, /certificate required/], [stranger, /unknown ca/]]) {
        const r = await rtcat(`${d.url}/live/a`, [...how, ...flags(c)], { ms: 6000 });
        assert.ok(!r.isLate, `${c?.name ?? 'none'}: it does not end: ${r.err}`);
        assert.equal(r.code, 1, r.err);
        assert.match(r.err, why);
      }
    });
  }

  test('every_name_asks__with_more_than_one_certificate', async (t) => {
    const two = issue('two', { ca, names: 'DNS:two.example' });
    const d = await daemon(t, '--cert', good.cert, '--key', good.key, '--cert', two.cert, '--key', two.key, '--client-ca', clients.cert);
    const tries = async (host, c) => (await run('curl', ['-sS', '--cacert', ca.cert, ...flags(c), '--resolve', `${host}:${d.port}:127.0.0.1`, `https://${host}:${d.port}/hello`], { input: '' })).out;
    for (const host of ['localhost', 'two.example']) {
      assert.equal(await tries(host, mine), 'hello', host);
      assert.equal(await tries(host, null), '', host);
      assert.equal(await tries(host, stranger), '', host);
    }
  });

  const program = process.env.TLS_TWO ?? build('tls-two', `${root}/tests/tls/two.c`, ['-g', '-O0', '-DRTPUSH_OPENSSL']);
  // CVE-2025-23419: a session made at the name that asks for nothing opens the one that asks for a certificate.
  for (const version of VERSIONS) {
    test(`a_session_of_a_name_that_asks_for_none_does_not_open_one_that_does_${version}`, async (t) => {
      const two = issue(`open-${version}`, { ca, names: 'DNS:open.example' });
      const d = new TlsDaemon(['--program', program, good.cert, good.key, clients.cert, two.cert, two.key]);
      t.after(() => d.stop());
      await d.start(1);
      const ask = async (servername, options) => {
        const s = await d.socket({ ...only(version), servername, ...options });
        let session = version === 'TLSv1.2' ? s.getSession() : undefined;
        s.on('session', (x) => { session = x; });
        const conn = new wire.Conn(s, d);
        conn.write(wire.requestBytes(d.host, 'GET', '/hello'));
        const { text } = await conn.response();
        await eventually(() => session, 'a session');
        s.destroy();
        return { text, session };
      };
      const pair = { cert: fs.readFileSync(mine.cert), key: fs.readFileSync(mine.key) };
      assert.equal((await ask('localhost', pair)).text, 'hello');
      const { text, session } = await ask('open.example');
      assert.equal(text, 'hello');
      await assert.rejects(ask('localhost'), 'without a session and a certificate');
      await assert.rejects(ask('localhost', { session }), 'with the session of the other name');
      assert.equal((await ask('open.example')).text, 'hello');
    });
  }
});
