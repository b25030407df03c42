// The journal's files are damaged in every way that a byte or a bit can be (cut.c), and the process and the machine die,
// and the disk fails, at every system call (crash.c). Each program says what it found; its exit status is the verdict.
//
// JOURNAL_LONG=1: larger journals, every bit of all files, every call.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import { spawn } from 'node:child_process';
import { build, folder } from './lib.mjs';

// In memory where that is possible: there are thousands of files to make.
const memory = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir();

// Without AddressSanitizer: a fork under it takes ten times as long, and there are thousands.
const flags = process.env.JOURNAL_LONG ? undefined : ['-g', '-O1', '-fsanitize=undefined', '-fno-sanitize-recover=undefined'];
const CUT = build('tests/journal/cut.c', 'journal-cut'), CRASH = build('tests/journal/crash.c', `journal-crash${flags ? '' : '-asan'}`, flags);

async function runs(t, program, word) {
  const dir = folder(t, memory), p = spawn(program, [word, `${dir}/j`]);
  let said = '';
  p.stdout.on('data', (d) => { said += d; });
  p.stderr.on('data', (d) => { said += d; });
  const status = await new Promise((done) => p.on('close', (code, signal) => done(code ?? signal)));
  const last = said.trim().split('\n').at(-1);
  t.diagnostic(last);
  assert.equal(status, 0, said.slice(0, 4000));
  assert.ok(Number(/: (\d+) checks, 0 wrong$/.exec(last)?.[1]) > 0, last);
}

describe('damage', { concurrency: 2 }, () => {
  for (const [word, name] of [
    ['cuts', 'cut_at_every_byte'], ['flips', 'every_bit_turned'], ['junk', 'junk_or_zeros_at_the_end'], ['early', 'junk_at_the_end__seen_before_the_first_turn'],
    ['missing', 'a_file_is_missing__or_there_are_others'], ['heads', 'the_head_missing_cut_damaged_or_of_another_boot'], ['tails', 'whatever_was_the_last_is_cut_off'],
  ]) test(name, (t) => runs(t, CUT, word));
});

describe('crash', { concurrency: 2 }, () => {
  for (const [word, name] of [
    ['kill', 'killed_at_each_call'], ['power', 'power_loss_at_each_call__fsync_always'],
    ['fail', 'each_call_fails__then_killed'], ['fail-power', 'each_call_fails__then_power_loss__fsync_always'],
  ]) test(name, (t) => runs(t, CRASH, word));
});
