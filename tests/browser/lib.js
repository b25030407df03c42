// What the tests here share: building an example, running it, a browser, tabs.
//
//   npm install && node --test            CHROMIUM names another browser, CHAT, TICKER, … another program
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
export const screens = join(root, 'build', 'screens');
mkdirSync(screens, { recursive: true });
export const sleep = ms => new Promise(done => setTimeout(done, ms));

// Builds examples/NAME.c into build/, without a warning and without a library. Returns the program.
export function build(name, source = join(root, 'examples', name + '.c')) {
  const given = process.env[name.toUpperCase()];
  if (given) return given;
  const program = join(root, 'build', name);
  const flags = ['-O2', '-std=c99', '-Wall', '-Wextra', '-pedantic', '-Wconversion', '-Wshadow',
    '-I', join(root, 'examples')];
  const cc = spawnSync(process.env.CC || 'cc', [...flags, source, '-o', program], { encoding: 'utf8' });
  if (cc.error || cc.status || cc.stderr) throw new Error(`cc ${source}: ${cc.error || cc.stderr}`);
  return program;
}

// Runs a program to its end.
export function run(program, ...args) {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  return new Promise((done, fail) => {
    let out = '', err = '';
    child.stdout.on('data', d => { out += d; });
    child.stderr.on('data', d => { err += d; });
    child.on('error', fail);
    child.on('close', code => done({ code, out, err }));
  });
}

// Starts a server that prints its address. stop() ends it by SIGTERM and gives its exit code.
export async function serve(program, port = 0) {
  const child = spawn(program, [String(port)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise(done => child.on('exit', (code, signal) => done(signal || code)));
  const address = new Promise((done, fail) => {
    let out = '';
    child.on('error', fail);
    child.stdout.on('data', d => {
      out += d;
      const m = /http:\/\/[^/\s]+:(\d+)\S*/.exec(out);
      if (m && out.includes('\n')) done({ url: new URL(m[0]).origin, port: Number(m[1]) });
    });
    ended.then(code => fail(new Error(`${program} ended with ${code} before it printed its address`)));
  });
  const stop = signal => { child.kill(signal || 'SIGTERM'); return ended; };
  try {
    return { ...await address, pid: child.pid, stdin: child.stdin, stop };
  } catch (e) {
    stop('SIGKILL');
    throw e;
  }
}

export const launch = (options = {}) => chromium.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update'],
  ...options,
});

// A tab in a context of its own (its own cookies, storage and network), which fails on any script error or any
// request to somebody else. check() is called when it is closed.
export async function tab(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on('pageerror', e => wrong.push(String(e)));
  page.on('request', r => {
    const { protocol, origin } = new URL(r.url());
    if (protocol !== 'data:' && origin !== new URL(url).origin) wrong.push('request to ' + r.url());
  });
  page.setDefaultTimeout(30000);
  page.check_ = async () => {
    await context.close();
    if (wrong.length) throw new Error(wrong.join('; '));
  };
  await page.goto(url);
  return page;
}
