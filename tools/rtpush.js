// rtpush.js: the browser client of rtpush. Public domain (UNLICENSE). ES2017. Options: rtpush.d.ts.
//
//   <script src="/rtpush.js"></script> or import "/rtpush.js"     sets the global `rtpush`; CommonJS: require
//   const live = rtpush("/live"), off = live.subscribe("chat/general", m => show(m.data), { since: "-20" });
//
// One cursor serves all topics and transports. A browser opens six HTTP/1.1 connections to a host: more streams or
// held polls would freeze the site. So tabs share one (Web Lock, BroadcastChannel). Tabs that do not (plain http:, old
// browsers, `token` without `share`) use WebSocket, which is not among the six, or short polls.
(function (root) {
"use strict";

const DEFAULTS = {
  transports: ["websocket", "sse", "longpoll", "shortpoll"],
  WebSocket: root.WebSocket,
  fetch: (url, init) => root.fetch(url, init),
  locks: root.navigator && root.navigator.locks,
  BroadcastChannel: root.BroadcastChannel,
  since: "",
  credentials: "same-origin",
  backoff: 500, backoffMax: 30000, stable: 10000, remember: 300000, publishWithin: 100000,
  firstByte: 5000, timeout: 10000, wait: 25, interval: 3000,
};

// Is cursor a at or before b, of one epoch? A seq has 64 bits, so it is compared as text.
function isBehind(a, b) {
  const [epoch, x] = a.split("-"), [other, y] = b.split("-");
  return epoch === other && (x.length < y.length || (x.length === y.length && x <= y));
}

const isAhead = (a, b) => a !== b && isBehind(b, a);

function random() {
  let text = "";
  while (text.length < 24) text += Math.random().toString(36).slice(2);
  return text.slice(0, 24);
}

const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

const isBytes = (data) => data instanceof ArrayBuffer || ArrayBuffer.isView(data);

function matches(pattern, topic) {
  const prefix = pattern.replace(/\*+$/, ""), rest = topic.slice(prefix.length);
  if (prefix === pattern || !topic.startsWith(prefix) || !rest || (!prefix && topic[0] === "@")) return false;
  return pattern.endsWith("**") || !rest.includes("/");
}

const isPresence = (topic) => topic.startsWith("@presence/");
// Who is here now: its id is the reader's own cursor.
const isSnapshot = (m) => isPresence(m.topic) && !!m.data && !m.data.join && !m.data.leave;

function refusal(reason, more) {
  return Object.assign(new Error(reason), more);
}

const isFinal = ({ status }, tries) => status < 500 && status !== 429 && (status !== 401 || tries > 2);

// A transport tells its link: alive (bytes came), opened (it works), lost (it is over).
class Transport {
  constructor(link, name) {
    Object.assign(this, { link, live: link.live, name, job: new AbortController() });
    Promise.resolve().then(() => this.isDead || this.run()).catch((error) => error).then((error) => link.lost(this, error));
  }

  // Nothing comes: it does not work here.
  limitFirst() {
    this.timer = this.live.later(() => this.isOpen || this.link.lost(this), this.live.options.firstByte);
  }

  // What the envelope says, by either.
  told(m) {
    const { live, link } = this;
    link.alive(this);
    if (m.type === "message" || m.type === "gap") live.take([m], "");
    else if (m.type === "heartbeat") live.take([], m.cursor);
    else if (m.type === "reconnect") link.lost(this, { delay: m.after });
    else if (m.type === "hello") {
      this.limit = 2 * m.heartbeat;
      if (!live.cursor) live.take([], m.cursor);
      link.opened(this);
    } else if (this.refs) this.answered(m);
  }

  hasOtherTopics() {
    const wanted = this.live.wanted(), topics = this.topics || wanted;
    return wanted.size !== topics.size || [...wanted].some((topic) => !topics.has(topic));
  }

  close() {
    this.isDead = true;
    this.live.cancel(this.timer);
    this.job.abort();
    if (this.ws) this.ws.close();
  }
}

// rtpush.v1. Topics that were joined go into the URL, to go on at the cursor; new ones are subscribed to.
class Socket extends Transport {
  async run() {
    Object.assign(this, { asked: new Set(), refs: new Map(), ref: 0 });
    const live = this.live, token = await live.token();
    if (this.isDead) return null;
    for (const topic of live.wanted()) if (live.joined.has(topic)) this.asked.add(topic);
    const url = live.address(this.asked, { since: live.cursor }).replace(/^http/, "ws");
    this.ws = new live.options.WebSocket(url, ["rtpush.v1"]);
    this.limitFirst();
    this.ws.onopen = () => { if (token !== undefined) this.say({ type: "auth", token }); };
    this.ws.onmessage = (e) => { if (!this.isDead) this.told(JSON.parse(e.data)); };
    this.ws.onerror = () => {};
    return new Promise((ended) => { this.ws.onclose = (e) => ended(this.closed(e)); });
  }

  say(o, answer) {
    if (answer) this.refs.set(o.ref = ++this.ref, answer);
    this.ws.send(JSON.stringify(o));
  }

  answered(m) {
    const answer = this.refs.get(m.ref);
    this.refs.delete(m.ref);
    if (answer) answer(m);
    else if (m.type === "error") this.live.emit("error", refusal(m.reason, { code: m.code }));
  }

  update() {
    const wanted = this.live.wanted();
    if (!this.isOpen) return;
    for (const topic of this.asked) if (!wanted.has(topic)) this.asked.delete(topic), this.say({ type: "unsubscribe", topic });
    for (const topic of wanted) if (!this.asked.has(topic)) this.subscribe(topic);
  }

  subscribe(topic) {
    this.asked.add(topic);
    this.say({ type: "subscribe", topic }, (m) => m.type === "error" ? this.live.refused(topic, m) : this.live.join(topic, m.cursor));
  }

  publish({ topic, event, data = "", key, ephemeral }, answer) {
    this.say({ type: "publish", topic, event, data, key, ephemeral }, answer);
  }

  renew(token) {
    if (this.isOpen) this.say({ type: "auth", token }, () => {});
  }

  closed({ code, reason }) {
    const retry = /^retry=(\d+)/.exec(reason), kind = Math.floor(code / 100), isExpired = code === 4001;
    return refusal(reason || "closed", { code, status: isExpired ? 401 : 0, isFatal: kind === 40 && !isExpired,
      delay: retry ? +retry[1] : kind === 42 ? 0 : undefined });
  }
}

// The first long poll is held for a second only.
class Poller extends Transport {
  async run() {
    const live = this.live, isLong = this.name === "longpoll";
    while (!this.isDead) {
      const topics = live.wanted(), at = live.cursor;
      if (this.isOpen) for (const topic of topics) live.join(topic, at);
      this.topics = topics;
      this.isAgain = false;
      this.job = new AbortController();
      const wait = !isLong ? 0 : this.isOpen ? live.options.wait : 1;
      const body = await live.poll(topics, at || "latest", wait, this.job)
        .catch((error) => { if (!this.isAgain) throw error; });
      if (this.isDead) break;
      if (!body) continue;
      live.take(body.items, body.cursor);
      if (!this.isOpen) this.link.opened(this);
      if (body.reconnect !== undefined) return { delay: body.reconnect };
      if (!isLong && !body.more && !this.isAgain) await new Promise((wake) => { this.wake = wake; this.timer = live.later(wake, live.options.interval); });
    }
    return null;
  }

  update() {
    if (!this.hasOtherTopics()) return;
    this.isAgain = true;
    this.job.abort();
    if (this.wake) this.wake();
  }
}

// SSE with the envelope in it, read by fetch: an EventSource would show neither heartbeats nor refusals, nor send a token.
class Stream extends Transport {
  async run() {
    const { live, job } = this, topics = this.topics = live.wanted();
    this.limitFirst();
    const init = await live.init({ Accept: "text/event-stream" });
    const url = live.address(topics, { events: "envelope", since: live.cursor || "latest" });
    const r = await live.options.fetch(url, Object.assign(init, { signal: job.signal }));
    if (!r.ok) throw live.refusalOf(r, await r.text());
    if (!/^text\/event-stream/.test(r.headers.get("content-type"))) throw refusal("no event stream");
    const reader = r.body.getReader(), decoder = new TextDecoder();
    this.block = {};
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      this.link.alive(this);
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) this.isDead || this.line(line);
    }
  }

  // A block without data is a heartbeat: its id says how far all has come.
  line(line) {
    const [, field, value] = /^(\w+): ?([^]*)/.exec(line) || [], { id, event, data } = this.block;
    if (field) this.block[field] = value;
    if (line) return;
    this.block = {};
    if (data) this.told(Object.assign({ type: event }, JSON.parse(data)));
    else if (id) this.told({ type: "heartbeat", cursor: id });
  }

  update() {
    if (this.hasOtherTopics()) this.isOpen ? this.link.challenge("sse") : this.link.again();
  }
}

// A round goes down the list. If nothing works, the server is away; if a lower one works, those above are passed over.
class Link {
  constructor(live) {
    Object.assign(this, { live, current: null, list: [], index: 0, tries: 0, denied: 0, failed: {}, key: `rtpush ${live.url}` });
    try { Object.assign(this.failed, JSON.parse(root.sessionStorage[this.key])); } catch (e) { /* nothing there */ }
  }

  update() {
    const live = this.live, wanted = live.wanted();
    for (const topic of live.joined.keys()) if (!wanted.has(topic)) live.joined.delete(topic);
    if (live.isPaused) return;
    if (!wanted.size && !(this.current instanceof Socket)) {
      this.stop();
      return live.setState("idle");
    }
    if (this.rival) this.giveUpRival();
    if (this.current) this.current.update();
    else if (!this.timer && !this.isWeeding) this.connect();
  }

  // Until when it is passed over; by the tab's next page, too.
  remember(name, until) {
    this.failed[name] = until;
    try { root.sessionStorage[this.key] = JSON.stringify(this.failed); } catch (e) { /* forbidden */ }
  }

  can(name) {
    const o = this.live.options;
    return name === "websocket" ? o.WebSocket : name === "shortpoll" || !root.document || this.live.share || o.share === false;
  }

  connect() {
    const live = this.live;
    this.timer = live.cancel(this.timer);
    if (live.isPaused || live.isClosed) return;
    if (!this.index) {
      const able = live.options.transports.filter((name) => this.can(name));
      this.list = able.filter((name) => !(this.failed[name] > Date.now()));
      if (!this.list.length) this.list = able;
    }
    if (!this.list.length) return live.fail(refusal("no transport works here"));
    if (live.cursor && !live.hasBegun) for (const topic of live.wanted()) live.join(topic, live.cursor);
    const name = this.list[this.index];
    live.setState("connecting", { transport: name });
    this.current = this.make(name);
  }

  make(name) {
    const Kind = name === "websocket" ? Socket : name === "sse" ? Stream : Poller;
    return new Kind(this, name);
  }

  alive(t) {
    if (t.isDead || t !== this.current) return;
    t.heard = Date.now();
    this.live.cancel(this.watchTimer);
    if (t.limit) this.watchTimer = this.live.later(() => this.lost(t), t.limit);
  }

  opened(t) {
    const live = this.live;
    if (t.isDead) return;
    t.isOpen = true;
    if (t === this.rival) {
      this.drop(this.current);
      this.current = t;
      this.rival = null;
    } else this.list.slice(0, this.index).forEach((name) => this.strike(name));
    this.remember(t.name, 0);
    this.index = this.denied = 0;
    live.hasBegun = true;
    this.alive(t);
    live.cancel(this.stableTimer);
    this.stableTimer = live.later(() => { this.tries = 0; }, live.options.stable);
    this.planProbe();
    live.setState("open", { transport: t.name });
    for (const topic of t.topics || []) live.join(topic, live.cursor);
    t.update();
    live.settle();
    live.pump();
  }

  strike(name) {
    const until = this.failed[name], { remember } = this.live.options;
    if (!(until > Date.now())) this.remember(name, Date.now() + (until ? remember : Math.min(remember, 15000)));
  }

  // What is above the current one is tried again beside it.
  planProbe() {
    const all = this.live.options.transports, above = all.slice(0, all.indexOf(this.current.name)).filter((name) => this.can(name));
    const until = (name) => this.failed[name] || 0, next = above.sort((a, b) => until(a) - until(b))[0];
    this.live.cancel(this.probeTimer);
    if (next) this.probeTimer = this.live.later(() => this.challenge(next), Math.max(until(next) - Date.now(), 1000));
  }

  challenge(name) {
    this.live.cancel(this.probeTimer);
    this.rival = this.make(name);
  }

  giveUpRival() {
    this.rival.close();
    this.rival = null;
    this.planProbe();
  }

  drop(t) {
    if (!t) return;
    t.close();
    for (const p of this.live.outbox) if (p.via === t) p.via = null, p.tries++;
  }

  stop() {
    this.drop(this.current);
    this.drop(this.rival);
    this.current = this.rival = null;
    this.index = 0;
    for (const timer of ["timer", "stableTimer", "probeTimer", "watchTimer"]) this[timer] = this.live.cancel(this[timer]);
  }

  lost(t, why) {
    const { live, index } = this, error = why || {};
    if (t.isDead) return;
    if (t === this.rival) {
      if (t.name === this.current.name) return this.again();
      this.strike(t.name);
      return this.giveUpRival();
    }
    this.stop();
    if (error.status === 401 && (!live.options.token || ++this.denied > 1)) error.isFatal = true;
    if (error.isFatal) { live.fail(error); return; }
    if (error.status === 401) live.grant = null;
    else if (error.status === 403) { this.weed(error); return; }
    else if (error.status && error.status !== 503) live.emit("error", error);
    if (!t.isOpen && error.delay === undefined && index + 1 < this.list.length && error.status !== 401) {
      this.index = index + 1;
      this.connect();
    } else {
      const delay = live.delayOf(error, this.tries++);
      this.isObeying = error.delay !== undefined;
      live.setState("waiting", { delay });
      this.timer = live.later(() => this.connect(), delay);
    }
    live.pump();
  }

  // A refusal does not say which topic it means: each is asked for alone.
  async weed(error) {
    const live = this.live;
    let found = false;
    this.isWeeding = true;
    for (const topic of live.wanted()) {
      await live.poll([topic], "latest", 0).catch((e) => {
        if (e.status === 403) found = true, live.refused(topic, e);
      });
    }
    this.isWeeding = false;
    if (live.isClosed) return;
    if (!found && live.wanted().size) live.fail(error);
    else if (!live.isPaused) this.update();
  }

  // It may be worth trying now. isSure: the connection is dead.
  poke(isSure) {
    const t = this.current;
    if (this.timer && !this.isObeying) this.connect();
    else if (t && t.isOpen && (isSure || Date.now() - t.heard > 30000)) this.again();
  }

  again() {
    this.stop();
    this.connect();
  }
}

// Tabs. The leader says what comes, from which cursor to which. A follower with another cursor has missed something:
// it holds that back and polls first.
class Share {
  constructor(live, name) {
    Object.assign(this, { live, name, id: live.id, others: new Map(), leader: "", held: null, heard: Date.now() });
    this.channel = new live.options.BroadcastChannel(name);
    this.channel.onmessage = (e) => this.read(e.data);
    this.stand();
    this.want("who");
    this.guard();
  }

  say(t, more) {
    if (this.channel) this.channel.postMessage(Object.assign({ t, id: this.id }, more));
  }

  want(t) {
    this.say(t || "want", { topics: [...this.live.topics.keys()] });
  }

  stand(steal) {
    const abort = new AbortController();
    const hold = () => new Promise((release) => {
      if (this.abort !== abort) return release();
      this.release = release;
      this.lead();
    });
    const gone = () => { if (this.abort === abort) this.resign(), this.stand(); };
    this.abort = abort;
    this.live.options.locks.request(this.name, steal ? { steal } : { signal: abort.signal }, hold).then(gone, gone);
  }

  lead() {
    const live = this.live;
    this.isLeader = true;
    this.leader = this.id;
    this.held = null;
    for (const topic of live.joined.keys()) if (live.cursor) live.joined.set(topic, live.cursor); else live.joined.delete(topic);
    this.say("lead");
    live.link.update();
  }

  resign() {
    if (this.isLeader) this.live.link.stop();
    this.isLeader = false;
    this.leader = "";
    if (this.release) this.release();
    this.release = null;
  }

  leave() {
    const abort = this.abort;
    this.abort = null;
    this.resign();
    if (abort) abort.abort();
    this.say("bye");
  }

  comeBack() {
    this.hold();
    this.stand();
    this.want("who");
  }

  close() {
    this.leave();
    this.channel.close();
    this.channel = null;
  }

  feed(from, items, to) {
    if (this.isLeader && (items.length || from !== to)) this.say("feed", { from, items, to });
  }

  status() {
    const { state, transport, cursor, session, joined } = this.live;
    if (this.isLeader) this.say("status", { state, transport, cursor, session, joined: [...joined] });
  }

  read(m) {
    if (this.live.isPaused || !this.channel) return;
    if (m.topics) this.others.set(m.id, m.topics);
    if (m.t === "bye") this.others.delete(m.id);
    if (this.isLeader) {
      if (m.topics || m.t === "bye") this.live.link.update();
      if (m.topics) this.status();
      return;
    }
    if (m.t === "lead" || m.t === "status" || m.t === "feed") this.follow(m);
    if (m.t === "lead") this.want();
    if (m.t === "refused") this.live.refused(m.topic, m);
  }

  follow(m) {
    const live = this.live;
    this.heard = Date.now();
    if (m.id !== this.leader) {
      if (this.leader || live.cursor) this.hold();
      this.leader = m.id;
    }
    if (m.t === "feed") {
      if (live.cursor && m.from !== live.cursor && !(m.to && isBehind(m.to, live.cursor))) this.hold();
      if (this.held) this.held.push(m);
      else live.take(m.items, m.to);
    } else if (m.t === "status") {
      live.session = m.session;
      live.joined = new Map(m.joined);
      if (!live.cursor) live.take([], m.cursor);
      else if (m.cursor && !isBehind(m.cursor, live.cursor)) this.hold();
      live.setState(m.state, { transport: m.transport });
      for (const topic of live.joined.keys()) live.joinedTopic(topic);
      live.settle();
    }
    if (this.held) this.catchUp();
  }

  hold() {
    if (!this.held && this.live.cursor) this.held = [];
  }

  async catchUp() {
    const live = this.live, topics = [...live.topics.keys()], isDone = () => !this.held || live.isClosed;
    if (this.isCatching || !topics.every((topic) => live.joined.has(topic))) return;
    this.isCatching = true;
    for (let tries = 0, isBack = !topics.length; !isDone();) {
      if (isBack) {
        const held = this.held;
        this.held = null;
        for (const m of held) live.take(m.items, m.to);
        break;
      }
      try {
        const body = await live.poll(topics, live.cursor, 0);
        if (isDone()) break;
        live.take(body.items, body.cursor);
        isBack = !body.more && (!this.held[0] || !isAhead(this.held[0].from, live.cursor));
        if (!isBack && !body.more) await live.pause(100);
      } catch (e) {
        await live.pause(live.delayOf(e, tries++));
      }
    }
    this.isCatching = false;
  }

  // A silent leader is asked, then replaced.
  guard() {
    const live = this.live, now = Date.now();
    if (!this.isLeader && !live.isPaused && now - this.heard > 60000) {
      this.want("who");
      live.later(() => { if (!this.isLeader && !live.isPaused && this.heard < now) this.abort.abort(), this.stand(true); }, 3000);
    }
    live.later(() => this.guard(), 30000);
  }
}

class Live {
  constructor(url, options) {
    const o = this.options = Object.assign({}, DEFAULTS, options);
    Object.assign(this, { id: random(), session: random(), topics: new Map(), joined: new Map(), outbox: [], timers: new Set(),
      listeners: { gap: new Set(), state: new Set(), error: new Set() }, cursor: o.since || "", state: "idle", transport: "" });
    this.url = new URL(url, root.location ? root.location.href : undefined).href.replace(/\/+$/, "");
    this.link = new Link(this);
    const share = o.share === undefined ? !o.token && !!root.document : o.share;
    if (share && o.locks && o.BroadcastChannel) this.share = new Share(this, `rtpush ${this.url} ${share}`);
    this.listen("addEventListener");
  }

  subscribe(topic, fn, options) {
    let since = options && options.since;
    const isKnown = this.joined.has(topic);
    if (since === undefined && (isKnown ? isPresence(topic) : this.cursor && this.transport && this.transport !== "websocket")) since = "latest";
    const sub = { topic, fn, since, queue: since === undefined ? null : [], floor: "" };
    const off = () => this.unsubscribe(sub);
    off.ready = new Promise((ready) => { sub.ready = ready; });
    if (!this.topics.has(topic)) this.topics.set(topic, new Set());
    this.topics.get(topic).add(sub);
    if (isKnown) this.joinedTopic(topic);
    this.refresh();
    return off;
  }

  presence(topic, fn) {
    let here, said;
    return this.subscribe(`@presence/${topic}`, ({ data }) => {
      const { join = [], leave = [], count } = data;
      here = new Set(data.here || (join.length + leave.length ? here : []));
      join.forEach((name) => here.add(name));
      leave.forEach((name) => here.delete(name));
      const now = { here: here.size === count ? [...here] : null, count }, text = JSON.stringify(now);
      if (text !== said) fn(now);
      said = text;
    });
  }

  publish(topic, data, options) {
    const { event, ephemeral, key } = options || {};
    return new Promise((resolve, reject) => {
      if (this.isClosed) return reject(refusal("closed"));
      this.outbox.push({ topic, data, event, ephemeral, key: key || random(), resolve, reject, tries: 0, first: 0, via: null });
      this.pump();
    });
  }

  on(name, fn) {
    this.listeners[name].add(fn);
    return () => this.listeners[name].delete(fn);
  }

  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    this.listen("removeEventListener");
    this.link.stop();
    if (this.share) this.share.close();
    for (const timer of this.timers) this.cancel(timer);
    this.topics.clear();
    for (const p of this.outbox.splice(0)) p.reject(refusal("closed"));
    this.setState("closed");
  }

  later(fn, ms) {
    const timer = setTimeout(() => { this.timers.delete(timer); fn(); }, ms);
    this.timers.add(timer);
    return timer;
  }

  cancel(timer) {
    clearTimeout(timer);
    this.timers.delete(timer);
  }

  pause(ms) {
    return new Promise((done) => this.later(done, ms));
  }

  // The server's word, or full jitter.
  delayOf({ delay }, tries) {
    const { backoff, backoffMax } = this.options;
    return delay === undefined ? Math.random() * Math.min(backoffMax, backoff * Math.pow(2, tries)) : Math.min(delay, 2147483647);
  }

  call(fn, ...args) {
    try { fn(...args); } catch (e) { setTimeout(() => { throw e; }); }
  }

  emit(name, ...args) {
    for (const fn of [...this.listeners[name]]) this.call(fn, ...args);
  }

  setState(state, { transport = "", delay } = {}) {
    if (state === this.state && transport === this.transport && delay === undefined) return;
    Object.assign(this, { state, transport });
    this.emit("state", state, { transport, delay });
    if (this.share) this.share.status();
  }

  fail(error) {
    error.isFatal = true;
    this.emit("error", error);
    this.close();
  }

  listen(verb) {
    const types = ["pagehide", "pageshow", "online", "offline", "freeze", "resume", "visibilitychange"];
    if (root.document) for (const type of types) root[verb](type, this, true);
  }

  handleEvent({ type }) {
    if (type === "pagehide" || type === "freeze") this.sleep();
    else if (type === "pageshow" || type === "resume") this.wake();
    else if (type === "offline") this.wasOffline = true;
    else if (type === "online" || root.document.visibilityState === "visible") this.poke(type === "online" && this.wasOffline);
  }

  sleep() {
    if (this.isPaused) return;
    this.isPaused = true;
    this.link.stop();
    if (this.share) this.share.leave();
    this.setState("paused");
  }

  wake() {
    if (!this.isPaused) return this.poke();
    this.isPaused = false;
    if (this.share) this.share.comeBack();
    else this.link.update();
  }

  poke(isSure) {
    this.wasOffline = false;
    if (!this.share || this.share.isLeader) this.link.poke(isSure);
    else this.share.want("who");
    this.pump();
  }

  subsOf(topic) {
    const found = [];
    for (const [name, subs] of this.topics) if (name === topic || matches(name, topic)) found.push(...subs);
    return found;
  }

  wanted() {
    const all = new Set(this.topics.keys());
    if (this.share) for (const other of this.share.others.values()) for (const topic of other) all.add(topic);
    return all;
  }

  refresh() {
    if (this.isRefreshing) return;
    this.isRefreshing = true;
    Promise.resolve().then(() => {
      this.isRefreshing = false;
      if (this.isClosed) return;
      if (this.share && !this.share.isLeader) this.share.want();
      else this.link.update();
      this.settle();
    });
  }

  unsubscribe(sub) {
    const subs = this.topics.get(sub.topic);
    sub.isOff = true;
    if (!subs || !subs.delete(sub)) return;
    if (!subs.size) this.topics.delete(sub.topic);
    this.refresh();
  }

  refused(topic, { code, reason, message }) {
    const subs = this.topics.get(topic);
    if (subs) {
      for (const sub of subs) sub.isOff = true;
      this.topics.delete(topic);
      this.emit("error", refusal(reason || message, { code, topic }));
      this.refresh();
    }
    if (!this.share || !this.share.isLeader) return;
    for (const [id, other] of this.share.others) this.share.others.set(id, other.filter((name) => name !== topic));
    this.share.say("refused", { topic, code, reason: reason || message });
  }

  join(topic, cursor) {
    if (this.joined.has(topic) || !cursor) return;
    this.joined.set(topic, cursor);
    this.joinedTopic(topic);
    if (this.share) this.share.status();
    this.settle();
  }

  joinedTopic(topic) {
    for (const sub of this.topics.get(topic) || []) if (!sub.queue) sub.ready();
  }

  take(items, to) {
    const from = this.cursor;
    for (const item of items) item.type === "gap" ? this.tellGap(item) : this.hand(item);
    this.advance(to);
    if (this.share) this.share.feed(from, items, this.cursor);
  }

  advance(to) {
    if (!to || (!this.isStale && this.cursor && isBehind(to, this.cursor))) return;
    this.cursor = to;
    this.isStale = false;
  }

  // The cursor stays (messages older than `to` may follow) until the next message moves it, to another epoch too.
  // Until then the server may tell it again.
  tellGap({ from, to, reason, topic }) {
    const text = JSON.stringify([from, to, reason, topic]);
    if (!topic && isBehind(to, this.cursor)) return;
    if (!topic && reason === "epoch") this.isStale = true;
    if (text === this.lastGap) return;
    this.lastGap = text;
    this.emit("gap", { from, to, reason, topic });
  }

  hand(m) {
    const isNow = isSnapshot(m);
    if (!isNow && !this.isStale && this.cursor && isBehind(m.id, this.cursor)) return;
    this.lastGap = "";
    for (const sub of this.subsOf(m.topic)) sub.queue ? sub.queue.push(m) : this.deliver(sub, m);
    if (!isNow) this.advance(m.id);
  }

  deliver(sub, { id, topic, event, data, encoding, replay }) {
    if (sub.isOff || this.isClosed) return;
    if (sub.floor && isBehind(id, sub.floor) && !isSnapshot({ topic, data })) return;
    const m = { id, topic, data: encoding === "base64" ? fromBase64(data) : data };
    if (event !== undefined) m.event = event;
    if (replay) m.replay = true;
    this.call(sub.fn, m);
  }

  // A late subscription's past comes by polls, which move no cursor, while what is live waits in its queue.
  settle() {
    for (const subs of this.topics.values()) for (const sub of subs) if (sub.queue && !sub.isBusy && this.joined.has(sub.topic)) this.history(sub);
  }

  async history(sub) {
    sub.isBusy = true;
    for (let tries = 0; sub.queue && !sub.isOff && !this.isClosed;) {
      try {
        const body = await this.poll([sub.topic], sub.since, 0), from = this.joined.get(sub.topic) || "";
        if (sub.isOff || this.isClosed) return;
        if (body.gap) this.tellGap(Object.assign({ topic: sub.topic }, body.gap));
        for (const m of body.messages) this.deliver(sub, isPresence(m.topic) ? m : Object.assign(m, { replay: true }));
        sub.since = body.cursor;
        if (!body.more && !isAhead(from, body.cursor)) this.settled(sub, body.cursor);
        else if (!body.more) await this.pause(100);
      } catch (error) {
        if (isFinal(error, tries)) return this.refused(sub.topic, error);
        await this.pause(this.delayOf(error, tries++));
      }
    }
  }

  settled(sub, floor) {
    const queue = sub.queue;
    Object.assign(sub, { floor, queue: null });
    for (const m of queue) this.deliver(sub, m);
    sub.ready();
  }

  address(topics, query) {
    const all = new URLSearchParams({ session: this.session });
    for (const topic of topics) all.append("topic", topic);
    for (const name of Object.keys(query)) if (query[name]) all.append(name, query[name]);
    return `${this.url}?${all}`;
  }

  async init(headers) {
    const token = await this.token();
    if (token !== undefined) headers.Authorization = `Bearer ${token}`;
    return { headers, cache: "no-store", credentials: this.options.credentials };
  }

  async ask(url, init, ms, job = new AbortController()) {
    const timer = this.later(() => job.abort(), ms);
    try {
      const r = await this.options.fetch(url, Object.assign(init, { signal: job.signal })), text = await r.text();
      if (!r.ok) throw this.refusalOf(r, text);
      return JSON.parse(text);
    } finally {
      this.cancel(timer);
    }
  }

  refusalOf(r, text) {
    let body = {};
    try { body = JSON.parse(text); } catch (e) { /* no JSON */ }
    return refusal(body.reason || `HTTP ${r.status}`, { status: r.status, code: body.error,
      delay: r.status === 429 || r.status === 503 ? r.headers.get("retry-after") * 1000 || undefined : undefined });
  }

  async poll(topics, since, wait, job) {
    const init = await this.init({ Accept: "application/json" });
    const body = await this.ask(this.address(topics, { since, wait }), init, wait * 1000 + this.options.timeout, job);
    if (!body.cursor || !body.messages) throw refusal("not a poll's answer");
    body.items = [].concat(body.gap ? Object.assign({ type: "gap" }, body.gap) : [], body.messages);
    return body;
  }

  async token() {
    const ask = this.options.token;
    if (typeof ask !== "function") return ask;
    if (this.grant && Date.now() < this.grant.until) return this.grant.token;
    if (!this.asking) this.asking = Promise.resolve().then(ask).then((given) => this.keep(given), (error) => { this.asking = null; throw error; });
    return this.asking;
  }

  keep(given) {
    const { token, expires } = typeof given === "object" ? given : { token: given };
    const left = expires - Date.now(), until = left > 0 ? expires - Math.min(30000, left / 5) : Infinity;
    this.asking = null;
    this.grant = { token, until };
    this.cancel(this.tokenTimer);
    if (until < Infinity && !this.isClosed) this.tokenTimer = this.later(() => this.renew(), Math.min(until - Date.now(), 2147483647));
    return token;
  }

  renew() {
    this.grant = null;
    this.token().then((token) => {
      const t = this.link.current;
      if (t && t.renew) t.renew(token);
    }, (error) => { this.emit("error", error); });
  }

  // In order: new ones by the socket, repeated ones by POST, and the rest wait for those.
  pump() {
    const t = this.share && !this.share.isLeader ? null : this.link.current;
    const socket = t instanceof Socket ? t : null;
    for (const p of this.outbox) {
      if (p.via === "post" || this.postTimer) return;
      if (p.via) continue;
      if (!socket || p.tries || isBytes(p.data)) return this.post(p);
      if (!socket.isOpen) return;
      p.via = socket;
      p.first = p.first || Date.now();
      socket.publish(p, (m) => this.published(p, m.type === "error" && { delay: 0 }, m.id));
    }
  }

  async post(p) {
    const isRaw = isBytes(p.data), isText = typeof p.data === "string" || p.data === undefined;
    const query = { event: p.event, ephemeral: p.ephemeral ? 1 : 0 };
    p.via = "post";
    try {
      const init = await this.init({ "Content-Type": isRaw ? "application/octet-stream" : isText ? "text/plain; charset=utf-8" : "application/json", "Idempotency-Key": p.key });
      p.first = p.first || Date.now();
      const body = isRaw ? p.data : isText ? p.data || "" : JSON.stringify(p.data);
      const answer = await this.ask(this.address([p.topic], query), Object.assign(init, { method: "POST", body }), this.options.timeout);
      this.published(p, null, answer.id);
    } catch (error) {
      this.published(p, error);
    }
  }

  published(p, error, id) {
    const at = this.outbox.indexOf(p), isLate = Date.now() - p.first > this.options.publishWithin;
    if (at < 0) return;
    if (error && !isFinal(error, p.tries) && !isLate) {
      if (error.status === 401) this.grant = null;
      p.via = null;
      this.postTimer = this.later(() => { this.postTimer = 0; this.pump(); }, this.delayOf(error, p.tries++));
      return;
    }
    this.outbox.splice(at, 1);
    error ? p.reject(error) : p.resolve(id);
    this.pump();
  }
}

const rtpush = (url, options) => new Live(url === undefined ? "/live" : url, options);
rtpush.rtpush = rtpush;
root.rtpush = rtpush;
if (typeof module === "object" && module.exports) module.exports = rtpush;
})(typeof globalThis === "object" ? globalThis : self);
