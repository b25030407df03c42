// What the tests of a Redis that goes away, and of one that comes back as another, have in common.
import assert from 'node:assert/strict';
import { Redis, Reader, Proxy, Publisher, node, logName, judge, judgeWhole, goesThrough, epochOf, eventually, get, poll, pub } from './lib.mjs';

// Two nodes (args are theirs), each behind a proxy of its own, a reader on each, and somebody who publishes on both.
export class Scene {
  static async set(t, { aof = true, every = 25, args = [], redis } = {}) {
    const s = new Scene();
    s.t = t;
    s.log = logName();
    s.redis = redis ?? await Redis.start(t, { aof });
    s.proxies = [await Proxy.start(t, s.redis), await Proxy.start(t, s.redis)];
    s.nodes = await Promise.all(s.proxies.map((p, n) => node(t, p, { log: s.log, name: `n${n}`, args })));
    s.readers = await Promise.all(s.nodes.map((d) => Reader.open(d, 'x')));
    const { id } = await pub(s.nodes[0], 'x', 'before');
    s.epoch = epochOf(id);
    s.before = [{ id, data: 'before' }];
    for (const r of s.readers) await r.until('before');
    s.publisher = new Publisher(s.nodes, 'x', { every });
    if (every) await s.flows(5);
    return s;
  }

  key(name) { return `{${this.log}}:${name}`; }
  // So many more are acknowledged.
  flows(n, ms) { const from = this.publisher.acked.length; return eventually(() => this.publisher.acked.length >= from + n, `${n} more are acknowledged: ${this.said()}`, ms); }
  said() { return this.nodes.map((d) => d.lines.slice(-5).join(' | ')).join(' || '); }

  // It works again on each node; then the verdict. whole: nothing at all may be lost.
  async end({ whole = false } = {}) {
    const last = [];
    for (const d of this.nodes) last.push(await goesThrough(d, 'x'));
    await this.publisher.stop();
    last.push(await goesThrough(this.nodes[0], 'x'));
    const acked = [...this.before, ...this.publisher.acked, ...last];
    for (const r of this.readers) await r.until(last[2].data);
    (whole ? judgeWhole : judge)(this.readers, acked);
    assert.deepEqual(this.publisher.failed, []);
    for (const x of this.publisher.refused) { assert.equal(x.status, 503, x.text); assert.ok(x.headers['retry-after'], '503 says when to come again'); }
    for (const d of this.nodes) assert.equal((await get(d, '/healthz')).text, 'ok');
    for (const r of this.readers) r.close();
    this.newEpoch = epochOf(last[2].id);
    return acked;
  }

  // After a loss: another epoch, each reader was told.
  async endOfEpoch() {
    const acked = await this.end();
    assert.notEqual(this.newEpoch, this.epoch, 'another epoch');
    for (const r of this.readers) assert.ok(r.gaps.some((g) => g.reason === 'epoch'), `told of the new epoch: ${JSON.stringify(r.gaps)}`);
    return acked;
  }

  // Of one opinion about what there is: ids, epoch, history; on a node that comes now, too.
  async agree(topic = 'x') {
    const late = await node(this.t, this.redis, { log: this.log, name: 'late' });
    const [first, ...rest] = await Promise.all([...this.nodes, late].map(async (d) => (await poll(d, `/live/${topic}?since=-1`)).messages));
    for (const other of rest) assert.deepEqual(other, first);
    return late;
  }
}
