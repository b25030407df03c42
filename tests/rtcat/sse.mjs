// Event streams: how they are spelled (--sse, a foreign stream), and as rtpush spells them (--transport sse).
import { sleep, response, streamHead, chunk, block, bytewise, message, cursor, lines } from './lib.mjs';
import { json } from './envelope.mjs';

const foreign = ['--sse', '--no-reconnect', '--timeout', '5000'];
const own = ['--transport', 'sse', '--no-reconnect', '--timeout', '5000'];
const last = '0\r\n\r\n';
const enveloped = (n, data, more) => `id: ${cursor(n)}\ndata: ${JSON.stringify({ type: 'message', ...message(n, data, more) })}\n\n`;

// A line end within the data is printed as it is, or as \n so that a message is one line.
const datas = (...list) => [list, list.map((d) => d.replace(/\n/g, '\\n'))].map((l) => l.map((d) => `${d}\n`).join(''));

// [name, the stream, stdout]: each whole and in chunks of one byte, to the end of the stream, exit 0.
const parsing = [
  ['one_event', 'data: x\n\n', 'x\n'],
  ['bom', '\ufeffdata: x\n\n', 'x\n'],
  ['bom_only_once', '\ufeff\ufeffdata: x\n\ndata: y\n\n', 'y\n'],
  ['crlf', 'data: x\r\ndata: y\r\n\r\ndata: z\r\n\r\n', datas('x\ny', 'z')],
  ['cr', 'data: x\rdata: y\r\rdata: z\r\r', datas('x\ny', 'z')],
  ['lines_of_all_kinds', 'data: x\r\ndata: y\rdata: z\n\ndata: w\r\n\n', datas('x\ny\nz', 'w')],
  ['comments', ': c\n:\ndata: x\n: d\n\n:e\n\n', 'x\n'],
  ['data_without_colon', 'data\n\ndata: x\n\n', '\nx\n'],
  ['two_lines_of_nothing', 'data\ndata\n\n', datas('\n')],
  ['several_data_lines', 'data: a\ndata: b\ndata: c\n\n', datas('a\nb\nc')],
  ['only_one_space_is_taken', 'data:  x \ndata:y\n\n', datas(' x \ny')],
  ['a_colon_in_the_data', 'data: a: b\n\n', 'a: b\n'],
  ['unknown_fields', 'foo: bar\nDATA: no\n data: no\ndata x: no\ndata: x\n\n', 'x\n'],
  ['block_without_data', 'event: e\nid: 1\n\ndata: x\n\n', 'x\n'],
  ['id_with_nul', 'id: 1\0\ndata: x\n\n', 'x\n'],
  ['retry_not_a_number', 'retry: soon\nretry: -1\nretry: 99999999999999999999999\nretry:\nretry: 1.5\ndata: x\n\n', 'x\n'],
  ['event_at_eof_without_a_blank_line', 'data: x\n\ndata: lost\n', 'x\n'],
  ['line_at_eof_without_its_end', 'data: x\n\ndata: lost', 'x\n'],
  ['gap_is_an_event_like_others', 'event: gap\ndata: {"from":"a","to":"b"}\n\n', '{"from":"a","to":"b"}\n'],
  ['data_is_not_json', 'data: {broken\n\n', '{broken\n'],
  ['utf8', 'data: é€𝄞\n\n', 'é€𝄞\n'],
  ['escapes_are_raw_to_a_pipe', 'data: \x1b[31mx\n\n', '\x1b[31mx\n'],
  ['same_id_twice_is_two_events', 'id: 7\ndata: x\n\nid: 7\ndata: y\n\n', 'x\ny\n'],
  ['empty_stream', '', ''],
  ['many_blank_lines', `${'\n'.repeat(1000)}data: x\n\n`, 'x\n'],
];

const stream = (name, args, answer, how) => ({ name, args, exit: 0, ...how, async serve(c) { await c.head(); c.write(answer); if (how.then) { await sleep(50); c[how.then](); } } });

// A server cuts a foreign stream after its first event: what does the client say when it comes back?
const resume = (name, first, wanted, more) => ({
  name, args: ['--sse', '--count', '2'], exit: 0, out: 'x\ny\n', ms: 8000, ...more,
  async serve(c, n, run) {
    const r = await c.head();
    if (n === 1) { c.write(streamHead(), chunk(first)); await sleep(50); c.cut(); return; }
    const got = r.headers['last-event-id'];
    if (got !== wanted) run.fault(`Last-Event-ID ${JSON.stringify(got)}, expected ${JSON.stringify(wanted)}`);
    c.write(streamHead(), chunk('data: y\n\n'));
  },
});
const pause = (run) => run.requests[1].at - run.requests[0].at;

export default [
  ...parsing.flatMap(([name, body, out]) => [
    stream(name, foreign, [streamHead(), ...(body ? [chunk(body)] : []), last], { out }),
    stream(`${name}_byte_by_byte`, foreign, [streamHead(), bytewise(body), last], { out }),
  ]),
  { name: 'bytes_one_by_one_on_the_wire', args: ['--sse', '--no-reconnect'], exit: 0, out: datas('x\ny', 'z'), cpu: 600, async serve(c) { await c.head(); await c.trickle(Buffer.concat([streamHead(), chunk('data: x\r\ndata: y\r\n\r'), chunk('\ndata: z\n\n'), Buffer.from(last)])); } },
  { name: 'event_is_printed_when_it_ends_not_later', args: [...foreign, '--count', '1'], exit: 0, out: 'x\n', ms: 3000, async serve(c) { await c.head(); c.write(streamHead(), chunk('data: x\n\n')); } },
  { name: 'cr_is_an_end_before_what_follows', args: [...foreign, '--count', '1'], exit: 0, out: 'x\n', ms: 3000, async serve(c) { await c.head(); c.write(streamHead(), chunk('data: x\r\r')); } },
  stream('no_length_ends_with_the_connection', foreign, [lines(['HTTP/1.1 200 OK', 'Content-Type: text/event-stream']), 'data: x\n\n'], { out: 'x\n', then: 'end' }),
  stream('http_1_0', foreign, [lines(['HTTP/1.0 200 OK', 'Content-Type: text/event-stream']), 'data: x\n\n'], { exit: [0, 3], out: ['x\n', ''], then: 'end' }),
  stream('content_length', foreign, response('data: x\n\n', { 'Content-Type': 'text/event-stream' }), { out: 'x\n' }),
  stream('content_length_cut', foreign, response('data: x\n\n', { 'Content-Type': 'text/event-stream', 'Content-Length': 100 }), { exit: 1, out: 'x\n', then: 'end' }),
  stream('chunked_cut', foreign, [streamHead(), chunk('data: x\n\n')], { exit: 1, out: 'x\n', then: 'end' }),
  stream('chunked_reset', foreign, [streamHead(), chunk('data: x\n\n')], { exit: 1, out: 'x\n', then: 'reset' }),
  stream('content_type_with_parameters_and_case', foreign, [streamHead({ 'Content-Type': 'Text/Event-Stream ; charset=utf-8' }), chunk('data: x\n\n'), last], { out: 'x\n' }),
  stream('content_type_html', foreign, response('data: x\n\n', { 'Content-Type': 'text/html' }), { exit: [1, 3], out: '' }),
  stream('content_type_only_begins_so', foreign, response('data: x\n\n', { 'Content-Type': 'text/event-streamx' }), { exit: [1, 3], out: '' }),
  stream('content_type_missing', foreign, response('data: x\n\n', { 'Content-Type': null }), { exit: [1, 3], out: '' }),
  stream('own_content_type_html', own, response('data: x\n\n', { 'Content-Type': 'text/html' }), { exit: [1, 3], out: '' }),
  stream('204_is_a_no', foreign, response('', { 'Content-Length': null }, '204 No Content'), { exit: [0, 1, 3], out: '' }),
  stream('502', foreign, response('<html>', { 'Content-Type': 'text/html' }, '502 Bad Gateway'), { exit: [1, 3], out: '' }),
  stream('invalid_utf8_is_not_passed_on_by_json', [...foreign, '--json'], [streamHead(), chunk(Buffer.from('data: \xff\n\n', 'latin1')), last], { exit: [0, 3], check: (run) => run.out.includes('\xff') && 'invalid UTF-8 in JSON', out: (out) => out.split('\n').filter(Boolean).every((l) => JSON.parse(l)) }),
  // What must be kept must be bounded; what is thrown away may be endless.
  ...[['endless_line', 'data: ', 'x'.repeat(65536)], ['endless_comment', ': ', 'x'.repeat(65536)], ['endless_field_name', 'da', 'x'.repeat(65536)], ['endless_data_lines', '', 'data: x\n'.repeat(8000)], ['endless_empty_data_lines', '', 'data\n'.repeat(8000)], ['endless_id', 'id: ', 'x'.repeat(65536)]].map(([name, first, piece]) => ({
    name, args: foreign, exit: /comment|name/.test(name) ? [0, 3] : 3, out: '', cpu: 2000, ms: 12000, async serve(c) { await c.head(); c.write(streamHead(), ...(first ? [chunk(first)] : [])); await c.flood(chunk(piece), 1600); c.end(last); } })),
  { name: 'endless_heartbeats_cost_no_memory', args: [...foreign, '--count', '1'], exit: 0, out: 'x\n', cpu: 3000, async serve(c) { await c.head(); c.write(streamHead()); await c.flood(chunk(': heartbeat\n\n'.repeat(5000)), 150); c.write(chunk('data: x\n\n')); } },
  { name: 'waits_without_spinning', args: foreign, eof: true, exit: 'stopped', stop: 1500, cpu: 250, out: 'x\n', async serve(c) { await c.head(); c.write(streamHead(), chunk('data: x\n\n')); } },
  { name: 'asks_for_a_stream', args: foreign, exit: 0, out: '', async serve(c, n, run) { const r = await c.head(); if (r.kind !== 'sse') run.fault(`asked for ${r.kind}`); c.write(streamHead(), last); } },

  resume('id_is_sent_back', 'id: 17\ndata: x\n\n', '17'),
  resume('id_of_a_block_without_data_is_sent_back', 'id: 17\ndata: x\n\nid: 18\n\n', '18'),
  resume('id_of_an_unfinished_block_is_not_sent_back', 'id: 17\ndata: x\n\nid: 18\ndata: no', '17'),
  resume('id_with_nul_is_not_sent_back', 'id: 17\ndata: x\n\nid: 1\x008\n\n', '17'),
  resume('empty_id_clears_it', 'id: 17\ndata: x\n\nid\n\n', undefined),
  resume('id_with_a_space_is_sent_back', 'id: a b\ndata: x\n\n', 'a b'),
  resume('retry_is_obeyed', 'retry: 1500\nid: 1\ndata: x\n\n', '1', { check: (run) => pause(run) < 1400 && `after ${pause(run)} ms, expected 1500` }),
  resume('retry_not_a_number_is_passed_over', 'retry: 60000x\nretry: 6e4\nid: 1\ndata: x\n\n', '1', { check: (run) => pause(run) > 4000 && `after ${pause(run)} ms` }),
  { name: 'retry_0_does_not_spin', args: ['--sse'], exit: [1, 3, 'stopped'], stop: 1500, cpu: 400, conns: 30, out: /^(x\n)*$/, async serve(c) { await c.head(); c.end(streamHead(), chunk('retry: 0\ndata: x\n\n'), last); } },

  { name: 'own_messages', args: [...own, '--count', '2'], exit: 0, out: datas('m1', 'a\nb'), async serve(c) { await c.head(); c.write(streamHead(), chunk(`retry: 1000\n: hi\nid: ${cursor(0)}\n\n${block(1)}${block(2, 'a\nb', 'e')}`)); } },
  { name: 'own_repeated_ids_are_printed_once', args: own, exit: 0, out: 'm1\nm2\nm3\n', async serve(c) { await c.head(); c.write(streamHead(), chunk(block(1) + block(2) + block(2) + block(1) + block(3)), last); } },
  { name: 'own_json', args: [...own, '--json'], exit: 0, out: json(message(1), message(2, 'a\nb', { event: 'e' })), async serve(c) { await c.head(); c.write(streamHead(), chunk(block(1) + block(2, 'a\nb', 'e')), last); } },
  // An rtpush server that was asked for ?events=envelope and says that it does so.
  ...[
    ['works', [enveloped(1), enveloped(2, { k: 1 }), enveloped(3, '/wAK', { encoding: 'base64' })], { exit: 0, out: 'm1\n{"k":1}\n/wAK\n' }],
    ['same_id_twice', [enveloped(1), enveloped(1), enveloped(2)], { exit: 0, out: 'm1\nm2\n' }],
    ['unknown_type', ['data: {"type":"dance"}\n\n', enveloped(1)], { exit: 0, out: 'm1\n' }],
    ['not_json', [enveloped(1), `id: ${cursor(2)}\ndata: nonsense\n\n`, enveloped(3)], { exit: 3, out: 'm1\n' }],
    ['an_array', [enveloped(1), `id: ${cursor(2)}\ndata: []\n\n`, enveloped(3)], { exit: 3, out: 'm1\n' }],
    ['10000_deep', [enveloped(1), `data: ${'['.repeat(10000)}\n\n`, enveloped(3)], { exit: 3, out: 'm1\n' }],
    ['id_that_is_no_cursor', [enveloped(1), 'data: {"type":"message","id":"x","topic":"t","data":"y"}\n\n', enveloped(3)], { exit: [0, 3], out: ['m1\n', 'm1\nm3\n', 'm1\ny\nm3\n'] }],
  ].map(([name, pieces, expected]) => ({
    name: `own_envelope_${name}`, args: own, ...expected,
    async serve(c) { await c.head(); c.write(streamHead({ 'Rtpush-Events': 'envelope' }), chunk(`retry: 1000\n: rtpush\ndata: {"type":"hello","cursor":"${cursor(0)}","heartbeat":15000}\nid: ${cursor(0)}\n\n`), pieces.map((p) => chunk(p)), last); } })),
  { name: 'own_gap', args: own, exit: 0, out: 'm6\n', err: /^rtcat: gap from k3f9x2ab-1 to k3f9x2ab-5 \(evicted\)$/m,
    async serve(c) { await c.head(); c.write(streamHead(), chunk(`event: gap\ndata: {"from":"${cursor(1)}","to":"${cursor(5)}","reason":"evicted"}\nid: ${cursor(5)}\n\n${block(6)}`), last); } },
  { name: 'own_gap_json_in_its_place', args: [...own, '--json'], exit: 0, out: json(message(1), { gap: { from: cursor(1), to: cursor(5), reason: 'evicted' } }, message(6)),
    async serve(c) { await c.head(); c.write(streamHead(), chunk(`${block(1)}event: gap\ndata: {"from":"${cursor(1)}","to":"${cursor(5)}","reason":"evicted"}\nid: ${cursor(5)}\n\n${block(6)}`), last); } },
  { name: 'own_gap_quiet', args: [...own, '--quiet'], exit: 0, out: 'm6\n', noErr: true,
    async serve(c) { await c.head(); c.write(streamHead(), chunk(`event: gap\ndata: {"from":"","to":"${cursor(5)}","reason":"epoch"}\nid: ${cursor(5)}\n\n${block(6)}`), last); } },
  ...[['not_json', 'nonsense\x1b]0;x\x07'], ['an_array', '[]'], ['null_fields', '{"from":null,"to":{}}'], ['control_characters', '{"from":"\\u001b]0;x\\u0007","to":"\\r\\n","reason":"\\u009b"}']].map(([name, data]) => ({
    name: `own_gap_${name}`, args: own, exit: [0, 3], out: ['m6\n', ''], err: /^[^\x9b]*$/, async serve(c) { await c.head(); c.write(streamHead(), chunk(`event: gap\ndata: ${data}\n\n${block(6)}`), last); } })),
  { name: 'own_id_that_is_no_cursor', args: own, exit: [0, 3], out: ['x\nm6\n', 'm6\n', ''], async serve(c) { await c.head(); c.write(streamHead(), chunk(`id: nonsense\ndata: x\n\n${block(6)}`), last); } },
].map((c) => ({ ...c, name: `sse_${c.name}` }));
