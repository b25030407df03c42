// Answers to polls, and bodies in general: framing that disagrees with itself, bodies without end, statuses.
import { sleep, lines, response, poll, chunk, message, cursor, bytewise, block, streamHead } from './lib.mjs';
import { json } from './envelope.mjs';

const ok = poll([message(1)]);
const WORKS = { exit: 0, out: 'm1\n' };
const BROKEN = { exit: 3, out: '' };
const CUT = { exit: 1, out: '' };
const EITHER = { exit: [1, 3], out: '' };
const head = (...more) => lines(['HTTP/1.1 200 OK', 'Content-Type: application/json', ...more]);
const chunked = head('Transfer-Encoding: chunked');
const n = Buffer.byteLength(ok), hex = n.toString(16);

// [name, the answer, what is expected, end of the connection behind it?]
const framing = [
  ['content_length', response(ok), WORKS],
  ['chunked', [chunked, chunk(ok), '0\r\n\r\n'], WORKS],
  ['chunked_byte_by_byte', [chunked, bytewise(ok), '0\r\n\r\n'], WORKS],
  ['chunk_size_in_other_case_and_with_zeros', [chunked, `000${hex.toUpperCase()}\r\n${ok}\r\n`, '0\r\n\r\n'], WORKS],
  ['chunk_extension', [chunked, `${hex};name=value;other="q;\\" x"\r\n${ok}\r\n`, '0;last\r\n\r\n'], WORKS],
  ['trailers', [chunked, chunk(ok), '0\r\nX-Trailer: y\r\nZ: z\r\n\r\n'], WORKS],
  ['te_in_another_case', [head('transfer-ENCODING: Chunked'), chunk(ok), '0\r\n\r\n'], WORKS],
  ['no_length_ends_with_the_connection', [head('Connection: close'), ok], WORKS, 'end'],
  ['content_length_and_chunked', [head('Transfer-Encoding: chunked', `Content-Length: ${n}`), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['chunked_and_content_length', [head(`Content-Length: ${n}`, 'Transfer-Encoding: chunked'), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['two_content_lengths_that_differ', [head(`Content-Length: ${n}`, `Content-Length: ${n - 1}`), ok], BROKEN],
  ['two_content_lengths_that_agree', [head(`Content-Length: ${n}`, `Content-Length: ${n}`), ok], BROKEN],
  ['content_length_is_a_list', [head(`Content-Length: ${n}, ${n}`), ok], BROKEN],
  ['content_length_negative', [head('Content-Length: -1'), ok], BROKEN],
  ['content_length_with_a_plus', [head(`Content-Length: +${n}`), ok], BROKEN],
  ['content_length_in_hex', [head(`Content-Length: 0x${hex}`), ok], BROKEN],
  ['content_length_with_a_unit', [head(`Content-Length: ${n}b`), ok], BROKEN],
  ['content_length_empty', [head('Content-Length:'), ok], BROKEN],
  ['content_length_of_21_digits', [head('Content-Length: 999999999999999999999'), ok], BROKEN],
  ['content_length_2_pow_64', [head(`Content-Length: ${2n ** 64n + BigInt(n)}`), ok], BROKEN],
  ['te_gzip_chunked', [head('Transfer-Encoding: gzip, chunked'), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['te_chunked_twice', [head('Transfer-Encoding: chunked, chunked'), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['te_xchunked', [head('Transfer-Encoding: xchunked'), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['te_identity_with_a_length', [head('Transfer-Encoding: identity', `Content-Length: ${n}`), ok], { exit: [0, 3], out: ['', 'm1\n'] }],
  ['te_in_http_1_0', [chunked.replace('HTTP/1.1', 'HTTP/1.0'), chunk(ok), '0\r\n\r\n'], BROKEN],
  ['chunk_size_of_17_digits', [chunked, `${hex.padStart(17, '0')}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_that_overflows', [chunked, `1${hex.padStart(16, '0')}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_2_pow_64_minus_1', [chunked, `ffffffffffffffff\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_0x', [chunked, `0x${hex}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_with_a_plus', [chunked, `+${hex}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_negative', [chunked, `-1\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_behind_a_space', [chunked, ` ${hex}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_empty', [chunked, `\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_size_not_hex', [chunked, `zz\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_line_with_bare_lf', [chunked, `${hex}\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_data_without_crlf', [chunked, `${hex}\r\n${ok}0\r\n\r\n`], BROKEN],
  ['chunk_data_with_lf_only', [chunked, `${hex}\r\n${ok}\n0\r\n\r\n`], BROKEN],
  ['chunk_data_longer_than_its_size', [chunked, `${(n - 1).toString(16)}\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['chunk_extension_with_bare_lf', [chunked, `${hex};a\nb\r\n${ok}\r\n0\r\n\r\n`], BROKEN],
  ['trailer_without_colon', [chunked, chunk(ok), '0\r\nnonsense\r\n\r\n'], { exit: [0, 3], out: ['', 'm1\n'] }],
  ['truncated_content_length', [head(`Content-Length: ${n + 10}`), ok], CUT, 'end'],
  ['truncated_chunk', [chunked, `${hex}\r\n${ok.slice(0, 10)}`], CUT, 'end'],
  ['chunked_without_the_last_chunk', [chunked, chunk(ok)], { ...CUT, out: ['', 'm1\n'] }, 'end'],
  ['reset_in_the_body', [head(`Content-Length: ${n + 10}`), ok], CUT, 'reset'],
  ['1_GB_declared', [head('Content-Length: 1000000000'), ok], EITHER, 'end'],
  ['1_GB_declared_in_a_chunk', [chunked, `3b9aca00\r\n${ok}`], EITHER, 'end'],
  ['gzip_not_asked_for', response(Buffer.from('1f8b0800000000000003', 'hex'), { 'Content-Encoding': 'gzip' }), BROKEN],
  ['gzip_said_but_plain', response(ok, { 'Content-Encoding': 'gzip' }), BROKEN],
  ['identity_said', response(ok, { 'Content-Encoding': 'identity' }), { exit: [0, 3], out: ['', 'm1\n'] }],
  ['body_is_html', response('<html></html>', { 'Content-Type': 'text/html' }), BROKEN],
  ['body_empty', response(''), BROKEN],
  ['body_is_half_a_json', response(ok.slice(0, 30)), BROKEN],
  ['body_with_a_tail', response(`${ok}x`), BROKEN],
  ['body_is_an_array', response('[]'), BROKEN],
  ['body_is_null', response('null'), BROKEN],
  ['body_is_not_utf8', response(Buffer.from(ok.replace('m1', '\xff\xfe'), 'latin1')), BROKEN],
  ['body_10000_deep', response(`{"cursor":"${cursor(1)}","messages":${'['.repeat(10000)}${']'.repeat(10000)}}`), BROKEN],
  ['no_cursor', response(`{"messages":[${JSON.stringify(message(1))}]}`), { ...BROKEN, out: ['', 'm1\n'] }],
  ['cursor_is_a_number', response(`{"cursor":5,"messages":[]}`), BROKEN],
  ['cursor_is_nonsense', response(poll([], '../../etc/passwd')), { exit: [3, 'stopped'], stop: 1200, out: '' }],
  ['no_messages', response(`{"cursor":"${cursor(1)}"}`), BROKEN],
  ['messages_are_an_object', response(`{"cursor":"${cursor(1)}","messages":{}}`), BROKEN],
  ['a_message_is_a_string', response(`{"cursor":"${cursor(1)}","messages":["x"]}`), BROKEN],
  ['gap_is_a_string', response(poll([message(1)], undefined, { gap: 'x' })), { exit: [0, 3], out: ['', 'm1\n'] }],
  ['redirect_302', [response('', { Location: '/live/other' }, '302 Found'), response(ok)], CUT],
  ['redirect_307_with_a_body', [response(ok, { Location: '/live/other' }, '307 Temporary Redirect')], CUT],
  ['401', response('{"error":"unauthorized","reason":"Where is your token?"}\n', {}, '401 Unauthorized'), { ...CUT, err: /Where is your token\?/ }],
  ['403', response('{"error":"forbidden","reason":"Not for you."}\n', {}, '403 Forbidden'), { ...CUT, err: /Not for you\./ }],
  ['404', response('nothing', { 'Content-Type': 'text/plain' }, '404 Not Found'), CUT],
  ['403_with_an_endless_declared_body', response('x', { 'Content-Length': '999999999999' }, '403 Forbidden'), EITHER],
  ['400', response('{"error":"bad_request","reason":"since: what?"}\n', {}, '400 Bad Request'), EITHER],
  ['500', response('oops', {}, '500 Internal Server Error'), EITHER],
  ['502_html', response('<html>bad gateway</html>', { 'Content-Type': 'text/html' }, '502 Bad Gateway'), EITHER],
  ['status_999', response(ok, {}, '999 What'), EITHER],
  ['status_099', response(ok, {}, '099 What'), BROKEN],
  ['206', response(ok, { 'Content-Range': `bytes 0-${n - 1}/${n}` }, '206 Partial Content'), { exit: [0, 1, 3], out: ['', 'm1\n'] }],
  ['http_0_9', ok, BROKEN, 'end'],
];

const cases = ['lp', 'sp'].flatMap((transport) => {
  const args = ['--transport', transport, '--no-reconnect', '--timeout', '5000'];
  const which = transport === 'lp' ? framing : framing.filter(([name]) => /^(content_length|chunked|content_length_and_chunked|no_length|truncated_content_length|gzip_not_asked_for|redirect_302|401|no_cursor|1_GB_declared|body_is_html)$/.test(name));
  return [
    ...which.map(([name, answer, expected, how]) => ({
      name: `${transport}_${name}`, args: [...args, ...(expected === WORKS || [].concat(expected.exit).includes(0) ? ['--count', '1'] : [])], ...expected, conns: how ? 2 : 1,
      check: (run) => (/redirect/.test(name) && run.requests.some((r) => r.path !== '/live/t') && 'the redirect was followed') || expected.check?.(run),
      async serve(c, i, run) {
        const r = await c.head();
        if (r.kind !== transport) run.fault(`asked for ${r.kind}`);
        if (r.headers['accept-encoding'] && r.headers['accept-encoding'] !== 'identity') run.fault(`Accept-Encoding: ${r.headers['accept-encoding']}`);
        c.write(answer);
        if (how) { await sleep(100); c[how](); }
      } })),
    { name: `${transport}_endless_body`, args, ...EITHER, cpu: 2000, async serve(c) { await c.head(); c.write(head(), '{"cursor":"'); await c.flood('x'.repeat(65536), 3000); c.end(); } },
    { name: `${transport}_endless_chunks`, args, ...EITHER, cpu: 3000, async serve(c) { await c.head(); c.write(chunked); await c.flood(Buffer.concat(Array(50).fill(chunk(' '.repeat(1000)))), 3000); c.end(); } },
    { name: `${transport}_endless_chunk_extension`, args, ...BROKEN, async serve(c) { await c.head(); c.write(chunked, '1;'); await c.flood('x'.repeat(5000), 3000); c.end(); } },
    { name: `${transport}_endless_trailers`, args, exit: [0, 1, 3], out: ['', 'm1\n'], cpu: 1000, async serve(c) { await c.head(); c.write(chunked, chunk(ok), '0\r\n'); await c.flood('X: y\r\n'.repeat(1000), 3000); c.end(); } },
    { name: `${transport}_head_above_16_KiB`, args, ...BROKEN, async serve(c) { await c.head(); c.write(response(ok, { X: 'y'.repeat(20000) })); } },
    // Each of these answers at once and leads nowhere: the client must pace itself.
    ...[
      ['more_with_the_same_cursor', () => response(poll([], cursor(0), { more: true }))],
      ['more_with_the_same_message', () => response(poll([message(1)], cursor(1), { more: true }))],
      ['no_wait_at_all', () => response(poll([], cursor(0)))],
      ['304_unasked', () => response('', { 'Content-Length': null }, '304 Not Modified')],
      ['204', () => response('', { 'Content-Length': null }, '204 No Content')],
      ['reconnect_0', () => response(poll([], cursor(0), { reconnect: 0 }))],
      ['reconnect_negative', () => response(poll([], cursor(0), { reconnect: -1e12 }))],
      ['429_with_retry_after_0', () => response('', { 'Retry-After': '0' }, '429 Too Many Requests')],
      ['429_with_retry_after_negative', () => response('', { 'Retry-After': '-5' }, '429 Too Many Requests')],
      ['503_without_retry_after', () => response('', {}, '503 Service Unavailable')],
      ['cursor_that_goes_back', (i) => response(poll([], cursor(100000 - i)))],
      ['500', () => response('', {}, '500 Internal Server Error')],
    ].map(([name, answer]) => ({
      name: `${transport}_${name}_does_not_spin`, args: ['--transport', transport], exit: [0, 1, 3, 'stopped'], stop: 1500, cpu: 400, out: ['', 'm1\n'],
      check: (run) => run.requests.length > 40 && `${run.requests.length} requests in 1.5 s, expected at most 40`,
      async serve(c, i, run) { for (;;) { await c.head(); c.write(answer(run.requests.length)); } } })),
    { name: `${transport}_waits_without_spinning`, args: ['--transport', transport], eof: true, exit: 'stopped', stop: 1500, cpu: 250, out: 'm1\n',
      async serve(c) { await c.head(); c.write(response(ok)); for (;;) { const r = await c.head(); if (transport === 'sp') c.write(response(poll([], cursor(1)))); void r; } } },
  ];
});

// What comes first, and later what is right: the client must come to the right.
const recovers = (name, first, more) => ({
  name, args: ['--count', '1', ...(more?.args ?? ['--transport', 'lp'])], out: 'm1\n', exit: 0, ms: 9000, ...more,
  async serve(c, i, run) { for (;;) { await c.head(); if (run.requests.length <= (more?.times ?? 1)) { const how = first(); how === 'reset' ? c.reset() : how === 'end' ? c.end() : c.write(how); } else c.write(response(ok)); } },
});
const pause = (run) => run.requests[1].at - run.requests[0].at;

export default [
  ...cases,
  recovers('lp_502_html_is_tried_again', () => response('<html>502</html>', { 'Content-Type': 'text/html', Connection: 'close' }, '502 Bad Gateway')),
  recovers('lp_429_is_tried_again_after_what_it_said', () => response('', { 'Retry-After': '2' }, '429 Too Many Requests'), { check: (run) => pause(run) < 1900 && `after ${pause(run)} ms, expected 2000` }),
  recovers('lp_503_is_tried_again_after_what_it_said', () => response('', { 'Retry-After': '1', Connection: 'close' }, '503 Service Unavailable'), { check: (run) => pause(run) < 950 && `after ${pause(run)} ms, expected 1000` }),
  recovers('lp_retry_after_nonsense', () => response('', { 'Retry-After': 'soon\x80' }, '503 Service Unavailable'), { check: (run) => pause(run) > 4000 && `after ${pause(run)} ms` }),
  recovers('lp_retry_after_a_date', () => response('', { 'Retry-After': 'Fri, 31 Dec 1999 23:59:59 GMT' }, '503 Service Unavailable'), { check: (run) => pause(run) > 4000 && `after ${pause(run)} ms` }),
  recovers('lp_reset_is_tried_again', () => 'reset'),
  recovers('lp_end_without_an_answer_is_tried_again', () => 'end'),
  recovers('lp_three_resets', () => 'reset', { times: 3, ms: 12000 }),
  recovers('lp_reconnect_of_a_drain_is_obeyed', () => response(poll([], cursor(0), { reconnect: 1000 }), { Connection: 'close' }), { check: (run) => pause(run) < 900 && `after ${pause(run)} ms, expected 1000` }),
  { name: 'lp_retry_after_that_overflows_waits', args: ['--transport', 'lp'], exit: [1, 3, 'stopped'], stop: 1200, out: '', cpu: 250,
    check: (run) => run.requests.length > 3 && `${run.requests.length} requests`,
    async serve(c) { for (;;) { await c.head(); c.write(response('', { 'Retry-After': '99999999999999999999999' }, '503 Service Unavailable')); } } },
  { name: 'lp_more_leads_on_at_once', args: ['--transport', 'lp', '--count', '3'], exit: 0, out: 'm1\nm2\nm3\n', ms: 3000,
    async serve(c, i, run) {
      for (;;) {
        const r = await c.head(), k = run.requests.length;
        if (k > 1 && r.since !== cursor(k - 1)) run.fault(`since ${r.since}, expected ${cursor(k - 1)}`);
        c.write(response(poll([message(k)], cursor(k), k < 3 ? { more: true } : {})));
      }
    } },
  { name: 'lp_repeated_message_is_printed_once', args: ['--transport', 'lp', '--count', '3'], exit: 0, out: 'm1\nm2\nm3\n', ms: 5000,
    async serve(c, i, run) { for (;;) { await c.head(); const k = run.requests.length; c.write(response(poll([message(Math.max(1, k - 1)), message(k)], cursor(k)))); } } },
  { name: 'lp_gap_is_told_before_its_messages', args: ['--transport', 'lp', '--json', '--count', '1', '--since', cursor(1)], exit: 0,
    out: json({ gap: { from: cursor(1), to: cursor(5), reason: 'evicted' } }, message(6)),
    async serve(c, i, run) { const r = await c.head(); if (r.since !== cursor(1)) run.fault(`since ${r.since}`); c.write(response(poll([message(6)], undefined, { gap: { from: cursor(1), to: cursor(5), reason: 'evicted' } }))); } },
  { name: 'lp_gap_on_stderr', args: ['--transport', 'lp', '--count', '1', '--since', cursor(1)], exit: 0, out: 'm6\n', err: /^rtcat: gap from k3f9x2ab-1 to k3f9x2ab-5 \(evicted\)$/m,
    async serve(c) { await c.head(); c.write(response(poll([message(6)], undefined, { gap: { from: cursor(1), to: cursor(5), reason: 'evicted' } }))); } },
  { name: 'lp_json_of_all_kinds', args: ['--transport', 'lp', '--json', '--count', '3'], exit: 0, out: json(message(1, 'a\nb', { event: 'e' }), message(2, { x: 1 }), message(3, '/wAK', { encoding: 'base64' })),
    async serve(c) { await c.head(); c.write(response(poll([message(1, 'a\nb', { event: 'e' }), message(2, { x: 1 }), message(3, '/wAK', { encoding: 'base64' })]))); } },
  { name: 'lp_answer_byte_by_byte', args: ['--transport', 'lp', '--count', '1'], ...WORKS, cpu: 600, async serve(c) { await c.head(); await c.trickle(Buffer.concat([Buffer.from(chunked), chunk(ok), Buffer.from('0\r\n\r\n')])); } },
  // More than what was asked for, in one piece, must not become the next answer (what comes only after the next
  // request has gone cannot be told from its answer).
  { name: 'lp_a_second_answer_unasked', args: ['--transport', 'lp', '--count', '2', '--no-reconnect'], exit: [0, 1, 3, 'stopped'], stop: 1500, out: ['m1\n', 'm1\nm3\n', ''],
    async serve(c) { await c.head(); c.write(Buffer.concat([response(ok), response(poll([message(2, 'smuggled')]))])); for (;;) { await c.head(); c.write(response(poll([message(3)]))); } } },
  { name: 'sse_refused_with_a_reason', args: ['--transport', 'sse', '--no-reconnect'], ...CUT, err: /Not for you\./, async serve(c) { await c.head(); c.write(response('{"error":"forbidden","reason":"Not for you."}\n', {}, '403 Forbidden')); } },
  { name: 'sse_redirect', args: ['--transport', 'sse', '--no-reconnect'], ...CUT, conns: 1, async serve(c) { await c.head(); c.write(response('', { Location: '/live/u' }, '301 Moved Permanently')); } },
  ...[['chunk_size_0x', [streamHead(), '0x10\r\n', block(1), '\r\n']], ['chunk_without_crlf', [streamHead(), chunk(block(1)).subarray(0, -2), '5\r\nid: 2\r\n']], ['content_length_and_chunked', [streamHead({ 'Content-Length': 10 }), chunk(block(1))]], ['gzip', [streamHead({ 'Content-Encoding': 'gzip' }), chunk(block(1))]]].map(([name, answer]) => ({
    name: `sse_${name}`, args: ['--transport', 'sse', '--no-reconnect', '--timeout', '5000'], exit: 3, out: name === 'chunk_without_crlf' ? ['', 'm1\n'] : '', async serve(c) { await c.head(); c.write(answer); } })),
  { name: 'post_never_answered_with_much_stdin', args: ['--transport', 'sse'], in: `${'x'.repeat(1000)}\n`.repeat(40000), exit: ['stopped', 1], stop: 2000, cpu: 1500, out: 'm1\n',
    async serve(c) { const r = await c.head(); if (r.kind !== 'post') c.write(streamHead(), chunk(block(1))); else { c.socket.pause(); await sleep(20000); } } },
  // A publish whose answer is hostile: the reader must not suffer beyond an end with a proper code.
  ...[['403', response('{"error":"forbidden","reason":"No publishing."}\n', {}, '403 Forbidden')], ['redirect', response('', { Location: 'http://127.0.0.1:1/' }, '307 Temporary Redirect')], ['two_lengths', [head('Content-Length: 1', 'Content-Length: 2'), 'xx']], ['garbage', '\0\x01\x02\r\n\r\n']].map(([name, answer]) => ({
    name: `post_answered_by_${name}`, args: ['--transport', 'sse', '--count', '1'], in: 'x\n', exit: [0, 1, 3], out: ['m1\n', ''], ms: 8000,
    async serve(c) {
      const r = await c.head();
      if (r.kind === 'post') { await c.body(r); c.write(answer); return; }
      c.write(streamHead()); await sleep(500); c.write(chunk(block(1)));
    } })),
].map((c) => ({ ...c, name: `http_${c.name}` }));
