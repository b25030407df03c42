// A configuration of nginx or HAProxy from a page, in front of a daemon, with what must get through it.
import fs from 'node:fs';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { top, answers, ask, eventually, publish, read, sleep, freePort } from './lib.mjs';

const WebSocket = createRequire(`${top}/tests/wire/package.json`)('ws');

// An nginx.conf around a block that has servers, or a map and locations.
export function nginxConf(text, folder, port) {
  const temps = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((x) => `${x}_temp_path ${folder}/nginx-${x};`).join(' ');
  const at = text.search(/^\s*location/m), isWhole = /^\s*server\s*\{/m.test(text);
  const inside = isWhole ? text.replace(/listen\s+[^;]+;/g, `listen 127.0.0.1:${port};`)
    : `${text.slice(0, at)}\nserver {\nlisten 127.0.0.1:${port};\n${text.slice(at)}\n}`;
  return `${process.getuid() === 0 ? 'user root;\n' : ''}daemon off; worker_processes 1; pid ${folder}/nginx.pid;
events { worker_connections 256; }
http { access_log off; ${temps}
${inside}
}
`;
}

export const haproxyConf = (text, port) => `global\n    maxconn 256\n${text.replace(/bind\s+\S+/g, `bind 127.0.0.1:${port}`)}`;

// Starts it; stop() ends it.
async function begin(copy, port, program, ...args) {
  const child = spawn(program, args, { cwd: copy.folder, env: copy.env, stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '', over = false;
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (d) => { said += d; });
  const exit = new Promise((done) => { child.on('error', (e) => { said += e; over = true; done(); }); child.on('close', () => { over = true; done(); }); });
  await eventually(async () => { assert.ok(!over, `${program} ended: ${said}`); return answers(port); }, `${program} listens`);
  return async () => { child.kill('SIGTERM'); await exit; };
}

export async function nginx(copy, text) {
  const port = await freePort();
  const conf = copy.write('nginx.conf', nginxConf(text, copy.folder, port));
  return { port, stop: await begin(copy, port, 'nginx', '-p', copy.folder, '-c', conf, '-e', copy.path('nginx.log')) };
}

export async function haproxy(copy, text) {
  const port = await freePort();
  const conf = copy.write('haproxy.cfg', haproxyConf(text, port));
  const { status, out } = await copy.run('haproxy', '-c', '-f', conf);
  assert.equal(status, 0, out);
  assert.doesNotMatch(out, /WARNING/, out);
  return { port, stop: await begin(copy, port, 'haproxy', '-db', '-f', conf) };
}

// A WebSocket, an event stream and a long poll through it get one message that a page behind it publishes.
export async function passes(front, daemon) {
  const url = `http://127.0.0.1:${front}/live/t`, page = { Origin: `http://127.0.0.1:${front}` };
  const stats = () => read(`http://127.0.0.1:${daemon}/stats`);
  await eventually(async () => (await ask(url)).status === 200, 'it reaches the daemon');
  const ws = new WebSocket(url.replace('http', 'ws'), { headers: page }), got = [];
  ws.on('message', (data) => got.push(`websocket ${data}`));
  const stop = new AbortController();
  const stream = fetch(url, { headers: { ...page, Accept: 'text/event-stream' }, signal: stop.signal });
  const poll = fetch(`${url}?wait=20`, { headers: page }).then((r) => r.json());
  try {
    await new Promise((done, failed) => ws.on('open', done).on('error', failed));
    const reader = (await stream).body.getReader();
    await eventually(async () => { const s = await stats(); return s.websockets === 1 && s.event_streams === 1 && s.parked_polls === 1; }, 'one reader on each transport');
    const began = Date.now(), { status, text } = await publish(url, 'through', page);
    assert.ok(status === 201, `${status} ${text}`);
    let events = '';
    while (!events.includes('data: through')) events += Buffer.from((await Promise.race([reader.read(), sleep(5000).then(() => { throw new Error('no event'); })])).value);
    assert.equal((await poll).messages[0].data, 'through');
    await eventually(() => got.includes('websocket through'), 'the frame');
    return `a WebSocket, an event stream and a long poll had the message within ${Date.now() - began} ms`;
  } finally {
    stop.abort();
    stream.catch(() => {});
    poll.catch(() => {});
    ws.on('error', () => {}).terminate();
  }
}
