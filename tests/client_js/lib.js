// What the tests of tools/rtpush.js stand on: the daemon (of tests/wire/lib.mjs), a TCP proxy that cuts, stalls and
// refuses, the client with the WebSocket of `ws`, and a fake of the Web Locks for tabs in one process.
'use strict';
const net = require('node:net');
const path = require('node:path');
const { createRequire } = require('node:module');
const wire = path.resolve(__dirname, '../wire');
const WebSocket = createRequire(path.join(wire, 'package.json'))('ws');
const rtpush = require('../../tools/rtpush.js');

const lib = import(path.join(wire, 'lib.mjs'));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function eventually(fn, what, ms = 15000) {
  for (const end = Date.now() + ms; ; await sleep(10)) {
    const value = await fn();
    if (value) return value;
    if (Date.now() > end) throw new Error(`never: ${what}`);
  }
}

// What a request is, by its head.
function kindOf(head) {
  if (/^upgrade: *websocket/im.test(head)) return 'websocket';
  if (/^accept: *text\/event-stream/im.test(head)) return 'sse';
  if (/^GET \S*[?&]wait=[1-9]/.test(head)) return 'longpoll';
  if (/^GET /.test(head)) return 'shortpoll';
  return /^POST /.test(head) ? 'post' : 'other';
}

class Proxy {
  constructor(port) {
    Object.assign(this, { target: port, pairs: new Set(), refused: new Set(), seen: [], heads: [], isStalled: false, eatAnswers: 0 });
    this.server = net.createServer((from) => this.pair(from));
  }

  async listen(port = 0) {
    await new Promise((done) => this.server.listen(port, '127.0.0.1', done));
    this.url = `http://127.0.0.1:${this.server.address().port}/live`;
    return this;
  }

  pair(from) {
    const to = net.connect(this.target, '127.0.0.1'), pair = { from, to };
    this.pairs.add(pair);
    const end = () => { from.destroy(); to.destroy(); this.pairs.delete(pair); };
    for (const s of [from, to]) s.on('error', end).on('close', end).setNoDelay(true);
    from.on('data', (d) => {
      const head = d.toString('latin1');
      if (/^[A-Z]+ \S+ HTTP/.test(head)) {
        const kind = kindOf(head);
        pair.kind = kind;
        this.seen.push(kind);
        this.heads.push(head);
        if (this.refused.has(kind)) return end();
        if (this.silent && this.silent.has(kind)) pair.isSilent = true;
      }
      if (!this.isStalled) to.write(d);
    });
    to.on('data', (d) => {
      if (this.eatAnswers && pair.kind === this.eaten) { this.eatAnswers--; return end(); }
      if (!this.isStalled && !pair.isSilent) from.write(d);
    });
  }

  cut() { for (const { from, to } of this.pairs) { from.destroy(); to.destroy(); } }

  close() {
    this.cut();
    return new Promise((done) => this.server.close(done));
  }
}

// daemon + proxy; both end with the test.
async function setup(t, ...args) {
  const { daemon } = await lib;
  const d = await daemon(t, ...args);
  const proxy = await new Proxy(d.port).listen();
  t.after(() => proxy.close());
  return { d, proxy };
}

// A client that ends with the test and writes down what it was told.
function client(t, url, options) {
  const live = rtpush(url, { WebSocket, interval: 50, backoff: 50, backoffMax: 300, ...options });
  const log = { states: [], gaps: [], errors: [], events: [] };
  live.on('state', (state, detail) => log.states.push(detail.transport ? `${state} ${detail.transport}` : state));
  live.on('gap', (g) => { log.gaps.push(g); log.events.push(g); });
  live.on('error', (e) => log.errors.push(e));
  t.after(() => live.close());
  return Object.assign(live, { log });
}

async function publish(port, topic, data, headers = {}) {
  const r = await fetch(`http://127.0.0.1:${port}/live/${topic}`, { method: 'POST', body: data, headers });
  if (r.status > 202) throw new Error(`${r.status} ${await r.text()}`);
  return (await r.json()).id;
}

// navigator.locks, as much of it as the client uses, for tabs in one process.
class Locks {
  constructor() { this.queues = new Map(); }
  queue(name) { return this.queues.get(name) || this.queues.set(name, []).get(name); }
  request(name, { signal, steal }, fn) {
    const q = this.queue(name);
    return new Promise((done, failed) => {
      const one = { fn, done, failed };
      const out = () => { const i = q.indexOf(one); if (i > 0 || (i === 0 && !one.isHeld)) { q.splice(i, 1); failed(new Error('AbortError')); } };
      if (signal) signal.addEventListener('abort', out);
      if (steal && q.length) { q.shift().failed(new Error('stolen')); q.unshift(one); } else q.push(one);
      this.next(name);
    });
  }
  next(name) {
    const q = this.queue(name), one = q[0];
    if (!one || one.isHeld) return;
    one.isHeld = true;
    setImmediate(() => Promise.resolve().then(() => one.fn()).then((v) => {
      if (q[0] === one) q.shift();
      one.done(v);
      this.next(name);
    }));
  }
}

module.exports = { rtpush, WebSocket, Proxy, Locks, lib, setup, client, publish, sleep, eventually, kindOf };
