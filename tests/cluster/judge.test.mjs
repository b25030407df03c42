// Is the judge sharp? What a herd would say of each kind of fault.
import { test } from 'node:test';
import assert from 'node:assert/strict';
import { judge, isTold } from './judge.mjs';

const A = 'aaaaaaaa', B = 'bbbbbbbb', C = 'cccccccc', epochs = [A, B, C];
const ids = new Map([[0, [null, `${A}-1`, `${A}-5`, `${A}-9`, `${B}-2`, `${C}-1`]]]);
const seen = (missing = [], gaps = [], more = {}) => ({ clients: 1, missing, gaps, doubled: 0, across: 0, back: 0, sentBack: 0, ...more });

test('a_gap_excuses_what_is_in_it_only', () => {
  const evicted = [[7, `${A}-1`, `${A}-5`, 'evicted']], epoch = [[7, `${A}-5`, `${C}-0`, 'epoch']], unknown = [[7, '', `${B}-0`, 'epoch']];
  assert.deepEqual([`${A}-1`, `${A}-2`, `${A}-5`, `${A}-6`, `${B}-2`].map((id) => isTold(evicted, id, epochs)), [false, true, true, false, false]);
  assert.deepEqual([`${A}-5`, `${A}-6`, `${B}-2`, `${C}-1`].map((id) => isTold(epoch, id, epochs)), [false, true, true, false]);
  assert.deepEqual([`${A}-1`, `${B}-1`].map((id) => isTold(unknown, id, epochs)), [true, false]);
});

test('what_is_lost_is_counted', () => {
  assert.deepEqual(judge([seen()], ids, epochs).lost, []);
  assert.deepEqual(judge([seen([[7, 0, 2, 3]])], ids, epochs).lost.map((l) => l.n), [2, 3]);
  const told = judge([seen([[7, 0, 2, 4]], [[7, `${A}-5`, `${B}-0`, 'epoch']])], ids, epochs);
  assert.deepEqual([told.lost.map((l) => l.n), told.told, told.gapsMost], [[2, 4], 1, 1]);
  assert.deepEqual(judge([seen([[7, 0, 3, 3]], [[8, `${A}-5`, `${B}-0`, 'epoch']])], ids, epochs).lost.map((l) => l.n), [3], 'another client\'s gap');
  const back = [[7, `${B}-3`, `${A}-0`, 'epoch'], [7, `${A}-3`, `${A}-0`, 'epoch'], [7, `${A}-1`, `${A}-2`, 'evicted'], [7, '', `${A}-0`, 'epoch'], [7, `${A}-3`, `${B}-0`, 'epoch']];
  assert.equal(judge([seen([], back)], ids, epochs).falseGaps, 3);
  assert.deepEqual([judge([seen([], [], { doubled: 2 }), seen([], [], { back: 1 })], ids, epochs)].map((v) => [v.doubled, v.back]), [[2, 1]]);
});
