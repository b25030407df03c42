// The two patches of the course do what its pages say: a fifth transport, a broken heartbeat.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import net from 'node:net';
import { spawn, spawnSync } from 'node:child_process';
import { test, after } from 'node:test';
import assert from 'node:assert/strict';
import { top, eventually, freePort, answers, sleep } from './lib.mjs';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-course-'));
after(() => fs.rmSync(dir, { recursive: true, force: true }));

// The daemon, with a patch of the course in its header; not below build/, where a test could take it for the real one.
function build(patch) {
  const home = path.join(dir, patch);
  fs.mkdirSync(path.join(home, 'tools'), { recursive: true });
  fs.copyFileSync(path.join(top, 'rtpush.h'), path.join(home, 'rtpush.h'));
  fs.copyFileSync(path.join(top, 'tools/rtpushd.c'), path.join(home, 'tools/rtpushd.c'));
  const patched = spawnSync('patch', ['-s', '-p1', '-i', path.join(top, 'examples/course', patch)], { cwd: home, encoding: 'utf8' });
  assert.equal(patched.status, 0, patched.stdout + patched.stderr);
  const flags = ['-Wall', '-Wextra', '-pedantic', '-Wconversion', '-Wshadow', '-Werror', '-fsanitize=address,undefined', '-g', 'tools/rtpushd.c', '-o', 'rtpushd'];
  const made = spawnSync(process.env.CC || 'cc', flags, { cwd: home, encoding: 'utf8' });
  assert.equal(made.status, 0, made.stderr.slice(0, 2000));
  return path.join(home, 'rtpushd');
}

async function start(t, program, ...flags) {
  const port = await freePort(), d = spawn(program, ['--listen', `http://127.0.0.1:${port}`, ...flags], { stdio: 'ignore' });
  const over = new Promise((done) => d.on('exit', (code) => done(code)));
  t.after(() => { d.kill('SIGKILL'); return over; });
  await eventually(() => answers(port), 'it listens');
  return { port, over, url: `http://127.0.0.1:${port}`, end: () => d.kill('SIGTERM') };
}

// The objects of a stream of lines, as they come.
async function lines(d, query = '') {
  const r = await fetch(`${d.url}/live/t${query}`, { headers: { Accept: 'application/x-ndjson' } }), all = [];
  assert.equal(r.headers.get('content-type'), 'application/x-ndjson');
  let text = '';
  const over = (async () => {
    for await (const part of r.body) {
      text += Buffer.from(part);
      for (let end; (end = text.indexOf('\n')) >= 0; text = text.slice(end + 1)) all.push(JSON.parse(text.slice(0, end)));
    }
  })();
  return { all, over };
}
const publish = async (d, data) => (await (await fetch(`${d.url}/live/t`, { method: 'POST', body: data })).json()).id;

test('the_fifth_transport_starts_resumes_tells_gaps_keeps_alive_and_says_goodbye', async (t) => {
  const d = await start(t, build('fifth.patch'), '--set', 'history=3', '--set', 'sse_heartbeat_ms=300');
  const ids = [];
  for (const x of ['a', 'b', 'c', 'd', 'e']) ids.push(await publish(d, x));
  const whole = await lines(d, '?since=earliest'), later = await lines(d, `?since=${ids[3]}`), lost = await lines(d, `?since=${ids[0]}`), now = await lines(d);
  await eventually(() => whole.all.length >= 4 && later.all.length >= 2 && lost.all.length >= 4 && now.all.length >= 1, 'what is held');
  const message = (id, data) => ({ id, topic: 't', data });
  assert.deepEqual(later.all.slice(0, 2), [{ cursor: ids[3] }, message(ids[4], 'e')]);
  assert.deepEqual(lost.all.slice(0, 4), [{ gap: { from: ids[0], to: ids[1], reason: 'evicted' } }, message(ids[2], 'c'), message(ids[3], 'd'), message(ids[4], 'e')]);
  assert.deepEqual(now.all[0], { cursor: ids[4] });
  const id = await publish(d, 'f');
  for (const r of [whole, later, lost, now]) await eventually(() => r.all.some((x) => x.id === id), 'what is new');
  await eventually(() => now.all.filter((x) => x.cursor === id).length >= 2, 'heartbeats, with the cursor');
  d.end();
  await now.over;
  assert.equal(typeof now.all.at(-1).reconnect, 'number');
  assert.equal(await d.over, 0);
  const patch = fs.readFileSync(path.join(top, 'examples/course/fifth.patch'), 'utf8');
  assert.ok(patch.split('\n').filter((line) => /^\+(?!\+\+)/.test(line)).length < 100, 'under 100 lines');
});

// A client that shakes hands and never says a word again. Milliseconds until it is dropped, or null.
async function silent(d, ms) {
  const began = Date.now(), s = net.connect(d.port, '127.0.0.1');
  s.write('GET /live/t HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n');
  const dropped = new Promise((done) => s.on('data', () => {}).on('error', () => {}).on('close', () => done(Date.now() - began)));
  const after = await Promise.race([dropped, sleep(ms).then(() => null)]);
  s.destroy();
  return after;
}

test('the_broken_heartbeat_shows_only_where_it_is_shorter_than_the_patience', async (t) => {
  const broken = build('heartbeat.patch'), hurt = ['--set', 'heartbeat_ms=300', '--set', 'dead_ms=900'], kind = ['--set', 'heartbeat_ms=900', '--set', 'dead_ms=300'];
  assert.ok(process.env.RTPUSHD, 'RTPUSHD is the daemon as it should be');
  const [bad, good, unseen] = [await start(t, broken, ...hurt), await start(t, process.env.RTPUSHD, ...hurt), await start(t, broken, ...kind)];
  const [never, soon, there] = await Promise.all([silent(bad, 5000), silent(good, 5000), silent(unseen, 5000)]);
  assert.equal(never, null, 'the broken one drops nobody');
  assert.ok(soon >= 900 && soon < 4000, `the good one after about 1,200 ms: ${soon}`);
  assert.ok(there >= 900 && there < 4000, `and with a patience below the heartbeat both do: ${there}`);
});
