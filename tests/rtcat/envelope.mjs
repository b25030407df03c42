// What rtpush.v1 may hold: JSON that is none, messages that are none, ids that go back, gaps, errors, drains.
import { sleep, text, close, hello, told, envelope, message, cursor } from './lib.mjs';

const args = ['--transport', 'ws', '--no-reconnect'];
const parsed = (...wanted) => (out) => JSON.stringify(out.trimEnd().split('\n').filter(Boolean).map((l) => JSON.parse(l))) === JSON.stringify(wanted);
// --json with the keys in whatever order
const sorted = (o) => (o && typeof o === 'object' && !Array.isArray(o) ? Object.fromEntries(Object.keys(o).sort().map((k) => [k, sorted(o[k])])) : o);
export const json = (...wanted) => (out) => { try { return parsed(...wanted.map(sorted))(out.split('\n').filter(Boolean).map((l) => JSON.stringify(sorted(JSON.parse(l)))).join('\n')); } catch { return false; } };
const BROKEN = { exit: 3, out: 'a\n' };
const PASSED_OVER = { exit: 0, out: 'a\nb\n' };
const EITHER = { exit: [0, 3], out: ['a\n', 'a\nb\n'], check: (run) => (run.code === 0) !== run.out.endsWith('b\n') && 'neither refused nor passed over' };
// Asked to come back later, a client may go at once.
const LEAVES = { exit: [0, 3], out: ['a\n', 'a\nb\n'] };
// As EITHER, or what was sent is printed.
const TAKEN = { exit: [0, 3], out: (out) => /^a\n([^]*\n)?(b\n)?$/.test(out) };
const raw = (s) => text(s);
const deep = (n, open = '[', shut = ']') => open.repeat(n) + shut.repeat(n);

// [name, envelopes, what is expected]: behind hello and the message a, before the message b and the close 1000.
const table = [
  ['not_json', raw('hello'), BROKEN],
  ['empty', raw(''), BROKEN],
  ['cut_json', raw('{"type":"message","id":"'), BROKEN],
  ['json_with_a_tail', raw('{"type":"heartbeat"}}'), BROKEN],
  ['json_with_a_trailing_comma', raw('{"type":"heartbeat",}'), BROKEN],
  ['json_with_single_quotes', raw("{'type':'heartbeat'}"), BROKEN],
  ['json_with_a_raw_line_feed_in_a_string', raw('{"type":"x\ny"}'), BROKEN],
  ['json_with_a_bad_escape', raw('{"type":"heartbeat","x":"\\q"}'), BROKEN],
  ['json_with_a_bad_number', raw('{"type":"heartbeat","x":01}'), BROKEN],
  ['an_array', raw('["message"]'), BROKEN],
  ['a_string', raw('"message"'), BROKEN],
  ['a_number', raw('17'), BROKEN],
  ['null', raw('null'), BROKEN],
  ['10000_deep_arrays', raw(deep(10000)), BROKEN],
  ['10000_deep_arrays_in_an_unknown_type', raw(`{"type":"x","y":${deep(10000)}}`), EITHER],
  ['10000_deep_objects_as_data', raw(`{"type":"message","id":"${cursor(2)}","topic":"t","data":${'{"a":'.repeat(10000)}1${'}'.repeat(10000)}}`), { ...TAKEN, cpu: 1000 }],
  ['200000_open_brackets', raw('['.repeat(200000)), { ...BROKEN, cpu: 1000 }],
  ['unknown_type', envelope({ type: 'dance', id: 7, data: 'x' }), PASSED_OVER],
  ['type_in_another_case', envelope({ type: 'MESSAGE', ...message(2, 'x') }), PASSED_OVER],
  ['no_type', envelope({ id: cursor(2), data: 'x' }), EITHER],
  ['type_is_a_number', envelope({ type: 1 }), EITHER],
  ['type_twice', raw(`{"type":"heartbeat","type":"message","id":"${cursor(2)}","topic":"t","data":"x"}`), TAKEN],
  ['long_unknown_type', envelope({ type: 'x'.repeat(100000) }), PASSED_OVER],
  ['many_keys', raw(`{"type":"heartbeat",${Array.from({ length: 20000 }, (_, i) => `"k${i}":${i}`)}}`), { ...PASSED_OVER, cpu: 1000 }],
  ['message_without_id', envelope({ type: 'message', topic: 't', data: 'x' }), TAKEN],
  ['message_with_an_id_that_is_no_cursor', envelope({ type: 'message', topic: 't', data: 'x', id: '../../etc' }), TAKEN],
  ['message_with_a_number_for_id', envelope({ type: 'message', topic: 't', data: 'x', id: 3 }), TAKEN],
  ['message_with_a_seq_that_overflows', envelope({ type: 'message', topic: 't', data: 'x', id: 'k3f9x2ab-18446744073709551616' }), { exit: [0, 3], out: (out) => /^a\n(x\n)?(b\n)?$/.test(out) }],
  ['message_with_a_negative_seq', envelope({ type: 'message', topic: 't', data: 'x', id: 'k3f9x2ab--1' }), TAKEN],
  ['message_with_a_huge_id', envelope({ type: 'message', topic: 't', data: 'x', id: `k3f9x2ab-${'1'.repeat(100000)}` }), TAKEN],
  ['message_without_data', envelope({ type: 'message', id: cursor(2), topic: 't' }), TAKEN],
  ['message_without_topic', envelope({ type: 'message', id: cursor(2), data: 'x' }), TAKEN],
  ['message_of_a_topic_that_was_not_asked_for', told(2, 'x', { topic: 'other' }), { exit: [0, 3], out: ['a\nx\nb\n', 'a\nb\n', 'a\n'] }],
  ['base64_that_is_none', told(2, '!!!not base64!!!', { encoding: 'base64' }), TAKEN],
  ['base64_cut_short', told(2, 'AAA', { encoding: 'base64' }), TAKEN],
  ['base64_that_is_a_number', told(2, 5, { encoding: 'base64' }), TAKEN],
  ['base64_is_printed_as_it_came', told(2, '/wAK', { encoding: 'base64' }), { exit: 0, out: 'a\n/wAK\nb\n' }],
  ['unknown_encoding', told(2, 'x', { encoding: 'rot13' }), TAKEN],
  ['lone_surrogate', raw(`{"type":"message","id":"${cursor(2)}","topic":"t","data":"\\ud800"}`), TAKEN],
  ['surrogate_pair', raw(`{"type":"message","id":"${cursor(2)}","topic":"t","data":"\\ud834\\udd1e"}`), { exit: 0, out: 'a\n𝄞\nb\n' }],
  ['nul_in_data', told(2, 'x\0y'), { exit: [0, 3], out: ['a\nx\0y\nb\n', 'a\n'] }],
  ['escapes_in_data_are_raw_to_a_pipe', told(2, 'x\x1b[31my\x07'), { exit: 0, out: 'a\nx\x1b[31my\x07\nb\n' }],
  ['empty_data', told(2, ''), { exit: 0, out: 'a\n\nb\n' }],
  ['data_is_an_object', told(2, { k: [1, null, 'é'] }), { exit: 0, out: 'a\n{"k":[1,null,"é"]}\nb\n' }],
  ['data_is_a_number_that_overflows', raw(`{"type":"message","id":"${cursor(2)}","topic":"t","data":1e999999}`), { exit: [0, 3], out: ['a\n1e999999\nb\n', 'a\n'] }],
  ['data_is_a_number_of_10000_digits', raw(`{"type":"message","id":"${cursor(2)}","topic":"t","data":${'9'.repeat(10000)}}`), { exit: [0, 3], out: [`a\n${'9'.repeat(10000)}\nb\n`, 'a\n'] }],
  ['same_id_twice_is_printed_once', [told(2, 'x'), told(2, 'x')], { exit: 0, out: 'a\nx\nb\n' }],
  ['ids_that_go_back_are_not_printed_twice', [told(2, 'x'), told(3, 'y'), told(2, 'x'), told(1, 'a'), told(3, 'y')], { exit: [0, 3], out: ['a\nx\ny\nb\n', 'a\nx\ny\n'] }],
  ['id_of_another_epoch', envelope({ type: 'message', ...message(2, 'x'), id: 'zzzzzzzz-1' }), { exit: [0, 3], out: ['a\nx\nb\n', 'a\nb\n', 'a\n'] }],
  ['heartbeat', envelope({ type: 'heartbeat', cursor: cursor(1) }), PASSED_OVER],
  ['heartbeat_without_cursor', envelope({ type: 'heartbeat' }), PASSED_OVER],
  ['heartbeat_with_nonsense', envelope({ type: 'heartbeat', cursor: { x: [1] } }), EITHER],
  ['hello_twice', hello(1), EITHER],
  ['ack_unasked', envelope({ type: 'ack', ref: 99, id: cursor(5) }), PASSED_OVER],
  ['gap', envelope({ type: 'gap', from: cursor(1), to: cursor(5), reason: 'evicted' }), { ...PASSED_OVER, err: /^rtcat: gap from k3f9x2ab-1 to k3f9x2ab-5 \(evicted\)$/m }],
  ['gap_of_an_epoch', envelope({ type: 'gap', from: 'zzzzzzzz-7', to: cursor(0), reason: 'epoch' }), { exit: 0, out: 'a\nb\n', err: /^rtcat: gap from zzzzzzzz-7 to k3f9x2ab-0 \(epoch\)$/m }],
  ['gap_without_fields', envelope({ type: 'gap' }), EITHER],
  ['gap_with_nonsense', envelope({ type: 'gap', from: 5, to: null, reason: [] }), EITHER],
  ['gap_that_steers_the_terminal', envelope({ type: 'gap', from: '\x1b]0;x\x07', to: '\r\nrtcat: all is well', reason: '\x9b31m' }), { ...EITHER, err: /^(?![^]*^rtcat: all is well)[^\x9b]*$/m }],
  ['gap_of_100000_characters', envelope({ type: 'gap', from: 'x'.repeat(100000), to: 'y', reason: 'z' }), EITHER],
  ['error_without_a_code', envelope({ type: 'error' }), EITHER],
  ['error_with_an_overflow', raw('{"type":"error","code":99999999999999999999999999,"reason":"x"}'), { exit: [0, 1, 3], out: ['a\n', 'a\nb\n'] }],
  ['error_with_a_fraction', raw('{"type":"error","code":-4.5e400,"reason":"x"}'), { exit: [0, 1, 3], out: ['a\n', 'a\nb\n'] }],
  // The library sends the error, then a close with the same code.
  ['error_4001_then_its_close', [envelope({ type: 'error', code: 4001, reason: 'expired' }), close(4001, 'expired')], { exit: 1, out: 'a\n', err: /expired|4001/ }],
  ...[['huge', 1e300], ['beyond_32_bits', 4294967297], ['negative', -5], ['string', 'soon'], ['null', null], ['object', {}], ['fraction', 0.5]].map(([what, after]) =>
    [`reconnect_${what}`, raw(`{"type":"reconnect","after":${JSON.stringify(after)}}`), LEAVES]),
  ['reconnect_overflow', raw('{"type":"reconnect","after":1e99999}'), LEAVES],
  ['reconnect_without_after', raw('{"type":"reconnect"}'), LEAVES],
];

const shows = (name, pieces, how) => ({ name, args, ...how, async serve(c) { await c.accept('v1', hello(), pieces); } });
const all = [
  ...table.map(([name, pieces, expected]) => ({
    name, args, ...expected, conns: 1,
    async serve(c) { await c.accept('v1', hello(), told(1, 'a')); await sleep(10); c.write(pieces, told(9, 'b'), close(1000)); },
  })),
  { name: 'no_hello', args, exit: [0, 3], out: ['', 'a\n'], async serve(c) { await c.accept('v1', told(1, 'a'), close(1000)); } },
  { name: 'hello_without_a_cursor', args, exit: [0, 3], out: ['', 'a\n'], async serve(c) { await c.accept('v1', envelope({ type: 'hello' }), told(1, 'a'), close(1000)); } },
  { name: 'hello_with_nonsense', args, exit: [0, 3], out: ['', 'a\n'], async serve(c) { await c.accept('v1', envelope('{"type":"hello","cursor":[],"heartbeat":-1e999}'), told(1, 'a'), close(1000)); } },
  // A watchdog that believes heartbeat 0 or 1 would cut and reconnect without end.
  ...[0, 1, -5, 1e300].map((h) => ({ name: `hello_with_heartbeat_${h}_does_not_spin`, args: ['--transport', 'ws'], exit: [3, 'stopped'], stop: 1500, cpu: 400, out: /^(a\n)?$/, conns: 12,
    async serve(c, n) { await c.accept('v1', envelope({ type: 'hello', cursor: cursor(n > 1 ? 1 : 0), heartbeat: h }), told(1, 'a')); } })),
  { name: 'silence_instead_of_hello', args: [...args, '--timeout', '500'], exit: [0, 1, 3, 'stopped'], stop: 1500, cpu: 250, out: '', async serve(c) { await c.accept('v1'); } },
  shows('json_of_all_kinds', [told(1, 'text\n"q"\x1b'), told(2, { a: [1] }, { event: 'e' }), told(3, '/wAK', { encoding: 'base64' }), told(4, 5), told(5, null), told(6, 'x', { replay: true }), close(1000)], {
    args: [...args, '--json'], exit: 0,
    out: json(message(1, 'text\n"q"\x1b'), message(2, { a: [1] }, { event: 'e' }), message(3, '/wAK', { encoding: 'base64' }), message(4, 5), message(5, null), message(6, 'x')),
    check: (run) => /[\x00-\x09\x0b-\x1f]/.test(run.out) && 'a control character in a JSON line' }),
  shows('json_gap_in_its_place', [told(1, 'a'), envelope({ type: 'gap', from: cursor(1), to: cursor(5), reason: 'evicted' }), told(6, 'b'), close(1000)], {
    args: [...args, '--json'], exit: 0, out: json(message(1, 'a'), { gap: { from: cursor(1), to: cursor(5), reason: 'evicted' } }, message(6, 'b')) }),
  shows('json_gap_without_fields_is_still_a_json_line', [told(1, 'a'), envelope({ type: 'gap', from: '"\n', to: 7 }), told(6, 'b'), close(1000)], {
    args: [...args, '--json'], exit: [0, 3], out: (out) => { try { return out.trimEnd().split('\n').every((l) => typeof JSON.parse(l) === 'object'); } catch { return false; } } }),
  shows('quiet_says_no_gap', [envelope({ type: 'gap', from: cursor(1), to: cursor(5), reason: 'evicted' }), told(6, 'b'), close(1000)], { args: [...args, '--quiet'], exit: 0, out: 'b\n', noErr: true }),
  shows('gap_at_the_start_from_nothing', [envelope({ type: 'gap', from: '', to: cursor(5), reason: 'epoch' }), told(6, 'b'), close(1000)], { args: [...args, '--since', 'earliest'], exit: 0, out: 'b\n', err: /^rtcat: gap from .*to k3f9x2ab-5 \(epoch\)$/m }),
  shows('count_counts_messages_only', [told(1, 'a'), told(1, 'a'), envelope({ type: 'heartbeat' }), envelope({ type: 'gap', from: cursor(1), to: cursor(2), reason: 'evicted' }), told(3, 'b'), told(4, 'c')], { args: [...args, '--count', '2'], exit: 0, out: 'a\nb\n' }),
  { name: 'broken_json_is_not_reconnected_when_forced', args: ['--transport', 'ws'], exit: 3, out: 'a\n', conns: 1, async serve(c) { await c.accept('v1', hello(), told(1, 'a'), text('nonsense')); } },
  { name: 'escapes_are_not_raw_to_a_terminal', args: ['--transport', 'ws', '--no-reconnect'], tty: true, exit: [0, null], ms: 8000, cpu: 1000,
    skip: (run) => (run.code === 127 || run.signal === 'ENOENT' || /not found/.test(run.out) ? 'no program `script`' : ''),
    out: (out) => !out.includes('\x1b]0;evil') && out.includes('evil'),
    async serve(c) { await c.accept('v1', hello(), told(1, 'x\x1b]0;evil\x07y'), close(1000)); } },
  { name: 'reconnect_negative_does_not_spin', args: ['--transport', 'ws'], exit: [3, 'stopped'], stop: 1500, cpu: 400, conns: 12, out: /^(m1\n)?$/,
    async serve(c, n) { await c.accept('v1', hello(n > 1 ? 1 : 0), told(1), envelope({ type: 'reconnect', after: -1e9 }), close(1012, 'retry=-1000000')); } },
  { name: 'reconnect_0_does_not_spin', args: ['--transport', 'ws'], exit: [3, 'stopped'], stop: 1500, cpu: 400, conns: 30, out: /^(m1\n)?$/,
    async serve(c, n) { await c.accept('v1', hello(n > 1 ? 1 : 0), told(1), envelope({ type: 'reconnect', after: 0 }), close(1012, 'retry=0')); } },
  { name: 'reconnect_huge_then_close_waits_without_spinning', args: ['--transport', 'ws'], exit: [3, 'stopped'], stop: 1500, cpu: 200, conns: 12, out: /^(m1\n)?$/,
    async serve(c, n) { await c.accept('v1', hello(n > 1 ? 1 : 0), told(1), envelope({ type: 'reconnect', after: 1e300 }), close(1012, 'retry=99999999999999999999')); } },
  { name: 'publish_is_an_envelope_and_its_error_is_told', args: [...args, '--count', '1'], in: 'he said "hi"\n', exit: 0, out: 'end\n',
    async serve(c, n, run) {
      await c.accept('v1', hello());
      const f = await c.frame(), o = JSON.parse(f.data.toString());
      if (o.type !== 'publish' || o.data !== 'he said "hi"' || (o.topic ?? 't') !== 't') run.fault(`published ${f.data}`);
      c.write(envelope({ type: 'error', ref: o.ref, code: 403, reason: 'no publishing\x1b[31m' }), told(1, 'end'));
    } },
  { name: 'publish_of_a_line_that_is_not_utf8_does_not_break_the_connection', args: [...args, '--count', '1'], in: Buffer.from('\xff\xfe\n', 'latin1'), exit: [0, 1, 2], out: ['end\n', ''],
    async serve(c, n, run) {
      await c.accept('v1', hello());
      await Promise.race([sleep(400), c.frame().then((f) => { if (f.op === 1 && !Buffer.from(f.data.toString('utf8')).equals(f.data)) run.fault('a text frame that is not UTF-8'); })]);
      c.write(told(1, 'end'));
    } },
];
export default all.map((c) => ({ ...c, name: `envelope_${c.name}` }));
