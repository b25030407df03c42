// Hostile and strange servers against the command-line client:
//
//     node tests/rtcat/run.mjs [--only REGEX] [--list] [--jobs 8] build/rtcat
//
// Prints `ok NAME`, `not ok NAME: why` with what was expected and what came, `skip NAME: why`, and `N passed, N failed` last.
import fs from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setup, runCase } from './lib.mjs';
import { cases } from './cases.mjs';

let only = /^/, program = process.env.RTCAT ?? '', isList = false, jobs = 8;
for (let i = 2; i < process.argv.length; i++) {
  const word = process.argv[i];
  if (word === '--only') only = new RegExp(process.argv[++i]);
  else if (word === '--list') isList = true;
  else if (word === '--jobs') jobs = Number(process.argv[++i]);
  else program = word;
}
const chosen = cases.filter((c) => only.test(c.name));
if (isList) { console.log(chosen.map((c) => c.name).join('\n')); process.exit(0); }
if (!program || !fs.existsSync(program)) { console.log(`not ok rtcat: ${program || 'no program'} is not there\n0 passed, 1 failed`); process.exit(1); }
setup(program);

// Those that take long begin first, so that the end is not one of them alone.
const weight = (c) => (c.stop ?? 0) + (c.ms ?? 0);
const queue = [...chosen].sort((a, b) => weight(b) - weight(a));
let passed = 0, failed = 0, skipped = 0;
const began = Date.now(), lag = monitorEventLoopDelay();
lag.enable();
await Promise.all(Array.from({ length: jobs }, async () => {
  for (let c; (c = queue.shift());) {
    const wrong = await runCase(c);
    if (wrong.skip) { skipped++; console.log(`skip ${c.name}: ${wrong.skip}`); } else if (!wrong.length) { passed++; console.log(`ok ${c.name}`); } else { failed++; console.log(`not ok ${c.name}: ${wrong.join('\n    ')}`); }
  }
}));
// Lag here is lag of the servers: where it is large, a failure by time says little.
console.log(`# ${((Date.now() - began) / 1000).toFixed(1)} s, the servers' loop lagged at most ${Math.round(lag.max / 1e6)} ms`);
console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`);
process.exit(failed ? 1 : 0);
