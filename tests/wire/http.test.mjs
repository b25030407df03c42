// HTTP/1.1 as the server must read it, by raw sockets (RFC 9110, RFC 9112). --hello answers its body.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import { daemon, get, post, request, poll, pub, pollBody, assertError, requestBytes, Sse, range, readers, parked, sleep, stats, datas, random, eventually } from './lib.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1000000);
const d = await daemon({ after }, '--hello', '/hello', '--set', 'body_max=100000');
const HOST = 'Host: h\r\n';
const raw = (s) => Buffer.from(s, 'latin1');

// Sends bytes; the answer must be this status, then the end, and nothing of what stands behind is served.
async function refused(bytes, ...statuses) {
  const c = await d.connect();
  c.write(Buffer.concat([raw(bytes), raw(`GET /hello HTTP/1.1\r\n${HOST}\r\n`)]));
  const r = await c.response();
  assertError(r, ...statuses);
  assert.equal((r.headers.connection ?? '').toLowerCase(), 'close');
  assert.equal((await c.eof(undefined, { reset: true })).length, 0, 'nothing is served after a refusal');
  c.destroy();
}

async function served(bytes, text, status = 200) {
  const c = await d.connect();
  c.write(Buffer.concat([raw(bytes), raw(`POST /hello HTTP/1.1\r\n${HOST}Content-Length: 4\r\n\r\nnext`)]));
  const r = await c.response();
  assert.equal(r.status, status, r.text);
  if (text !== undefined) assert.equal(r.text, text);
  assert.equal((await c.response()).text, 'next', 'and the connection goes on at the right byte');
  c.destroy();
}

describe('a request that is malformed is 400 and ends the connection', () => {
  const lines = {
    'bare LF after the request line (RFC 9112 §2.2)': `GET /hello HTTP/1.1\n${HOST}\r\n`,
    'bare LF after a header': 'GET /hello HTTP/1.1\r\nHost: h\nA: b\r\n\r\n',
    'bare LF at the end of the head': `GET /hello HTTP/1.1\r\n${HOST}\n`,
    'bare LF everywhere': 'GET /hello HTTP/1.1\nHost: h\n\n',
    'bare CR in a header (RFC 9112 §2.2)': `GET /hello HTTP/1.1\r\n${HOST}A: b\rC: d\r\n\r\n`,
    'bare CR in the request line': `GET /hello\r HTTP/1.1\r\n${HOST}\r\n`,
    'folded header (RFC 9112 §5.2)': `GET /hello HTTP/1.1\r\n${HOST}A: b\r\n c\r\n\r\n`,
    'folded header by a tab': `GET /hello HTTP/1.1\r\n${HOST}A: b\r\n\tc\r\n\r\n`,
    'white space before the first header (RFC 9112 §2.2)': `GET /hello HTTP/1.1\r\n Host: h\r\n\r\n`,
    'NUL in a value (RFC 9110 §5.5)': `GET /hello HTTP/1.1\r\n${HOST}A: b\0c\r\n\r\n`,
    'NUL in a name': `GET /hello HTTP/1.1\r\n${HOST}A\0: b\r\n\r\n`,
    'NUL in the target': `GET /hel\0lo HTTP/1.1\r\n${HOST}\r\n`,
    'control character in a value': `GET /hello HTTP/1.1\r\n${HOST}A: b\x01c\r\n\r\n`,
    'DEL in a value': `GET /hello HTTP/1.1\r\n${HOST}A: b\x7fc\r\n\r\n`,
    'space before the colon (RFC 9112 §5.1)': `GET /hello HTTP/1.1\r\n${HOST}A : b\r\n\r\n`,
    'tab before the colon': `GET /hello HTTP/1.1\r\n${HOST}A\t: b\r\n\r\n`,
    'header without a colon': `GET /hello HTTP/1.1\r\n${HOST}Abc\r\n\r\n`,
    'header without a name': `GET /hello HTTP/1.1\r\n${HOST}: b\r\n\r\n`,
    'name that is no token': `GET /hello HTTP/1.1\r\n${HOST}A(b): c\r\n\r\n`,
    'name with a byte over 7f': `GET /hello HTTP/1.1\r\n${HOST}\xe9: c\r\n\r\n`,
    'no Host (RFC 9112 §3.2)': 'GET /hello HTTP/1.1\r\n\r\n',
    'two Hosts': `GET /hello HTTP/1.1\r\n${HOST}${HOST}\r\n`,
    'two Hosts that differ in case of the name': `GET /hello HTTP/1.1\r\n${HOST}hOST: h\r\n\r\n`,
    'Host with a space': 'GET /hello HTTP/1.1\r\nHost: a b\r\n\r\n',
    'Host with a path': 'GET /hello HTTP/1.1\r\nHost: a/b\r\n\r\n',
    'Host with user information': 'GET /hello HTTP/1.1\r\nHost: u@h\r\n\r\n',
    'two Hosts in one value': 'GET /hello HTTP/1.1\r\nHost: a, b\r\n\r\n',
    'two spaces after the method (RFC 9112 §3)': `GET  /hello HTTP/1.1\r\n${HOST}\r\n`,
    'two spaces before the version': `GET /hello  HTTP/1.1\r\n${HOST}\r\n`,
    'space after the version': `GET /hello HTTP/1.1 \r\n${HOST}\r\n`,
    'space before the method': ` GET /hello HTTP/1.1\r\n${HOST}\r\n`,
    'tab between the parts': `GET\t/hello\tHTTP/1.1\r\n${HOST}\r\n`,
    'no version': `GET /hello\r\n${HOST}\r\n`,
    'no target': `GET HTTP/1.1\r\n${HOST}\r\n`,
    'method that is no token': `G(T /hello HTTP/1.1\r\n${HOST}\r\n`,
    'target without a slash': `GET hello HTTP/1.1\r\n${HOST}\r\n`,
    'authority form for GET (RFC 9112 §3.2.3)': `GET h:80 HTTP/1.1\r\n${HOST}\r\n`,
    'version in lower case': `GET /hello http/1.1\r\n${HOST}\r\n`,
    'version without a minor digit': `GET /hello HTTP/1\r\n${HOST}\r\n`,
    'version 1.10': `GET /hello HTTP/1.10\r\n${HOST}\r\n`,
    'version 1.1 and more': `GET /hello HTTP/1.1x\r\n${HOST}\r\n`,
    'not HTTP at all': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
  };
  for (const [name, bytes] of Object.entries(lines)) test(`http_400: ${name}`, () => refused(bytes, 400));

  const framing = {
    'Content-Length and Transfer-Encoding (RFC 9112 §6.3)': 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'Transfer-Encoding and Content-Length': 'Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n',
    'Content-Length 0 and Transfer-Encoding': 'Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'two Content-Lengths': 'Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc',
    'two Content-Lengths that differ': 'Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd',
    'Content-Length 3, 3': 'Content-Length: 3, 3\r\n\r\nabc',
    'Content-Length +3': 'Content-Length: +3\r\n\r\nabc',
    'Content-Length -1': 'Content-Length: -1\r\n\r\n',
    'Content-Length 0x3': 'Content-Length: 0x3\r\n\r\nabc',
    'Content-Length 3 3': 'Content-Length: 3 3\r\n\r\nabc',
    'Content-Length 3a': 'Content-Length: 3a\r\n\r\nabc',
    'Content-Length empty': 'Content-Length: \r\n\r\n',
    'Content-Length 3.0': 'Content-Length: 3.0\r\n\r\nabc',
  };
  for (const [name, rest] of Object.entries(framing)) test(`http_400: ${name}`, () => refused(`POST /hello HTTP/1.1\r\n${HOST}${rest}`, 400));
  test('http_400_or_413: Content-Length over 64 bits', async () => {
    for (const n of ['18446744073709551616', '18446744073709551619', '9'.repeat(30)]) await refused(`POST /hello HTTP/1.1\r\n${HOST}Content-Length: ${n}\r\n\r\nabc`, 400, 413);
  });

  const codings = ['gzip', 'gzip, chunked', 'chunked, gzip', 'chunked, chunked', 'identity', 'xchunked', 'chunked;q=1', '"chunked"', 'x\0chunked', ''];
  for (const coding of codings) {
    test(`http_400_or_501: Transfer-Encoding ${JSON.stringify(coding)} (RFC 9112 §6.1)`, () => refused(`POST /hello HTTP/1.1\r\n${HOST}Transfer-Encoding: ${coding}\r\n\r\n0\r\n\r\n`, 400, 501));
  }
  test('http_400_or_501: two Transfer-Encodings', () => refused(`POST /hello HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400, 501));
  test('http_400: Transfer-Encoding with HTTP/1.0 (RFC 9112 §6.1)', () => refused(`POST /hello HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 400, 501));

  const chunks = {
    'no size': '\r\nabc\r\n0\r\n\r\n', 'size not hex': 'g\r\nabc\r\n0\r\n\r\n', '0x before the size': '0x3\r\nabc\r\n0\r\n\r\n', '+ before the size': '+3\r\nabc\r\n0\r\n\r\n', '- before the size': '-3\r\nabc\r\n0\r\n\r\n',
    'space before the size': ' 3\r\nabc\r\n0\r\n\r\n', '17 digits': '00000000000000003\r\nabc\r\n0\r\n\r\n', 'size over 64 bits': '10000000000000003\r\nabc\r\n0\r\n\r\n',
    'LF after the size': '3\nabc\r\n0\r\n\r\n', 'LF after the data': '3\r\nabc\n0\r\n\r\n', 'no CRLF after the data': '3\r\nabc0\r\n\r\n', 'more data than the size': '3\r\nabcd\r\n0\r\n\r\n', 'CR alone after the size': '3\rabc\r\n0\r\n\r\n',
    'LF at the end': '3\r\nabc\r\n0\r\n\n', 'LF in an extension': '3;a\nb\r\nabc\r\n0\r\n\r\n', 'NUL in an extension': '3;a\0\r\nabc\r\n0\r\n\r\n', 'NUL in a trailer': '0\r\nA: \0\r\n\r\n', 'bare LF in a trailer': '0\r\nA: b\n\r\n',
  };
  for (const [name, rest] of Object.entries(chunks)) test(`http_400: chunked body with ${name} (RFC 9112 §7.1)`, () => refused(`POST /hello HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${rest}`, 400, 413));
  test('http_400_or_413: chunk of the largest size', () => refused(`POST /hello HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc\r\n0\r\n\r\n`, 400, 413));

  test('http_505: another major version (RFC 9110 §15.6.6)', async () => {
    for (const version of ['2.0', '0.9', '3.0']) await refused(`GET /hello HTTP/${version}\r\n${HOST}\r\n`, 505, 400);
  });
});

describe('a request that is good', () => {
  const P = `POST /hello HTTP/1.1\r\n${HOST}`;
  const good = {
    'no body': [`GET /hello HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'Content-Length': [`${P}Content-Length: 3\r\n\r\nabc`, 'abc'],
    'Content-Length with leading zeros': [`${P}Content-Length: 0003\r\n\r\nabc`, 'abc'],
    'Content-Length 0': [`${P}Content-Length: 0\r\n\r\n`, 'hello'],
    'POST without a length has no body (RFC 9112 §6.3)': [`${P}\r\n`, 'hello'],
    'GET with a body': [`GET /hello HTTP/1.1\r\n${HOST}Content-Length: 3\r\n\r\nabc`, 'abc'],
    'any method': [`FOO /hello HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'names in any case, no space after the colon': ['POST /hello HTTP/1.1\r\nhOsT:h\r\ncOnTeNt-LeNgTh:3\r\n\r\nabc', 'abc'],
    'white space around values': [`${P}Content-Length: \t 3 \t\r\nA:   \r\nB:\r\n\r\nabc`, 'abc'],
    'bytes over 7f in a value (RFC 9110 §5.5)': [`${P}A: \xe9\xff\r\nContent-Length: 1\r\n\r\nx`, 'x'],
    'every character of a token in a name': [`${P}!#$%&'*+-.^_\`|~09azAZ: x\r\n\r\n`, 'hello'],
    'an empty line before the request (RFC 9112 §2.2)': [`\r\n${P}Content-Length: 1\r\n\r\nx`, 'x'],
    'absolute form (RFC 9112 §3.2.2)': [`GET http://h/hello HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'absolute form with a port, a query, another Host': [`GET http://other:81/hello?a=b HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'a query': [`GET /hello?a=b&c HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'an encoded path': [`GET /h%65llo HTTP/1.1\r\n${HOST}\r\n`, 'hello'],
    'Host with a port': ['GET /hello HTTP/1.1\r\nHost: h:80\r\n\r\n', 'hello'],
    'Host an IPv6 address': ['GET /hello HTTP/1.1\r\nHost: [::1]:80\r\n\r\n', 'hello'],
    '64 headers': [`GET /hello HTTP/1.1\r\n${HOST}${range(1, 63).map((i) => `H${i}: x\r\n`).join('')}\r\n`, 'hello'],
    'chunked': [`${P}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`, 'abcde'],
    'chunked in any case': [`${P}transfer-encoding: ChunKed\r\n\r\n3\r\nabc\r\n0\r\n\r\n`, 'abc'],
    'chunked and empty': [`${P}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, 'hello'],
    'chunk sizes in hex of either case, with zeros': [`${P}Transfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n00000000000000b\r\n0123456789a\r\n000\r\n\r\n`, '01234567890123456789a'],
    'chunk extensions (RFC 9112 §7.1.1)': [`${P}Transfer-Encoding: chunked\r\n\r\n3;a=b;c="d;e"\r\nabc\r\n0;last\r\n\r\n`, 'abc'],
    'trailers (RFC 9112 §7.1.2)': [`${P}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\nX-Sum: \t 1 \r\n\r\n`, 'abc'],
    'a body of NULs and CRLFs': [`${P}Content-Length: 6\r\n\r\n\0\r\n\r\n\0`, '\0\r\n\r\n\0'],
    'an upgrade to what is not spoken here': [`GET /hello HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n`, 'hello'],
  };
  for (const [name, [bytes, text]] of Object.entries(good)) test(`http_200: ${name}`, () => served(bytes, text));

  test('http_head_has_the_length_and_no_body__rfc9110_9_3_2', async () => {
    const c = await d.connect();
    c.write(raw(`HEAD /hello HTTP/1.1\r\n${HOST}\r\nGET /hello HTTP/1.1\r\n${HOST}\r\n`));
    const head = await c.response('HEAD');
    assert.deepEqual([head.status, head.headers['content-length']], [200, '5']);
    assert.equal((await c.response()).text, 'hello');
  });

  test('http_responses_have_a_date__rfc9110_6_6_1', async () => {
    for (const r of [await get(d, '/hello'), await get(d, '/live/date'), await get(d, '/nowhere')]) {
      assert.match(r.headers.date, /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT$/);
      assert.ok(Math.abs(Date.parse(r.headers.date) - Date.now()) < 5000);
    }
  });

  test('http_404_for_a_path_of_nobody', async () => {
    for (const path of ['/', '/nowhere', '/liver', '/hello/', '/hellos', '/Hello']) assertError(await get(d, path), 404);
    await served(`POST /nowhere HTTP/1.1\r\n${HOST}Content-Length: 3\r\n\r\nabc`, undefined, 404);
  });

  test('http_body_at_its_limit_is_good__one_more_is_413', async () => {
    const c = await d.connect();
    c.write(requestBytes(d.host, 'POST', '/hello', {}, Buffer.alloc(100000, 'x')));
    assert.equal((await c.response()).text.length, 100000);
    const chunked = (n) => raw(`${n.toString(16)}\r\n${'x'.repeat(n)}\r\n`);
    c.write(Buffer.concat([requestBytes(d.host, 'POST', '/hello', { 'Transfer-Encoding': 'chunked' }), chunked(60000), chunked(40000), raw('0\r\n\r\n')]));
    assert.equal((await c.response()).text.length, 100000);
    for (const body of [raw('Content-Length: 100001\r\n\r\n'), Buffer.concat([raw('Transfer-Encoding: chunked\r\n\r\n'), chunked(60000), chunked(40001)])]) {
      const big = await d.connect();
      big.write(Buffer.concat([raw(`POST /hello HTTP/1.1\r\n${HOST}`), body]));
      assertError(await big.response(), 413);
      await big.eof(undefined, { reset: true });
    }
  });
});

describe('the connection', () => {
  test('http_1_1_stays_unless_close_is_asked_for__rfc9112_9_3', async () => {
    const c = await d.connect();
    for (const value of ['keep-alive', 'x', 'CLOSE', undefined]) {
      if (c.over) break;
      c.write(requestBytes(d.host, 'GET', '/hello', value ? { Connection: value } : {}));
      const r = await c.response();
      assert.equal(r.text, 'hello');
      if (value === 'CLOSE') {
        assert.equal(r.headers.connection.toLowerCase(), 'close');
        await c.eof();
        return;
      }
    }
    assert.fail('not closed');
  });

  test('http_1_0_ends_unless_keep_alive_is_asked_for', async () => {
    const c = await d.connect();
    c.write(raw('GET /hello HTTP/1.0\r\n\r\n')); // no Host is needed
    const r = await c.response();
    assert.deepEqual([r.status, r.text, r.headers['transfer-encoding']], [200, 'hello', undefined]);
    await c.eof();
    const k = await d.connect();
    k.write(raw('GET /hello HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'));
    const kept = await k.response();
    assert.equal(kept.text, 'hello');
    if (/keep-alive/i.test(kept.headers.connection ?? '')) {
      k.write(raw('GET /hello HTTP/1.0\r\n\r\n'));
      assert.equal((await k.response()).text, 'hello');
    }
    await k.eof();
  });

  test('http_1_0_polls_and_errors_are_not_chunked', async () => {
    for (const [target, status] of [['/live/ten', 200], ['/live/ten?since=bad', 400], ['/nowhere', 404], ['/metrics', 200]]) {
      const c = await d.connect();
      c.write(raw(`GET ${target} HTTP/1.0\r\n\r\n`));
      const r = await c.response();
      assert.deepEqual([r.status, r.headers['transfer-encoding']], [status, undefined]);
      await c.eof();
    }
  });

  test('http_pipelined_requests_are_answered_in_order', async () => {
    const c = await d.connect();
    c.write(Buffer.concat(range(1, 500).map((i) => requestBytes(d.host, 'POST', '/hello', {}, `body ${i}`))));
    for (const i of range(1, 500)) assert.equal((await c.response()).text, `body ${i}`);
  });

  test('http_pipelined_behind_a_long_poll_waits_for_it', async () => {
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'POST', '/hello', {}, 'first'), requestBytes(d.host, 'GET', '/live/pipe?wait=20'), requestBytes(d.host, 'POST', '/hello', {}, 'last')]));
    assert.equal((await c.response()).text, 'first');
    await parked(d, 1);
    await c.quiet(50);
    await pub(d, 'pipe', 'x');
    assert.deepEqual(datas(pollBody(await c.response()).messages), ['x']);
    assert.equal((await c.response()).text, 'last');
  });

  test('http_pipelining_client_that_does_not_read_is_not_read__and_loses_nothing', async () => {
    const c = await d.connect();
    c.pause();
    const n = 300, size = 99000;
    for (let i = 0; i < n; i++) c.write(requestBytes(d.host, 'POST', '/hello', {}, `${i} `.padEnd(size, '.')));
    await eventually(async () => { const a = (await stats(d)).bytes_in; await sleep(200); return (await stats(d)).bytes_in - a < 5000; }, 'the server to stop reading');
    assert.ok(c.socket.writableLength > 0, 'what it does not read stays with the client');
    c.resume();
    for (let i = 0; i < n; i++) {
      const { text } = await c.response();
      assert.deepEqual([parseInt(text, 10), text.length], [i, size]);
    }
  });

  test('http_half_closed_client_still_gets_its_answer__rfc9112_9_6', async () => {
    const c = await d.connect();
    c.write(Buffer.concat(range(1, 3).map((i) => requestBytes(d.host, 'POST', '/hello', {}, `${i}`))));
    c.end();
    for (const i of range(1, 3)) assert.equal((await c.response()).text, `${i}`);
    await c.eof();
  });

  test('http_half_a_request_and_an_end_is_no_request', async () => {
    const c = await d.connect();
    c.write(raw(`POST /live/half HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\nabc`));
    c.end();
    await c.eof(undefined, { reset: true });
    assert.deepEqual((await poll(d, '/live/half')).messages, []);
    const chunked = await d.connect();
    chunked.write(raw(`POST /live/half HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n`));
    chunked.end();
    await chunked.eof(undefined, { reset: true });
    assert.deepEqual((await poll(d, '/live/half')).messages, []);
  });

  test('http_half_closed_event_stream_is_gone', async () => {
    const s = await Sse.open(d, '/live/halfsse');
    await readers(d, 'halfsse', 1);
    s.c.end();
    await readers(d, 'halfsse', 0);
  });

  test('http_reset_by_the_client_ends_it_alone', async () => {
    for (let i = 0; i < 20; i++) {
      const c = await d.connect();
      c.write(requestBytes(d.host, 'POST', '/hello', {}, 'x'.repeat(50000)));
      c.socket.resetAndDestroy();
    }
    assert.equal((await get(d, '/hello')).text, 'hello');
  });
});

describe('Expect: 100-continue (RFC 9110 §10.1.1)', () => {
  test('http_100_comes_before_the_body', async () => {
    const c = await d.connect();
    c.write(requestBytes(d.host, 'POST', '/hello', { Expect: '100-continue', 'Content-Length': '4' }));
    assert.equal((await c.head()).status, 100);
    await c.quiet(30);
    c.write('body');
    assert.equal((await c.head()).status, 200);
    assert.equal((await c.take(4)).toString(), 'body');
  });

  test('http_100_in_any_case_and_for_a_chunked_body', async () => {
    const c = await d.connect();
    c.write(requestBytes(d.host, 'POST', '/hello', { expect: '100-Continue', 'Transfer-Encoding': 'chunked' }));
    assert.equal((await c.head()).status, 100);
    c.write('4\r\nbody\r\n0\r\n\r\n');
    assert.equal((await c.response()).text, 'body');
  });

  test('http_no_100_where_there_is_no_body_or_it_is_refused_or_the_client_is_1_0', async () => {
    const none = await d.connect();
    none.write(requestBytes(d.host, 'GET', '/hello', { Expect: '100-continue' }));
    assert.equal((await none.head()).status, 200);
    const big = await d.connect();
    big.write(requestBytes(d.host, 'POST', '/hello', { Expect: '100-continue', 'Content-Length': '100001' }));
    assert.equal((await big.head()).status, 413);
    const old = await d.connect();
    old.write(raw('POST /hello HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx'));
    assert.equal((await old.head()).status, 200);
  });

  test('http_a_body_that_is_already_there_is_read_either_way', async () => {
    const c = await d.connect();
    c.write(Buffer.concat([requestBytes(d.host, 'POST', '/hello', { Expect: '100-continue' }, 'body'), requestBytes(d.host, 'GET', '/hello')]));
    assert.equal((await c.response()).text, 'body');
    assert.equal((await c.response()).text, 'hello');
  });
});

describe('pieces', () => {
  const stream = raw(`POST /hello HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nT: r\r\n\r\nPOST /hello?q HTTP/1.1\r\n${HOST}Content-Length: 3\r\n\r\nxyzGET /hello HTTP/1.1\r\n${HOST}\r\n`);
  const check = async (c) => {
    assert.equal((await c.response()).text, 'abc0123456789');
    assert.equal((await c.response()).text, 'xyz');
    assert.equal((await c.response()).text, 'hello');
    c.destroy();
  };

  test('http_stream_cut_in_two_at_every_byte', async () => {
    const at = async (i) => {
      const c = await d.connect();
      c.write(stream.subarray(0, i));
      await sleep(3);
      c.write(stream.subarray(i));
      await check(c);
    };
    for (let i = 1; i < stream.length; i += 20) await Promise.all(range(i, Math.min(i + 19, stream.length - 1)).map(at));
  });

  test('http_stream_byte_by_byte', async () => {
    const c = await d.connect();
    const done = check(c);
    for (const byte of stream) {
      c.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    await done;
  });

  test('http_malformed_head_cut_at_every_byte_is_still_400', async () => {
    const bad = raw(`POST /hello HTTP/1.1\r\n${HOST}A: b\r\n c\r\n\r\n`);
    const at = async (i) => {
      const c = await d.connect();
      c.write(bad.subarray(0, i));
      await sleep(3);
      if (!c.over) c.write(bad.subarray(i));
      assert.equal((await c.response()).status, 400);
      c.destroy();
    };
    await Promise.all(range(1, bad.length - 1).map(at));
  });

  test('http_large_body_in_many_pieces', async () => {
    const c = await d.connect();
    const body = Buffer.from(range(0, 99999).map((i) => 97 + (i % 26)));
    c.write(requestBytes(d.host, 'POST', '/hello', { 'Content-Length': '100000' }));
    for (let i = 0; i < body.length; i += 777) {
      c.write(body.subarray(i, i + 777));
      if (i % 10 === 0) await new Promise(setImmediate);
    }
    assert.ok((await c.response()).body.equals(body));
  });
});

test(`http_damaged_requests_never_hurt_the_server (SEED=${SEED})`, async () => {
  const rnd = random(SEED);
  const good = [
    `GET /live/a?wait=1&since=earliest HTTP/1.1\r\n${HOST}If-None-Match: "abcdefgh-1"\r\nPrefer: wait=1\r\n\r\n`,
    `POST /live/a?event=x HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n5;a="b"\r\n[1,2]\r\n0\r\nT: x\r\n\r\n`,
    `GET /live?topic=a&topic=b/*&events=topic HTTP/1.1\r\n${HOST}Accept: text/event-stream\r\nLast-Event-ID: abcdefgh-12\r\n\r\n`,
    `DELETE /live/a HTTP/1.1\r\n${HOST}Connection: close, x\r\n\r\n`,
    `OPTIONS /live/a HTTP/1.1\r\n${HOST}Origin: http://h\r\nAccess-Control-Request-Method: POST\r\n\r\n`,
    `POST /hello HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody`,
  ].map(raw);
  const damage = (bytes) => {
    const b = Buffer.from(bytes);
    for (let n = rnd.below(4); n >= 0; n--) b[rnd.below(b.length)] = rnd.pick([0, 10, 13, 32, 37, 42, 47, 58, 59, 61, 127, 255, rnd.below(256)]);
    const cut = rnd.below(b.length);
    const parts = [b, b.subarray(0, cut), Buffer.concat([b.subarray(cut), b]), Buffer.concat([b.subarray(0, cut), b.subarray(Math.min(b.length, cut + rnd.below(9)))])];
    return rnd.pick(parts);
  };
  for (let round = 0; round < 40; round++) {
    const all = await Promise.all(range(1, 20).map(() => d.connect()));
    for (const c of all) c.write(damage(rnd.pick(good)));
    await sleep(2);
    for (const c of all) if (rnd.below(2)) c.destroy(); else c.end();
    await sleep(2);
    for (const c of all) c.destroy();
    assert.equal((await get(d, '/healthz')).status, 200);
  }
});

test('http_requests_are_counted', async () => {
  const before = await stats(d);
  await post(d, '/hello', 'x');
  await request(d, 'DELETE', '/hello');
  const c = await d.connect();
  c.write('nonsense\r\n\r\n');
  await c.response();
  const now = await stats(d);
  assert.ok(now.requests >= before.requests + 3);
  assert.equal(now.requests_bad, before.requests_bad + 1);
});
