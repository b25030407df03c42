// The same under node's own runner, which tests/run calls: RTCAT=build/rtcat node --test tests/rtcat/rtcat.test.mjs
import { describe, test } from 'node:test';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setup, runCase } from './lib.mjs';
import { cases } from './cases.mjs';

const program = process.env.RTCAT ?? fileURLToPath(new URL('../../build/rtcat', import.meta.url));
if (!fs.existsSync(program)) test('rtcat', () => { throw new Error(`${program} is not there`); });
else {
  setup(program);
  describe('rtcat', { concurrency: 8 }, () => {
    for (const c of cases) {
      test(c.name, async (t) => {
        const wrong = await runCase(c);
        if (wrong.skip) t.skip(wrong.skip);
        else if (wrong.length) throw new Error(wrong.join('\n'));
      });
    }
  });
}
