// tools/rtplan.c: its formulas against other ways to the same numbers (a table of README.md, draws at random), its limits,
// its decision, its flags, and what it measures. RTPLAN=build/rtplan node --test tests/plan/rtplan.test.mjs
import { test } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { execFile, spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const RTPLAN = process.env.RTPLAN ?? path.join(top, 'build/rtplan');
const readme = fs.readFileSync(path.join(top, 'README.md'), 'utf8');

const run = (...args) => spawnSync(RTPLAN, args.map(String), { encoding: 'utf8', timeout: 60000 });
function plan(...args) {
  const r = run(...args, '--json');
  assert.equal(r.status, 0, r.stderr);
  return JSON.parse(r.stdout);
}
const figures = (...args) => Object.fromEntries(Object.entries(plan(...args).figures).map(([key, f]) => [key, f.value]));
const close = (a, b, share, what = '') => assert.ok(Math.abs(a - b) <= Math.abs(b) * share, `${what} ${a} is not ${b} within ${share * 100} %`);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const later = (...args) => new Promise((done) => {
  execFile(RTPLAN, args.map(String), { timeout: 60000 }, (error, stdout, stderr) => done({ args, status: error?.code ?? 0, stdout, stderr }));
});
const measured = later('--measure', '--cpu-per-poll', 77, '--json'); // takes some seconds, so it begins here

// A formula read by JavaScript instead.
const evaluate = (formula, names) => Function('exp', 'min', 'max', 'ceil', 'floor', 'pow', ...Object.keys(names), `return ${formula}`)(
  Math.exp, Math.min, Math.max, Math.ceil, Math.floor, Math.pow, ...Object.values(names));

const SETTINGS = [
  [],
  ['--users', '1000000', '--poll-interval', '5', '--rate', '1000', '--fanout', '100', '--payload', '128'],
  ['--users', '3'],
  ['--users', '250k', '--online', '0.1', '--rate', '0.5', '--fanout', '25000', '--payload', '10000', '--tls', '--cores', '16'],
  ['--users', '1G', '--rate', '100M', '--fanout', '1', '--poll-interval', '86400'],
];

test('the_line_of_the_lecture__a_million_at_5_s_are_200000_requests_a_second', () => {
  const f = figures('--users', '1000000', '--poll-interval', '5');
  assert.equal(f.shortpoll_requests, 200000);
  assert.equal(f.shortpoll_latency, 2500 + 25);
  assert.equal(f.websocket_servers, Math.ceil(1e6 / 15000) + 1);
  close(f.load, 1e6 / 68, 1e-12);
  close(f.storm_plain / f.storm_jitter, 5, 1e-12, 'a tenth of a second against half of one');
});

test('each_figure_is_its_formula_over_the_inputs_and_figures_it_names', () => {
  for (const args of SETTINGS) {
    const p = plan(...args), known = { ...p.inputs };
    for (const [key, f] of Object.entries(p.figures)) {
      for (const [name, value] of Object.entries(f.from)) assert.equal(value, known[name].value, `${key}: ${name}`);
      const names = new Set(f.formula.match(/[a-z][a-z0-9_]*(?!\w*\()/g)?.filter((n) => n in known));
      assert.deepEqual(new Set(Object.keys(f.from)), names, key);
      const value = evaluate(f.formula, f.from);
      assert.ok(Math.abs(value - f.value) <= 1e-9 * Math.max(Math.abs(value), 1e-6), `${key} = ${f.formula}: ${f.value}, and here ${value} (${args})`);
      assert.ok(!(key in known), `${key} is there twice`);
      known[key] = f;
    }
  }
});

test('explain_shows_a_formula_and_its_numbers_for_each_figure', () => {
  const r = run('--explain', ...SETTINGS[3]), p = plan(...SETTINGS[3]), lines = r.stdout.split('\n');
  for (const [key, f] of Object.entries(p.figures)) {
    const at = lines.findIndex((l) => l.startsWith(`  ${key} `));
    assert.ok(at > 0, key);
    assert.equal(lines[at + 1].trim(), `= ${f.formula}`);
    const numbers = lines[at + 2].trim().replace(/^= /, '');
    assert.doesNotMatch(numbers.replace(/\b(exp|min|max|ceil|floor|pow)\(|\de[+-]?\d/g, ''), /[a-z]/, numbers);
    close(evaluate(numbers, {}), f.value, 1e-6, `${key} = ${numbers}:`);
  }
  for (const key of Object.keys(p.inputs)) assert.ok(lines.some((l) => l.startsWith(`  ${key} `)), `the input ${key}`);
});

test('between_servers__the_tables_of_the_README', () => {
  const table = [[2, 554, 566], [4, 745, 1122], [8, 1121, 2233]]; // nodes, bytes a publish into Redis, out of it; payload 100
  for (const [nodes, into, out] of table) {
    assert.match(readme, new RegExp(`\\| ${nodes} \\|.*\\| ${into.toLocaleString('en')} \\| ${out.toLocaleString('en')} \\|`), 'the README has other numbers now');
    const f = figures('--users', (nodes - 1) * 15000, '--rate', 1000, '--payload', 100, '--fanout', 1);
    assert.equal(f.websocket_servers, nodes);
    close(f.all_in * 1e6 / 8 / 1000, into, 0.01, 'in');
    close(f.all_out * 1e6 / 8 / 1000, out, 0.01, 'out');
  }
  const between = [[2, 86, 164], [4, 130, 358], [8, 151, 496]]; // counted: sticky by topic, a registry; 4 readers, 100 bytes
  for (const [nodes, sticky, registry] of between) {
    assert.match(readme, new RegExp(`\\| ${nodes} \\|[^\\n]*\\| ${sticky} \\(\\d+\\) \\| ${registry} \\(`), 'the README has other numbers now');
    const f = figures('--users', (nodes - 1) * 15000, '--rate', 1000, '--payload', 100, '--fanout', 4);
    close(f.sticky_between * 1e6 / 8 / 1000, sticky, 0.02, 'sticky');
    close(f.registry_between * 1e6 / 8 / 1000, registry, 0.02, 'registry');
  }
  assert.equal(figures('--rate', 15000).logs, 1);
  assert.equal(figures('--rate', 15001).logs, 2);
  assert.equal(figures('--rate', 100000).logs, 7);
});

test('registry_and_sticky_as_readers_dealt_at_random_would_have_it', () => {
  for (const [nodes, readers] of [[4, 3], [8, 10], [68, 100]]) {
    const f = figures('--users', (nodes - 1) * 15000, '--rate', 1000, '--fanout', readers, '--payload', 128);
    let copies = 0, hops = 0;
    const draws = 20000, any = () => Math.floor(Math.random() * nodes);
    for (let i = 0; i < draws; i++) {
      const home = any(), on = new Set(Array.from({ length: readers }, any)); // home: where it was published
      on.delete(home);
      copies += on.size;
      hops += any() !== home;
    }
    close(f.registry_copies, copies / draws, 0.03, `${nodes} nodes, ${readers} readers:`);
    close(f.sticky_hops / 1000, hops / draws, 0.03);
    close(f.registry_between, 1000 * (copies / draws) * (128 + 73) * 8 / 1e6, 0.03);
  }
});

test('polls_as_messages_at_random_would_have_it', () => {
  const args = ['--users', 1000, '--rate', 10, '--fanout', 10, '--poll-interval', 5, '--wait', 25, '--rtt', 0.05], f = figures(...args);
  const next = () => -Math.log(1 - Math.random()) / 0.1; // each client: one message in 10 s
  let empty = 0, time = 0, awake = 0, holds = 0;
  const draws = 100000;
  for (let i = 0; i < draws; i++) {
    empty += next() > 5;
    const held = Math.min(next(), 25);
    holds++;
    time += held;
    awake += Math.min(held, 10); // the radio's tail
  }
  close(f.shortpoll_empty, empty / draws, 0.02);
  close(f.longpoll_hold, time / holds, 0.02);
  close(f.longpoll_requests, 1000 / (time / holds + 0.05), 0.02);
  close(f.longpoll_wakeups, 3600 / (time / holds + 0.05), 0.02);
  close(f.longpoll_radio, awake / time, 0.02);
});

test('bandwidth_by_hand', () => {
  // 100 clients, each 10 messages/s of 1,000 bytes: WebSocket 1,000 + 62 in one packet of 52; a heartbeat each 20 s.
  const f = figures('--users', 100, '--rate', 10, '--fanout', 100, '--payload', 1000);
  close(f.websocket_down, (1000 * (1000 + 62 + 52) + 5 * (52 + 52)) * 8 / 1e6, 1e-12);
  close(f.websocket_up, (1000 * 52 + 5 * (6 + 52)) * 8 / 1e6, 1e-12);
  close(f.shortpoll_up, 20 * (133 + 52 + 52) * 8 / 1e6, 1e-12);
  close(f.shortpoll_down, (20 * (191 + 52) + 1000 * (1000 + 42)) * 8 / 1e6, 1e-12);
  const large = figures('--users', 100, '--rate', 10, '--fanout', 100, '--payload', 2000, '--tls');
  assert.equal(large.packets, 2);
  close(large.sse_down, (1000 * (2000 + 87 + 2 * 74) + 100 / 15 * (40 + 74)) * 8 / 1e6, 1e-12);
  close(large.memory_each, 498 + 14900 + 3200, 1e-12);
});

test('what_limits_a_server_is_named_and_counts', () => {
  const cases = [
    [[], 'connections', 15000], [['--connections-per-server', 100000], 'ports', 28232],
    [['--connections-per-server', 100000, '--balancers', 4, '--memory', 64], 'descriptors', 65472],
    [['--connections-per-server', 1000000, '--balancers', 40, '--descriptors', 1000000, '--cores', 16], 'memory', Math.floor(2e9 / 3698)],
    [['--rate', 100000, '--fanout', 1000], 'cpu', Math.floor(1e6 / (9 * 100 + 20 / 20))],
  ];
  for (const [args, name, count] of cases) {
    const p = plan(...args);
    assert.equal(p.limits.websocket, name, args.join(' '));
    assert.equal(p.figures.websocket_per_server.value, count);
    assert.equal(p.figures.websocket_servers.value, Math.ceil(1e6 / count) + 1);
    assert.match(run(...args).stdout, new RegExp(`websocket_per_server .*limited by ${name}`));
  }
});

test('a_lost_server_and_a_deploy_by_hand', () => {
  const f = figures('--users', 45000, '--tls', '--cores', 4), load = 45000 / 4, most = 4 * 0.5 * 1e6 / 1040;
  close(f.storm_plain_each, load / 0.1 / 3, 1e-12);
  close(f.storm_jitter_each, load / 0.5 / 3, 1e-12);
  close(f.storm_absorb, load / 3 / most, 1e-12);
  close(f.deploy, 4 * (0.2 + 3 + 2), 1e-12);
  const slow = figures('--users', 45000, '--cores', 1, '--cpu-share', 0.1, '--cpu-per-connect', 100000); // 1 a second each
  close(slow.storm_absorb, slow.load / (slow.websocket_servers - 1), 1e-12);
  assert.equal(slow.drain_over, slow.storm_absorb, 'a drain waits for those who take its clients');
});

test('the_decision', () => {
  const cases = [
    [[], 'sse'], [['--direction', 'two-way'], 'websocket'], [['--proxies', 'hostile'], 'longpoll'], [['--proxies', 'hostile', '--direction', 'two-way'], 'longpoll'],
    [['--latency', '60000', '--poll-interval', '60'], 'shortpoll'], // 60 wake-ups an hour against 600
    [['--latency', '60000', '--poll-interval', '60', '--rate', '10'], 'shortpoll'], [['--latency', '59000', '--poll-interval', '60', '--rate', '10'], 'sse'],
    [['--latency', '60000', '--poll-interval', '60', '--rate', '10', '--direction', 'two-way'], 'websocket'],
    [['--latency', '5000', '--proxies', 'hostile'], 'shortpoll'], [['--latency', '4000', '--proxies', 'hostile'], 'longpoll'],
    [['--browsers', 'no'], 'sse'], [['--browsers', 'no', '--rate', '100k'], 'websocket'], [['--rate', '100k'], 'sse'],
  ];
  for (const [args, transport] of cases) {
    const { decision } = plan(...args);
    assert.equal(decision.transport, transport, args.join(' '));
    assert.equal(decision.because.length, 3);
    for (const sentence of decision.because) assert.match(sentence, /^[A-Z0-9].{40,}\.$/, sentence);
  }
  assert.match(plan('--latency', 10).decision.because[2], /^No transport brings a message in 10 ms over a line that takes 25 there/);
});

test('constants_of_the_README_stand_in_it', () => {
  const { inputs } = plan();
  const written = { memory_per_connection: /costs 498 bytes of the process/, tls_memory: /costs 15\.4 KB/, redis_message: /payload \+ 178/, redis_answer: /`10 \+ N/, redis_ceiling: /15,425/ };
  for (const [key, text] of Object.entries(written)) {
    assert.match(inputs[key].source, /^README\.md/, key);
    assert.match(readme, text, key);
  }
  close(inputs.tls_memory.value + inputs.memory_per_connection.value, 15400, 0.001);
  for (const [key, i] of Object.entries(inputs)) assert.ok(i.source && i.title, key);
});

test('bad_flags_are_status_2_with_a_sentence', async () => {
  const bad = [
    ['--users'], ['--users', ''], ['--users', '0'], ['--users', '-1'], ['--users', '1.5'], ['--users', 'many'], ['--users', '1e6'], ['--users', '2G'], ['--users', '1kk'],
    ['--users', 'nan'], ['--users', 'inf'], ['--users', '0x10'], ['--users', '1..5'], ['--users', ' 5'], ['--users', '9'.repeat(400)],
    ['--rate', '0'], ['--rate', '-5'], ['--rate', '1e300'], ['--fanout', '0'], ['--fanout', '2M'], ['--fanout', '1.5'], ['--payload', '0'], ['--payload', '2M'],
    ['--poll-interval', '0'], ['--poll-interval', '90000'], ['--online', '0'], ['--online', '1.1'], ['--users', '1', '--online', '0.5'], ['--cpu-share', '2'], ['--descriptors', '64'],
    ['--backoff', '60'], ['--direction', 'up'], ['--direction'], ['--latency', '0'], ['--latency', 'soon'], ['--proxies', 'good'], ['--browsers', 'maybe'],
    ['--poll_interval', '5'], ['--tls', '1'], ['--tls=1'], ['--nonsense'], ['--nonsense', '5'], ['users'], [''], ['--'], ['-x'], ['--json=1'], ['--explain=yes'], [`--${'x'.repeat(300)}`, '1'],
  ];
  for (const { args, ...r } of await Promise.all(bad.map((args) => later(...args)))) {
    assert.equal(r.status, 2, `${args.join(' ')}: ${r.status} ${r.stderr}`);
    assert.match(r.stderr, /^rtplan: .{10,}\n$/s, args.join(' '));
    assert.equal(r.stdout, '');
  }
});

test('help_version_and_flags_in_both_forms', () => {
  const help = run('--help');
  assert.equal(help.status, 0);
  for (const key of Object.keys(plan().inputs)) assert.ok(help.stdout.includes(`--${key.replaceAll('_', '-')} `), key);
  assert.match(run('--version').stdout, /^rtplan \d/);
  assert.equal(run('--users=2k', '--json').stdout, run('--users', '2000', '--json').stdout);
  assert.equal(plan('--users', '2.5M').inputs.users.value, 2500000);
  assert.equal(plan('--users', '7').inputs.fanout.value, 7, 'a default is no reason to refuse');
});

test('measure_measures_this_machine_and_what_is_given_stays', async () => {
  const r = await measured;
  assert.equal(r.status, 0, r.stderr);
  const p = JSON.parse(r.stdout), { inputs } = p;
  for (const key of ['memory_per_connection', 'cpu_per_message', 'cpu_per_connect', 'cpu_per_heartbeat', 'descriptors']) assert.equal(inputs[key].source, 'measured here', key);
  assert.equal(inputs.cpu_per_poll.source, 'given');
  assert.equal(inputs.cpu_per_poll.value, 77);
  assert.ok(inputs.memory_per_connection.value > 200 && inputs.memory_per_connection.value < 20000, `${inputs.memory_per_connection.value} bytes`);
  for (const key of ['cpu_per_message', 'cpu_per_connect', 'cpu_per_heartbeat']) assert.ok(inputs[key].value > 0.5 && inputs[key].value < 3000, `${key}: ${inputs[key].value}`);
  assert.ok(inputs.cpu_per_connect.value > inputs.cpu_per_message.value, 'a handshake costs more than a frame');
  assert.equal(inputs.tls_handshake.source.startsWith('a constant'), true);
  close(p.figures.connects_most.value, 1e6 / inputs.cpu_per_connect.value, 1e-9, 'the plan uses what was measured:');
});

test('measure_leaves_no_server_when_it_is_ended', async () => {
  const mark = `${100000000 + process.pid}`, child = spawn(RTPLAN, ['--measure', '--users', mark], { stdio: 'ignore' });
  const alive = () => fs.readdirSync('/proc').filter((pid) => { try { return /^\d+$/.test(pid) && fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(mark); } catch { return false; } });
  if (!fs.existsSync('/proc/self/cmdline')) { child.kill('SIGKILL'); return; }
  while (alive().length < 2) { assert.equal(child.exitCode, null); await sleep(20); }
  child.kill('SIGKILL');
  for (let i = 0; i < 100 && alive().length; i++) await sleep(50);
  assert.deepEqual(alive(), []);
});
