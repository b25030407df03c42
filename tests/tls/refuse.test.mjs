// What rtcat does not believe, and what it says; TLS spoken to who speaks none, and the reverse.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import tls from 'node:tls';
import fs from 'node:fs';
import https from 'node:https';
import { daemon, curl, rtcat, run, RTCAT, issue, authority, ca, good, wire, eventually, sleep, range } from './lib.mjs';

const unknown = authority('unknown');
// [name, certificate, host to ask for, what stderr says]
const CASES = [
  ['expired', issue('expired', { ca, days: -1 }), 'localhost', /certificate has expired/],
  ['wrong_host', issue('wrong-host', { ca, names: 'DNS:example.com' }), 'localhost', /hostname mismatch/],
  ['a_name_that_only_begins_alike', issue('alike', { ca, names: 'DNS:localhost.example,DNS:alocalhost' }), 'localhost', /hostname mismatch/],
  ['the_common_name_beside_other_names', issue('cn', { ca, cn: 'localhost', names: 'DNS:example.com' }), 'localhost', /hostname mismatch/],
  ['an_address_that_is_not_in_it', issue('no-address', { ca, names: 'DNS:localhost,IP:127.0.0.2' }), '127.0.0.1', /IP address mismatch/],
  ['an_address_written_as_a_name', issue('address-name', { ca, names: 'DNS:127.0.0.1' }), '127.0.0.1', /IP address mismatch/],
  ['self_signed', issue('self'), 'localhost', /self-signed certificate/],
  ['unknown_authority', issue('unknown-ca', { ca: unknown }), 'localhost', /unable to get local issuer certificate/],
  ['a_clients_certificate', issue('for-clients', { ca, usage: 'clientAuth' }), 'localhost', /unsuitable certificate purpose/],
];
const with_ = (t, c, ...args) => daemon(t, '--cert', c.cert, '--key', c.key, ...args);

describe('rtcat refuses', { concurrency: 3 }, () => {
  for (const [name, cert, host, why] of CASES) {
    test(`${name}__with_the_reason__and_insecure_believes_it`, async (t) => {
      const d = await with_(t, cert);
      for (const [url, flags] of [[`https://${host}:${d.port}/live/a`, []], [`wss://${host}:${d.port}/echo`, ['--plain']]]) {
        const r = await rtcat(url, [...flags, '--count', '1'], { input: 'x\n', ms: 8000 });
        assert.ok(!r.isLate, `it does not end: ${r.err}`);
        assert.equal(r.code, 1, r.err);
        assert.equal(r.out, '');
        assert.match(r.err, /^rtcat: [^\n]+\n$/, 'one line');
        assert.match(r.err, why);
      }
      assert.equal((await wire.get(Object.assign(d, { tls: { rejectUnauthorized: false } }), '/live/a?since=earliest')).json.messages.length, 0, 'nothing was sent to who was not believed');
      const r = await rtcat(`wss://${host}:${d.port}/echo`, ['--plain', '--count', '1', '--insecure'], { input: 'x\n' });
      assert.equal(r.out, 'x\n', r.err);
      assert.equal(r.code, 0);
    });
  }

  test('without_ca_our_authority_is_not_known__and_an_address_in_the_certificate_is_believed', async (t) => {
    const d = await daemon(t);
    const r = await run(RTCAT, [`${d.url}/live/a`, '--count', '1'], { ms: 8000 });
    assert.equal(r.code, 1);
    assert.match(r.err, /^rtcat: [^\n]*unable to get local issuer certificate[^\n]*\n$/);
    const ok = await rtcat(`wss://127.0.0.1:${d.port}/echo`, ['--plain', '--count', '1'], { input: 'x\n' });
    assert.equal(ok.out, 'x\n', ok.err);
  });

  test('a_file_that_is_not_there_or_no_certificate', async (t) => {
    const d = await daemon(t);
    for (const flags of [['--ca', '/nowhere.pem'], ['--ca', good.key], ['--cert', '/nowhere.pem'], ['--cert', good.cert, '--key', ca.cert]]) {
      const r = await run(RTCAT, [`${d.url}/live/a`, '--count', '1', ...(flags[0] === '--ca' ? [] : ['--ca', ca.cert]), ...flags], { ms: 8000 });
      assert.ok(!r.isLate, `${flags}: it does not end: ${r.err}`);
      assert.ok(r.code === 1 || r.code === 2, `${flags}: ${r.code}`);
      assert.match(r.err, /^rtcat: [^\n]+\n$/, `${flags}`);
    }
  });

  test('a_server_of_TLS_1_1_alone__and_one_that_chooses_h2', async (t) => {
    const server = (options) => new Promise((done) => {
      const s = https.createServer({ cert: fs.readFileSync(good.cert), key: fs.readFileSync(good.key), ...options }, (q, a) => a.end()).on('tlsClientError', () => {});
      t.after(() => { s.closeAllConnections(); s.close(); });
      s.listen(0, '127.0.0.1', () => done(s.address().port));
    });
    const old = await server({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' });
    const h2 = await server({ ALPNProtocols: ['h2'] });
    for (const [port, why] of [[old, /protocol version|unsupported protocol/], [h2, /no application protocol/]]) {
      const r = await rtcat(`https://localhost:${port}/live/a`, ['--count', '1'], { ms: 8000 });
      assert.ok(!r.isLate, `it does not end: ${r.err}`);
      assert.equal(r.code, 1, r.err);
      assert.match(r.err, why);
    }
  });

  test('a_redirect_from_https_to_http_is_not_followed', async (t) => {
    let isAsked = false;
    const plain = net.createServer((s) => { isAsked = true; s.destroy(); });
    await new Promise((done) => plain.listen(0, '127.0.0.1', done));
    t.after(() => plain.close());
    const s = https.createServer({ cert: fs.readFileSync(good.cert), key: fs.readFileSync(good.key) }, (q, a) => { a.writeHead(307, { Location: `http://localhost:${plain.address().port}/live/a` }); a.end(); });
    await new Promise((done) => s.listen(0, '127.0.0.1', done));
    t.after(() => { s.closeAllConnections(); s.close(); });
    const r = await rtcat(`https://localhost:${s.address().port}/live/a`, ['--count', '1', '--redirects', '3', '--no-reconnect', '--transport', 'sp'], { ms: 8000 });
    assert.notEqual(r.code, 0);
    assert.ok(!isAsked, 'it went on in the clear');
  });
});

// A close whose bytes were all read ends by FIN, not by a reset.
describe('the wrong language', { concurrency: 3 }, () => {
  test('TLS_to_a_plain_port__a_clear_end__and_the_server_goes_on', async (t) => {
    const d = await daemon(t, '--listen', 'http://127.0.0.1:0');
    const port = Number(new URL(d.listening[0]).port);
    const c = await run('curl', ['-sS', '-k', '--max-time', '5', `https://127.0.0.1:${port}/hello`], { input: '' });
    assert.equal(c.code, 35, c.err);
    const r = await rtcat(`https://localhost:${port}/live/a`, ['--count', '1'], { ms: 8000 });
    assert.equal(r.code, 1, r.err);
    assert.match(r.err, /^rtcat: [^\n]+\n$/);
    const plain = await run('curl', ['-sS', `http://127.0.0.1:${port}/hello`], { input: '' });
    assert.equal(plain.out, 'hello');
  });

  test('plain_HTTP_to_a_TLS_port__the_connection_ends_at_once__and_the_server_goes_on', async (t) => {
    const d = await daemon(t);
    const c = await d.raw();
    const begin = Date.now();
    c.write('GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const bytes = await c.eof(5000, { reset: true });
    assert.ok(Date.now() - begin < 2000, 'at once');
    assert.doesNotMatch(bytes.toString('latin1'), /hello/);
    const r = await run(RTCAT, [`http://localhost:${d.port}/live/a`, '--no-reconnect', '--transport', 'sp', '--count', '1'], { ms: 8000 });
    assert.ok(!r.isLate, r.err);
    assert.equal(r.code, 1, r.err);
    assert.equal((await wire.get(d, '/hello')).text, 'hello');
    await eventually(async () => (await wire.stats(d)).connections === 1, 'only the one that asks');
  });
});
