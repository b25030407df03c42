// tools/rtlab.c: small real comparisons whose columns must be what arithmetic and the wire's bytes, written here by hand,
// say they are; its cut, its formats, its flags, its end. RTLAB=build/rtlab node --test tests/rtlab/rtlab.test.mjs
import { describe, test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const RTLAB = process.env.RTLAB ?? path.join(top, 'build/rtlab');
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function run(...args) {
  const child = spawn(RTLAB, args.map(String), { stdio: ['ignore', 'pipe', 'pipe'] }), r = { stdout: '', stderr: '', child };
  child.stdout.on('data', (d) => { r.stdout += d; });
  child.stderr.on('data', (d) => { r.stderr += d; });
  r.end = new Promise((done, failed) => child.on('error', failed).on('close', (status, signal) => done({ ...r, status, signal })));
  return r;
}
async function compare(...args) {
  const r = await run('compare', ...args, '--json').end;
  assert.equal(r.status, 0, r.stderr);
  const o = JSON.parse(r.stdout);
  return Object.assign(o, { stderr: r.stderr, of: (name) => o.transports.find((t) => t.transport === name) });
}
const close = (a, b, share, what = '') => assert.ok(Math.abs(a - b) <= Math.abs(b) * share, `${what} ${a} is not ${b} within ${share * 100} %`);
const between = (a, least, most, what = '') => assert.ok(a >= least - 1e-9 && a <= most + 1e-9, `${what} ${a} is not from ${least} to ${most}`);

// Three comparisons at once; the tests below look at them.
const SMALL = ['--clients', 50, '--seconds', 2, '--interval', 0.4, '--rounds', 1, '--cut', 0.6, '--quiet'];
const begin = {
  polls: () => compare(...SMALL, '--rate', 1, '--transports', 'shortpoll,longpoll'),
  streams: () => compare(...SMALL, '--rate', 2, '--transports', 'sse,websocket'),
  raw: () => compare(...SMALL, '--rate', 2, '--transports', 'rawwebsocket'),
};
const first = Object.fromEntries(Object.entries(begin).map(([key, how]) => [key, how()]));
for (const one of Object.values(first)) one.catch(() => {});
const all = async () => (await Promise.all(Object.values(first))).flatMap((o) => o.transports);

// Figures of time. A machine that is busy otherwise stands still for a moment, and that is then measured rightly: so
// another comparison is made, up to three more, before a figure is held to be wrong.
async function atRest(key, check) {
  for (let o = first[key], tries = 1; ; o = begin[key](), tries++) {
    const found = await o;
    try { check(found); return; } catch (error) { if (tries === 4) throw error; }
    await sleep(1000 * tries);
  }
}

// --- bytes by hand: of a message with a number of so many digits ---

const id = (digits) => `k3f9x2ab-${'1'.repeat(digits)}`;
const envelope = (digits, size) => `{"type":"message","id":"${id(digits)}","topic":"lab","data":${'x'.repeat(size)}}`.length;
const frame = (size) => size + (size < 126 ? 2 : size < 65536 ? 4 : 10); // RFC 6455 §5.2, unmasked
const chunk = (size) => size.toString(16).length + 2 + size + 2; // RFC 9112 §7.1
const block = (digits, data) => chunk(`id: ${id(digits)}\ndata: `.length + data + 2);
const request = (digits, query) => `GET /live/lab?since=${id(digits)}&session=${'s'.repeat(24)}${query} HTTP/1.1\r\nHost: 127.0.0.1:40000\r\nUser-Agent: rtpush/0.1.0\r\n\r\n`.length;

function bothEndsCountTheSame(t) {
  const m = t.median;
  close(m.client_bytes_down, m.bytes_down_per_message, 1e-9, t.transport);
  close(m.client_bytes_up, m.bytes_up_per_message, 1e-9, t.transport);
  close(m.client_delivered, m.delivered, 1e-9, t.transport);
  close(m.window_s, 2, 0.02);
  assert.ok(m.latency_p50_ms <= m.latency_p99_ms && m.latency_p99_ms <= m.latency_max_ms);
  assert.ok(m.cpu_us_per_message > 0.5 && m.cpu_us_per_message < 20000, `${t.transport}: ${m.cpu_us_per_message} us`);
}

describe('rtlab', { concurrency: 8 }, () => { // they wait more than they work

test('short_polls_are_what_arithmetic_says', () => atRest('polls', (o) => {
  const t = o.of('shortpoll'), m = t.median;
  assert.deepEqual(t.expected, { requests_per_second: 125, latency_mean_ms: 200, connections: 50, empty_share: 0.6 });
  close(m.requests_per_second, 125, 0.1, 'requests');
  close(m.empty_share, 0.6, 0.1, 'a message each s, a poll each 0.4 s: the empty share');
  close(m.empty_per_message, 1.5, 0.15, 'empty answers');
  close(m.latency_mean_ms, 200, 0.15, 'mean latency is half of the interval:');
  close(m.latency_p50_ms, 200, 0.25, 'p50');
  close(m.latency_p99_ms, 400, 0.15, 'p99');
  close(m.bytes_up_per_message / 2.5, request(1, ''), 0.1, 'two and a half requests a message:');
  assert.equal(m.connections, 50);
  assert.equal(m.published, 2);
  close(m.delivered, 100, 0.1, 'delivered');
  close(m.client_bytes_down, m.bytes_down_per_message, 0.1); // some are under way at the window's ends
  close(m.client_bytes_up, m.bytes_up_per_message, 0.1);
  close(m.client_delivered, m.delivered, 0.1);
}));

test('long_polls_are_a_request_and_an_answer_for_each_message', () => atRest('polls', (o) => {
  const m = o.of('longpoll').median;
  close(m.requests_per_second, 50, 0.1, 'requests');
  assert.equal(m.delivered, 100);
  assert.equal(m.empty_per_message, 0);
  between(m.bytes_up_per_message, request(1, '&wait=25') - 1, request(1, '&wait=25'), 'a request; a port may have 4 digits:');
  assert.ok(m.latency_mean_ms < 150, `${m.latency_mean_ms} ms`);
  assert.equal(m.connections, 50);
  bothEndsCountTheSame(o.of('longpoll'));
}));

function streamIsFree(t) {
  const m = t.median;
  assert.deepEqual([m.requests_per_second, m.empty_share, m.empty_per_message, m.connections, m.published, m.delivered], [0, 0, 0, 50, 4, 200], t.transport);
  assert.equal(m.bytes_up_per_message, 0, 'nothing goes up between two heartbeats');
  assert.ok(m.latency_mean_ms < 150, `${t.transport}: ${m.latency_mean_ms} ms`);
  close(m.bytes_down_per_message - m.bytes_down_around_payload, 128, 1e-9);
  bothEndsCountTheSame(t);
}

test('streams_have_no_requests_and_the_bytes_of_their_envelopes', () => atRest('streams', (o) => {
  o.transports.forEach(streamIsFree);
  between(o.of('websocket').median.bytes_down_per_message, frame(envelope(1, 128)), frame(envelope(2, 128)), 'WebSocket');
  between(o.of('sse').median.bytes_down_per_message, block(1, envelope(1, 128)), block(2, envelope(2, 128)), 'SSE');
}));

test('a_raw_websocket_has_the_bytes_of_its_frames', () => atRest('raw', (o) => {
  o.transports.forEach(streamIsFree);
  assert.equal(o.of('rawwebsocket').median.bytes_down_per_message, frame(128));
}));

test('a_cut_loses_nothing_where_there_is_a_cursor', async () => {
  for (const t of await all()) {
    const m = t.median;
    assert.equal(m.doubled, 0, t.transport);
    assert.equal(m.gaps, 0, t.transport);
    assert.ok(m.back_s >= 0.6 && m.back_s < 30 && m.back_half_s <= m.back_s, `${t.transport}: back after ${m.back_s} s`);
    if (t.transport !== 'rawwebsocket') assert.equal(m.lost, 0, t.transport);
  }
  const { median: without } = (await first.raw).of('rawwebsocket'), { median: websocket } = (await first.streams).of('websocket');
  assert.ok(without.lost >= 50, `without a cursor what came meanwhile is lost: ${without.lost}`); // one in each half second, for each
  assert.equal(without.replayed, 0);
  assert.ok(websocket.replayed >= 50, `${websocket.replayed} by replay`);
});

test('memory_for_each_client_is_some_hundred_bytes', async () => {
  const o = await compare('--clients', 800, '--seconds', 1, '--rate', 2, '--rounds', 1, '--cut', 0, '--transports', 'websocket', '--quiet'), m = o.of('websocket').median;
  between(m.heap_per_client, 250, 1500, 'of the allocator');
  assert.ok(m.memory_per_client > 100, `${m.memory_per_client} resident`);
  assert.equal(m.back_s, null);
  assert.equal(m.replayed, null);
  assert.equal(m.lost, 0);
});

test('rounds__the_median_and_the_spread_and_each_round', async () => {
  const o = await compare('--clients', 4, '--seconds', 0.5, '--interval', 0.1, '--rate', 8, '--rounds', 4, '--cut', 0, '--size', 100, '--transports', 'rawsse');
  assert.equal(o.tool, 'rtlab compare');
  assert.deepEqual(o.settings, { rate: 8, interval: 0.1, clients: 4, seconds: 0.5, size: 100, rounds: 4, cut: 0, random: false });
  assert.equal(o.stderr.split('\n').filter((l) => /^rtlab: round [1-4] of 4, rawsse$/.test(l)).length, 4);
  const [t] = o.transports;
  assert.equal(t.rounds.length, 4);
  for (const key of Object.keys(t.median)) {
    const v = t.rounds.map((r) => r[key]).sort((a, b) => a - b);
    if (v[0] === null) { assert.equal(t.median[key], null); continue; }
    close(t.median[key], (v[1] + v[2]) / 2, 1e-6, key);
    assert.deepEqual([t.least[key], t.most[key]], [v[0], v[3]], key);
  }
  assert.equal(t.median.published, 4);
  between(t.median.bytes_down_per_message, block(1, 100), block(2, 100), 'raw SSE');
});

test('messages_at_random_come_at_the_rate_and_are_expected_so', async () => {
  const o = await compare('--clients', 2, '--seconds', 2, '--interval', 0.05, '--rate', 200, '--random', '--rounds', 1, '--cut', 0, '--transports', 'shortpoll,rawwebsocket', '--size', 64, '--quiet');
  for (const t of o.transports) close(t.median.published, 400, 0.2, t.transport); // four times the deviation
  close(o.of('shortpoll').expected.empty_share, Math.exp(-200 * 0.05), 1e-9);
  close(o.of('rawwebsocket').median.bytes_down_per_message, frame(64), 1e-9, 'a head of two bytes below 126');
});

const TINY = ['compare', '--clients', 3, '--seconds', 0.5, '--interval', 0.1, '--rate', 4, '--rounds', 2, '--cut', 0.1, '--transports', 'websocket,sse', '--quiet'];

test('markdown_is_a_table', async () => {
  const r = await run(...TINY, '--markdown').end, lines = r.stdout.trimEnd().split('\n');
  assert.equal(r.status, 0, r.stderr);
  assert.equal(r.stderr, '');
  assert.match(lines[0], /^\| 3 clients each, 4 messages\/s of 128 bytes, polls every 0\.10 s; 0\.50 s, 2 rounds \| WebSocket \| SSE \|$/);
  assert.equal(lines[1], '|---|---|---|');
  for (const l of lines.slice(2)) assert.match(l, /^\| [a-zA-Z][^|]+ \|( -?[\d,.]+( \(-?[\d,.]+ to -?[\d,.]+\))? \|){2}$/, l);
  assert.equal(lines.length, 2 + 18);
});

test('svg_is_well_formed_and_legible_in_both_schemes', async () => {
  const r = await run(...TINY, '--svg').end, open = [];
  assert.equal(r.status, 0, r.stderr);
  assert.match(r.stdout, /^<svg xmlns='http:\/\/www\.w3\.org\/2000\/svg' /);
  assert.match(r.stdout, /prefers-color-scheme:dark/);
  assert.match(r.stdout, /<title id='t'>.+<\/title><desc id='d'>.+<\/desc>/);
  for (const [, end, name, empty] of r.stdout.matchAll(/<(\/?)([a-z]+)(?:\s+[a-zA-Z-]+='[^'<]*'|\s+[a-z]+:[a-z]+='[^']*')*\s*(\/?)>/g)) {
    if (end) assert.equal(open.pop(), name);
    else if (!empty) open.push(name);
  }
  assert.deepEqual(open, []);
  assert.equal([...r.stdout.matchAll(/<rect class='b k/g)].length, 2 * 8, 'a bar for each transport in each of eight panels');
  for (const [, width] of r.stdout.matchAll(/<rect class='b[^>]* width='([^']*)'/g)) between(Number(width), 1, 176.1, 'a bar');
  assert.doesNotMatch(r.stdout, /nan|inf\b/);
});

test('a_table_for_people', async () => {
  const r = await run(...TINY).end;
  assert.equal(r.status, 0, r.stderr);
  for (const row of ['requests per second', 'latency, p99 (ms)', 'server CPU per message (us)', 'cut: messages lost']) assert.ok(r.stdout.includes(`\n${row} `), row);
});

test('bad_flags_are_status_2_with_a_sentence', async () => {
  const bad = [
    [], ['compare', 'x'], ['million', '--nonsense'], ['x'], ['--nonsense'], ['compare', '--nonsense'], ['compare', '--nonsense', '1'], ['compare', '--rate'], ['compare', '--rate', ''], ['compare', '--rate', '0'],
    ['compare', '--rate', '-1'], ['compare', '--rate', '1e3'], ['compare', '--rate', 'nan'], ['compare', '--rate', '1.1.1'], ['compare', '--rate', '1000000'], ['compare', '--interval', '0'],
    ['compare', '--clients', '0'], ['compare', '--clients', '1.5'], ['compare', '--clients', '99999999999999999999'], ['compare', '--size', '63'], ['compare', '--size', '1000001'],
    ['compare', '--rounds', '0'], ['compare', '--rounds', '100'], ['compare', '--cut', '61'], ['compare', '--seconds', '0'], ['compare', '--rate', '0.01', '--seconds', '1'],
    ['compare', '--transports', ''], ['compare', '--transports', 'sse,'], ['compare', '--transports', 'sse,sse'], ['compare', '--transports', 'carrier'], ['compare', '--markdown=1'],
    ['compare', '--rate', '100000', '--clients', '1000'], ['compare', '--rate', '1000', '--clients', '1', '--size', '1000000'],
    ['compare', '--clients', '900000', '--rate', '0.5', '--seconds', '2', '--interval', '1'],
  ];
  for (const args of bad) {
    const r = await run(...args).end;
    assert.equal(r.status, 2, `${args.join(' ')}: ${r.status} ${r.stderr}`);
    assert.match(r.stderr, args[0] === 'million' ? /million/ : args.length ? /^rtlab: .{10,}\n$/s : /^usage: /, args.join(' '));
    assert.equal(r.stdout, '', args.join(' '));
  }
  assert.match((await run(...bad.at(-1)).end).stderr, /--clients 900000: .*(descriptors|local ports)/);
});

test('million_is_the_other_command', async () => {
  const r = await run('million', '--sessions', 2000, '--publishes', 3, '--json').end;
  assert.equal(r.status, 0, r.stderr);
  assert.equal(JSON.parse(r.stdout).sessions, 2000);
  assert.equal((await run('million', '--sessions', 'many').end).status, 2);
});

test('help_and_version', async () => {
  const help = await run('compare', '--help').end;
  assert.equal(help.status, 0);
  for (const text of ['--rate', '--transports', "TCP's payload", 'no TLS']) assert.ok(help.stdout.includes(text), text);
  assert.match((await run('--version').end).stdout, /^rtlab \d/);
});

// --- its processes ---

const processes = (mark) => fs.readdirSync('/proc').filter((pid) => { try { return /^\d+$/.test(pid) && fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(mark); } catch { return false; } });
async function started(mark) {
  const r = run('compare', '--rate', mark, '--clients', 5, '--seconds', 60, '--transports', 'sse', '--quiet');
  for (let i = 0; i < 500 && processes(mark).length < 3; i++) await sleep(20);
  assert.equal(processes(mark).length, 3, 'itself, a server, the clients');
  await sleep(300);
  return r;
}
async function gone(mark) {
  for (let i = 0; i < 200 && processes(mark).length; i++) await sleep(50);
  assert.deepEqual(processes(mark), []);
}

test('nothing_of_it_outlives_it', { skip: !fs.existsSync('/proc/self/cmdline') && 'no /proc' }, async () => {
  const mark = `2.1${process.pid}`, r = await started(mark);
  r.child.kill('SIGKILL');
  await gone(mark);
});

test('a_server_that_dies_is_a_failure_and_not_a_figure', { skip: !fs.existsSync('/proc/self/cmdline') && 'no /proc' }, async () => {
  const mark = `2.2${process.pid}`, r = await started(mark), children = processes(mark).map(Number).filter((pid) => pid !== r.child.pid).sort((a, b) => a - b);
  process.kill(children[0], 'SIGKILL'); // the server was made first
  const end = await r.end;
  assert.equal(end.status, 1, end.stderr);
  assert.match(end.stderr, /rtlab: .*(server has ended|failed)/);
  assert.equal(end.stdout, '');
  await gone(mark);
});

});
