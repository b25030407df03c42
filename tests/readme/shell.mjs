// Commands, typed one by one. Each must be of a kind whose effect is known, or say itself what is to be seen.
import fs from 'node:fs';
import http from 'node:http';
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { top, Terminal, get, publish, answers, eventually, sleep } from './lib.mjs';

const { WebSocketServer } = createRequire(`${top}/tests/wire/package.json`)('ws');
const READERS = ['rtcat', 'follow'];
const QUIET = /^(?:[A-Za-z_]+=|cd |mkdir |openssl |sleep |export |rm |cp |patch |cat |wait\b)/;

const plain = (text) => text.replace(/\s#(?:\s.*)?$/gm, '');
export const programIn = (text) => /(?:^|&& |\| |; |[{(] ?|do |\s)(?:\.|examples|tools)\/([\w/-]+(?:\.sh)?)(?=\s|$|;)/.exec(plain(text).replace(/\bcc [^&|;]*/g, ''))?.[1];

export function kindOf(command) {
  const text = plain(command), program = programIn(command);
  if (/^tests\/run\b/.test(text)) return 'tests';
  if (program) return READERS.includes(program) ? 'reader' : 'program';
  if (/\bcurl\b/.test(text) && !QUIET.test(text)) {
    if (/-X DELETE/.test(text)) return 'delete';
    if (/ (-d|--data\S*) /.test(text)) return 'publish';
    if (/&\s*$/.test(text)) return 'behind'; // for the commands after it, which must show what it does
    return /( -N\b|[?&]wait=[1-9])/.test(text) && !/ (-m|--max-time) /.test(text) ? 'reader' : 'get';
  }
  if (/^(cc|gcc|clang) /.test(text)) return 'compile';
  if (/^kill /.test(text)) return 'kill';
  return QUIET.test(text) ? 'quiet' : 'unknown';
}

// What a page's blocks have started, until the next section.
export class Session {
  constructor(page) {
    this.page = page;
    this.copy = page.copy;
    this.terminals = [];
    this.fed = 0;
  }

  async ports() {
    const open = new Set();
    for (const port of this.copy.ports.values()) if (await answers(port)) open.add(port);
    return open;
  }

  // A shell that is not busy; a program in the foreground has its own.
  terminal(holder) {
    const last = this.terminals.at(-1);
    if (last && !last.isBusy && !holder) return last;
    this.terminals.push(new Terminal(this.copy, holder));
    return this.terminals.at(-1);
  }

  async end() {
    for (const t of this.terminals.splice(0).reverse()) await t.end();
    if (this.foreign) await new Promise((done) => { this.foreign.close(done); this.foreign.closeAllConnections(); });
    this.foreign = null;
    await eventually(async () => !(await this.ports()).size, 'its ports are closed');
  }

  // Of the program that was started last.
  pid() {
    const groups = this.terminals.map((t) => t.child.pid);
    const all = fs.readdirSync('/proc').filter((x) => /^\d+$/.test(x)).map((x) => {
      try { return /^(\d+) \((.*)\) \S \d+ (\d+)/.exec(fs.readFileSync(`/proc/${x}/stat`, 'utf8')); } catch { return null; }
    });
    const found = all.filter((m) => m && groups.includes(Number(m[3])) && !['bash', 'sleep'].includes(m[2])).map((m) => Number(m[1]));
    assert.ok(found.length, 'no program runs');
    return Math.max(...found);
  }

  async command({ text, shown }) {
    const kind = kindOf(text);
    if (kind === 'tests') return this.page.list('syntax only, as it would run this test', text, () => this.copy.run('bash', '-n', 'tests/run'));
    assert.ok(kind !== 'unknown' || shown, `nothing is known about this command; say what it shows (# -> TEXT): ${text}`);
    const real = await this.page.filled(text, this), open = await this.ports();
    const terminal = kind === 'reader' ? new Terminal(this.copy) : this.terminal();
    const job = terminal.type(real);
    try {
      if (kind === 'reader') await this.read(real, job);
      else await this.settle(kind, real, job, terminal, open);
      await this.judge(kind, { text, real, shown: shown && this.copy.moved(shown) }, job);
    } catch (e) {
      e.message = `${text}\n  ${e.message}\n  it said: ${job.out.slice(-600)}`;
      throw e;
    } finally {
      this.page.said += `${job.out}\n`;
      if (kind === 'reader') await terminal.end();
    }
    return undefined;
  }

  // Until it has ended or, where it is a program, listens.
  async settle(kind, text, job, terminal, open) {
    const isProgram = kind === 'program', isBehind = /&\s*$/.test(plain(text));
    await eventually(async () => {
      if (job.status !== undefined && !(isProgram && isBehind && !/fd:3/.test(text))) return true;
      job.opened = isProgram ? [...await this.ports()].filter((port) => !open.has(port)) : [];
      return job.opened.length > 0;
    }, 'it neither ends nor listens', Number(process.env.README_PATIENCE_MS ?? 60000));
    terminal.isBusy = job.status === undefined;
  }

  // Feeds its topic until it has read something, and until it ends if it counts.
  async read(text, job) {
    const url = /(?:https?|wss?):\/\/[^\s'"?]+/.exec(text)[0], counts = /--count|wait=/.test(text);
    await eventually(async () => {
      if (!this.isForeign(url)) await publish(url, `fed-${++this.fed}`).catch(() => {});
      await sleep(150);
      return job.status !== undefined || (!counts && /fed-\d/.test(job.out));
    }, 'it reads nothing');
    const wanted = /--since/.test(text) ? /fed-\d|"id":"[a-z0-9]{8}-\d+"/ : /fed-\d/; // the past may be enough for its count
    assert.match(job.out, wanted, 'what was published while it read');
  }

  isForeign(url) { return this.foreign && url.includes(`:${this.foreign.address().port}/`); }

  async judge(kind, { text, real, shown }, job) {
    if (shown) await eventually(() => job.out.includes(shown), `it shows ${shown}`, 8000);
    if (job.status !== undefined && !shown) { // what it shows counts more: diff's is 1, curl's 28
      const allowed = / (-m|--max-time) /.test(real) ? [0, 28] : [0];
      assert.ok(allowed.includes(job.status), `status ${job.status}`);
    }
    if (!shown) await this[`judge_${kind}`]?.(real, job);
    this.page.note(`${kind}${shown ? ` -> ${shown}` : ''}`, text);
  }

  judge_compile(_, job) { assert.doesNotMatch(job.out, /warning|error/); }

  // It serves, or it ends and has said something.
  async judge_program(text, job) {
    if (!job.opened?.length && /fd:3/.test(text)) return; // nothing new listens: the effect shows it
    if (!job.opened?.length) assert.match(job.out, /\w/, 'it ends without a word');
    for (const port of job.opened ?? []) {
      const said = await get(port) ?? await get(port, '/healthz', { isTls: true });
      assert.ok(said && said.status < 500, `port ${port} answers ${said?.status}`);
    }
  }

  judge_publish(_, job) { assert.match(job.out, /"id":"[a-z0-9]{8}-\d+"/); }
  judge_get(_, job) { assert.match(job.out, /"messages":\[|^data:|"count"/m); }

  async judge_delete(text) {
    const { hostname, port, pathname } = new URL(/http:\/\/[^\s'"]+/.exec(text)[0]);
    assert.match((await get(port, pathname)).text, /"messages":\[\]/, `${hostname} holds nothing any more`);
  }

  async judge_kill(text) {
    if (!/HUP/.test(text)) return;
    for (const port of await this.ports()) assert.ok(await get(port) ?? await get(port, '/healthz', { isTls: true }), 'it serves on');
  }

  // Somebody else's WebSocket and event stream, for what is not rtpush: both say something all the time.
  async elsewhere() {
    if (this.foreign) return this.foreign.address().port;
    this.foreign = http.createServer((request, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' });
      const timer = setInterval(() => response.write(`data: fed-${++this.fed}\n\n`), 50);
      response.on('close', () => clearInterval(timer));
    });
    const server = new WebSocketServer({ server: this.foreign });
    server.on('connection', (ws) => { const timer = setInterval(() => ws.send(`fed-${++this.fed}`), 50); ws.on('close', () => clearInterval(timer)); });
    await new Promise((done) => this.foreign.listen(0, '127.0.0.1', done));
    return this.foreign.address().port;
  }
}
