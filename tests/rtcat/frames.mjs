// Frames that a server must not send, and some that it may; by --plain and by the envelope.
import { sleep, frame, text, close, hello, told, message } from './lib.mjs';

const modes = {
  plain: { args: ['--plain', '--no-reconnect'], scheme: 'ws', first: [], message: (n, data) => data },
  v1: { args: ['--transport', 'ws', '--no-reconnect'], scheme: 'http', first: [hello()], message: (n, data) => JSON.stringify({ type: 'message', ...message(n, data) }) },
};
const BAD = { exit: 3, closes: [1002] };
const UTF8 = { exit: 3, closes: [1007] };
const BIG = { exit: 3, closes: [1009, 1002, 1008] };
const LIVES = { exit: 0, out: 'a\nb\n' };
const bytes = (hex) => Buffer.from(hex, 'hex');
const half = (s) => [s.subarray(0, s.length >> 1), s.subarray(s.length >> 1)];

// [name, (message(n, data), mode) => frames, what is expected]. Before them goes the message a, behind them the message b
// and a close with 1000: a client that overlooks what is wrong prints b and exits with 0.
const table = [
  ['nothing_wrong', () => [], LIVES],
  ['masked', (m) => text(m(2, 'x'), { mask: true }), BAD],
  ['masked_empty_ping', () => frame(9, '', { mask: true }), BAD],
  ['rsv1', (m) => text(m(2, 'x'), { rsv: 4 }), BAD],
  ['rsv2', (m) => text(m(2, 'x'), { rsv: 2 }), BAD],
  ['rsv3', (m) => text(m(2, 'x'), { rsv: 1 }), BAD],
  ['rsv1_on_a_ping', () => frame(9, 'x', { rsv: 4 }), BAD],
  ['opcode_3', (m) => frame(3, m(2, 'x')), BAD],
  ['opcode_7_empty', () => frame(7), BAD],
  ['opcode_11', () => frame(11, 'x'), BAD],
  ['opcode_15_fragmented', () => frame(15, '', { fin: 0 }), BAD],
  ['fragmented_ping', () => [frame(9, 'x', { fin: 0 }), frame(0, 'y')], BAD],
  ['fragmented_close', () => frame(8, bytes('03e8'), { fin: 0 }), BAD],
  ['ping_of_126_bytes', () => frame(9, 'x'.repeat(126)), BAD],
  ['ping_declared_126_bytes_that_never_come', () => frame(9, '', { length: 126 }), { ...BAD, silent: true }],
  ['close_of_126_bytes', () => close(1000, 'x'.repeat(124)), BAD],
  ['continuation_without_a_start', (m) => frame(0, m(2, 'x')), BAD],
  ['continuation_after_a_whole_message', (m) => [text(m(2, 'x')), frame(0, 'y')], { ...BAD, out: ['a\n', 'a\nx\n'] }],
  ['new_data_in_a_fragmented_message', (m) => [text(m(2, 'x').slice(0, 1), { fin: 0 }), text(m(3, 'y'))], BAD],
  ['message_in_three_fragments', (m) => { const s = Buffer.from(m(2, 'xyz')); return [text(s.subarray(0, 1), { fin: 0 }), frame(0, s.subarray(1, -1), { fin: 0 }), frame(0, s.subarray(-1))]; }, { exit: 0, out: 'a\nxyz\nb\n' }],
  ['fragments_with_pings_between', (m) => { const [x, y] = half(Buffer.from(m(2, 'xyz'))); return [text(x, { fin: 0 }), frame(9, 'p'), frame(0, '', { fin: 0 }), frame(10), frame(0, y)]; }, { exit: 0, out: 'a\nxyz\nb\n' }],
  ['a_character_split_over_fragments', (m) => { const s = Buffer.from(m(2, '𝄞')), i = s.indexOf(0xf0) + 2; return [text(s.subarray(0, i), { fin: 0 }), frame(0, s.subarray(i))]; }, { exit: 0, out: 'a\n𝄞\nb\n' }],
  ['invalid_utf8', () => text(bytes('ff')), UTF8],
  ['invalid_utf8_overlong', () => text(bytes('22c0af22')), UTF8],
  ['invalid_utf8_surrogate', () => text(bytes('22eda08022')), UTF8],
  ['invalid_utf8_above_10ffff', () => text(bytes('22f490808022')), UTF8],
  ['invalid_utf8_in_the_first_fragment', () => [text(bytes('22ff22'), { fin: 0 }), frame(0, 'x')], UTF8],
  ['invalid_utf8_split_over_fragments', () => [text(bytes('22e282'), { fin: 0 }), frame(0, bytes('2822'))], UTF8],
  ['invalid_utf8_at_the_end', (m) => text(Buffer.concat([Buffer.from(m(2, 'x')), bytes('f09d84')])), UTF8],
  ['length_with_its_msb', () => Buffer.concat([bytes('817f'), bytes('8000000000000001'), Buffer.from('x')]), { ...BIG, silent: true }],
  ['length_2_pow_64_minus_1', () => Buffer.concat([bytes('817f'), bytes('ffffffffffffffff')]), { ...BIG, silent: true }],
  ['declared_2_pow_40_bytes', () => text('x', { length: 2 ** 40 }), { ...BIG, silent: true }],
  ['declared_2_pow_32_bytes', () => text('x', { length: 2 ** 32 }), { ...BIG, silent: true }],
  ['length_sum_overflow', () => [text('x', { fin: 0 }), frame(0, 'x', { length: 0x7fffffffffffffffn })], { ...BIG, silent: true }],
  ['message_above_1_MiB', (m) => text(m(2, 'x'.repeat(1048577))), { ...BIG, cpu: 1000 }],
  ['message_above_1_MiB_in_fragments', (m) => { const [x, y] = half(Buffer.from(m(2, 'x'.repeat(1200000)))); return [text(x, { fin: 0 }), frame(0, y)]; }, { ...BIG, cpu: 1000 }],
  ['10000_empty_fragments', () => [text('', { fin: 0 }), ...Array(10000).fill(frame(0, '', { fin: 0 })), frame(0, 'x')], { exit: [0, 3], cpu: 1000, out: ['a\n', 'a\nx\nb\n'] }],
  ['not_the_shortest_length_16', (m) => { const s = Buffer.from(m(2, 'x')); return [Buffer.from([0x81, 126, 0, s.length]), s]; }, { exit: [0, 3], out: ['a\n', 'a\nx\nb\n'], closes: [1000, 1002] }],
  ['close_with_1_byte', () => frame(8, 'x'), BAD],
  ...[0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535].map((code) => [`close_with_${code}`, () => close(code), BAD]),
  ['close_with_invalid_utf8', () => close(1000, bytes('c328')), { exit: 3, closes: [1007, 1002] }],
  ...[1000, 1001, 1012].map((code) => [`close_${code}_is_an_end`, () => close(code, 'bye'), { exit: 0, out: 'a\n', closes: [code, 1000] }]),
  ['close_without_a_code', () => frame(8), { exit: [0, 1], out: 'a\n', closes: [1000, 1005] }],
  ['close_1011', () => close(1011, 'oops'), { exit: [0, 1], out: 'a\n' }],
  ['close_4001_gives_up', () => close(4001, 'expired'), { exit: 1, out: 'a\n', err: /expired|4001/ }],
  ['close_4003_gives_up', () => close(4003), { exit: 1, out: 'a\n' }],
  ['close_1008_with_a_reason_that_steers_the_terminal', () => close(1008, 'x\x1b[31m\ny\x9b'), { exit: [0, 1], out: 'a\n' }],
  ['close_then_more_data', (m) => [close(1000), text(m(2, 'late')), bytes('ffffffffffff')], { exit: 0, out: 'a\n' }],
  ['close_then_another_close', () => [close(1000), close(1011)], { exit: 0, out: 'a\n' }],
  ['pong_unasked', () => [frame(10), frame(10, 'x'.repeat(125))], LIVES],
  ['ping_of_125_bytes', () => frame(9, 'x'.repeat(125)), LIVES],
  ['eof_in_a_frame', (m) => text(m(2, 'x')).subarray(0, -1), { exit: 1, out: 'a\n', then: 'end' }],
  ['eof_in_a_frame_header', () => bytes('817e01'), { exit: 1, out: 'a\n', then: 'end' }],
  ['eof_between_fragments', (m) => text(m(2, 'x'), { fin: 0 }), { exit: 1, out: 'a\n', then: 'end' }],
  ['eof_without_a_close', () => [], { exit: 1, out: 'a\n', then: 'end' }],
  ['reset_in_a_frame', (m) => text(m(2, 'x')).subarray(0, -1), { exit: 1, out: 'a\n', then: 'reset' }],
  ['reset_without_a_close', () => [], { exit: 1, out: 'a\n', then: 'reset' }],
];

const cases = Object.entries(modes).flatMap(([mode, { args, scheme, first, message: m }]) => [
  ...table.map(([name, spoil, expected]) => ({
    name: `${mode}_${name}`, args, scheme, out: 'a\n', ...expected, conns: 1,
    async serve(c) {
      await c.accept(mode, first, text(m(1, 'a')));
      await sleep(10);
      c.write(spoil(m, mode));
      if (expected.then) { await sleep(50); c[expected.then](); } else if (!expected.silent) c.write(text(m(9, 'b')), close(1000));
    },
  })),
  { name: `${mode}_ping_is_answered_by_the_same_bytes`, args, scheme, exit: 0, out: 'a\n',
    async serve(c, n, run) {
      await c.accept(mode, first);
      for (const data of ['', 'x', '\0\xff\u20ac', 'y'.repeat(125)]) {
        c.write(frame(9, data));
        let f;
        do f = await c.frame(); while (f.op !== 10);
        if (!f.data.equals(Buffer.from(data)) || !f.isMasked) run.fault(`ping ${JSON.stringify(data)} got pong ${f.data.toString('hex')}, masked: ${f.isMasked}`);
      }
      if (new Set(run.masks).size < 4) run.fault(`masking keys repeat: ${run.masks}`);
      c.write(text(m(1, 'a')), close(1000));
    } },
  { name: `${mode}_ping_flood`, args, scheme, exit: [0, 1, 3], cpu: 4000, ms: 12000, out: ['', 'a\n'],
    async serve(c) { await c.accept(mode, first); await c.flood(Buffer.concat(Array(200).fill(frame(9, 'x'.repeat(125)))), 500); c.write(text(m(1, 'a')), close(1000)); } },
  // The pongs stay unread: they must not pile up in the client.
  { name: `${mode}_ping_flood_that_reads_no_pongs`, args, scheme, exit: [0, 1, 3, 'stopped'], stop: 2500, cpu: 4000, ms: 12000, out: ['', 'a\n'],
    async serve(c) { await c.accept(mode, first); c.socket.pause(); await c.flood(Buffer.concat(Array(200).fill(frame(9, 'x'.repeat(125)))), 1000); c.write(text(m(1, 'a')), close(1000)); c.socket.resume(); } },
  { name: `${mode}_frames_byte_by_byte`, args, scheme, exit: 0, out: 'a\n€\n', cpu: 800,
    async serve(c) { await c.accept(mode); await c.trickle(Buffer.concat([...first, text(m(1, 'a')), frame(9, 'p'), text(m(2, '€')), close(1000)])); } },
  { name: `${mode}_many_messages_in_one_segment`, args, scheme, exit: 0, cpu: 1000, out: Array.from({ length: 5000 }, (_, i) => `m${i}\n`).join(''),
    async serve(c) { await c.accept(mode, first, Array.from({ length: 5000 }, (_, i) => text(m(i + 1, `m${i}`))), close(1000)); } },
  { name: `${mode}_server_that_never_closes_after_its_close_frame`, args, scheme, exit: 0, out: 'a\n', ms: 8000,
    async serve(c) { await c.accept(mode, first, text(m(1, 'a')), close(1000)); c.isWebSocket = false; } },
  { name: `${mode}_server_that_answers_a_count_reached_by_silence`, args: [...args, '--count', '1'], scheme, exit: 0, out: 'a\n', ms: 8000,
    async serve(c) { await c.accept(mode, first, text(m(1, 'a'))); c.isWebSocket = false; } },
  { name: `${mode}_count_is_not_exceeded`, args: [...args, '--count', '2'], scheme, exit: 0, out: 'a\nb\n', closes: [1000, 1001],
    async serve(c) { await c.accept(mode, first, text(m(1, 'a')), text(m(2, 'b')), text(m(3, 'c'))); } },
  { name: `${mode}_waits_without_spinning`, args, scheme, exit: 'stopped', stop: 1500, cpu: 250, out: 'a\n', async serve(c) { await c.accept(mode, first, text(m(1, 'a'))); } },
  { name: `${mode}_waits_without_spinning_after_the_end_of_stdin`, args, scheme, eof: true, exit: 0, cpu: 250, out: 'a\nb\n',
    async serve(c) { await c.accept(mode, first, text(m(1, 'a'))); await sleep(1200); c.write(text(m(2, 'b')), close(1000)); } },
  { name: `${mode}_server_that_reads_nothing_of_much_stdin`, args, scheme, in: `${'x'.repeat(1000)}\n`.repeat(20000), exit: 'stopped', stop: 1500, cpu: 1500, out: 'a\n',
    async serve(c) { await c.accept(mode, first, text(m(1, 'a'))); c.socket.pause(); await sleep(20000); } },
]);

export default [
  ...cases,
  { name: 'plain_exactly_1_MiB_is_taken', args: modes.plain.args, scheme: 'ws', exit: 0, cpu: 1000, out: `${'x'.repeat(1048576)}\n`, async serve(c) { await c.accept('plain', text('x'.repeat(1048576)), close(1000)); } },
  { name: 'plain_empty_text_is_an_empty_line', args: modes.plain.args, scheme: 'ws', exit: 0, out: '\nx\n', async serve(c) { await c.accept('plain', text(''), text('x'), close(1000)); } },
  { name: 'plain_binary_frame', args: modes.plain.args, scheme: 'ws', exit: 0, out: ['x\n', '/wAK\nx\n'], async serve(c) { await c.accept('plain', frame(2, bytes('ff000a')), text('x'), close(1000)); } },
  { name: 'plain_prints_json_as_it_is', args: modes.plain.args, scheme: 'ws', exit: 0, out: '{"type":"message","data":1}\n', async serve(c) { await c.accept('plain', text('{"type":"message","data":1}'), close(1000)); } },
  { name: 'plain_stdin_lines_are_masked_text_frames_with_keys_that_differ', args: [...modes.plain.args, '--count', '1'], scheme: 'ws', in: 'one\n€ two\n\nfour\n', exit: 0, out: 'end\n',
    async serve(c, n, run) {
      await c.accept('plain');
      for (const line of ['one', '€ two', '', 'four']) {
        const f = await c.frame();
        if (line === '' && f.data.toString() === 'four') break; // an empty line may be passed over
        if (f.op !== 1 || f.data.toString() !== line) run.fault(`frame ${f.op} ${f.data}, expected text ${line}`);
      }
      if (new Set(run.masks).size < 3) run.fault(`masking keys repeat: ${run.masks}`);
      c.write(text('end'));
    } },
  { name: 'plain_stdin_line_without_its_end', args: [...modes.plain.args, '--count', '1'], scheme: 'ws', in: 'last', eof: true, exit: 0, out: 'end\n',
    async serve(c, n, run) { await c.accept('plain'); const f = await c.frame(); if (f.data.toString() !== 'last') run.fault(`got ${f.data}`); c.write(text('end')); } },
  { name: 'plain_key_and_masks_differ_between_connections', args: ['--plain', '--count', '2'], scheme: 'ws', in: 'x\n', exit: 0, out: 'a1\na2\n', ms: 8000,
    async serve(c, n) { await c.accept('plain', text(`a${n}`)); c.write(frame(9, 'p')); await c.frame(); if (n === 1) c.cut(); },
    check: (run) => { const keys = run.requests.map((r) => r.headers['sec-websocket-key']); return (keys.length !== 2 || keys[0] === keys[1]) && `keys ${keys}`; } },
  { name: 'v1_one_mebibyte_of_data_in_an_envelope', args: modes.v1.args, exit: [0, 3], cpu: 1500, out: ['', `${'x'.repeat(1048000)}\n`], async serve(c) { await c.accept('v1', hello(), told(1, 'x'.repeat(1048000)), close(1000)); } },
  { name: 'v1_binary_frame', args: modes.v1.args, exit: [0, 3], out: ['', 'm1\n', 'bin\nm1\n'], async serve(c) { await c.accept('v1', hello(), frame(2, JSON.stringify({ type: 'message', ...message(1, 'bin') })), told(2, 'm1'), close(1000)); } },
  { name: 'v1_message_cut_by_a_close', args: modes.v1.args, exit: [0, 3], out: 'm1\n', async serve(c) { await c.accept('v1', hello(), told(1), text('{"type":', { fin: 0 }), close(1000)); } },
].map((c) => ({ ...c, name: `frames_${c.name}` }));
