// scale.mjs in its short form: that it measures at all. The figures come from the long one, on a quiet machine.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { here, rtpushd, knowsRedis, lacks } from './lib.mjs';

const why = lacks('redis-server', 'redis-cli') || (knowsRedis(rtpushd()) ? '' : 'the daemon knows no --redis');

test('scale_smoke', { skip: why || false, timeout: 120000 }, async (t) => {
  const p = spawn(process.execPath, [path.join(here, 'scale.mjs'), '--smoke'], { stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '', err = '';
  p.stdout.on('data', (d) => { out += d; });
  p.stderr.on('data', (d) => { err += d; });
  t.after(() => p.kill('SIGKILL'));
  const code = await new Promise((done) => p.on('close', done));
  for (const line of out.split('\n')) t.diagnostic(line);
  assert.equal(code, 0, err);
  assert.match(out, /A node begins in/);
  assert.doesNotMatch(out, /NaN|undefined/);
});
