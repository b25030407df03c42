// examples/cluster/run.sh: what it starts answers, its buttons' words are obeyed, and nothing is left when it ends.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import path from 'node:path';
import fs from 'node:fs';
import os from 'node:os';
import { spawn, execFileSync } from 'node:child_process';
import { top, which, lacks, freePort, rtpushd, build, knowsRedis, sleep, eventually } from './lib.mjs';

const RUN = path.join(top, 'examples/cluster/run.sh');
const why = lacks('redis-server', 'haproxy', 'nginx', 'curl') || (knowsRedis(rtpushd()) ? '' : 'the daemon knows no --redis');
const rtcat = () => (process.env.RTCAT ? path.resolve(process.env.RTCAT) : build('../../tools/rtcat.c'));

test('example_says_what_is_missing', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-path-'));
  try {
    for (const name of ['bash', 'dirname', 'redis-server', 'curl']) if (which(name)) fs.symlinkSync(which(name), path.join(folder, name));
    // /usr/sbin is looked at too, where nginx and haproxy may be: its place is taken.
    const text = fs.readFileSync(RUN, 'utf8').replace(/^PATH=.*$/m, `PATH=${folder}`);
    assert.throws(() => execFileSync(which('bash'), ['-c', text, RUN], { stdio: 'pipe' }), (e) => {
      assert.equal(e.status, 1);
      assert.match(e.stderr.toString(), /missing:.* haproxy nginx/);
      return true;
    });
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test('example_runs_and_leaves_nothing', { skip: why || false, timeout: 60000 }, async (t) => {
  const env = { ...process.env, RTPUSHD: rtpushd(), RTCAT: rtcat(), TMPDIR: fs.mkdtempSync(path.join(os.tmpdir(), 'rtpush-example-')) };
  for (const name of ['NGINX_PORT', 'HAPROXY_PORT', 'REDIS_PORT', 'N1', 'N2', 'N3', 'CONTROL_PORT']) env[name] = `${await freePort()}`;
  // A group of its own, and SIGINT as a terminal sends it: to all of the group.
  const p = spawn('env', ['--default-signal=INT', RUN], { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '', over = null;
  p.stdout.on('data', (d) => { said += d; });
  p.stderr.on('data', (d) => { said += d; });
  const exit = new Promise((done) => p.on('close', (code) => { over = { code }; done(code); }));
  t.after(() => { try { process.kill(-p.pid, 'SIGKILL'); } catch { /* it has gone */ } fs.rmSync(env.TMPDIR, { recursive: true, force: true }); });
  await eventually(() => { if (over) throw new Error(`it ended: ${said}`); return said.includes('open http://'); }, `run.sh is ready: ${said}`, 30000);
  const nginx = `http://127.0.0.1:${env.NGINX_PORT}`, haproxy = `http://127.0.0.1:${env.HAPROXY_PORT}`;
  const status = async (url, init) => (await fetch(url, init).catch(() => ({ status: 0 }))).status;

  assert.match(await (await fetch(`${nginx}/`)).text(), /One log, three nodes/);
  assert.match(await (await fetch(`${nginx}/rtpush.js`)).text(), /rtpush\.js: the browser client/);
  const { id } = await (await fetch(`${nginx}/live/chat/lobby`, { method: 'POST', body: 'hello' })).json();
  const served = new Set();
  for (let i = 0; i < 6; i++) {
    const r = await eventually(async () => {
      const answer = await fetch(`${haproxy}/live/chat/lobby`), body = await answer.json();
      return body.messages[0]?.id === id && answer;
    }, 'each node has it');
    served.add(r.headers.get('Rtpush-Node'));
  }
  assert.deepEqual([...served].sort(), ['n1', 'n2', 'n3'], 'round robin');

  const word = (text, headers) => status(`${nginx}/control/word`, { method: 'POST', body: text, headers });
  assert.equal(await word('kill n1', { Origin: 'http://elsewhere.example' }), 403, 'another page kills nothing');
  for (const nonsense of ['kill n9', 'kill', '$(touch x) n1', 'kill n1; echo']) assert.equal(await word(nonsense), 201);
  assert.equal(await word('kill n2'), 201);
  await eventually(async () => (await status(`${nginx}/node/n2/healthz`)) === 502, 'n2 is down');
  for (const n of ['n1', 'n3']) assert.equal(await status(`${nginx}/node/${n}/healthz`), 200);
  for (let i = 0; i < 6; i++) for (const url of [nginx, haproxy]) assert.equal(await status(`${url}/live/chat/lobby`), 200, 'nobody notices');
  await word('start n2');
  await eventually(async () => (await status(`${nginx}/node/n2/healthz`)) === 200, 'n2 is back');
  await word('stop n3');
  await sleep(300);

  process.kill(-p.pid, 'SIGINT');
  assert.equal(await Promise.race([exit, sleep(10000)]), 130, said);
  assert.deepEqual(fs.readdirSync(env.TMPDIR), [], 'its folder is gone');
  const left = execFileSync('ps', ['-eo', 'pgid,args']).toString().split('\n').filter((l) => Number(l.trim().split(' ')[0]) === p.pid);
  assert.deepEqual(left, [], 'no process is left');
  assert.doesNotMatch(said, /Killed|line \d+:/, said);
});
