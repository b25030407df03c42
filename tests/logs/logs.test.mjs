// Other logs than the hub's own: examples/pipe.c, a bus of a host's; two logs in one process.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn, execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const PIPE = process.env.PIPE ?? path.join(top, 'build/pipe');

// Two free ports, one behind the other.
async function twoPorts() {
  for (;;) {
    const first = net.createServer(), second = net.createServer();
    await new Promise((done) => first.listen(0, '127.0.0.1', done));
    const { port } = first.address();
    const isFree = await new Promise((done) => second.once('error', () => done(false)).listen(port + 1, '127.0.0.1', () => done(true)));
    await new Promise((done) => first.close(done));
    if (isFree) { await new Promise((done) => second.close(done)); return port; }
  }
}

async function begin(t, program, args, lines) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], detached: true });
  t.after(() => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ } });
  let text = '';
  for await (const piece of child.stdout) if ((text += piece).split('\n').length > lines) break;
  return child;
}

const post = async (url, body, how = {}) => (await fetch(url, { method: 'POST', body, ...how })).json();
const held = async (url) => (await fetch(url)).json();

test('a_bus_of_ones_own__two_processes_have_one_log', async (t) => {
  const port = await twoPorts(), parent = `http://127.0.0.1:${port}`, child = `http://127.0.0.1:${port + 1}`;
  await begin(t, PIPE, [parent, child], 2);
  const waits = held(`${parent}/live/t?wait=20&since=earliest`);
  const ids = [];
  for (let i = 0; i < 40; i++) ids.push((await post(`${i % 2 ? parent : child}/live/t`, `m${i}`)).id);
  assert.equal((await waits).messages[0].data, 'm0');
  for (const url of [parent, child]) {
    const { messages } = await held(`${url}/live/t`);
    assert.deepEqual(messages.map((m) => [m.id, m.data]), ids.map((id, i) => [id, `m${i}`]), url);
  }
  const key = { headers: { 'Idempotency-Key': 'k' } };
  const first = await post(`${child}/live/t`, 'once', key);
  assert.equal((await post(`${child}/live/t`, 'once', key)).id, first.id);
  assert.equal((await fetch(`${child}/live/t`, { method: 'DELETE' })).status, 204);
  for (const url of [parent, child]) assert.deepEqual((await held(`${url}/live/t?since=${first.id}`)).messages, []);
  assert.equal((await held(`${parent}/live/t?since=${ids[3]}`)).gap.reason, 'evicted');
});

test('two_logs_in_one_process__each_with_its_own_cursor_and_journal', async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'logs-')), program = path.join(folder, 'two_logs');
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  execFileSync(process.env.CC ?? 'cc', ['-g', '-fsanitize=address,undefined', path.join(top, 'tests/logs/two_logs.c'), '-o', program, '-pthread']);
  let port = await twoPorts(), cursors = {};
  const url = (log) => `http://127.0.0.1:${port + (log === 'two')}/${log}/t`;
  let child = await begin(t, program, [folder, String(port)], 1);
  for (let i = 0; i < 20; i++) {
    for (const log of i % 3 ? ['one'] : ['one', 'two']) {
      const waits = held(`${url(log)}?wait=20&since=${cursors[log] ?? 'earliest'}`);
      const { id } = await post(url(log), `${log} ${i}`);
      const { cursor, messages } = await waits;
      assert.deepEqual([messages.map((m) => m.data), messages[0].id], [[`${log} ${i}`], id]);
      cursors[log] = cursor;
    }
  }
  assert.notEqual(cursors.one.slice(0, 8), cursors.two.slice(0, 8));
  assert.deepEqual([cursors.one.slice(9), cursors.two.slice(9)], ['20', '7']);
  process.kill(-child.pid, 'SIGKILL');
  port = await twoPorts();
  child = await begin(t, program, [folder, String(port)], 1);
  for (const log of ['one', 'two']) {
    const { cursor, messages, gap } = await held(`${url(log)}?since=${cursors[log]}`);
    assert.deepEqual([cursor, messages, gap], [cursors[log], [], undefined]);
    await post(url(log), 'after');
    assert.deepEqual((await held(`${url(log)}?since=${cursors[log]}`)).messages.map((m) => m.data), ['after']);
  }
});
