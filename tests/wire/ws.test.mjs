// RFC 6455 on an echo path and on the log; PROTOCOL §3: the raw WebSocket.
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import WebSocket from 'ws';
import { daemon, get, post, poll, pub, assertError, Ws, OP, KEY, frameBytes, closeBytes, handshake, upgrade, requestBytes, datas, range, readers, eventually, sleep, random } from './lib.mjs';

const SEED = Number(process.env.SEED ?? Date.now() % 1000000);
const d = await daemon({ after }, '--echo', '/echo', '--set', 'message_max=100000');
const echo = (headers, options) => Ws.open(d, '/echo', headers, options);
const text = (s, options) => frameBytes(OP.TEXT, s, options);

// What is checked on both: an echo, and the log.
const paths = ['/echo', '/live/ws'];

describe('handshake (RFC 6455 §4)', () => {
  const withHeaders = (changes, method = 'GET', target = '/echo') => {
    const headers = { Upgrade: 'websocket', Connection: 'Upgrade', 'Sec-WebSocket-Key': KEY, 'Sec-WebSocket-Version': '13', ...changes };
    return requestBytes(d.host, method, target, Object.entries(headers).filter(([, v]) => v !== null));
  };

  test('ws_accept_is_sha1_of_key_and_guid__rfc6455_4_2_2', async () => {
    const key = crypto.randomBytes(16).toString('base64');
    const { c, r } = await upgrade(d, withHeaders({ 'Sec-WebSocket-Key': key }));
    assert.equal(r.status, 101);
    assert.equal(r.headers['sec-websocket-accept'], crypto.createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64'));
    assert.equal(r.headers['content-length'], undefined);
    assert.equal(r.headers['transfer-encoding'], undefined);
    c.destroy();
  });

  const accepted = {
    'upgrade_in_any_case': { Upgrade: 'WebSocket', Connection: 'uPGRADE' },
    'connection_as_a_list': { Connection: 'keep-alive, Upgrade' },
    'upgrade_as_a_list': { Upgrade: 'h2c, websocket' },
    'white_space_around_values': { Upgrade: '  websocket\t', 'Sec-WebSocket-Key': `  ${KEY} `, 'Sec-WebSocket-Version': ' 13' },
    'unknown_extensions_are_passed_over': { 'Sec-WebSocket-Extensions': 'x-unknown; a=1; b="q,r", y-other' },
  };
  for (const [name, changes] of Object.entries(accepted)) {
    test(`ws_handshake__${name}`, async () => {
      const { c, r } = await upgrade(d, withHeaders(changes));
      assert.equal(r.status, 101);
      if (name.startsWith('unknown_ext')) assert.equal(r.headers['sec-websocket-extensions'], undefined);
      c.write(text('works'));
      assert.equal((await c.take(7)).subarray(2).toString(), 'works');
      c.destroy();
    });
  }

  test('ws_handshake__connection_in_two_header_lines', async () => {
    const bytes = requestBytes(d.host, 'GET', '/echo', [['Connection', 'keep-alive'], ['Connection', 'upgrade'], ['Upgrade', 'websocket'], ['Sec-WebSocket-Key', KEY], ['Sec-WebSocket-Version', '13']]);
    assert.equal((await upgrade(d, bytes)).r.status, 101);
  });

  const refused = {
    'no_key_is_400': [{ 'Sec-WebSocket-Key': null }, 400],
    'key_of_15_bytes_is_400': [{ 'Sec-WebSocket-Key': Buffer.alloc(15).toString('base64') }, 400],
    'key_of_17_bytes_is_400': [{ 'Sec-WebSocket-Key': Buffer.alloc(17).toString('base64') }, 400],
    'key_that_is_no_base64_is_400': [{ 'Sec-WebSocket-Key': '!'.repeat(22) + '==' }, 400],
    'empty_key_is_400': [{ 'Sec-WebSocket-Key': '' }, 400],
    'version_8_is_426': [{ 'Sec-WebSocket-Version': '8' }, 426],
    'version_14_is_426': [{ 'Sec-WebSocket-Version': '14' }, 426],
    'version_013_is_426': [{ 'Sec-WebSocket-Version': '013' }, 426, 400],
    'no_version_is_426_or_400': [{ 'Sec-WebSocket-Version': null }, 426, 400],
  };
  for (const [name, [changes, ...statuses]] of Object.entries(refused)) {
    test(`ws_handshake__${name}`, async () => {
      for (const path of paths) {
        const { r } = await upgrade(d, withHeaders(changes, 'GET', path));
        assertError(r, ...statuses);
        if (r.status === 426) assert.equal(r.headers['sec-websocket-version'], '13');
      }
    });
  }

  test('ws_handshake__with_a_body_is_400', async () => {
    for (const path of paths) assertError((await upgrade(d, Buffer.concat([withHeaders({ 'Content-Length': '5' }, 'GET', path), Buffer.from('12345')]))).r, 400);
  });

  test('ws_handshake__two_keys_are_400', async () => {
    const bytes = handshake(d, '/echo', [['Sec-WebSocket-Key', KEY]]);
    assertError((await upgrade(d, bytes)).r, 400);
  });

  test('ws_handshake__without_both_tokens_is_no_handshake__rfc6455_4_2_1', async () => {
    for (const changes of [{ Connection: 'keep-alive' }, { Connection: 'Upgraded' }, { Upgrade: 'websockets' }, { Upgrade: null }]) {
      const { r } = await upgrade(d, withHeaders(changes, 'GET', '/live/ordinary'));
      assert.ok([200, 400].includes(r.status), `${r.status}`);
    }
    const other = await upgrade(d, requestBytes(d.host, 'GET', '/live/ordinary', { Connection: 'Upgrade', Upgrade: 'h2c' }));
    assert.equal(other.r.status, 200, 'an upgrade to something else is passed over (RFC 9110 §7.8)');
  });

  test('ws_handshake__http_1_0_is_not_upgraded', async () => {
    const bytes = Buffer.from(withHeaders({}).toString('latin1').replace('HTTP/1.1', 'HTTP/1.0'), 'latin1');
    assert.notEqual((await upgrade(d, bytes)).r.status, 101);
  });

  test('ws_subprotocol_is_answered_only_from_the_offer__rfc6455_4_2_2', async () => {
    for (const [offer, answer] of [[null, undefined], ['chat', undefined], ['rtpush.v2', undefined], ['RTPUSH.V1', undefined], ['rtpush.v1', 'rtpush.v1'], ['chat, rtpush.v1', 'rtpush.v1'], ['rtpush.v1,chat', 'rtpush.v1']]) {
      const { c, r } = await upgrade(d, withHeaders({ 'Sec-WebSocket-Protocol': offer }, 'GET', '/live/ws'));
      assert.equal(r.status, 101);
      assert.equal(r.headers['sec-websocket-protocol'], answer, offer);
      c.destroy();
    }
  });

  test('ws_frames_sent_with_the_handshake_are_kept', async () => {
    const w = await echo([], { tail: Buffer.concat([text('a'), frameBytes(OP.PING, 'p'), text('b')]) });
    await w.expectText('a');
    const pong = await w.frame();
    assert.deepEqual([pong.opcode, pong.payload.toString()], [OP.PONG, 'p']);
    await w.expectText('b');
    w.close();
  });
});

describe('frames (RFC 6455 §5)', () => {
  test('ws_every_length_encoding__rfc6455_5_2', async () => {
    const w = await echo();
    for (const n of [0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 4095, 16383, 65534, 65535, 65536, 65537, 100000]) {
      const data = crypto.randomBytes(n);
      w.binary(data);
      const m = await w.next();
      assert.equal(m.opcode, OP.BINARY);
      assert.ok(m.payload.equals(data), `${n} bytes`);
      const letters = 'x'.repeat(n);
      w.text(letters);
      assert.ok((await w.next()).text === letters, `${n} letters`);
    }
    w.close();
  });

  const violations = [
    ['ws_unmasked_frame_is_1002__rfc6455_5_1', text('x', { mask: false }), 1002],
    ['ws_unmasked_ping_is_1002__rfc6455_5_1', frameBytes(OP.PING, '', { mask: false }), 1002],
    ['ws_unmasked_close_is_1002__rfc6455_5_1', frameBytes(OP.CLOSE, closeBytes(1000), { mask: false }), 1002],
    ...[1, 2, 4, 7].map((rsv) => [`ws_reserved_bits_${rsv}_are_1002__rfc6455_5_2`, text('x', { rsv }), 1002]),
    ['ws_reserved_bit_of_a_ping_is_1002__rfc6455_5_2', frameBytes(OP.PING, '', { rsv: 4 }), 1002],
    ...[3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((op) => [`ws_opcode_${op}_is_1002__rfc6455_5_2`, frameBytes(op, ''), 1002]),
    ['ws_ping_over_125_bytes_is_1002__rfc6455_5_5', frameBytes(OP.PING, 'x'.repeat(126)), 1002],
    ['ws_pong_over_125_bytes_is_1002__rfc6455_5_5', frameBytes(OP.PONG, 'x'.repeat(126)), 1002],
    ['ws_close_over_125_bytes_is_1002__rfc6455_5_5', frameBytes(OP.CLOSE, closeBytes(1000, 'x'.repeat(124))), 1002],
    ['ws_ping_over_125_bytes_is_refused_at_its_first_two_bytes', frameBytes(OP.PING, 'x'.repeat(126)).subarray(0, 2), 1002],
    ['ws_fragmented_ping_is_1002__rfc6455_5_5', frameBytes(OP.PING, 'x', { fin: false }), 1002],
    ['ws_fragmented_close_is_1002__rfc6455_5_5', frameBytes(OP.CLOSE, closeBytes(1000), { fin: false }), 1002],
    ['ws_continuation_of_nothing_is_1002__rfc6455_5_4', frameBytes(OP.CONT, 'x'), 1002],
    ['ws_unfinished_continuation_of_nothing_is_1002__rfc6455_5_4', frameBytes(OP.CONT, 'x', { fin: false }), 1002],
    ['ws_continuation_after_a_whole_message_is_1002__rfc6455_5_4', [text('a'), frameBytes(OP.CONT, 'x')], 1002],
    ['ws_text_within_a_fragmented_message_is_1002__rfc6455_5_4', [text('a', { fin: false }), text('b')], 1002],
    ['ws_binary_within_a_fragmented_text_is_1002__rfc6455_5_4', [text('a', { fin: false }), frameBytes(OP.BINARY, 'b', { fin: false })], 1002],
    ['ws_length_with_its_top_bit_is_1002_or_1009__rfc6455_5_2', Buffer.concat([Buffer.from([0x82, 0xff]), Buffer.alloc(8, 0xff), Buffer.alloc(4)]), [1002, 1009]],
    ['ws_close_of_one_byte_is_1002__rfc6455_5_5_1', frameBytes(OP.CLOSE, 'x'), 1002],
    ...[0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535].map((code) => [`ws_close_code_${code}_is_1002__rfc6455_7_4`, frameBytes(OP.CLOSE, closeBytes(code)), 1002]),
    ['ws_close_reason_that_is_not_utf8_is_1007__rfc6455_5_5_1', frameBytes(OP.CLOSE, Buffer.concat([closeBytes(1000), Buffer.from([0xce, 0xba, 0xe1, 0xbd])])), 1007],
  ];
  for (const [name, bytes, code] of violations) {
    test(name, async () => {
      for (const path of paths) {
        const w = await Ws.open(d, path);
        w.c.write(Buffer.concat([bytes].flat()));
        await w.expectClose(code);
      }
    });
  }

  test('ws_nothing_is_read_after_a_violation', async () => {
    const reader = await Ws.open(d, '/live/after');
    const w = await Ws.open(d, '/live/after');
    w.c.write(Buffer.concat([text('good'), text('x', { rsv: 1 }), text('after')]));
    await w.expectClose(1002);
    await pub(d, 'after', 'end');
    await reader.expectText('good');
    await reader.expectText('end');
    reader.close();
  });

  test('ws_fragments_are_one_message__rfc6455_5_4', async () => {
    const w = await echo();
    const cut = (parts, op = OP.TEXT) => parts.map((p, i) => frameBytes(i ? OP.CONT : op, p, { fin: i === parts.length - 1 }));
    for (const parts of [['a', 'b'], ['', ''], ['', 'x', ''], ['a', '', 'b'], ['x'.repeat(130), 'y'.repeat(70000), 'z'], [...'one by one']]) {
      w.c.write(Buffer.concat(cut(parts)));
      await w.expectText(parts.join(''));
      w.c.write(Buffer.concat(cut(parts, OP.BINARY)));
      const m = await w.next();
      assert.deepEqual([m.opcode, m.payload.toString()], [OP.BINARY, parts.join('')]);
    }
    w.close();
  });

  test('ws_control_frames_may_stand_between_fragments__rfc6455_5_4', async () => {
    const w = await echo();
    w.c.write(Buffer.concat([text('Hel', { fin: false }), frameBytes(OP.PING, 'between'), frameBytes(OP.PONG, 'unasked')]));
    const pong = await w.frame();
    assert.deepEqual([pong.opcode, pong.payload.toString()], [OP.PONG, 'between'], 'answered before the message is whole');
    w.c.write(Buffer.concat([frameBytes(OP.CONT, 'l', { fin: false }), frameBytes(OP.PING, ''), frameBytes(OP.CONT, 'o')]));
    const empty = await w.frame();
    assert.deepEqual([empty.opcode, empty.payload.length], [OP.PONG, 0]);
    await w.expectText('Hello');
    w.close();
  });

  test('ws_close_between_fragments_ends_it__rfc6455_5_4', async () => {
    const w = await echo();
    w.c.write(Buffer.concat([text('Hel', { fin: false }), frameBytes(OP.CLOSE, closeBytes(1000))]));
    assert.deepEqual((await w.expectClose(1000)).seen, []);
  });

  test('ws_pong_has_the_pings_data__rfc6455_5_5_3', async () => {
    const w = await echo();
    for (const data of [Buffer.alloc(0), Buffer.from([0, 255]), crypto.randomBytes(125)]) {
      w.send(OP.PING, data);
      const f = await w.frame();
      assert.equal(f.opcode, OP.PONG);
      assert.ok(f.payload.equals(data));
    }
    w.send(OP.PONG, 'not asked for'); // RFC 6455 §5.5.3: no answer is expected
    w.text('x');
    await w.expectText('x');
    w.close();
  });

  test('ws_message_over_the_limit_is_1009__rfc6455_7_4_1', async () => {
    for (const path of paths) {
      for (const bytes of [
        frameBytes(OP.BINARY, Buffer.alloc(100001)),
        Buffer.concat([Buffer.from([0x82, 0xff]), Buffer.from([0x3f, ...Array(7).fill(0xff)]), Buffer.alloc(4)]), // 2^62 declared, none sent
        Buffer.concat([frameBytes(OP.BINARY, Buffer.alloc(60000), { fin: false }), frameBytes(OP.CONT, Buffer.alloc(40001), { fin: false })]),
      ]) {
        const w = await Ws.open(d, path);
        w.c.write(bytes);
        await w.expectClose(1009);
      }
    }
  });

  test('ws_fragments_over_the_limit_are_1008', async (t) => {
    const own = await daemon(t, '--echo', '/echo', '--set', 'fragments_max=10');
    const fragments = (n) => Buffer.concat(range(1, n).map((i) => frameBytes(i === 1 ? OP.TEXT : OP.CONT, '', { fin: i === n })));
    const w = await Ws.open(own, '/echo');
    w.c.write(fragments(10));
    await w.expectText('');
    w.c.write(fragments(10));
    await w.expectText('');
    w.c.write(fragments(11));
    await w.expectClose(1008);
  });

  test('ws_more_than_60_pings_a_second_are_1008', async () => {
    const w = await echo();
    w.c.write(Buffer.concat(range(1, 500).map(() => frameBytes(OP.PING, 'p'))));
    for (;;) {
      const f = await w.frame();
      if (f.opcode !== OP.CLOSE) { assert.equal(f.opcode, OP.PONG); continue; }
      assert.equal(f.payload.readUInt16BE(), 1008);
      break;
    }
    w.close();
  });
});

describe('UTF-8 (RFC 6455 §8.1)', () => {
  const good = ['00', '7f', 'c280', 'dfbf', 'e0a080', 'ed9fbf', 'ee8080', 'efbfbe', 'efbfbf', 'f0908080', 'f48fbfbf', 'f09fbfbe', 'efbbbf', 'cebae1bdb9cf83cebcceb5'];
  const bad = ['80', 'bf', 'c0', 'c080', 'c1bf', 'c2', 'c220', 'e08080', 'e09fbf', 'e280', 'e28020', 'eda080', 'edafbf', 'edb080', 'edbfbf', 'f0808080', 'f08fbfbf', 'f09080', 'f4908080', 'f5808080', 'f8888080', 'fe', 'ff', 'cebae1bdb9cf83cebcceb5eda080656469746564'];

  test('ws_valid_utf8_comes_back__whole_and_cut_at_every_byte', async () => {
    const w = await echo();
    for (const hex of good) {
      const bytes = Buffer.concat([Buffer.from('a'), Buffer.from(hex, 'hex'), Buffer.from('z')]);
      w.text(bytes);
      assert.ok((await w.next()).payload.equals(bytes), hex);
      for (let i = 0; i <= bytes.length; i++) {
        w.c.write(Buffer.concat([text(bytes.subarray(0, i), { fin: false }), frameBytes(OP.CONT, bytes.subarray(i))]));
        assert.ok((await w.next()).payload.equals(bytes), `${hex} cut at ${i}`);
      }
    }
    w.close();
  });

  for (const hex of bad) {
    test(`ws_invalid_utf8_is_1007: ${hex}`, async () => {
      const bytes = Buffer.from(hex, 'hex');
      for (const path of paths) {
        const w = await Ws.open(d, path);
        w.text(bytes);
        assert.deepEqual((await w.expectClose(1007)).seen, []);
      }
      const w = await echo(); // byte by byte in fragments
      w.c.write(Buffer.concat([...bytes].map((b, i) => frameBytes(i ? OP.CONT : OP.TEXT, Buffer.from([b]), { fin: i === bytes.length - 1 }))));
      await w.expectClose(1007);
      const b = await echo(); // the same bytes are good binary
      b.binary(bytes);
      assert.ok((await b.next()).payload.equals(bytes));
      b.close();
    });
  }

  test('ws_invalid_utf8_is_1007_at_the_first_impossible_byte__not_at_the_end', async () => {
    const w = await echo();
    w.send(OP.TEXT, Buffer.from('cebae1bdb9f490', 'hex'), { fin: false }); // no character begins so; more would follow
    await w.expectClose(1007);
    const half = await echo();
    half.c.write(text(Buffer.from('61ff6161', 'hex')).subarray(0, 8)); // the frame is not whole either
    await half.expectClose(1007);
  });
});

describe('close (RFC 6455 §7)', () => {
  for (const code of [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]) {
    test(`ws_close_code_${code}_is_echoed_and_the_connection_ends__rfc6455_5_5_1`, async () => {
      for (const path of paths) {
        const w = await Ws.open(d, path);
        w.send(OP.CLOSE, closeBytes(code, 'why \u2603'));
        await w.expectClose(code);
      }
    });
  }

  test('ws_close_without_a_code_is_answered__rfc6455_5_5_1', async () => {
    const w = await echo();
    w.send(OP.CLOSE, '');
    await w.expectClose([0, 1000]);
  });

  test('ws_close_with_a_reason_of_123_bytes', async () => {
    const w = await echo();
    w.send(OP.CLOSE, closeBytes(1000, 'r'.repeat(123)));
    await w.expectClose(1000);
  });

  test('ws_nothing_is_read_after_a_close__rfc6455_5_5_1', async () => {
    const w = await echo();
    w.c.write(Buffer.concat([text('before'), frameBytes(OP.CLOSE, closeBytes(1000)), text('after'), frameBytes(OP.PING, 'after'), frameBytes(OP.CLOSE, closeBytes(1001))]));
    await w.expectText('before');
    const f = await w.frame();
    assert.deepEqual([f.opcode, f.payload.readUInt16BE()], [OP.CLOSE, 1000]);
    assert.equal((await w.c.eof(undefined, { reset: true })).length, 0, 'one close, and nothing after it');
  });

  test('ws_server_ends_the_connection_when_the_client_does_not__rfc6455_7_1_1', async () => {
    const w = await echo();
    w.send(OP.CLOSE, closeBytes(1000));
    assert.equal((await w.frame()).opcode, OP.CLOSE);
    await w.c.eof(); // the client neither ends nor closes
  });

  test('ws_end_without_a_close_is_the_end', async () => {
    for (const go of ['end', 'destroy']) {
      const w = await Ws.open(d, '/live/gone');
      await readers(d, 'gone', 1);
      w.c[go]();
      await readers(d, 'gone', 0);
    }
  });
});

describe('pieces', () => {
  const stream = Buffer.concat([handshake(d, '/echo'), text('Hé', { fin: false }), frameBytes(OP.PING, 'p'), frameBytes(OP.CONT, 'llo'), frameBytes(OP.BINARY, Buffer.alloc(200, 7)), frameBytes(OP.CLOSE, closeBytes(1000, 'done'))]);
  const check = async (c) => {
    const w = new Ws();
    w.c = c;
    assert.equal((await c.head()).status, 101);
    assert.equal((await w.frame()).opcode, OP.PONG);
    await w.expectText('Héllo');
    assert.ok((await w.next()).payload.equals(Buffer.alloc(200, 7)));
    await w.expectClose(1000);
    c.destroy();
  };

  test('ws_stream_cut_in_two_at_every_byte', async () => {
    const at = async (i) => {
      const c = await d.connect();
      c.write(stream.subarray(0, i));
      await sleep(3);
      c.write(stream.subarray(i));
      await check(c);
    };
    for (let i = 1; i < stream.length; i += 16) await Promise.all(range(i, Math.min(i + 15, stream.length - 1)).map(at));
  });

  test('ws_stream_byte_by_byte', async () => {
    const c = await d.connect();
    const done = check(c);
    for (const byte of stream) {
      c.write(Buffer.from([byte]));
      await new Promise(setImmediate);
    }
    await done;
  });

  test('ws_many_small_messages_in_one_write_come_back_in_order', async () => {
    const w = await echo();
    w.c.write(Buffer.concat(range(1, 5000).map((i) => text(`${i}`))));
    for (let i = 1; i <= 5000; i++) await w.expectText(`${i}`);
    w.close();
  });
});

test(`ws_damaged_frames_never_hurt_the_server (SEED=${SEED})`, async () => {
  const rnd = random(SEED);
  const offer = [['Sec-WebSocket-Protocol', 'rtpush.v1']];
  const frames = () => rnd.pick([
    text('x'.repeat(rnd.below(300))), text('part', { fin: false }), frameBytes(OP.CONT, 'more'), frameBytes(OP.BINARY, crypto.randomBytes(rnd.below(200))), frameBytes(OP.PING, 'p'), frameBytes(OP.CLOSE, closeBytes(1000)),
    text('{"type":"subscribe","topic":"a/*","since":-3,"ref":1}'), text('{"type":"publish","topic":"a/b","data":{"x":[1,"y"]},"ref":"r","key":"k"}'), text('{"type":"publish","topic":"a","data":"AAAA","encoding":"base64","ephemeral":true}'), text('{"type":"unsubscribe","topic":"a/*"}'),
  ]);
  for (let round = 0; round < 30; round++) {
    const all = await Promise.all(range(1, 20).map(() => Ws.open(d, rnd.pick(['/echo', '/live/a', '/live/a/*?since=-5']), rnd.pick([[], offer]))));
    for (const w of all) {
      const b = Buffer.concat(range(1, 1 + rnd.below(6)).map(frames));
      for (let n = rnd.below(4); n > 0; n--) b[rnd.below(b.length)] ^= 1 << rnd.below(8);
      w.c.write(b.subarray(0, rnd.below(3) ? b.length : rnd.below(b.length)));
    }
    await sleep(2);
    for (const w of all) if (rnd.below(2)) w.c.destroy(); else w.c.end();
    await sleep(2);
    for (const w of all) w.c.destroy();
    assert.equal((await get(d, '/healthz')).status, 200);
  }
});

describe('raw WebSocket (PROTOCOL §3)', () => {
  test('raw_ws_each_message_is_one_frame__text_json_text__binary_binary', async () => {
    const w = await Ws.open(d, '/live/raw');
    await pub(d, 'raw', 'text ☃');
    await w.expectText('text ☃');
    await pub(d, 'raw', '{"a": 1}', { 'Content-Type': 'application/json' });
    assert.deepEqual(JSON.parse((await w.next()).text), { a: 1 });
    await pub(d, 'raw', Buffer.from([0, 255, 1]), { 'Content-Type': 'application/octet-stream' });
    const m = await w.next();
    assert.deepEqual([m.opcode, [...m.payload]], [OP.BINARY, [0, 255, 1]]);
    await pub(d, 'raw', '');
    await w.expectText('');
    await pub(d, 'raw', 'x'.repeat(100000));
    const f = await w.frame();
    assert.ok(f.fin && f.payload.length === 100000, 'in one frame');
    w.close();
  });

  test('raw_ws_a_frame_of_the_client_is_a_publish_to_the_first_topic_named', async (t) => {
    const own = await daemon(t); // without --echo the library publishes by itself
    for (const [target, first] of [['/live/fst/a?topic=fst/b', 'fst/a'], ['/live?topic=fst/c&topic=fst/d', 'fst/c']]) {
      const w = await Ws.open(own, target);
      w.text('{"just":"text"}');
      await w.expectText('{"just":"text"}');
      w.binary(Buffer.from([9, 8]));
      assert.deepEqual([...(await w.next()).payload], [9, 8]);
      const { messages } = await poll(own, `/live/${first}`);
      assert.deepEqual(messages.map((m) => [m.topic, m.data, m.encoding]), [[first, '{"just":"text"}', undefined], [first, 'CQg=', 'base64']]);
      w.close();
    }
    assert.deepEqual((await poll(own, '/live?topic=fst/b&topic=fst/d')).messages, []);
  });

  test('raw_ws_where_publishing_is_not_allowed_a_frame_is_dropped', async (t) => {
    const own = await daemon(t, '--publish', 'off', '--echo', '/echo');
    const w = await Ws.open(own, '/live/t');
    w.text('dropped');
    await w.alive();
    assert.deepEqual((await poll(own, '/live/t')).messages, []);
    const e = await Ws.open(own, '/echo');
    e.text('an echo is no publish');
    await e.expectText('an echo is no publish');
    w.close(); e.close();
  });

  test('raw_ws_first_topic_a_wildcard_takes_no_publish', async (t) => {
    for (const own of [await daemon(t), d]) { // without and with --echo
      const w = await Ws.open(own, '/live/wild/*');
      w.text('to a wildcard');
      await w.alive();
      assert.deepEqual((await poll(own, '/live/wild/*')).messages, []);
      w.close();
    }
  });

  test('raw_ws_fragments_are_published_as_one_message', async () => {
    const w = await Ws.open(d, '/live/frag');
    w.c.write(Buffer.concat([text('a', { fin: false }), frameBytes(OP.CONT, 'b', { fin: false }), frameBytes(OP.CONT, 'c')]));
    await w.expectText('abc');
    assert.deepEqual(datas((await poll(d, '/live/frag')).messages), ['abc']);
    w.close();
  });

  test('echo_is_not_a_topic', async () => {
    const w = await echo();
    w.text('x');
    await w.expectText('x');
    w.close();
    assert.deepEqual((await poll(d, '/live/echo')).messages, []);
    assert.ok([404, 426, 400].includes((await get(d, '/echo')).status));
    assert.equal((await post(d, '/nowhere', 'x')).status, 404);
    assertError((await upgrade(d, handshake(d, '/nowhere'))).r, 404);
  });
});

describe('heartbeat', { concurrency: true }, () => {
  const pings = ['--set', 'heartbeat_ms=200', '--echo', '/echo'];

  test('ws_server_pings_every_websocket', async (t) => {
    const own = await daemon(t, ...pings);
    for (const path of ['/live/t', '/echo']) {
      const w = await Ws.open(own, path);
      const begin = Date.now();
      for (let i = 0; i < 3; i++) {
        const f = await w.frame();
        assert.equal(f.opcode, OP.PING);
        w.send(OP.PONG, f.payload);
      }
      assert.ok(Date.now() - begin >= 400, 'every 200 ms, not faster');
      w.close();
    }
  });

  test('ws_peer_without_a_byte_10_s_after_a_ping_is_dropped__any_byte_is_life', async (t) => {
    const own = await daemon(t, ...pings);
    const dead = await Ws.open(own, '/live/t');
    const alive = await Ws.open(own, '/live/t');
    const begin = Date.now();
    const chatter = setInterval(() => alive.send(OP.PONG, 'unasked'), 1000);
    t.after(() => clearInterval(chatter));
    await dead.c.eof(25000, { reset: true });
    const took = Date.now() - begin;
    assert.ok(took >= 9500 && took < 20000, `dropped after ${took} ms`);
    await sleep(500);
    assert.ok(!alive.c.over);
    alive.close();
  });

  test('ws_heartbeat_can_be_switched_off', async (t) => {
    const own = await daemon(t, '--set', 'heartbeat_ms=-1');
    const w = await Ws.open(own, '/live/t');
    await w.c.quiet(500);
    w.close();
  });
});

describe('the ws package as client', () => {
  test('ws_package__messages_both_ways_and_a_clean_close', async () => {
    const client = new WebSocket(`ws://${d.host}/live/pkg`, { perMessageDeflate: true });
    const got = [];
    client.on('message', (data, binary) => got.push([binary, data.toString()]));
    await new Promise((done, failed) => { client.on('open', done); client.on('error', failed); });
    client.send('hello');
    client.send(Buffer.from('bytes'));
    await pub(d, 'pkg', 'posted');
    await eventually(() => got.length === 3, 'three messages');
    assert.deepEqual(new Set(got.map(String)), new Set(['false,hello', 'true,bytes', 'false,posted']));
    const closed = new Promise((done) => { client.on('close', (code, reason) => done([code, reason.toString()])); });
    client.close(3001, 'bye');
    assert.equal((await closed)[0], 3001);
  });
});
