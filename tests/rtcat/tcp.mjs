// Below HTTP: connections that are refused, reset, silent; names and paths that are not there; flags and URLs; TLS.
import tls from 'node:tls';
import os from 'node:os';
import fs from 'node:fs';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { sleep, text, close, response, poll, message, streamHead, chunk, block, hello, told, cursor } from './lib.mjs';

const transports = [['ws', ['--transport', 'ws']], ['sse', ['--transport', 'sse']], ['lp', ['--transport', 'lp']], ['sp', ['--transport', 'sp']], ['plain', ['--plain']], ['foreign_sse', ['--sse']]];
const GIVES_UP = { exit: 1, out: '', ms: 3000 };
const once = ['--no-reconnect', '--timeout', '500'];

const tcp = [
  ...transports.flatMap(([name, how]) => [
    { name: `${name}_reset_at_once`, args: [...how, ...once], ...GIVES_UP, serve: (c) => c.reset() },
    { name: `${name}_accepted_and_closed`, args: [...how, ...once], ...GIVES_UP, serve: (c) => c.end() },
    { name: `${name}_closed_after_the_request`, args: [...how, ...once], ...GIVES_UP, async serve(c) { await c.head(); c.end(); } },
    // A long poll may rightly wait for as long as it asked for.
    { name: `${name}_accepted_and_silent`, args: [...how, ...once], ...GIVES_UP, cpu: 200, ...(name === 'lp' ? { exit: [1, 'stopped'], stop: 2000 } : {}), serve: () => sleep(20000), check: (run) => run.took < 400 && `gave up after ${run.took} ms, expected 500` },
    { name: `${name}_refused`, args: [...how, ...once], ...GIVES_UP, urls: ['http://127.0.0.1:1/live/t'] },
    { name: `${name}_closing_does_not_spin`, args: how, exit: 'stopped', stop: 1600, cpu: 400, out: '', conns: 12, async serve(c) { await c.head(); c.end(); } },
  ]),
  { name: 'auto_refused', args: once, ...GIVES_UP, urls: ['http://127.0.0.1:1/live/t'] },
  { name: 'auto_silent', args: once, ...GIVES_UP, serve: () => sleep(20000) },
  { name: 'refused_does_not_spin', args: [], exit: 'stopped', stop: 1600, cpu: 250, out: '', urls: ['http://127.0.0.1:1/live/t'] },
  { name: 'timeout_counts_from_the_connection_not_from_the_last_byte', args: ['--transport', 'sse', ...once], ...GIVES_UP, async serve(c) { await c.head(); await c.trickle('HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy', 100); } },
  { name: 'name_that_does_not_exist', args: once, exit: 1, out: '', ms: 6000, urls: ['http://nonexistent.invalid/live/t'] },
  { name: 'name_that_is_too_long', args: once, exit: [1, 2], out: '', ms: 6000, urls: [`http://${'a'.repeat(300)}.invalid/live/t`] },
  { name: 'unix_path_that_is_not_there', args: once, ...GIVES_UP, urls: ['unix:/nonexistent/rtcat.sock:/live/t'] },
  { name: 'unix_path_that_is_a_file', args: once, ...GIVES_UP, urls: ['unix:/etc/passwd:/live/t'] },
  { name: 'unix_path_that_is_too_long', args: once, exit: [1, 2], out: '', urls: [`unix:/tmp/${'x'.repeat(300)}:/live/t`] },
  { name: 'unix_works', args: ['--transport', 'lp', '--count', '1'], unix: true, exit: 0, out: 'm1\n', async serve(c) { await c.head(); c.write(response(poll([message(1)]))); } },
  { name: 'unix_works_by_ws', args: ['--transport', 'ws', '--no-reconnect'], unix: true, exit: 0, out: 'm1\n', async serve(c) { await c.accept('v1', hello(), told(1), close(1000)); } },
  { name: 'ipv6_works', args: ['--plain', '--no-reconnect'], scheme: 'ws', host: '::1', exit: 0, out: 'x\n',
    async serve(c, n, run) { const r = await c.accept('plain', text('x'), close(1000)); if (r.headers.host !== `[::1]:${run.port}`) run.fault(`Host ${r.headers.host}`); } },
  { name: 'localhost_works', args: ['--transport', 'lp', '--count', '1'], exit: 0, out: 'm1\n', host: undefined, async serve(c, n, run) { const r = await c.head(); if (r.headers.host !== `127.0.0.1:${run.port}`) run.fault(`Host ${r.headers.host}`); c.write(response(poll([message(1)]))); } },
  // The other end of stdout.
  { name: 'reader_of_stdout_goes_away', args: ['--plain'], scheme: 'ws', shutOut: true, exit: [0, 1, 'SIGPIPE'], cpu: 400, async serve(c) { await c.accept('plain'); for (let i = 0; !c.isOver; i++) { c.write(text(`m${i}`)); await sleep(50); } } },
  { name: 'full_disk_is_an_error', args: ['--plain', '--no-reconnect'], scheme: 'ws', outTo: '/dev/full', exit: [1], cpu: 400, async serve(c) { await c.accept('plain', text('x'.repeat(100000)), close(1000)); } },
  { name: 'slow_reader_of_stdout_costs_no_memory_and_loses_nothing', args: ['--plain', '--no-reconnect'], scheme: 'ws', slowOut: 1500, exit: 0, cpu: 3000, ms: 10000, out: (out) => out.length === 10000 * 1006 && out.slice(-7) === '009999\n',
    async serve(c) { await c.accept('plain'); for (let i = 0; i < 10000; i += 50) await c.push(Buffer.concat(Array.from({ length: 50 }, (_, k) => text('y'.repeat(999) + String(i + k).padStart(6, '0'))))); c.write(close(1000)); } },
  { name: 'sigterm_ends_it', args: ['--transport', 'sse'], exit: 'stopped', stop: 800, ms: 1500, out: 'm1\n', async serve(c) { await c.head(); c.write(streamHead(), chunk(block(1))); } },
];

// --- flags and URLs: exit 2, one line, nothing sent ---

const words = {
  no_url: [], two_urls: ['http://127.0.0.1:1/live/t', 'http://127.0.0.1:1/live/u'], unknown_flag: ['--dance', 'http://127.0.0.1:1/live/t'],
  empty: [''], only_a_scheme: ['http://'], scheme_and_slash: ['http:///live/t'], ftp: ['ftp://x/live/t'], no_scheme: ['127.0.0.1:1/live/t'], file: ['file:///live/t'], scheme_in_part: ['httpx://127.0.0.1:1/live/t'],
  port_0: ['http://127.0.0.1:0/live/t'], port_99999: ['http://127.0.0.1:99999/live/t'], port_65536: ['http://127.0.0.1:65536/live/t'], port_that_wraps: ['http://127.0.0.1:4294967297/live/t'], port_negative: ['http://127.0.0.1:-1/live/t'],
  port_with_a_letter: ['http://127.0.0.1:80x/live/t'], port_with_a_plus: ['http://127.0.0.1:+80/live/t'], two_ports: ['http://127.0.0.1:1:2/live/t'],
  user: ['http://user@127.0.0.1:1/live/t'], user_and_password: ['http://a:b@127.0.0.1:1/live/t'],
  space_in_the_host: ['http://a b/live/t'], space_before: [' http://127.0.0.1:1/live/t'], line_feed_in_the_host: ['http://a\nb/live/t'], cr_lf_in_the_path: ['http://127.0.0.1:1/live/t HTTP/1.1\r\nX: y\r\n\r\n'],
  empty_topic: ['http://127.0.0.1:1/live/'], ipv6_without_its_end: ['http://[::1/live/t'], ipv6_that_is_none: ['http://[zz]:1/live/t'], ipv6_with_a_tail: ['http://[::1]x:1/live/t'],
  unix_without_a_path: ['unix:'], unix_with_an_empty_path: ['unix::/live/t'],
  header_with_cr_lf: ['--header', 'A: b\r\nC: d', 'http://127.0.0.1:1/live/t'], header_with_lf: ['--header', 'A: b\nC: d', 'http://127.0.0.1:1/live/t'], header_without_colon: ['--header', 'nothing', 'http://127.0.0.1:1/live/t'],
  header_without_name: ['--header', ': x', 'http://127.0.0.1:1/live/t'], header_name_with_a_space: ['--header', 'a b: x', 'http://127.0.0.1:1/live/t'], header_with_space_before_colon: ['--header', 'a : x', 'http://127.0.0.1:1/live/t'],
  token_with_cr_lf: ['--token', 'a\r\nX: y', 'http://127.0.0.1:1/live/t'],
  count_not_a_number: ['--count', 'x', 'http://127.0.0.1:1/live/t'], count_negative: ['--count', '-1', 'http://127.0.0.1:1/live/t'], count_with_a_tail: ['--count', '5x', 'http://127.0.0.1:1/live/t'], count_that_overflows: ['--count', '99999999999999999999999', 'http://127.0.0.1:1/live/t'],
  timeout_not_a_number: ['--timeout', 'x', 'http://127.0.0.1:1/live/t'], timeout_negative: ['--timeout', '-1', 'http://127.0.0.1:1/live/t'], timeout_that_overflows: ['--timeout', '99999999999999999999999', 'http://127.0.0.1:1/live/t'],
  transport_unknown: ['--transport', 'pigeon', 'http://127.0.0.1:1/live/t'], transport_empty: ['--transport', '', 'http://127.0.0.1:1/live/t'], flag_without_its_value: ['http://127.0.0.1:1/live/t', '--count'],
  plain_and_sse: ['--plain', '--sse', 'http://127.0.0.1:1/live/t'],
};
const refused = Object.entries(words).map(([name, urls]) => ({ name: `bad_${name}`, urls, args: ['--no-reconnect'], exit: name === 'plain_and_sse' ? [1, 2] : 2, out: '', ms: 3000 }));

// Where a client may encode instead of refusing: nothing of it may become a line of its own on the wire.
const smuggle = (name, args, more) => ({
  name, args: ['--transport', 'lp', '--no-reconnect', '--timeout', '1000', '--count', '1', ...args], exit: [0, 2], out: ['m1\n', ''], ...more,
  async serve(c, n, run) { const r = await c.head(); if ('x' in r.headers || /\r\nx: y/i.test(r.raw)) run.fault(`smuggled: ${JSON.stringify(r.raw)}`); c.write(response(poll([message(1)]))); },
});

const heads = [
  smuggle('since_with_cr_lf', ['--since', `${cursor(1)}\r\nX: y`]),
  smuggle('since_with_a_space_and_an_ampersand', ['--since', 'a b&x=y HTTP/1.1']),
  smuggle('path_with_cr_lf', [], { path: '/live/t\r\nX: y' }),
  smuggle('path_with_a_space', [], { path: '/live/a b' }),
  smuggle('path_in_utf8', [], { path: '/live/ä€' }),
  smuggle('path_encoded', [], { path: '/live/a%20b%2Fc', exit: 0, check: (run) => run.requests[0]?.path !== '/live/a%20b%2Fc' && `asked for ${run.requests[0]?.path}` }),
  { name: 'headers_and_token_are_sent_with_every_request', args: ['--transport', 'lp', '--count', '2', '--header', 'X-A: 1', '--header', 'X-B:2', '--token', 'secret'], exit: 0, out: 'm1\nm2\n', err: /^(?![^]*secret)/,
    async serve(c, n, run) {
      for (;;) {
        const r = await c.head();
        if (r.headers['x-a'] !== '1' || r.headers['x-b'] !== '2') run.fault(`headers ${JSON.stringify(r.headers)}`);
        if (r.headers.authorization !== 'Bearer secret' && r.query.get('token') !== 'secret') run.fault(`no token: ${JSON.stringify(r.headers)}`);
        c.write(response(poll([message(run.requests.length)])));
      }
    } },
  { name: 'token_by_ws', args: ['--transport', 'ws', '--no-reconnect', '--token', 'secret', '--header', 'X-A: 1'], exit: 0, out: 'm1\n',
    async serve(c, n, run) { const r = await c.accept('v1', hello(), told(1), close(1000)); if (r.headers.authorization !== 'Bearer secret' && r.query.get('token') !== 'secret') run.fault('no token'); if (r.headers['x-a'] !== '1') run.fault('no header'); } },
  { name: 'token_is_not_told_when_it_is_refused', args: ['--transport', 'lp', '--token', 'secretsecret'], exit: 1, out: '', err: /^(?![^]*secretsecret)/, conns: 1, async serve(c) { await c.head(); c.write(response('{"error":"unauthorized","reason":"no"}\n', {}, '401 Unauthorized')); } },
  { name: 'a_header_of_20000_bytes_is_sent_whole_or_refused', args: ['--transport', 'lp', '--count', '1', '--header', `X-Long: ${'y'.repeat(20000)}`], exit: [0, 2], out: ['m1\n', ''],
    async serve(c, n, run) { const r = await c.head(); if (r.headers['x-long']?.length !== 20000) run.fault(`X-Long of ${r.headers['x-long']?.length}`); c.write(response(poll([message(1)]))); } },
  { name: 'since_is_sent', args: ['--transport', 'lp', '--count', '1', '--since', cursor(41)], exit: 0, out: 'm42\n', async serve(c, n, run) { const r = await c.head(); if (r.since !== cursor(41)) run.fault(`since ${r.since}`); c.write(response(poll([message(42)]))); } },
  { name: 'query_of_the_url_is_kept', args: ['--transport', 'lp', '--count', '1', '--since', 'earliest'], path: '/live/t?topic=u&x=1', exit: 0, out: 'm1\n',
    async serve(c, n, run) { const r = await c.head(); if (r.query.get('topic') !== 'u' || r.query.get('x') !== '1' || r.since !== 'earliest') run.fault(`asked ${r.target}`); c.write(response(poll([message(1)]))); } },
];

// --- TLS ---

// Certificates that nobody signed, made once; without openssl there are none and the cases are skipped.
let pair;
function certificate() {
  if (pair) return pair;
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtcat-'));
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1,DNS:localhost', '-keyout', `${dir}/key`, '-out', `${dir}/cert`], { stdio: 'ignore' });
  pair = { key: fs.readFileSync(`${dir}/key`), cert: fs.readFileSync(`${dir}/cert`) };
  fs.rmSync(dir, { recursive: true });
  return pair;
}
const secure = (serve) => tls.createServer(certificate(), serve);
const noTls = (run) => (/(without|no|not|needs?|yet).*(tls|ssl|https|wss)|(tls|ssl|https|wss).*(without|no|not|needs?|yet)/i.test(run.stderr) && run.peers.length === 0 && !/certificate|verif|self.signed/i.test(run.stderr) ? 'this build of rtcat has no TLS' : '');
const tlsCases = [
  { name: 'tls_of_nobody_is_refused', scheme: 'https', tls: secure, args: ['--transport', 'lp', ...once, '--count', '1'], exit: [1, 3], out: '', skip: noTls, check: (run) => run.requests.length > 0 && 'the request was sent to a server that nobody vouches for', async serve(c) { await c.head(); c.write(response(poll([message(1)]))); } },
  { name: 'tls_insecure_works', scheme: 'https', tls: secure, args: ['--transport', 'lp', '--insecure', '--no-reconnect', '--count', '1'], exit: 0, out: 'm1\n', skip: noTls, cpu: 800, async serve(c) { await c.head(); c.write(response(poll([message(1)]))); } },
  { name: 'tls_insecure_works_by_wss', scheme: 'wss', tls: secure, args: ['--plain', '--insecure', '--no-reconnect'], exit: 0, out: 'x\n', skip: noTls, cpu: 800, async serve(c) { await c.accept('plain', text('x'), close(1000)); } },
  { name: 'tls_with_a_server_that_has_none', scheme: 'https', args: ['--transport', 'lp', ...once], exit: [1, 3], out: '', skip: (run) => (run.peers.length ? '' : noTls(run)), serve: (c) => c.end('HTTP/1.1 400 Bad Request\r\n\r\n') },
  // A build without TLS must say so, not speak in the clear.
  { name: 'https_is_never_spoken_in_the_clear', scheme: 'https', args: ['--transport', 'lp', ...once, '--token', 'secret'], exit: [1, 2, 3], out: '', async serve(c, n, run) { await Promise.race([sleep(300), c.until(() => (c.buffer.length >= 3 ? true : undefined))]); if (/GET|secret/.test(c.buffer.toString('latin1'))) run.fault('a request in the clear'); } },
];

export default [...tcp, ...refused, ...heads, ...tlsCases].map((c) => ({ ...c, name: `tcp_${c.name}` }));
