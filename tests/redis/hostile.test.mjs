// Whatever stands where Redis should stand: at each step of the conversation it answers what no Redis would. The node
// lives, stays small and quiet, says so in its log, goes on serving, comes again with growing pauses, and when the
// answers are right again it works.
//
//   RTPUSH_HOSTILE=all node --test hostile.test.mjs        each answer at each step; else each at one of them
import { test, describe, after } from 'node:test';
import assert from 'node:assert/strict';
import net from 'node:net';
import crypto from 'node:crypto';
import { Redis, Middle, Reader, node, tryNode, logName, judge, goesThrough, resp, sleep, eventually, range, get, post, poll, pub } from './lib.mjs';

const MIB = 1 << 20, isAll = process.env.RTPUSH_HOSTILE === 'all';
const whole = { after }, redis = await Redis.start(whole);
// A good node, so that there is what a node at its start would load.
const log = logName(), good = await node(whole, redis, { log, name: 'good' });
for (const n of range(1, 5)) await pub(good, 'x?event=ev', `m${n}`);

// --- what is answered ---

const error = (text) => ({ bytes: Buffer.from(`-${text}\r\n`) });
const bytes = (text, close = false) => ({ bytes: Buffer.from(text, 'latin1'), close });
// Writes without an end, as fast as it is read; at most `most` bytes.
const endless = (first, piece, most = 300 * MIB) => ({
  bytes(c) {
    let n = 0;
    c.write(first);
    const more = () => { while (!c.destroyed && n < most) { n += piece.length; if (!c.write(piece)) { c.once('drain', more); return; } } };
    more();
  },
});

const answers = {
  // wrong types
  an_integer: bytes(':7\r\n'),
  a_negative_integer: bytes(':-9223372036854775808\r\n'),
  an_integer_too_long: bytes(':99999999999999999999999999\r\n'),
  an_integer_that_is_none: bytes(':12x\r\n'),
  a_status: bytes('+what\r\n'),
  an_empty_bulk: bytes('$0\r\n\r\n'),
  a_null_bulk: bytes('$-1\r\n'),
  a_null_list: bytes('*-1\r\n'),
  an_empty_list: bytes('*0\r\n'),
  a_list_of_nulls: bytes('*3\r\n$-1\r\n*-1\r\n_\r\n'),
  resp3_null: bytes('_\r\n'),
  resp3_map: bytes('%2\r\n+a\r\n:1\r\n+b\r\n*0\r\n'),
  resp3_double_and_more: bytes('*6\r\n,1.5\r\n#t\r\n(349289032840923850932485094385094\r\n=9\r\ntxt:hello\r\n~1\r\n:1\r\n!5\r\nERR x\r\n'),
  resp3_push: bytes('>2\r\n+invalidate\r\n*0\r\n+OK\r\n'),
  // sizes
  a_huge_bulk: bytes('$9999999999\r\nabc'),
  a_bulk_beyond_numbers: bytes('$18446744073709551617\r\n'),
  a_huge_list: bytes('*9999999999\r\n:1\r\n'),
  a_list_of_2_to_the_31: bytes('*2147483648\r\n'),
  a_list_of_a_million_lists: { bytes: (c) => { c.write('*1000000\r\n'); for (let i = 0; i < 100; i++) c.write('*1000000\r\n'.repeat(1000)); } },
  nested_10_000_deep: bytes(`${'*1\r\n'.repeat(10000)}:1\r\n`),
  nested_without_end: endless('', Buffer.from('*1\r\n'.repeat(16384)), 60 * MIB),
  negative_bulk: bytes('$-2\r\n'),
  negative_list: bytes('*-5\r\n'),
  no_length: bytes('$\r\n\r\n*\r\n'),
  a_line_without_end: endless('+', Buffer.alloc(65536, 'a')),
  a_bulk_without_end: endless('$536870912\r\n', Buffer.alloc(65536, 'a')),
  a_list_without_end: endless('*1000000000\r\n', Buffer.from('$5\r\nhello\r\n'.repeat(6000)), 60 * MIB),
  // cut and garbled
  nothing_at_all: { bytes: () => new Promise(() => {}) }, // nor what is asked behind it
  the_end: bytes('', true),
  a_reset: { bytes: (c) => c.resetAndDestroy() },
  cut_in_a_bulk: bytes('$100\r\nabc', true),
  cut_in_a_list: bytes('*3\r\n$1\r\na\r\n', true),
  a_bulk_without_its_end: bytes('$3\r\nabcXY'),
  lf_alone: bytes('+OK\n'),
  zeros: bytes('\0'.repeat(1000)),
  garbage: { bytes: crypto.createHash('sha512').update('a seed').digest() },
  http: bytes('HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nno\n'),
  // what Redis says when it will not
  LOADING: error('LOADING Redis is loading the dataset in memory'),
  MOVED: error('MOVED 1 127.0.0.1:1'),
  MOVED_nowhere: error('MOVED'),
  ASK: error('ASK 16383 127.0.0.1:1'),
  READONLY: error("READONLY You can't write against a read only replica."),
  NOSCRIPT: error('NOSCRIPT No matching script. Please use EVAL.'),
  NOAUTH: error('NOAUTH Authentication required.'),
  WRONGPASS: error('WRONGPASS invalid username-password pair or user is disabled.'),
  NOPERM: error("NOPERM this user has no permissions to run the 'evalsha' command"),
  BUSY: error('BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.'),
  OOM: error("OOM command not allowed when used memory > 'maxmemory'."),
  MISCONF: error('MISCONF Redis is configured to save RDB snapshots, but it is currently unable to persist to disk.'),
  CLUSTERDOWN: error('CLUSTERDOWN Hash slot not served'),
  TRYAGAIN: error('TRYAGAIN Multiple keys request during rehashing of slot'),
  MASTERDOWN: error('MASTERDOWN Link with MASTER is down'),
  NOREPLICAS: error('NOREPLICAS Not enough good replicas to write.'),
  unknown_command: error("ERR unknown command 'X', with args beginning with: "),
  an_empty_error: error(''),
  an_error_with_a_terminal_in_it: error('ERR \x1b[31m\x07\x00red\x9b'),
  an_error_of_100_kB: error(`ERR ${'long '.repeat(20000)}`),
  // the right answer, wrongly
  slowly: { change: (v, b) => async (c) => { for (let i = 0; i < b.length && !c.destroyed; i++) { c.write(b.subarray(i, i + 1)); await (i % 10 ? new Promise(setImmediate) : sleep(1)); } } },
  twice: { change: (v, b) => Buffer.concat([b, b]) },
  behind_one_without_a_request: { change: (v, b) => Buffer.concat([Buffer.from('+OK\r\n'), b]) },
  the_one_before: { change(v, b) { const was = this.was ?? Buffer.from(':1\r\n'); this.was = b; return was; } },
};

// --- the steps ---

// Each is a set of commands; `cut` makes the node go through its beginning again. The tail is read at the start: below.
const steps = {
  greeting: { is: ({ name }) => /^(HELLO|AUTH|SELECT|CLIENT|INFO|PING|ROLE)/.test(name), cut: true },
  scripts: { is: ({ name }) => /^SCRIPT|^EVAL$/.test(name), cut: true },
  first_call: { is: ({ name }) => /^EVALSHA|^EVAL$|^FCALL/.test(name), cut: true },
  call: { is: ({ name }) => /^EVALSHA|^EVAL$|^FCALL/.test(name) },
  follow: { is: ({ name }) => name === 'XREAD' },
  all: { is: () => true, cut: true },
};

// One answer at one step: it is given for a while, then Redis is itself again.
async function attack(t, answer, step, { ms = 1200, isLie = false } = {}) {
  const m = await Middle.start(t, redis), d = await node(t, m, { log: logName(), name: 'a' });
  const first = await pub(d, 'x', 'before'), r = await Reader.open(d, 'x', '?since=earliest');
  await r.until('before');
  const lines = d.lines.length, cpu = d.cpu, connections = m.accepted.length, began = Date.now();
  const lie = { ...answer };
  let told = 0;
  m.rule = (command) => { if (!step.is(command)) return undefined; told++; return lie; };
  if (step.cut) m.cut();
  const acked = [{ id: first.id, data: 'before' }], open = [];
  const publish = (n) => open.push(post(d, '/live/x', `during ${n}`).then((a) => { if (a.status < 300) acked.push({ id: a.json.id, data: `during ${n}` }); else assert.equal(a.status, 503, a.text); }));
  publish(1);
  await sleep(ms / 2);
  publish(2);
  assert.equal((await get(d, '/healthz')).text, 'ok');
  assert.equal((await poll(d, '/live/x')).messages[0].id, first.id, 'what is known is read meanwhile');
  await sleep(ms / 2);
  const seconds = (Date.now() - began) / 1000, used = d.cpu - cpu, tries = m.accepted.length - connections;
  m.rule = null;
  const last = await goesThrough(d, 'x');
  await Promise.all(open);
  await r.until(last.data);
  judge([r], isLie ? [last] : [...acked, last]);
  assert.equal(d.over, undefined, 'the daemon lives');
  assert.ok(d.peak < 100 * MIB, `${Math.round(d.peak / MIB)} MiB`);
  assert.ok(used < 0.5 * seconds, `${used} s of CPU in ${seconds} s`);
  assert.ok(tries <= 14, `${tries} connections in ${seconds} s`);
  for (const line of d.lines) { assert.doesNotMatch(line, /[\x00-\x08\x0b-\x1f\x7f]/, 'a clean line'); assert.ok(line.length < 1000, 'a line of a sensible length'); }
  r.close();
  return { told, lines: d.lines.slice(lines), tries, used };
}

// The answers that a right node may take without a word: they are, or may be, right.
const SILENT = /^(slowly|an_empty_list|a_null|resp3_null|nothing_at_all|twice|a_status|behind_one|the_one_before|an_integer|unknown_command|an_empty_bulk|resp3_|the_end|NOSCRIPT)/;

describe('each answer at each step', { concurrency: 10 }, () => {
  Object.entries(answers).forEach(([name, answer], n) => {
    const names = Object.keys(steps);
    for (const step of isAll ? names : [names[n % names.length]]) {
      test(`hostile_${step}__${name}`, async (t) => {
        const { told, lines } = await attack(t, answer, steps[step], { isLie: /^(an_integer|twice|the_one_before)$/.test(name) }); // what looks like an id may be believed
        assert.ok(told > 0, `no command of the step "${step}" came`);
        if (!SILENT.test(name)) assert.ok(lines.length > 0, 'a line in the log');
      });
    }
  });
});

// --- entries of the stream ---

// Fields as a list [name, value, ...]; each gets the entry [id, fields] and returns what stands in its place.
const field = (name, value) => ([id, f]) => { const g = [...f], i = g.indexOf(name); if (i >= 0) g[i + 1] = value; return [id, g]; };
const entries = {
  an_odd_number_of_fields: ([id, f]) => [id, f.slice(0, -1)],
  one_more_word: ([id, f]) => [id, [...f, 'x']],
  no_fields: ([id]) => [id, []],
  null_fields: ([id]) => [id, null],
  fields_a_string: ([id]) => [id, 'abc'],
  no_entry: () => null,
  an_entry_of_one: ([id]) => [id],
  an_entry_of_three: ([id, f]) => [id, f, f],
  each_field_a_list: ([id, f]) => [id, f.map((x) => [x])],
  no_epoch: ([id, f]) => [id, f.filter((x, i) => f[i - (i % 2)] !== 'e')],
  no_topic: ([id, f]) => [id, f.filter((x, i) => f[i - (i % 2)] !== 't')],
  no_kind: ([id, f]) => [id, f.filter((x, i) => f[i - (i % 2)] !== 'k')],
  no_data: ([id, f]) => [id, f.filter((x, i) => f[i - (i % 2)] !== 'd')],
  an_epoch_of_7: field('e', 'abcdefg'),
  an_epoch_with_a_line: field('e', 'abc\r\nd: '),
  an_empty_epoch: field('e', ''),
  a_kind_nobody_knows: field('k', 'zz'),
  a_kind_99999999999: field('k', '99999999999'),
  an_empty_topic: field('t', ''),
  a_topic_with_empty_segments: field('t', 'a//b'),
  a_topic_with_a_star: field('t', 'a/*'),
  a_topic_with_control_characters: field('t', 'a\r\nb\0'),
  a_topic_too_long: field('t', 'x'.repeat(256)),
  a_topic_of_1_MiB: field('t', 'x'.repeat(MIB)),
  a_topic_of_invalid_utf8: field('t', 'a\xff\xc0\x80'),
  the_librarys_topic: field('t', '@presence/x'),
  text_of_invalid_utf8: field('d', 'a\xff\xfe\xc0\xaf\xed\xa0\x80'),
  data_of_3_MiB: field('d', 'x'.repeat(3 * MIB)),
  an_event_gap: field('v', 'gap'),
  an_event_with_lines: field('v', 'a\ndata: injected\r\nid: x'),
  an_event_of_64_kB: field('v', 'e'.repeat(65536)),
  an_origin_nobody_knows: field('n', '\x1b[31m\r\n'),
  an_id_of_0: ([, f]) => ['0-0', f],
  an_id_that_goes_back: ([id, f]) => [`${BigInt(id.split('-')[0]) - 1n}-0`, f],
  an_id_far_ahead: ([id, f]) => [`${BigInt(id.split('-')[0]) + 1000000n}-0`, f],
  an_id_of_2_to_the_63: ([, f]) => ['9223372036854775808-0', f],
  an_id_of_2_to_the_64_less_1: ([, f]) => ['18446744073709551615-0', f],
  an_id_of_2_to_the_64: ([, f]) => ['18446744073709551616-0', f],
  an_id_with_a_second_part: ([id, f]) => [id.replace(/-.*/, '-7'), f],
  an_id_without_a_second_part: ([id, f]) => [id.replace(/-.*/, ''), f],
  an_id_that_is_none: ([, f]) => ['abc', f],
  an_id_that_is_negative: ([, f]) => ['-5-0', f],
};
// Each stands in the reply of XREAD: [[stream, [entry, ...]]], or as a map (RESP3) in a flat list.
const others = {
  a_stream_of_another_name: ([, list]) => ['other', list],
  a_stream_without_entries: ([name]) => [name, []],
  a_stream_with_null: ([name]) => [name, null],
  the_same_entry_twice: ([name, list]) => [name, [...list, ...list]],
  entries_in_reverse: ([name, list]) => [name, [...list, ...list].reverse()],
  entries_a_string: ([name]) => [name, 'abc'],
};
const isMap = (b) => b[0] === '%'.charCodeAt(0);
// All that is said of the one stream is changed by f: in the reply of XREAD, and of XRANGE, which is the list alone.
function changeStreams(f) {
  return (value, b) => {
    if (!Array.isArray(value) || !value.length) return b;
    if (/^\d+-\d+$/.test(value[0][0])) return resp(f(['', value])[1]);
    const [name, list] = isMap(b) ? value : value[0], changed = f([name, list]);
    return isMap(b) ? Buffer.concat([Buffer.from('%1\r\n'), resp(changed[0]), resp(changed[1])]) : resp([changed]);
  };
}

const changes = { ...Object.fromEntries(Object.entries(entries).map(([name, f]) => [name, ([stream, list]) => [stream, list.map((e) => f(e))]])), ...others };

describe('entries of the stream', { concurrency: 10 }, () => {
  for (const [name, f] of Object.entries(changes)) {
    test(`hostile_entry__${name}`, async (t) => {
      const m = await Middle.start(t, redis), d = await node(t, m, { log: logName(), name: 'a' });
      const r = await Reader.open(d, '**');
      await pub(d, 'x', 'before');
      await r.until('before');
      const cpu = d.cpu, began = Date.now();
      let told = 0;
      m.rule = (command) => (steps.follow.is(command) && told < 3 ? { change(value, b) { if (Array.isArray(value) && value.length) told++; return changeStreams(f)(value, b); } } : undefined);
      m.cut(); // a new XREAD, under the rule; or one will come
      for (const n of range(1, 4)) { await Promise.race([post(d, '/live/x?event=ev', `m${n}`), sleep(400)]); await sleep(50); }
      await eventually(() => told > 0, 'an entry passed');
      m.rule = null;
      const last = await goesThrough(d, 'x');
      await r.until(last.data);
      assert.equal(r.ended, undefined, 'the reader stays, and what it gets is well-formed');
      for (const x of r.messages) assert.ok(x.data.length <= MIB && !/injected/.test(x.event ?? ''), 'nothing impossible is passed on');
      assert.ok(d.peak < 100 * MIB, `${Math.round(d.peak / MIB)} MiB`);
      assert.ok(d.cpu - cpu < 0.5 * (Date.now() - began) / 1000 + 0.3, `${d.cpu - cpu} s of CPU`);
      r.close();
    });
  }

  // They are really there, so that asking again does not help; and a node that starts must pass over them.
  test('hostile_entries_that_somebody_else_wrote_into_the_stream', async (t) => {
    const log = logName(), d = await node(t, redis, { log, name: 'a' }), r = await Reader.open(d, '**');
    await pub(d, 'x', 'before');
    await r.until('before');
    const [[, real]] = await redis.call('XREVRANGE', `{${log}}:log`, '+', '-', 'COUNT', 1);
    const xadd = async (f, ...id) => { const n = await redis.call('INCR', `{${log}}:seq`); await redis.call('XADD', `{${log}}:log`, ...(id.length ? id : [`${n}-0`]), ...f); };
    for (const [name, f] of Object.entries(entries)) {
      let fields;
      try { [, fields] = f(['5-0', real]); } catch { continue; }
      if (Array.isArray(fields) && fields.length && fields.length % 2 === 0 && fields.every((x) => typeof x === 'string') && !/MiB/.test(name)) await xadd(fields);
    }
    await xadd(['nothing', 'we know']);
    const last = await goesThrough(d, 'x');
    await r.until(last.data);
    assert.equal(r.ended, undefined);
    assert.equal((await get(d, '/healthz')).text, 'ok');
    const late = await node(t, redis, { log, name: 'late' });
    assert.ok((await poll(late, '/live/x')).messages.some((m) => m.data === last.data));
    await goesThrough(late, 'x').then((m) => r.until(m.data));
    r.close();
  });
});

// --- at the start, and the pauses ---

describe('a server that is none', { concurrency: 10 }, () => {
  // A port that takes connections and does with them what it will.
  async function port(t, take) {
    const seen = [], all = new Set();
    const s = net.createServer((c) => { seen.push(Date.now()); all.add(c); c.on('error', () => {}).on('close', () => all.delete(c)); take(c); }).listen(0, '127.0.0.1');
    await new Promise((done) => s.once('listening', done));
    t.after(() => { for (const c of all) c.destroy(); s.close(); });
    return { url: `redis://127.0.0.1:${s.address().port}`, seen };
  }
  const takes = {
    closes_at_once: (c) => c.end(),
    resets_at_once: (c) => c.resetAndDestroy(),
    says_nothing: () => {},
    says_errors: (c) => c.on('data', () => c.write('-ERR no\r\n')),
    says_OK_to_all: (c) => c.on('data', () => c.write('+OK\r\n')),
    speaks_first: (c) => { c.write('SSH-2.0-OpenSSH_9.2\r\n'); },
    talks_without_end: (c) => { const more = () => { while (!c.destroyed && c.write(Buffer.alloc(65536, '*1\r\n'))); }; c.on('drain', more); more(); },
    says_what_was_said: (c) => c.pipe(c),
  };
  for (const [name, take] of Object.entries(takes)) {
    test(`hostile_start__a_server_that_${name}`, async (t) => {
      const p = await port(t, take), d = tryNode(t, p.url, { log: logName(), name: 'a' });
      await eventually(() => d.over || Date.now() - (p.seen[0] ?? Date.now()) > (/redis/i.test(d.stderr) ? 4000 : 9000), 'it ends, or some seconds pass', 12000);
      assert.deepEqual(d.listening, [], 'nobody is let in');
      assert.match(d.stderr, /redis/i, 'a line in the log');
      if (d.over) { assert.equal(d.over.code, 1, `${JSON.stringify(d.over)} ${d.stderr}`); return; }
      assert.ok(d.peak < 100 * MIB, `${Math.round(d.peak / MIB)} MiB`);
      assert.ok(d.cpu < 2, `${d.cpu} s of CPU`);
      assert.ok(p.seen.length <= 20, `${p.seen.length} connections in some seconds`);
    });
  }

  // The lie is told while the node starts. It ends with 1 and a line, or comes up: at once, or when the lies end.
  let count = 0;
  async function start(t, how, lies) {
    const m = await Middle.start(t, redis), lie = { ...how };
    let told = 0;
    m.rule = (command) => { if (told >= 40 || !lies(command)) return undefined; told++; return lie; };
    const d = tryNode(t, m.url, { log, name: `a${++count}` }), began = Date.now();
    await eventually(() => d.over || d.listening.length || Date.now() - began > 1500, 'it comes to something', 8000);
    m.rule = null;
    if (!d.over) await eventually(() => d.over || d.listening.length, `it comes up when the answers are right: ${d.lines.slice(-3)}`, 25000);
    if (d.over) {
      assert.deepEqual(d.over, { code: 1, signal: null }, d.stderr);
      assert.match(d.stderr, /redis/i, 'a line in the log');
      return;
    }
    await d.start(1);
    const last = await goesThrough(good, 'x');
    await eventually(async () => (await poll(d, '/live/x')).messages.some((m) => m.data === last.data), `it follows: ${d.lines.slice(-3)}`);
    assert.ok(d.peak < 100 * MIB, `${Math.round(d.peak / MIB)} MiB`);
    assert.ok(d.cpu < 0.5 * (Date.now() - began) / 1000 + 0.5, `${d.cpu} s of CPU`);
  }
  const isTail = ({ name }) => /^XRANGE|^XREVRANGE/.test(name);
  const some = (list) => Object.entries(list).filter((x, n) => isAll || n % 3 === 0);
  for (const [name, answer] of some(answers)) test(`hostile_start__tail__${name}`, (t) => start(t, answer, isTail));
  for (const [name, f] of some(changes)) test(`hostile_start__entry__${name}`, (t) => start(t, { change: changeStreams(f) }, isTail));
  if (isAll) for (const [name, answer] of Object.entries(answers)) test(`hostile_start__all__${name}`, (t) => start(t, answer, () => true));

  test('hostile_the_pauses_between_connections_grow__and_are_short_again_after_a_good_one', async (t) => {
    const m = await Middle.start(t, redis), d = await node(t, m, { log: logName(), name: 'a' });
    const good = m.accepted.length, began = Date.now();
    m.rule = () => ({ bytes: Buffer.alloc(0), close: true });
    m.cut();
    await sleep(7000);
    const at = m.accepted.slice(good).map((x) => x - began);
    // Two connections may be opened together: one attempt.
    const attempts = at.filter((x, i) => !i || x - at[i - 1] > 20), pauses = attempts.slice(1).map((x, i) => x - attempts[i]);
    assert.ok(attempts.length >= 3 && attempts.length <= 16, `${attempts.length} attempts in 7 s: ${attempts}`);
    assert.ok(Math.max(...pauses.slice(-2)) >= 3 * pauses[0] || Math.max(...pauses.slice(-2)) > 1000, `they grow: ${pauses}`);
    m.rule = null;
    await goesThrough(d, 'x');
    await sleep(300);
    const again = m.accepted.length, cut = Date.now();
    m.cut();
    await eventually(() => m.accepted.length > again, 'a new one');
    await goesThrough(d, 'x');
    assert.ok(Date.now() - cut < 3000, `${Date.now() - cut} ms`);
  });

  test('hostile_the_log_is_not_flooded__a_minute_of_it_is_a_page', async (t) => {
    const m = await Middle.start(t, redis), d = await node(t, m, { log: logName(), name: 'a' });
    m.rule = () => error('LOADING Redis is loading the dataset in memory');
    m.cut();
    const p = setInterval(() => post(d, '/live/x', 'm').catch(() => {}), 100);
    await sleep(4000);
    clearInterval(p);
    assert.ok(d.lines.some((l) => /LOADING/.test(l)), 'it says what Redis said');
    assert.ok(d.lines.length < 40, `${d.lines.length} lines in 4 s`);
    m.rule = null;
    await goesThrough(d, 'x');
  });
});
