// What is done with a block of each kind. A kind that is not here fails.
import fs from 'node:fs';
import vm from 'node:vm';
import path from 'node:path';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { top, publish, answers, eventually, sleep, commandsIn, commandsOf, blocksOf } from './lib.mjs';
import { Session, kindOf } from './shell.mjs';
import { nginx, haproxy, passes } from './proxy.mjs';
import { effects } from './effects.mjs';

const WebSocket = createRequire(`${top}/tests/wire/package.json`)('ws');
const rtpush = createRequire(import.meta.url)('../../tools/rtpush.js');

// A page and what running it needs. isSequence: its sections build on each other, as a lesson's do; the README's do not.
export class Page {
  static of(file, copy, isSequence) {
    const page = new Page();
    Object.assign(page, { isSequence, copy, said: '', notes: [], listed: [], seen: new Set() });
    page.blocks = blocksOf(fs.readFileSync(file, 'utf8'));
    page.session = new Session(page);
    page.blocks.forEach((block, i) => { if (block.kind === 'c') page.place(block, i); });
    page.warm = page.compileAhead();
    return page;
  }

  note(what, text) { this.notes.push(`${what}: ${text.split('\n')[0]}`); }

  // What can only be looked at here: named in the result, so that nobody takes it for run.
  async list(why, text, check) {
    const { status, out } = await check();
    assert.equal(status, 0, out);
    this.listed.push(`${why}: ${text.trim().split('\n')[0]}`);
  }

  // A C program goes where its own compile line has it.
  place(block, i) {
    block.isProgram = /\bint main\(/.test(block.text);
    block.commands = block.isProgram ? commandsIn(block.text) : [];
    const compile = block.commands.map((c) => /\bcc [^&|;]*?([\w/-]+)\.c\b/.exec(c.text)).find(Boolean);
    block.name = compile?.[1] ?? `block${i}`;
    if (block.isProgram) this.copy.write(`${block.name}.c`, this.copy.moved(block.text));
  }

  // All compile lines, two at a time, into the cache: when their turn comes they are done.
  async compileAhead() {
    const linesOf = (b) => {
      if (b.kind === 'c') return b.isProgram && !b.commands.length ? [compileLine(b.name)] : b.commands.map((c) => c.text);
      return Page.kinds[b.kind] === Page.kinds.sh ? b.text.split('\n') : [];
    };
    const lines = this.blocks.flatMap(linesOf);
    const wanted = [...new Set(lines.flatMap((text) => text.match(/\bcc [^&|;#]*/g) ?? []))].filter((text) => !/NAME/.test(text));
    if (this.blocks.some((b) => b.kind === 'c' && !b.isProgram)) wanted.push('cc -c tests/compile/impl.c -o impl.o');
    const one = async () => {
      while (wanted.length) await this.copy.run('bash', '-c', `${wanted.shift().replace(/-o (\S+)/, '-o .ahead-$$')}; rm -f .ahead-$$`);
    };
    await Promise.all([one(), one()]);
  }

  // Placeholders of the text, and what is elsewhere.
  async filled(text, session) {
    let real = this.copy.moved(text);
    if (/example\.org/.test(real)) real = real.replace(/(ht|w)(tp|s)s?:\/\/example\.org/g, `$1$2://127.0.0.1:${await session.elsewhere()}`);
    const values = { OLD_PID: () => session.old, PID: () => session.pid(), DIR: () => this.copy.path('journal'),
      URL: () => `http://127.0.0.1:${this.copy.port(8080)}/live/t` };
    real = real.replace(/(?<![$\w{])(OLD_PID|PID|DIR|URL)\b(?!=)/g, (name) => values[name]());
    return real;
  }

  // Blocks that talk to a program which the page does not start beside them: to the page's first one, or the daemon.
  async serve() {
    if (await answers(this.copy.port(8080))) return;
    const first = this.blocks.find((b) => b.kind === 'c' && b.isProgram && !b.commands.length);
    if (first) await this.session.command({ text: `${compileLine(first.name)} && ./${first.name}`, shown: undefined });
    else await this.session.command({ text: 'cc -O2 tools/rtpushd.c -o rtpushd && ./rtpushd', shown: undefined });
  }

  async daemon(...flags) {
    await this.session.end();
    const program = process.env.RTPUSHD ? path.resolve(process.env.RTPUSHD) : `${this.copy.path('rtpushd')}`;
    if (!fs.existsSync(program)) await this.session.command({ text: 'cc -O2 tools/rtpushd.c -o rtpushd', shown: undefined });
    const terminal = this.session.terminal();
    terminal.type(`${program} --listen http://127.0.0.1:${this.copy.port(8080)} ${flags.join(' ')}`);
    terminal.isBusy = true;
    await eventually(() => answers(this.copy.port(8080)), `the daemon listens; it says: ${terminal.out}`);
    return this.copy.port(8080);
  }

  async run(block) {
    const check = Page.kinds[block.kind];
    assert.ok(check, `a block of kind "${block.kind}": write what it is behind the fence, and how it is tested into kinds.mjs`);
    if (!this.isSequence && block.section !== this.section) await this.session.end();
    this.section = block.section;
    const effect = effects.find((e) => e.kind === block.kind && e.when.test(block.text));
    if (effect) this.seen.add(effect);
    this.notes = [];
    await check(this, block, effect);
    return this.notes;
  }

  async close() {
    await this.warm.catch(() => {});
    await this.session.end();
  }
}

const compileLine = (name) => `cc -O2 ${name}.c -o ${name}`;

// --- shell ---

async function shell(page, block, effect) {
  const commands = commandsOf(block.text);
  assertShown(commands);
  const starts = commands.some((c) => kindOf(c.text) === 'program');
  if (starts) await page.session.end();
  else if (/8080|\bURL\b/.test(block.text)) await page.serve();
  if (effect?.before) await effect.before(page, block);
  for (const command of commands) {
    await page.session.command(command);
    if (effect?.during) await effect.during(page, command);
  }
  if (effect?.after) page.note('effect', await effect.after(page, block));
}

// Who reads behind the scenes does it for a later command.
function assertShown(commands) {
  const last = commands.findLastIndex((c) => c.shown);
  assert.ok(commands.every((c, i) => kindOf(c.text) !== 'behind' || i < last), 'nothing shows what the reader behind (&) is for');
}

// --- C ---

async function c(page, block, effect) {
  if (!block.isProgram) return fragment(page, block, effect);
  await page.session.end();
  page.copy.write(`${block.name}.c`, page.copy.moved(block.text)); // another block may be of the same name
  if (block.commands.length) {
    assert.ok(block.commands.some((x) => x.shown), 'a program whose commands do not say what they show (# -> TEXT)');
    assertShown(block.commands);
    for (const command of block.commands) await page.session.command(command);
  } else {
    assert.ok(effect, 'a program without commands at its head: what does it do? (effects.mjs)');
    await page.session.command({ text: `${compileLine(block.name)} && ./${block.name}` });
    page.note('effect', await effect.after(page, block));
  }
  return undefined;
}

// Parts of a program: functions stay outside, statements go into a main.
export function wholeProgram(text, { before = '', after = '' } = {}) {
  const outside = [], inside = [];
  let isOpen = false;
  for (const line of text.split('\n')) {
    const begins = /^(static|typedef|enum \w+ \{|struct \w+ \{|#)/.test(line);
    (isOpen || begins ? outside : inside).push(line);
    isOpen = isOpen ? !/^\}/.test(line) : begins && /\{\s*(\/\/.*)?$/.test(line);
  }
  const body = inside.join('\n'), given = [];
  if (/\bdesc\./.test(body) && !/rtpush_desc desc\b/.test(body)) given.push('rtpush_desc desc = {0};');
  if (/\bhub\b/.test(body) && !/rtpush_hub \*hub/.test(body)) given.push('rtpush_hub *hub = rtpush_create(&(rtpush_desc){0});');
  return `#include "rtpush.h"\n#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n${outside.join('\n')}
int main(void) {\n    setvbuf(stdout, NULL, _IOLBF, 0);\n${given.join('\n')}\n${before}\n${body}\n${after}\n    return 0;\n}\n`;
}

// With -Wno-unused-…: a part of a program leaves things for the rest.
async function fragment(page, block, effect) {
  const { copy } = page, program = wholeProgram(copy.moved(effect?.edit ? effect.edit(block.text, page) : block.text), effect?.code);
  copy.write(`${block.name}.c`, program);
  if (!effect) {
    await page.list('compiled, not run', block.text, () => copy.run('cc', '-c', '-Wno-unused-parameter', '-Wno-unused-function', '-Wno-unused-variable', `${block.name}.c`, '-o', '/dev/null'));
    return;
  }
  const impl = await copy.run('cc', '-c', 'tests/compile/impl.c', '-o', 'impl.o');
  assert.equal(impl.status, 0, impl.out);
  const { status, out } = await copy.run('cc', '-Wno-unused-parameter', `${block.name}.c`, 'impl.o', '-o', block.name, '-pthread');
  assert.equal(status, 0, out);
  page.note('effect', await effect.after(page, block));
}

// --- pages and scripts ---

export const scriptsOf = (html) => [...html.matchAll(/<script\b(?![^>]*\bsrc=)[^>]*>([^]*?)<\/script>/g)].map((m) => m[1]);

// A page's script under Node, its server being ours. Returns what it has printed and the clients to close.
export function runScript(text, port) {
  const printed = [], clients = [];
  const client = (url, options) => {
    const live = rtpush(new URL(url, `http://127.0.0.1:${port}`).href, { backoff: 50, ...options, WebSocket, locks: undefined });
    clients.push(live);
    live.on('error', (e) => printed.push(`error: ${e.message}`));
    return live;
  };
  const print = (...words) => printed.push(words.join(' '));
  vm.runInNewContext(text, { rtpush: client, console: { log: print, error: print }, setTimeout, clearTimeout, setInterval, clearInterval, fetch });
  return { printed, close: () => clients.forEach((live) => live.close()) };
}

async function script(page, text) {
  await page.serve();
  const port = page.copy.port(8080), { printed, close } = runScript(text, port);
  try {
    const topics = [...text.matchAll(/\.subscribe\(\s*["'`]([^"'`]+)/g)].map((m) => m[1].replace(/\*+$/, 'one'));
    assert.ok(topics.length, 'a script that reads nothing: nothing shows that it works');
    for (const topic of topics) {
      const comes = async () => {
        await publish(`http://127.0.0.1:${port}/live/${topic}`, `fed to ${topic}`);
        await sleep(100);
        return printed.some((x) => x.includes(`fed to ${topic}`));
      };
      await eventually(comes, () => `${topic} comes; it printed ${printed}`);
    }
    assert.deepEqual(printed.filter((x) => x.startsWith('error')), []);
    page.note('effect', `it printed ${printed.length} lines, of ${topics}`);
    return printed;
  } finally {
    close();
  }
}

async function html(page, block, effect) {
  const scripts = scriptsOf(block.text);
  for (const text of scripts) new vm.Script(text);
  assert.ok(scripts.length, 'a page without a script');
  const printed = await script(page, scripts.join('\n'));
  if (effect) page.note('effect', await effect.after(page, block, printed));
}

// --- configurations ---

async function proxied(page, block, start) {
  const daemon = await page.daemon(), front = await start(page.copy, page.copy.moved(block.text));
  try { page.note('effect', await passes(front.port, daemon)); } finally { await front.stop(); }
}

// Units, each behind a line with its path: verified, and what the service starts is run as systemd would, twice on one
// socket that stays.
async function units(page, block) {
  const { copy } = page, parts = block.text.split(/^# (?=\/etc\/systemd\/system\/)/m).slice(1), files = [];
  assert.ok(parts.length, 'units without their paths (# /etc/systemd/system/NAME)');
  await page.daemon();
  await page.session.end();
  const program = process.env.RTPUSHD ? path.resolve(process.env.RTPUSHD) : copy.path('rtpushd');
  for (const part of parts) {
    const [where, ...unit] = part.split('\n');
    files.push(copy.write(path.basename(where.trim()), unit.join('\n').replaceAll('/usr/local/bin/rtpushd', program)));
  }
  await page.list('verified, not started by systemd', parts.map((p) => path.basename(p.split('\n')[0])).join(' '), async () => {
    const r = await copy.run('systemd-analyze', 'verify', '--man=no', ...files);
    return { status: files.some((f) => r.out.includes(path.basename(f))) ? 1 : r.status, out: r.out };
  });
  const starts = /^ExecStart=(.*)$/m.exec(block.text)[1].replace('/usr/local/bin/rtpushd', program).replace('/var/lib/rtpushd', copy.path('state'));
  page.note('effect', await redeployed(page, starts));
}

// Two processes in turn on one inherited socket, as Restart= and `systemctl restart` have them: nobody is refused.
export async function redeployed(page, starts) {
  const port = page.copy.port(8080), url = `http://127.0.0.1:${port}/live/t`, ids = [];
  const made = await page.copy.run('cc', 'tests/readme/inherit.c', '-o', 'inherit');
  assert.equal(made.status, 0, made.out);
  const terminal = page.session.terminal([page.copy.path('inherit'), port]);
  await eventually(() => answers(port), 'the socket is there');
  for (let i = 0; i < 2; i++) {
    terminal.type(`set -f; ${starts} & P=$!`);
    for (let n = 0; n < 5; n++) ids.push(JSON.parse((await publish(url, `${i} ${n}`)).text).id);
    const job = terminal.type('kill -TERM $P; wait $P');
    const waiting = publish(url, `between ${i}`); // it waits in the queue, for the next process
    await eventually(() => job.status !== undefined, 'it ends after its drain');
    assert.equal(job.status, 0, `its status: ${terminal.out}`);
    if (i === 0) waiting.then((r) => ids.push(JSON.parse(r.text).id));
    else waiting.catch(() => {});
  }
  assert.equal(new Set(ids.map((id) => id.slice(0, 8))).size, 1, `one log: ${ids}`);
  assert.equal(new Set(ids).size, 11, `none refused, each its own number: ${ids}`);
  await page.session.end();
  return 'two processes in turn on one socket: 11 publishes, none refused, one epoch';
}

// --- what is shown ---

const shape = (line) => line.replace(/[\d.,]+/g, '#').replace(/\s+/g, ' ').trim();

// Each line was printed by what ran before, but for its numbers.
async function output(page, block) {
  const said = shape(page.said);
  for (const line of block.text.split('\n')) if (line.trim() && !/^\s*(…|\.\.\.)/.test(line)) assert.ok(said.includes(shape(line)), `nothing printed: ${line}`);
  page.note('shown', `${block.text.trim().split('\n').length} lines as printed, but for their numbers`);
}

Page.kinds = {
  sh: shell, bash: shell, shell, console: shell,
  c,
  html,
  js: (page, block) => script(page, block.text),
  javascript: (page, block) => script(page, block.text),
  nginx: (page, block) => proxied(page, block, nginx),
  haproxy: (page, block) => proxied(page, block, haproxy),
  ini: units, systemd: units,
  json: async (page, block) => { JSON.parse(block.text); page.note('syntax', 'JSON'); },
  text: output,
};
