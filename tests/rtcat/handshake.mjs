// The answer to a WebSocket upgrade, spoilt in one way each.
import { sleep, text, close, lines, response, acceptOf, told, hello } from './lib.mjs';

const args = ['--plain', '--no-reconnect', '--timeout', '5000'];
const bye = [text('hi'), close(1000)];
const WORKS = { exit: 0, out: 'hi\n' };
const BROKEN = { exit: 3, out: '' };
const REFUSED = { exit: 1, out: '' };
const EITHER = { exit: [1, 3], out: '' };

// [name, (the right lines, the request) => lines or bytes, what is expected]. The frames follow whatever was answered,
// so that a client that takes the answer prints `hi`.
const table = [
  ['right_answer', (l) => l, WORKS],
  ['wrong_accept', (l, r) => [...l.slice(0, 3), `Sec-WebSocket-Accept: ${acceptOf(`${r.headers['sec-websocket-key']}x`)}`], BROKEN],
  ['accept_in_other_case', (l) => [...l.slice(0, 3), l[3].replace(/: (.*)/, (_, a) => `: ${/[a-z]/.test(a) ? a.toLowerCase() : a.toUpperCase()}`)], BROKEN],
  ['accept_cut_short', (l) => [...l.slice(0, 3), l[3].slice(0, -1)], BROKEN],
  ['accept_with_a_tail', (l) => [...l.slice(0, 3), `${l[3]}=`], BROKEN],
  ['accept_is_the_key', (l, r) => [...l.slice(0, 3), `Sec-WebSocket-Accept: ${r.headers['sec-websocket-key']}`], BROKEN],
  ['missing_accept', (l) => l.slice(0, 3), BROKEN],
  ['empty_accept', (l) => [...l.slice(0, 3), 'Sec-WebSocket-Accept:'], BROKEN],
  ['duplicate_accept_right_then_wrong', (l) => [...l, 'Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA='], BROKEN],
  ['duplicate_accept_wrong_then_right', (l) => [...l.slice(0, 3), 'Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=', l[3]], BROKEN],
  ['200_with_all_the_rest_right', (l) => ['HTTP/1.1 200 OK', ...l.slice(1)], EITHER],
  ['102_with_all_the_rest_right', (l) => ['HTTP/1.1 102 Processing', ...l.slice(1)], EITHER],
  ['without_upgrade', (l) => [l[0], ...l.slice(2)], BROKEN],
  ['without_connection', (l) => [l[0], l[1], l[3]], BROKEN],
  ['upgrade_to_h2c', (l) => [l[0], 'Upgrade: h2c', ...l.slice(2)], BROKEN],
  ['upgrade_only_contains_the_word', (l) => [l[0], 'Upgrade: xwebsocket', ...l.slice(2)], BROKEN],
  ['connection_only_contains_the_word', (l) => [l[0], l[1], 'Connection: no-upgrade', l[3]], BROKEN],
  ['connection_keep_alive', (l) => [l[0], l[1], 'Connection: keep-alive', l[3]], BROKEN],
  ['tokens_in_other_case', (l) => [l[0], 'uPGRADE: WebSocket', 'CONNECTION: uPgRaDe', l[3].replace('Sec-WebSocket-Accept', 'sec-websocket-accept')], WORKS],
  ['connection_is_a_list', (l) => [l[0], l[1], 'Connection: keep-alive, Upgrade', l[3]], WORKS],
  ['connection_is_a_list_in_two_lines', (l) => [l[0], l[1], 'Connection: keep-alive', 'Connection: ,upgrade ,', l[3]], WORKS],
  ['spaces_and_tabs_around_values', (l) => [l[0], 'Upgrade: \t websocket \t', 'Connection:Upgrade', l[3].replace(': ', ':   ') + '  '], WORKS],
  ['empty_reason_phrase', (l) => ['HTTP/1.1 101 ', ...l.slice(1)], WORKS],
  ['sixty_headers', (l) => [...l, ...Array.from({ length: 56 }, (_, i) => `X-${i}: y`)], WORKS],
  ['extension_not_offered', (l) => [...l, 'Sec-WebSocket-Extensions: x-evil'], BROKEN],
  ['deflate_not_offered', (l, r) => (/deflate/.test(r.headers['sec-websocket-extensions'] ?? '') ? [...l, 'Sec-WebSocket-Extensions: permessage-deflate; x=y'] : [...l, 'Sec-WebSocket-Extensions: permessage-deflate']), BROKEN],
  ['subprotocol_not_offered', (l) => [...l, 'Sec-WebSocket-Protocol: chat'], BROKEN],
  ['rtpush_v1_not_offered_by_plain', (l) => [...l, 'Sec-WebSocket-Protocol: rtpush.v1'], BROKEN],
  ['302_with_location', () => response('', { Location: '/live/other' }, '302 Found'), REFUSED],
  ['301_with_right_upgrade', (l) => ['HTTP/1.1 301 Moved Permanently', 'Location: ws://127.0.0.1:1/', ...l.slice(1)], REFUSED],
  ['401_with_reason', () => response('{"error":"unauthorized","reason":"Where is your token?"}\n', { 'WWW-Authenticate': 'Bearer' }, '401 Unauthorized'), { ...REFUSED, err: /Where is your token\?/ }],
  ['403_with_reason', () => response('{"error":"forbidden","reason":"Not for you."}\n', {}, '403 Forbidden'), { ...REFUSED, err: /Not for you\./ }],
  ['403_with_a_reason_that_steers_the_terminal', () => response(`{"error":"x","reason":"a\\u001b]0;b\\u0007c\\u009b31m\\r\\nrtcat: d"}\n`, {}, '403 Forbidden'), { ...REFUSED, err: /^[^\u009b]*$/, check: (run) => /^rtcat: d/m.test(run.stderr) && 'a line of the server\'s making on stderr' }],
  ['403_with_html', () => response('<html>no</html>', { 'Content-Type': 'text/html' }, '403 Forbidden'), { ...REFUSED, err: /403/ }],
  ['403_without_its_body', () => response('', { 'Content-Length': '500' }, '403 Forbidden'), REFUSED],
  ['404', () => response('{"error":"not_found","reason":"No such thing."}\n', {}, '404 Not Found'), REFUSED],
  ['426', () => response('', { 'Sec-WebSocket-Version': '8', Upgrade: 'websocket' }, '426 Upgrade Required'), EITHER],
  ['503_with_retry_after', () => response('', { 'Retry-After': '1' }, '503 Service Unavailable'), EITHER],
  ['head_above_16_KiB', (l) => [...l, `X: ${'y'.repeat(20000)}`], BROKEN],
  ['head_above_16_KiB_by_many_small_headers', (l) => [...l, ...Array.from({ length: 100 }, (_, i) => `X-${i}: ${'y'.repeat(200)}`)], BROKEN],
  ['200_headers', (l) => [...l, ...Array.from({ length: 200 }, (_, i) => `X-${i}: y`)], BROKEN],
  ['header_without_colon', (l) => [...l, 'X-Nothing'], BROKEN],
  ['header_without_name', (l) => [...l, ': y'], BROKEN],
  ['header_name_with_a_space', (l) => [...l, 'X Y: z'], BROKEN],
  ['space_before_colon', (l) => [...l, 'X-Y : z'], BROKEN],
  ['space_before_the_first_header', (l) => [l[0], ` ${l[1]}`, ...l.slice(1)], BROKEN],
  ['obs_fold', (l) => [...l, 'X: y', ' z'], BROKEN],
  ['nul_in_a_value', (l) => [...l, 'X: y\0z'], BROKEN],
  ['nul_in_a_name', (l) => [...l, 'X\0: y'], BROKEN],
  ['bare_cr_in_a_value', (l) => [...l, 'X: y\rz'], BROKEN],
  ['bare_lf', (l) => `${l.join('\n')}\n\n`, BROKEN],
  ['bare_lf_in_one_line', (l) => [...l, 'X: y\nZ: z'], BROKEN],
  ['control_character_in_the_reason', (l) => [`${l[0]}\x1b[31m`, ...l.slice(1)], BROKEN],
  ['http_2_0', (l) => ['HTTP/2.0 101 Switching Protocols', ...l.slice(1)], BROKEN],
  ['http_1_0', (l) => ['HTTP/1.0 101 Switching Protocols', ...l.slice(1)], BROKEN],
  ['http_in_lower_case', (l) => ['http/1.1 101 Switching Protocols', ...l.slice(1)], BROKEN],
  ['two_digits_of_status', (l) => ['HTTP/1.1 10 Switching', ...l.slice(1)], BROKEN],
  ['four_digits_of_status', (l) => ['HTTP/1.1 1010 Switching', ...l.slice(1)], BROKEN],
  ['status_with_a_sign', (l) => ['HTTP/1.1 +101 Switching', ...l.slice(1)], BROKEN],
  ['two_spaces_before_the_status', (l) => ['HTTP/1.1  101 Switching', ...l.slice(1)], BROKEN],
  ['no_status_line', (l) => l.slice(1), BROKEN],
  ['line_break_before_the_status_line', (l) => ['', ...l], BROKEN],
  ['garbage', () => Buffer.from(Array.from({ length: 3000 }, (_, i) => (i * 7919) & 255)), { ...EITHER, bytesOnly: true }],
  ['an_ssh_server', () => 'SSH-2.0-OpenSSH_9.6\r\n', { ...EITHER, bytesOnly: true }],
  ['a_tls_alert', () => Buffer.from('15030100020228', 'hex'), { ...EITHER, bytesOnly: true }],
];

export default [
  ...table.map(([name, spoil, expected]) => ({
    name, args, scheme: 'ws', ...expected, conns: 1,
    async serve(c) {
      const r = await c.head();
      c.isUpgrade(r);
      c.isWebSocket = expected === WORKS;
      const answer = spoil(c.upgrade(r), r);
      c.write(Array.isArray(answer) ? lines(answer) : answer);
      if (expected.bytesOnly) c.end(); // garbage has no end of its own
      else if (!Buffer.isBuffer(answer)) c.write(bye);
    },
  })),
  { name: 'two_subprotocols_of_one_offered', args: ['--transport', 'ws', '--no-reconnect', '--timeout', '5000'], exit: 3, out: '',
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r, ['Sec-WebSocket-Protocol: rtpush.v1', 'Sec-WebSocket-Protocol: rtpush.v1'])), hello(), told(1), close(1000)); } },
  { name: 'a_list_of_subprotocols', args: ['--transport', 'ws', '--no-reconnect', '--timeout', '5000'], exit: 3, out: '',
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r, ['Sec-WebSocket-Protocol: rtpush.v1, chat'])), hello(), told(1), close(1000)); } },
  { name: 'another_subprotocol_than_offered', args: ['--transport', 'ws', '--no-reconnect', '--timeout', '5000'], exit: 3, out: '',
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r, ['Sec-WebSocket-Protocol: rtpush.v2'])), hello(), told(1), close(1000)); } },
  { name: 'subprotocol_in_another_case', args: ['--transport', 'ws', '--no-reconnect', '--timeout', '5000'], exit: 3, out: '',
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r, ['Sec-WebSocket-Protocol: RTPUSH.V1'])), hello(), told(1), close(1000)); } },
  // Raw payloads where the envelope was asked for: whatever the client makes of it, it ends and invents nothing.
  { name: 'no_subprotocol_where_one_was_offered', args: ['--transport', 'ws', '--no-reconnect', '--timeout', '5000'], exit: [0, 1, 3], out: ['', 'hi\n'],
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r)), bye); } },
  { name: 'plain_offers_no_subprotocol_and_no_extension', args, scheme: 'ws', ...WORKS,
    async serve(c, n, run) { const r = await c.accept('plain', bye); if (r.headers['sec-websocket-protocol']) run.fault('plain offers a subprotocol'); } },
  { name: 'head_and_frames_byte_by_byte', args: ['--plain', '--no-reconnect'], scheme: 'ws', ...WORKS, cpu: 600,
    async serve(c) { const r = await c.head(); c.isWebSocket = true; await c.trickle(Buffer.concat([Buffer.from(lines(c.upgrade(r))), ...bye]), 2); } },
  { name: 'frames_in_the_segment_of_the_head', args, scheme: 'ws', ...WORKS, async serve(c) { await c.accept('plain', bye); } },
  { name: 'half_a_frame_in_the_segment_of_the_head', args, scheme: 'ws', ...WORKS,
    async serve(c) { await c.accept('plain', text('hi').subarray(0, 1)); await sleep(50); c.write(text('hi').subarray(1, 3)); await sleep(50); c.write(text('hi').subarray(3), close(1000)); } },
  ...[['100_continue', 'HTTP/1.1 100 Continue\r\n\r\n'], ['103_early_hints', 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n']].map(([name, before]) => ({
    name: `${name}_before_the_101`, args, scheme: 'ws', exit: [0, 1, 3], conns: 1, out: ['hi\n', ''],
    check: (run) => (run.code === 0) !== (run.out === 'hi\n') && 'neither works nor refuses',
    async serve(c) { const r = await c.head(); c.isWebSocket = true; c.write(before + lines(c.upgrade(r)), bye); } })),
  { name: 'endless_100_continue', args, scheme: 'ws', exit: [1, 3], out: '', cpu: 3000, async serve(c) { await c.head(); await c.flood('HTTP/1.1 100 Continue\r\n\r\n'.repeat(100)); } },
  { name: 'endless_head_of_lines', args, scheme: 'ws', ...BROKEN, async serve(c) { const r = await c.head(); c.write(c.upgrade(r).join('\r\n'), '\r\n'); await c.flood('X: y\r\n'.repeat(100)); } },
  { name: 'endless_head_of_one_line', args, scheme: 'ws', ...BROKEN, async serve(c) { const r = await c.head(); c.write(c.upgrade(r).join('\r\n'), '\r\nX: '); await c.flood('y'.repeat(5000)); } },
  { name: 'endless_status_line', args, scheme: 'ws', ...BROKEN, async serve(c) { await c.head(); c.write('HTTP/1.1 101 '); await c.flood('y'.repeat(5000)); } },
  { name: 'slow_head_is_a_timeout', args: ['--plain', '--no-reconnect', '--timeout', '500'], scheme: 'ws', ...REFUSED, ms: 2500,
    async serve(c) { const r = await c.head(); await c.trickle(lines(c.upgrade(r)), 50); } },
  { name: 'head_without_its_end_is_a_timeout', args: ['--plain', '--no-reconnect', '--timeout', '500'], scheme: 'ws', ...REFUSED, ms: 2500,
    async serve(c) { const r = await c.head(); c.write(c.upgrade(r).join('\r\n')); } },
  { name: 'eof_in_the_head', args, scheme: 'ws', ...EITHER, async serve(c) { const r = await c.head(); c.end(c.upgrade(r).slice(0, 2).join('\r\n')); } },
  { name: 'reset_in_the_head', args, scheme: 'ws', ...REFUSED, async serve(c) { const r = await c.head(); c.write(c.upgrade(r).slice(0, 2).join('\r\n')); await sleep(50); c.reset(); } },
  { name: 'forced_ws_is_not_reconnected_after_a_broken_handshake', args: ['--transport', 'ws', '--timeout', '5000'], exit: 3, out: '', conns: 1,
    async serve(c) { const r = await c.head(); c.write(lines(c.upgrade(r).slice(0, 3)), hello(), told(1)); } },
].map((c) => ({ ...c, name: `handshake_${c.name}` }));
