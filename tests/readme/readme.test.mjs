// Whatever the README and the course show is run: every block, fenced or indented, for real, in a copy of the repository.
//
//     node --test tests/readme                       CC, RTPUSHD as in the other folders
//     README=PATH node --test tests/readme           another page in the README's place, and no course
//
// How a page says what is to be seen: `# -> TEXT` behind a command. A C program has its commands at its head, in comments
// that are indented by four spaces or more. Commands of a known kind need nothing: cc is silent, a program listens and
// answers, curl has JSON, a reader prints what is published meanwhile. What a block of the README does beyond that is in
// effects.mjs. Kinds of blocks: sh, c, html, js, nginx, haproxy, ini (units), json, text (as printed before, but for its
// numbers); any other fails. What can only be looked at here is told as `listed`.
import fs from 'node:fs';
import path from 'node:path';
import { test, describe, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { top, Copy, blocksOf, commandsOf } from './lib.mjs';
import { Page, scriptsOf, wholeProgram } from './kinds.mjs';
import { kindOf, programIn } from './shell.mjs';
import { effects } from './effects.mjs';

const README = path.resolve(process.env.README ?? path.join(top, 'README.md'));
const course = path.join(top, 'examples/course');
const names = process.env.README || !fs.existsSync(course) ? [] : fs.readdirSync(course).filter((x) => x.endsWith('.md'));
const lessons = names.sort((a, b) => (b === 'README.md') - (a === 'README.md') || (a < b ? -1 : 1)).map((x) => path.join(course, x));
const seen = new Set();

// Pages that are read one after the other, in one copy: what one has built, the next one runs.
function pages(name, files, isSequence) {
  describe(name, { concurrency: 1 }, () => {
    let copy, page;
    before(async () => { copy = await Copy.of(files.map((f) => fs.readFileSync(f, 'utf8')).join('\n')); });
    after(async () => {
      await page?.close();
      copy.remove();
    });
    for (const file of files) {
      const open = async () => {
        await page?.close();
        page = Page.of(file, copy, isSequence);
      };
      for (const { kind, line, section } of blocksOf(fs.readFileSync(file, 'utf8'))) {
        test(`${path.basename(file)}:${line} ${kind || 'no kind'}, ${section}`, async (t) => {
          if (page?.file !== file) await open();
          page.file = file;
          const notes = await page.run(page.blocks.find((b) => b.line === line));
          page.seen.forEach((effect) => seen.add(effect));
          for (const note of notes) t.diagnostic(note);
          for (const text of page.listed.splice(0)) t.diagnostic(`listed, ${text}`);
        });
      }
    }
  });
}

// The two do not know of each other, so they run side by side.
describe('pages', { concurrency: 2 }, () => {
  pages('the README', [README], false);
  if (lessons.length) pages('the course', lessons, true);
});

describe('the test itself', () => {
  test('every_effect_has_met_its_block', () => {
    const page = fs.readFileSync(README, 'utf8');
    assert.deepEqual(effects.filter((e) => !seen.has(e) && (!e.within || e.within.test(page))).map((e) => `${e.kind} ${e.when}`), []);
  });

  test('blocks_are_found__fenced_and_indented', () => {
    const page = '# A\n\n```c\nint x;\n\n    y\n```\n\ntext\n    no code\n\n    curl a\n\n    curl b\nend\n\n- item\n\n    - item\n\n## B\n~~~ini\n[X]\n~~~\n```\n?\n```\n';
    assert.deepEqual(blocksOf(page).map((b) => [b.kind, b.line, b.section, b.text]), [
      ['c', 3, 'A', 'int x;\n\n    y\n'], ['sh', 12, 'A', 'curl a\n\ncurl b\n'], ['ini', 22, 'B', '[X]\n'], ['', 25, 'B', '?\n']]);
  });

  test('commands_are_whole__with_what_they_show', () => {
    const text = 'a \\\n  b\n# no\nfor x in 1; do\n  c\ndone   # -> seen it\ncat <<E\nd\nE\n$ e    # why\n';
    assert.deepEqual(commandsOf(text), [{ text: 'a \\\n  b', shown: undefined }, { text: 'for x in 1; do\n  c\ndone   # -> seen it', shown: 'seen it' },
      { text: 'cat <<E\nd\nE', shown: undefined }, { text: 'e    # why', shown: undefined }]);
    assert.throws(() => commandsOf('for x in 1; do\n'), /waits for more/);
  });

  test('commands_have_kinds', () => {
    const kinds = { 'cc -O2 a.c -o a': 'compile', 'cc -O2 examples/a.c -o a && ./a # x': 'program', './a --b &': 'program',
      './rtcat URL': 'reader', 'curl -d x URL': 'publish',
      "curl 'URL?wait=25'": 'reader',
      'curl -N -m 1 URL': 'get', 'curl URL': 'get', 'curl -N URL &': 'behind', 'curl -X DELETE URL': 'delete', 'kill -TERM 1': 'kill',
      'X=$(curl URL)': 'quiet', 'tests/run': 'tests', 'perf stat': 'unknown' };
    for (const [text, kind] of Object.entries(kinds)) assert.equal(kindOf(text), kind, text);
    assert.equal(programIn('cc -O2 tools/a.c -o a'), undefined);
    assert.equal(programIn('examples/cluster/run.sh'), 'cluster/run.sh');
  });

  test('parts_become_wholes', () => {
    assert.deepEqual(scriptsOf('<script src="x"></script>\n<script>a</script>'), ['a']);
    const program = wholeProgram('static void f(void) {\n    g();\n}\ndesc.bus = x;\n');
    assert.match(program, /\}\n+[^]*int main\(void\) \{[^]*rtpush_desc desc = \{0\};[^]*desc\.bus = x;/);
    assert.ok(program.indexOf('static void f') < program.indexOf('int main'));
  });
});
