#!/usr/bin/env node
// A small rtcat in Node, over the `ws` of tests/wire and node:http: it shows that the suite's own servers are right,
// `node run.mjs reference.mjs`. It is as strict as those two are, so some cases fail with it; none of `works_` may.
import http from 'node:http';
import https from 'node:https';
import { createRequire } from 'node:module';
const WebSocket = createRequire(new URL('../wire/package.json', import.meta.url))('ws');

const clean = (s) => String(s).replace(/[\x00-\x1f\x7f-\x9f]/g, '?');
const say = (s) => process.stderr.write(`rtcat: ${clean(s)}\n`);
const quit = (code, why) => { if (why && !quit.is) say(why); if (!quit.is) { quit.is = true; if (code === 2) process.exit(2); process.stdout.write('', () => process.exit(code)); } };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// --- flags ---
const o = { transport: 'auto', headers: {}, timeout: 10000, count: Infinity };
const rest = [], argv = process.argv.slice(2);
const number = (s) => (/^\d{1,9}$/.test(s ?? '') ? Number(s) : quit(2, 'not a number'));
while (argv.length) {
  const w = argv.shift();
  if (['--plain', '--sse', '--json', '--quiet', '--insecure', '--no-reconnect'].includes(w)) o[w.slice(2)] = true;
  else if (w === '--count' || w === '--timeout') o[w.slice(2)] = number(argv.shift());
  else if (w === '--since') o.since = argv.shift();
  else if (w === '--token') { const t = argv.shift(); if (/[\r\n]/.test(t)) quit(2, 'token'); o.headers.Authorization = `Bearer ${t}`; } else if (w === '--transport') { o.transport = argv.shift(); if (!['auto', 'ws', 'sse', 'lp', 'sp'].includes(o.transport)) quit(2, 'transport'); } else if (w === '--header') { const m = /^([A-Za-z0-9-]+):[ \t]*([^\r\n]*)$/.exec(argv.shift()); if (!m) quit(2, 'header'); o.headers[m[1]] = m[2]; } else if (w.startsWith('--')) quit(2, `what is ${w}?`);
  else rest.push(w);
}
if (rest.length !== 1 || (o.plain && o.sse)) quit(2, 'one URL');
const m = /^(?:(https?|wss?):\/\/(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::([1-9]\d{0,4}))?|unix:([^:]+):)(\/live\/[^\x00-\x20#]+)$/.exec(encodeURI(rest[0]).replace(/%25/g, '%').replace(/%5B/gi, '[').replace(/%5D/gi, ']'));
if (!m || Number(m[3] ?? 80) > 65535 || /%0[ad]/i.test(m[5])) quit(2, 'bad URL');
const isTls = ['https', 'wss'].includes(m[1]), where = { host: m[2]?.replace(/[[\]]/g, ''), port: m[3] ?? (isTls ? 443 : 80), socketPath: m[4], rejectUnauthorized: !o.insecure };
const topic = decodeURIComponent(m[5].slice(6).replace(/\?.*/, ''));

// --- what came ---
let at = o.since, printed = 0, lastId, kind = o.transport === 'auto' ? 'ws' : o.transport;
const place = () => at ?? '';
const line = (s) => process.stdout.write(`${s}\n`);
function moved(id) { if (typeof id === 'string' && /^[a-z0-9]{8}-\d{1,20}$/.test(id)) at = lastId = id; }
function show(x) {
  if (quit.is || printed >= o.count) return;
  if (x.id !== undefined && !o.foreign) {
    if (typeof x.id !== 'string' || !/^[a-z0-9]{8}-\d{1,19}$/.test(x.id)) { broken('an id that is no cursor'); return; }
    if (lastId && lastId.slice(0, 8) === x.id.slice(0, 8) && BigInt(x.id.slice(9)) <= BigInt(lastId.slice(9))) return;
    moved(x.id);
  }
  if (!o.foreign && (x.id === undefined || x.data === undefined)) { broken('a message without its parts'); return; }
  line(o.json ? JSON.stringify({ id: x.id, topic: x.topic, event: x.event, data: x.data, encoding: x.encoding }) : typeof x.data === 'string' ? x.data : JSON.stringify(x.data));
  if (++printed >= o.count) { process.stdout.write('', () => quit(0)); }
}
function gap(g) {
  if ([g.from, g.to, g.reason].some((s) => typeof s !== 'string')) { broken('a gap without its parts'); return; }
  if (o.json) line(JSON.stringify({ gap: { from: g.from, to: g.to, reason: g.reason } }));
  if (!o.quiet) say(`gap from ${g.from} to ${g.to} (${g.reason})`);
  moved(g.to);
}
// --- how a connection ends: { code, why, after? }; code 3 is final where forced, 1 where refused ---
let over;
function broken(why) { o.count = printed; over?.({ code: 3, why }); }

const url = (more) => { const q = new URLSearchParams(more).toString(); return m[5] + (q ? `${m[5].includes('?') ? '&' : '?'}${q}` : ''); };
const refusal = (status, body) => { let why = `${status}`; try { why += ` ${JSON.parse(body).reason ?? ''}`; } catch { /* no reason */ } return { code: [401, 403, 404].includes(status) || (status >= 300 && status < 400) ? 1 : 0, isFinal: [401, 403, 404].includes(status) || (status >= 300 && status < 400), status, why }; };

let publish = () => {};
function ws() {
  return new Promise((done) => {
    over = done;
    const target = `${isTls ? 'wss' : 'ws'}://${where.socketPath ? 'localhost' : m[2]}:${where.port}${url(o.plain || !at ? {} : { since: at })}`;
    const s = new WebSocket(where.socketPath ? `ws+unix:${where.socketPath}:${url(at ? { since: at } : {})}` : target, o.plain ? [] : ['rtpush.v1'], { perMessageDeflate: false, handshakeTimeout: o.timeout, maxPayload: 1048576, headers: o.headers, rejectUnauthorized: !o.insecure });
    let after, failed, sent = [];
    publish = (l) => { const f = o.plain ? l : JSON.stringify({ type: 'publish', topic, data: l, ref: 1 }); if (s.readyState === 1) s.send(f); else sent.push(f); };
    over = (e) => { done(e); s.terminate(); };
    s.on('open', () => { for (const f of sent) s.send(f); sent = []; });
    s.on('unexpected-response', (req, r) => { let body = ''; setTimeout(() => over(refusal(r.statusCode, body)), 100); r.on('data', (d) => { body += d; }); r.on('error', () => {}); });
    s.on('message', (d, isBinary) => {
      if (o.plain) { show({ data: isBinary ? d.toString('base64') : d.toString() }); return; }
      let e;
      try { e = JSON.parse(d); } catch { return broken('not JSON'); }
      if (!e || typeof e !== 'object' || Array.isArray(e)) return broken('not an object');
      if (e.type === 'message') show(e);
      else if (e.type === 'gap') gap(e);
      else if (e.type === 'hello') { moved(e.cursor); if (e.heartbeat < 20000 && e.heartbeat >= 100) { const t = setInterval(() => { if (Date.now() - heard > 2 * e.heartbeat) { clearInterval(t); over({ code: 1, why: 'silence' }); } }, 100); } } else if (e.type === 'heartbeat') moved(e.cursor);
      else if (e.type === 'reconnect') after = e.after;
      else if (e.type === 'error') say(`error ${e.code} ${e.reason}`);
      heard = Date.now();
      return undefined;
    });
    let heard = Date.now();
    s.on('error', (e) => { failed = { code: /^WS_ERR|^HPE/.test(e.code) || /Invalid|Server sent|Parse|Missing/.test(e.message) ? 3 : 1, why: e.message }; });
    s.on('close', (code, reason) => {
      const r = /^retry=(\d{1,6})$/.exec(reason);
      done(failed ?? { code: code === 1006 || (code >= 4000 && code < 4100) || code > 4099 ? 1 : 0, isFinal: code >= 4000 && code < 4100, why: code === 1000 ? '' : `closed ${code} ${reason}`, after: r ? Number(r[1]) : after });
    });
  });
}

let retry = 500;
const agent = new (isTls ? https : http).Agent({ keepAlive: true });
function request(method, path, headers, body, onResponse) {
  return new Promise((done) => {
    over = (e) => { done(e); r.destroy(); };
    const r = (isTls ? https : http).request({ ...where, agent, method, path, headers: { ...o.headers, ...headers } });
    const late = setTimeout(() => over({ code: 1, why: 'no answer' }), path.includes('wait=') && method === 'GET' && printed ? 30000 : o.timeout);
    r.on('error', (e) => done({ code: /^HPE/.test(e.code) ? 3 : 1, why: e.message }));
    r.on('response', (a) => { clearTimeout(late); onResponse(a, done); a.on('error', (e) => done({ code: /^HPE/.test(e.code) ? 3 : 1, why: e.message })); });
    r.end(body);
  });
}
const text = (a) => new Promise((done) => { const d = []; let n = 0; a.on('data', (b) => { d.push(b); if ((n += b.length) > 1100000) over({ code: 3, why: 'too long' }); }); a.on('end', () => done(Buffer.concat(d))); });
const delayOf = (a) => (/^\d{1,5}$/.test(a.headers['retry-after'] ?? '') ? 1000 * Number(a.headers['retry-after']) : /^\d+$/.test(a.headers['retry-after'] ?? '') ? 3600000 : undefined);

function sse() {
  const headers = { Accept: 'text/event-stream' };
  if (at !== undefined && at !== '') { if (o.foreign || lastId) headers['Last-Event-ID'] = at; }
  return request('GET', url(!o.foreign && at && !lastId ? { since: at } : {}), headers, undefined, async (a, done) => {
    if (a.statusCode !== 200) { const d = delayOf(a); done({ ...refusal(a.statusCode, a.statusCode === 204 ? '' : await text(a)), after: d }); return; }
    if (!/^text\/event-stream *(;|$)/i.test(a.headers['content-type'] ?? '') || (a.headers['content-encoding'] ?? 'identity') !== 'identity') { over({ code: 3, why: 'no event stream', status: 200 }); return; }
    let buffer = '', isFirst = true, ev = { data: [] }, id, size = 0, lastCr = false;
    const field = (l) => {
      if (l === '') {
        if (id !== undefined) { if (o.foreign) at = id; }
        if (ev.data.length) {
          const data = ev.data.join('\n');
          if (!o.foreign && ev.event === 'gap') { try { gap(JSON.parse(data) ?? {}); } catch { broken('gap'); } moved(id); } else show({ id, topic, event: ev.event, data, encoding: undefined });
        } else if (!o.foreign) moved(id);
        ev = { data: [] }; size = 0;
        return;
      }
      const c = /^([^:]*)(?:: ?([^]*))?$/.exec(l), v = c[2] ?? '';
      if (c[1] === 'data') { ev.data.push(v); size += v.length + 1; } else if (c[1] === 'event') ev.event = v; else if (c[1] === 'id' && !v.includes('\0')) id = v; else if (c[1] === 'retry' && /^\d{1,6}$/.test(v)) retry = Number(v);
    };
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    a.on('data', (d) => {
      let s = decoder.decode(d, { stream: true });
      if (isFirst && s) { if (s[0] === '\ufeff') s = s.slice(1); isFirst = false; }
      if (lastCr && s) { if (s[0] === '\n') s = s.slice(1); lastCr = false; }
      buffer += s;
      for (let i; (i = buffer.search(/[\r\n]/)) >= 0;) { const l = buffer.slice(0, i), two = buffer.startsWith('\r\n', i); if (buffer[i] === '\r' && i + 1 === buffer.length) lastCr = true; buffer = buffer.slice(i + (two ? 2 : 1)); field(l); }
      if (buffer.length + size > 1048576) over({ code: 3, why: 'too long' });
    });
    a.on('end', () => done(a.complete ? { code: 0, after: retry, why: '' } : { code: 1, why: 'cut' }));
  });
}
function once(wait) {
  return request('GET', url({ ...(at ? { since: at } : {}), ...(wait ? { wait: 25 } : {}) }), {}, undefined, async (a, done) => {
    const body = a.statusCode === 304 || a.statusCode === 204 ? '' : await text(a);
    if (a.statusCode !== 200) { done({ ...refusal(a.statusCode, body), code: 1, after: delayOf(a) }); return; }
    if ((a.headers['content-encoding'] ?? 'identity') !== 'identity') { done({ code: 3, why: 'gzip' }); return; }
    let b;
    try { b = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body)); } catch { done({ code: 3, why: 'not JSON' }); return; }
    if (!b || typeof b.cursor !== 'string' || !/^[a-z0-9]{8}-\d+$/.test(b.cursor) || !Array.isArray(b.messages)) { done({ code: 3, why: 'no poll answer' }); return; }
    if (b.gap) gap(b.gap);
    for (const x of b.messages) { if (!x || typeof x !== 'object') broken('no message'); else show(x); }
    const isNew = b.cursor !== at;
    moved(b.cursor);
    done({ again: true, after: b.reconnect ? Math.max(b.reconnect, 100) : wait && (b.messages.length || b.more) && isNew ? 0 : wait ? 300 : 400 });
  });
}

// --- stdin ---
let input = '';
const queue = [];
process.stdin.on('data', (d) => { input += d; const l = input.split('\n'); input = l.pop(); for (const x of l) line1(x); });
process.stdin.on('end', () => { if (input) line1(input); });
let posting = Promise.resolve();
function line1(l) {
  if (o.plain || kind === 'ws') { publish(l); if (kind === 'ws' && !o.plain) queue.push(l); return; }
  posting = posting.then(() => new Promise((done) => { const r = (isTls ? https : http).request({ ...where, method: 'POST', path: m[5], headers: { ...o.headers, 'Content-Type': 'text/plain', 'Content-Length': Buffer.byteLength(l) } }, (a) => { a.resume(); a.on('end', done); a.on('error', done); }); r.on('error', (e) => { say(e.message); done(); }); r.end(l); }));
}

// --- the loop ---
const order = ['ws', 'sse', 'lp', 'sp'];
if (o.plain) kind = 'ws'; else if (o.sse) { kind = 'sse'; o.foreign = true; }
if (o.plain) o.foreign = true;
process.on('SIGTERM', () => process.exit(143));
for (let backoff = 500; ;) {
  const before = printed;
  const e = await { ws, sse, lp: () => once(true), sp: () => once(false) }[kind]();
  if (e.again) { await sleep(e.after); backoff = 500; continue; }
  if (e.isFinal) quit(e.code, e.why);
  if (o['no-reconnect']) quit(e.status && !e.code ? 1 : e.code, e.why || (e.code ? 'broken off' : ''));
  if (o.transport === 'auto' && !o.plain && !o.sse && e.status && kind !== 'sp') { kind = order[order.indexOf(kind) + 1]; continue; }
  if (e.code === 3) quit(3, e.why);
  if (printed > before) backoff = 500;
  if (kind === 'sse' && e.after === undefined) backoff = Math.max(retry, backoff);
  await sleep(e.after !== undefined ? Math.min(Math.max(Number(e.after) || 0, 50), 3600000) : backoff);
  backoff = Math.min(backoff * 2, 10000);
}
