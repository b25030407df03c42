// ways.mjs in its short form: each way delivers, and its traffic is what its formula says. The times come from the long one.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { WAYS, measure, round, lacking } from './ways.mjs';

const options = { readers: 4, payload: 100, topics: 40, singles: 25, burst: 1000, seed: 1, patience: 10000 }, skip = lacking() || false;

test('three_ways', { skip, timeout: 120000 }, async (t) => {
  const results = await round([1, 2, 4, 8], options);
  for (const [name, list] of Object.entries(results)) for (const r of list) t.diagnostic(`${name} ${JSON.stringify(r)}`);
});

// What would be wrong is found: a forwarder that sends twice, to nodes without a reader too, to its own node only.
const { registry: { publish: once, ...registry } } = WAYS, few = { ...options, topics: 10, singles: 10, burst: 50, patience: 1000 };
for (const [name, found, publish] of [
  ['twice', /each message once/, async (...all) => { for (let i = 0; i < 2; i++) await once(...all); }],
  ['everywhere', /bytes between nodes/, (c, at, ...message) => Promise.all(c.nodes.map((_, to) => c.hops[at].post(to, ...message)))],
  ['at_home', /a reader lacks/, (c, at, ...message) => c.hops[at].post(at, ...message)],
]) test(`a_forwarder_that_sends_${name}`, { skip, timeout: 60000 }, () => assert.rejects(measure({ ...registry, publish }, 4, few), found));
