// The disk is full, fails, or its folder goes away: publishes are refused by 503 with the reason, readers stay and read
// what there is, and when the disk works again, so does all else, by itself. Nothing that was acknowledged is lost, what
// was refused is not there, and no id ever names two messages.
//
// A real full disk is a small tmpfs, which only root may mount; the other faults come from faulty.c by LD_PRELOAD.
import { test, describe } from 'node:test';
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { execFileSync } from 'node:child_process';
import { start, refused, after, fastDaemon, folder, held, headOf, build, ENDS, untilTaken } from './lib.mjs';
import { post, poll, pub, request, sse, Envelope, assertError, eventually, parked, seqOf } from '../wire/lib.mjs';

const { EIO, ENOSPC, EROFS } = os.constants.errno;
const FAST = fastDaemon(), SHIM = build('tests/journal/faulty.c', 'journal-faulty.so', ['-shared', '-fPIC', '-O1', '-ldl']);
const epochIn = (id) => id.slice(0, 8);

// --- the disks ---

function tmpfs(t, size) {
  const at = folder(t);
  try { execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'rtpush-journal', at], { stdio: 'pipe' }); } catch (e) {
    t.skip(`no tmpfs can be mounted here: ${String(e.stderr ?? e).trim()}`);
    return null;
  }
  after(t, () => execFileSync('umount', ['-l', at]));
  return at;
}

// To the last byte.
function fill(file) {
  const fd = fs.openSync(file, 'w');
  for (let size = 65536; size >= 1; size = Math.floor(size / 2)) try { for (;;) fs.writeSync(fd, Buffer.alloc(size, 1)); } catch (e) { assert.equal(e.code, 'ENOSPC'); }
  fs.closeSync(fd);
}

// The shim, and the folder that fails when `say` is told so.
function faulty(t, dir) {
  const control = path.join(folder(t), 'control');
  const env = {
    LD_PRELOAD: SHIM, FAULTY_DIR: dir, FAULTY_CONTROL: control,
    ASAN_OPTIONS: `${process.env.ASAN_OPTIONS ?? ''}:verify_asan_link_order=0`,
  };
  const say = (text) => { fs.writeFileSync(`${control}.new`, text); fs.renameSync(`${control}.new`, control); };
  say('');
  return { env, say };
}

// --- what is seen while the disk fails ---

// All that anybody was told: an id names one message, for ever.
class Ids {
  names = new Map();
  add(id, data) {
    assert.equal(this.names.get(id) ?? data, data, `${id} names two messages`);
    this.names.set(id, data);
    return id;
  }
}

// A publisher, an SSE reader, an envelope and a parked poll, all of topic t, through a fault that begins and ends.
class Scene {
  static async open(t, dir, args, how) {
    const s = Object.assign(new Scene(), { t, dir, args, how, ids: new Ids(), acked: [], refusals: [], n: 0, dirAt: dir });
    s.args = [...args, '--set', 'history=1000'];
    s.d = await start(t, dir, s.args, how);
    s.stream = await sse(s.d, '/live/t');
    s.envelope = await Envelope.open(s.d, '/live/t');
    return s;
  }

  // true: acknowledged; false: refused as it should be.
  async publish(size = 0) {
    const data = `${++this.n} ${'x'.repeat(size)}`, r = await post(this.d, '/live/t', data);
    if (r.status >= 300) {
      assertError(r, 503);
      assert.match(r.json.reason, /journal/i, 'the reason is to be told');
      this.refusals.push(data);
      return false;
    }
    this.acked.push({ id: this.ids.add(r.json.id, data), data });
    return true;
  }

  // isSmall: of a full disk the last bytes are still to be had, and a DELETE is the smallest thing to say.
  async breaks({ isSmall = false } = {}) {
    await eventually(async () => !await this.publish(), 'publishes are refused');
    for (let i = 1; i < 4; i++) assert.ok(!await this.publish(i * 500));
    if (!isSmall) assertError(await request(this.d, 'DELETE', '/live/t'), 503);
    const e = await this.envelope.ask({ type: 'publish', topic: 't', data: 'by the envelope' });
    this.refusals.push('by the envelope');
    assert.equal(e.type, 'error', JSON.stringify(e));
    assert.ok(e.before.every((m) => m.type === 'message'));
    (this.before ??= []).push(...e.before);
    // Reading goes on.
    assert.deepEqual((await held(this.d, 't')).map((m) => ({ id: m.id, data: m.data })), this.acked);
    assert.equal(await headOf(this.d), this.acked.at(-1).id);
    this.waiting = poll(this.d, `/live/t?wait=50&since=${this.acked.at(-1).id}`, {}, 40000);
    this.waiting.catch(() => {}); // it may end with the daemon
    await parked(this.d, 1);
  }

  async heals() {
    const { id, data } = await eventually(async () => {
      const taken = `${++this.n}`, r = await post(this.d, '/live/t', taken);
      if (r.status < 300) return { id: r.json.id, data: taken };
      this.refusals.push(taken);
      return null;
    }, 'publishes are taken again', 20000);
    this.acked.push({ id: this.ids.add(id, data), data });
    for (let i = 0; i < 3; i++) assert.ok(await this.publish(i * 100), 'and stay so');
    // The poll that was parked before is answered; streams have read all that was acknowledged, and nothing else.
    const late = await this.waiting;
    assert.equal(late.gap, undefined);
    assert.equal(late.messages[0].id, id);
  }

  async wasRead() {
    const blocks = await this.stream.take(this.acked.length);
    assert.deepEqual(blocks.map(({ id, data, event }) => ({ id, data, event })), this.acked.map(({ id, data }) => ({ id, data, event: undefined })));
    const messages = [...this.before ?? []];
    while (messages.length < this.acked.length) messages.push(await this.envelope.expect('message'));
    assert.deepEqual(messages.map(({ id, data }) => ({ id, data })), this.acked);
  }

  // After the restart: all of it under its id. isNewAllowed: under another epoch, where the journal says that it may be one.
  async restarts(end, isNewAllowed = false) {
    const { epoch } = { epoch: epochIn(this.acked[0].id) };
    this.stream.close();
    this.envelope.close();
    await ENDS[end](this.d);
    this.d = await start(this.t, this.dirAt, this.args);
    const now = (await held(this.d, 't')).map((m) => ({ id: m.id, data: m.data }));
    for (const { id, data } of now) this.ids.add(id, data);
    if (isNewAllowed && epochIn(await headOf(this.d)) !== epoch) assert.deepEqual(now.map((m) => [seqOf(m.id), m.data]), this.acked.map((m) => [seqOf(m.id), m.data]));
    else assert.deepEqual(now, this.acked, this.d.stderr);
    await this.publish();
    assert.ok(seqOf(this.acked.at(-1).id) > seqOf(this.acked.at(-2).id));
  }
}

describe('full', { concurrency: 2 }, () => {
  for (const [mode, end] of [['always', 'kill'], ['50', 'clean'], ['off', 'kill']]) {
    test(`a_real_full_disk__fsync_${mode}__then_${end}`, async (t) => {
      const at = tmpfs(t, '2m');
      if (!at) return;
      const s = await Scene.open(t, path.join(at, 'j'), ['--fsync', mode]), filler = path.join(at, 'filler');
      for (let i = 0; i < 4; i++) assert.ok(await s.publish(100));
      fill(filler);
      // Until then what still fits into the last page is taken.
      await s.breaks({ isSmall: true });
      fs.rmSync(filler);
      await s.heals();
      fill(filler); // and again
      await s.breaks({ isSmall: true });
      fs.rmSync(filler);
      await s.heals();
      await s.wasRead();
      await s.restarts(end);
    });
  }

  test('the_end_comes_while_the_disk_is_full', async (t) => {
    const at = tmpfs(t, '2m');
    if (!at) return;
    const s = await Scene.open(t, path.join(at, 'j'), []), filler = path.join(at, 'filler');
    for (let i = 0; i < 4; i++) assert.ok(await s.publish(3000));
    fill(filler);
    await s.breaks({ isSmall: true });
    await s.d.end();
    // It starts, where it can write nothing, and holds everything; and takes publishes when there is room.
    s.d = await start(t, s.dir, s.args);
    assert.deepEqual((await held(s.d, 't')).map((m) => m.id), s.acked.map((m) => m.id));
    assert.ok(!await s.publish(5000));
    fs.rmSync(filler);
    const { id } = await untilTaken(s.d, 't', 'room');
    assert.equal(id, `${epochIn(s.acked[0].id)}-${seqOf(s.acked.at(-1).id) + 1}`);
  });

  // What is held is less than the disk, but all that was published is more: compaction has to go on by itself.
  test('a_disk_that_is_small_for_what_is_published', async (t) => {
    const at = tmpfs(t, '60m');
    if (!at) return;
    const dir = path.join(at, 'j'), args = ['--fsync', 'off', '--set', 'history=5', '--set', 'history_bytes=8000000'], how = { program: FAST }, d = await start(t, dir, args, how), data = 'x'.repeat(500000);
    const acked = [];
    for (let i = 0; i < 150; i++) acked.push((await pub(d, 't', `${i} ${data}`)).id);
    await d.kill();
    assert.deepEqual((await held(await start(t, dir, args, how), 't')).map((m) => m.id), acked.slice(-5));
  });
});

describe('faults', { concurrency: 3 }, () => {
  const FAULTS = [
    ['ENOSPC', `write ${ENOSPC}`],
    ['ENOSPC__after_half', `write ${ENOSPC} half`, { mode: '50' }],
    ['EIO', `write ${EIO}`, { mode: 'off' }],
    ['EIO__after_half__and_ftruncate', `write,ftruncate ${EIO} half`],
    ['EROFS__all', `write,open,ftruncate,rename,unlink ${EROFS}`],
    ['fsync', `fsync ${EIO}`],
    ['fsync__and_what_it_had_is_lost', `fsync ${EIO} drop`, { isNewAllowed: true }],
  ];
  for (const [name, plan, { mode = 'always', isNewAllowed } = {}] of FAULTS) {
    test(`${name}__twice_healed__then_a_clean_end`, async (t) => {
      const dir = path.join(folder(t), 'j'), { env, say } = faulty(t, dir);
      const s = await Scene.open(t, dir, ['--fsync', mode], { env });
      for (let i = 0; i < 4; i++) assert.ok(await s.publish(i * 50));
      for (let times = 2; times--;) {
        say(plan);
        await s.breaks();
        say('');
        await s.heals();
      }
      await s.wasRead();
      await s.restarts('clean', isNewAllowed);
    });

    test(`${name}__healed__and_killed_in_the_next_one`, async (t) => {
      const dir = path.join(folder(t), 'j'), { env, say } = faulty(t, dir);
      const s = await Scene.open(t, dir, ['--fsync', mode], { env });
      for (let i = 0; i < 4; i++) assert.ok(await s.publish(i * 50));
      say(plan);
      await s.breaks();
      say('');
      await s.heals();
      say(plan);
      await s.breaks();
      await s.d.kill();
      const d = await start(t, dir, s.args), now = await held(d, 't');
      const isSame = epochIn(await headOf(d)) === epochIn(s.acked[0].id);
      // What was refused last may be in the file, if its fsync failed; it never had an id that anybody else has.
      assert.deepEqual(now.slice(0, s.acked.length).map((m) => [seqOf(m.id), m.data]), s.acked.map((m) => [seqOf(m.id), m.data]), d.stderr);
      assert.ok(isSame || isNewAllowed, d.stderr);
      for (const m of now.slice(s.acked.length)) assert.ok(s.refusals.includes(m.data));
      for (const m of now) s.ids.add(m.id, m.data);
      s.ids.add((await pub(d, 't', 'after')).id, 'after');
    });
  }

  test('short_writes_are_no_fault', async (t) => {
    const dir = path.join(folder(t), 'j'), { env, say } = faulty(t, dir);
    const s = await Scene.open(t, dir, [], { env });
    say('write 0 half');
    for (let i = 0; i < 5; i++) assert.ok(await s.publish(i * 700));
    await s.wasRead();
    await s.restarts('kill');
  });

  // The first try after a fault of fsync in the background is told no lie: what is acknowledged is kept.
  test('fsync_by_the_clock_fails', async (t) => {
    const dir = path.join(folder(t), 'j'), { env, say } = faulty(t, dir);
    const s = await Scene.open(t, dir, ['--fsync', '20'], { env });
    assert.ok(await s.publish());
    say(`fsync ${EIO}`);
    await s.publish(); // taken, or refused already
    await eventually(() => /fsync|Input\/output/.test(s.d.stderr), 'it says that fsync failed');
    say('');
    await eventually(() => s.publish(), 'it goes on');
    for (let i = 0; i < 3; i++) assert.ok(await s.publish());
    await s.wasRead();
    await s.restarts('kill');
  });

  // The lock, the log and the head are there, but cannot be written.
  test('it_does_not_start_on_a_folder_that_cannot_be_written', async (t) => {
    const dir = path.join(folder(t), 'j'), { env, say } = faulty(t, dir);
    const s = await Scene.open(t, dir, [], { env });
    assert.ok(await s.publish());
    await s.d.kill();
    say(`write,open,ftruncate,rename,unlink ${EROFS}`);
    const { code, stderr, stdout } = await refused(dir, [], { env });
    assert.equal(code, 1, stderr);
    assert.equal(stdout, '');
    assert.ok(stderr.includes(dir) && /read-only/i.test(stderr), `not a clear message: ${stderr}`);
    say('');
    await (await start(t, dir, [], { env })).end();
  });

  test('a_folder_on_a_disk_that_is_mounted_read_only', async (t) => {
    const at = tmpfs(t, '2m');
    if (!at) return;
    const dir = path.join(at, 'j');
    await pub(await start(t, dir), 't', 'x').catch(assert.fail);
    const other = folder(t);
    execFileSync('mount', ['--bind', at, other]);
    after(t, () => execFileSync('umount', ['-l', other]));
    execFileSync('mount', ['-o', 'remount,bind,ro', other]);
    const { code, stderr } = await refused(path.join(other, 'j'));
    assert.equal(code, 1, stderr);
    assert.ok(stderr.includes(other) && /read-only/i.test(stderr), `not a clear message: ${stderr}`);
  });
});

describe('gone', { concurrency: 4 }, () => {
  const remove = {
    the_folder: (dir) => fs.rmSync(dir, { recursive: true }),
    its_files: (dir) => { for (const name of fs.readdirSync(dir)) fs.rmSync(path.join(dir, name)); },
  };
  for (const [name, rm] of Object.entries(remove)) for (const end of Object.keys(ENDS)) for (const isIdle of [false, true]) {
    // idle: it was started on an older journal and has written nothing yet.
    test(`${name}__removed_while_it_${isIdle ? 'is_idle' : 'runs'}__then_${end}`, async (t) => {
      const dir = path.join(folder(t), 'j');
      const s = await Scene.open(t, dir, []);
      for (let i = 0; i < 4; i++) assert.ok(await s.publish());
      await s.wasRead();
      if (isIdle) {
        s.stream.close();
        s.envelope.close();
        await s.d.end();
        s.d = await start(t, dir, s.args);
        s.stream = await sse(s.d, `/live/t?since=earliest`);
        s.envelope = await Envelope.open(s.d, '/live/t?since=earliest');
        s.before = [];
      } else {
        s.stream.close();
        s.stream = await sse(s.d, `/live/t?since=earliest`);
        s.envelope.close();
        s.envelope = await Envelope.open(s.d, '/live/t?since=earliest');
      }
      rm(dir);
      if (name === 'the_folder') {
        await s.breaks();
        fs.mkdirSync(dir);
        await s.heals();
      } else {
        await eventually(() => s.publish(), 'it goes on in the empty folder');
        for (let i = 0; i < 3; i++) assert.ok(await s.publish());
      }
      await s.wasRead();
      if (end === 'kill') { // locked it is again, too
        const second = await refused(dir);
        assert.equal(second.code, 1, `a second process got it: ${second.stderr}`);
      }
      await s.restarts(end);
    });
  }
});
