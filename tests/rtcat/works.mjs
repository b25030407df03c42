// What must work, against a small right server: each transport, resuming after cuts, falling from one to the next.
import { sleep, text, close, hello, told, envelope, message, cursor, response, poll, streamHead, chunk, block } from './lib.mjs';

const seqOf = (since, otherwise) => (/^[a-z0-9]{8}-\d+$/.test(since ?? '') ? Number(since.slice(9)) : since === 'earliest' ? 0 : otherwise);

// A log of messages m1, m2, … of which `ready` are there. It hands out `cut` per connection and then cuts it, and says
// no to the transports in `refuse` by that answer. A right client asks for each message once.
function hub({ total = 6, cut = 3, refuse = {}, end = (c) => c.cut(), first = 1 } = {}) {
  return async (c, n, run) => {
    run.starts = run.starts ?? [];
    run.posts = run.posts ?? [];
    for (;;) {
      const r = await c.head();
      if (r.path !== '/live/t') { run.fault(`asked for ${r.path}`); return; }
      if (r.kind === 'post') { const body = await c.body(r); run.posts.push({ body, type: r.headers['content-type'] }); c.write(response(`{"id":"${cursor(total + run.posts.length)}","topic":"t","subscribers":1}\n`, {}, '201 Created')); continue; }
      if (refuse[r.kind]) { const answer = refuse[r.kind]; if (answer === 'cut') c.cut(); else c.write(answer); continue; }
      // The first request says where it likes to start and is given message 1; later ones must know where they are.
      const from = run.starts.length ? seqOf(r.since, NaN) : seqOf(r.since, first - 1);
      run.starts.push({ kind: r.kind, since: r.since, at: r.at });
      if (Number.isNaN(from)) { run.fault(`request ${run.starts.length} (${r.kind}) says no cursor: ${r.since}`); return; }
      const to = Math.min(total, from + cut), seqs = Array.from({ length: Math.max(0, to - from) }, (_, i) => from + 1 + i), more = to < total;
      if (r.kind === 'ws') {
        c.isUpgrade(r);
        c.isWebSocket = true;
        c.write(`${c.upgrade(r, ['Sec-WebSocket-Protocol: rtpush.v1']).join('\r\n')}\r\n\r\n`, hello(from), seqs.map((s) => told(s)));
      } else if (r.kind === 'sse') c.write(streamHead(), chunk(`retry: 500\n: rtpush\nid: ${cursor(from)}\n\n`), seqs.map((s) => chunk(block(s))));
      else if (seqs.length || r.kind === 'sp') { c.write(response(poll(seqs.map((s) => message(s)), cursor(to)))); if (more) await c.head(); }
      if (more) { await sleep(60); end(c, n); return; }
      if (r.kind === 'ws' || r.kind === 'sse') return;
    }
  };
}
const all = (n) => Array.from({ length: n }, (_, i) => `m${i + 1}\n`).join('');
const sinces = (run) => run.starts.map((s) => s.since);
const pause = (run) => run.requests.at(-1).at - run.requests[0].at;

// The server cuts after three messages, twice. Which of the ids come back is the point.
const resumes = ['ws', 'sse', 'lp', 'sp'].flatMap((transport) => [
  { name: `${transport}_resumes_after_a_cut`, args: ['--transport', transport, '--count', '9'], exit: 0, out: all(9), ms: 20000, serve: hub({ total: 9 }),
    check: (run) => { const last = sinces(run).filter((s) => /-[36]$/.test(s ?? '')); return (last[0] !== cursor(3) || !last.includes(cursor(6)) || run.starts.some((s) => s.kind !== transport)) && `starts ${JSON.stringify(run.starts)}`; } },
  { name: `${transport}_resumes_after_a_reset`, args: ['--transport', transport, '--count', '6'], exit: 0, out: all(6), ms: 15000, serve: hub({ end: (c) => c.reset() }) },
  { name: `${transport}_since_is_the_first_start_only`, args: ['--transport', transport, '--count', '4', '--since', cursor(2)], exit: 0, out: 'm3\nm4\nm5\nm6\n', ms: 15000, serve: hub({ cut: 2 }),
    check: (run) => (sinces(run)[0] !== cursor(2) || !sinces(run).includes(cursor(4))) && `starts ${sinces(run)}` },
  { name: `${transport}_publishes_stdin`, args: ['--transport', transport, '--count', '1'], in: 'hello\n"q" € \\\n', exit: 0, out: /^(?:end|m1)\n$/, ms: 15000,
    async serve(c, n, run) {
      run.got = run.got ?? [];
      const r = await c.head(), done = () => run.got.length >= 2;
      const wait = async () => { while (!done()) await sleep(10); };
      if (r.kind === 'ws') {
        c.isWebSocket = true;
        c.write(`${c.upgrade(r, ['Sec-WebSocket-Protocol: rtpush.v1']).join('\r\n')}\r\n\r\n`, hello());
        while (!done()) { const f = await c.frame(), o = f.op === 1 ? JSON.parse(f.data.toString()) : {}; if (o.type === 'publish') { run.got.push(o.data); if (o.ref !== undefined) c.write(envelope({ type: 'ack', ref: o.ref, id: cursor(run.got.length) })); } }
        c.write(told(9, 'end'));
        return;
      }
      for (let q = r; ; q = await c.head()) {
        if (q.kind === 'post') {
          if (q.path !== '/live/t') run.fault(`POST ${q.path}`);
          if (/json|octet/.test(q.headers['content-type'] ?? '')) run.fault(`a line is published as ${q.headers['content-type']}`);
          run.got.push(await c.body(q));
          c.write(response(`{"id":"${cursor(run.got.length)}","topic":"t","subscribers":1}\n`, {}, '201 Created'));
        } else if (q.kind === 'sse') { c.write(streamHead(), chunk(`id: ${cursor(0)}\n\n`)); await wait(); c.write(chunk(block(9, 'end'))); return; } else if (q.kind === 'lp') { await Promise.race([wait(), sleep(1000 * Number(q.query.get('wait') ?? 25))]); c.write(response(done() ? poll([message(9, 'end')]) : poll([], cursor(0)))); } else c.write(response(done() ? poll([message(9, 'end')]) : poll([], cursor(0))));
      }
    },
    check: (run) => JSON.stringify(run.got) !== JSON.stringify(['hello', '"q" € \\']) && `published ${JSON.stringify(run.got)}` },
  { name: `${transport}_json`, args: ['--transport', transport, '--json', '--count', '1'], exit: 0, ms: 8000, serve: hub({ total: 1 }), out: (out) => { const o = JSON.parse(out); return o.id === cursor(1) && o.topic === 't' && o.data === 'm1' && !('type' in o); } },
]);

const refusal = (status, body = '', head = {}) => response(body, head, status);
const falls = [
  ['ws', {}],
  ['sse', { ws: refusal('426 Upgrade Required') }],
  ['sse', { ws: refusal('400 Bad Request') }, 'a_400'],
  ['sse', { ws: refusal('501 Not Implemented', '<html>') }, 'a_501'],
  // A proxy that takes the Upgrade away: the server answers the short poll that is left.
  ['sse', { ws: response(poll([], cursor(0))) }, 'a_poll_answer'],
  ['lp', { ws: refusal('426 Upgrade Required'), sse: response(poll([], cursor(0))) }],
  ['lp', { ws: refusal('426 Upgrade Required'), sse: refusal('406 Not Acceptable') }, 'a_406'],
].map(([wanted, refuse, name]) => ({
  name: `auto_comes_to_${wanted}${name ? `_after_${name}` : ''}`, args: ['--count', '6'], exit: 0, out: all(6), ms: 20000, serve: hub({ refuse }),
  check: (run) => run.starts[0].kind !== wanted && `came to ${run.starts.map((s) => s.kind)} by ${run.requests.map((r) => r.kind)}`,
}));

// How the server's wish for a pause is met. The base of the backoff is 0.5 s.
const drains = [
  ['close_1012_retry_50', [close(1012, 'retry=50')], 30, 450],
  ['close_1012_retry_1500', [close(1012, 'retry=1500')], 1450, 3500],
  ['reconnect_1500_then_close_1012', [envelope({ type: 'reconnect', after: 1500 }), close(1012, 'retry=1500')], 1450, 3500],
  ['close_1012_without_a_reason', [close(1012)], 0, 3000],
  ['close_1012_with_nonsense', [close(1012, 'retry=soon')], 0, 3000],
  ['close_1001', [close(1001)], 0, 3000],
  ['close_1011', [close(1011)], 0, 3000],
  ['close_4100', [close(4100, 'slow')], 0, 5000],
  ['close_4200', [close(4200)], 0, 3000],
  ['eof', null, 0, 3000],
].map(([name, pieces, least, most]) => ({
  name: `ws_${name}_comes_back`, args: ['--transport', 'ws', '--count', '6'], exit: 0, out: all(6), ms: 9000,
  serve: hub({ end: (c) => (pieces ? c.write(pieces) : c.end()) }),
  check: (run) => (run.requests.length !== 2 || pause(run) < least || pause(run) > most + 200) && `came back after ${pause(run)} ms in ${run.requests.length} requests, expected ${least} to ${most}`,
}));

const ends = [
  ...[4000, 4001, 4003].map((code) => ({ name: `ws_close_${code}_does_not_come_back`, args: ['--transport', 'ws'], exit: 1, out: 'm1\n', conns: 1, async serve(c) { await c.accept('v1', hello(), told(1), close(code, 'no')); } })),
  ...['ws', 'sse', 'lp', 'sp'].flatMap((transport) => ['401 Unauthorized', '403 Forbidden', '404 Not Found'].map((status) => ({
    name: `${transport}_${status.slice(0, 3)}_does_not_come_back`, args: ['--transport', transport], exit: 1, out: '', conns: 1, err: status.startsWith('404') ? /404|Because I say so/ : /Because I say so/, async serve(c) { await c.head(); c.write(response('{"error":"no","reason":"Because I say so."}\n', {}, status)); } }))),
  { name: 'auto_401_does_not_try_the_other_transports', args: [], exit: 1, out: '', err: /Because I say so/, async serve(c) { for (;;) { await c.head(); c.write(response('{"error":"no","reason":"Because I say so."}\n', {}, '401 Unauthorized')); } },
    check: (run) => run.requests.length > 1 && `${run.requests.length} requests` },
  { name: 'sse_end_of_the_stream_is_0_without_reconnecting', args: ['--transport', 'sse', '--no-reconnect'], exit: 0, out: 'm1\n', async serve(c) { await c.head(); c.write(streamHead(), chunk(block(1)), '0\r\n\r\n'); } },
  { name: 'sse_end_of_the_stream_comes_back', args: ['--transport', 'sse', '--count', '6'], exit: 0, out: all(6), ms: 9000, serve: hub({ end: (c) => c.end('0\r\n\r\n') }) },
  { name: 'sse_retry_of_a_drain_is_obeyed', args: ['--transport', 'sse', '--count', '6'], exit: 0, out: all(6), ms: 9000, serve: hub({ end: (c) => c.end(chunk('retry: 1500\n\n'), '0\r\n\r\n') }), check: (run) => (pause(run) < 1400 || pause(run) > 4000) && `came back after ${pause(run)} ms, expected 1500` },
  { name: 'sse_heartbeat_moves_the_cursor', args: ['--transport', 'sse', '--count', '2'], exit: 0, out: 'm1\nm9\n', ms: 9000,
    async serve(c, n, run) { const r = await c.head(); if (n === 1) { c.write(streamHead(), chunk(`${block(1)}: hb\nid: ${cursor(8)}\n\n`)); await sleep(60); c.cut(); return; } if (r.since !== cursor(8)) run.fault(`since ${r.since}, expected ${cursor(8)}`); c.write(streamHead(), chunk(block(9))); } },
  { name: 'ws_heartbeat_moves_the_cursor', args: ['--transport', 'ws', '--count', '2'], exit: 0, out: 'm1\nm9\n', ms: 9000,
    async serve(c, n, run) { const r = n === 1 ? await c.accept('v1', hello(), told(1), envelope({ type: 'heartbeat', cursor: cursor(8) })) : await c.accept('v1', hello(8), told(9)); if (n === 1) { await sleep(60); c.cut(); } else if (r.since !== cursor(8)) run.fault(`since ${r.since}, expected ${cursor(8)}`); } },
  // hello says where the reader starts, so a quiet topic can be resumed, too.
  { name: 'ws_hello_alone_is_a_place_to_come_back_to', args: ['--transport', 'ws', '--count', '1'], exit: 0, out: 'm42\n', ms: 9000,
    async serve(c, n, run) { const r = await c.accept('v1', n === 1 ? hello(41) : [hello(41), told(42)]); if (n === 1) { await sleep(60); c.cut(); } else if (r.since !== cursor(41)) run.fault(`since ${r.since}, expected ${cursor(41)}`); } },
  { name: 'sse_gap_moves_the_cursor_and_is_told_once', args: ['--transport', 'sse', '--count', '2', '--since', cursor(1)], exit: 0, out: 'm6\nm7\n', ms: 9000, err: /gap from k3f9x2ab-1 to k3f9x2ab-5 \(evicted\)/,
    async serve(c, n, run) {
      const r = await c.head();
      if (n === 1) { c.write(streamHead(), chunk(`event: gap\ndata: {"from":"${cursor(1)}","to":"${cursor(5)}","reason":"evicted"}\nid: ${cursor(5)}\n\n${block(6)}`)); await sleep(60); c.cut(); return; }
      if (r.since !== cursor(6)) run.fault(`since ${r.since}`);
      c.write(streamHead(), chunk(block(7)));
    }, check: (run) => run.stderr.match(/gap from/g).length !== 1 && 'told more than once' },
  { name: 'ws_a_new_epoch_with_smaller_ids_is_printed', args: ['--transport', 'ws', '--count', '2'], exit: 0, out: 'm7\nnew\n', ms: 9000, err: /\(epoch\)/,
    async serve(c, n) { if (n === 1) { await c.accept('v1', hello(), told(7)); await sleep(60); c.cut(); } else await c.accept('v1', hello(7), envelope({ type: 'gap', from: cursor(7), to: 'zzzzzzzz-0', reason: 'epoch' }), envelope({ type: 'message', id: 'zzzzzzzz-1', topic: 't', data: 'new' })); } },
  { name: 'ws_overlap_after_a_cut_is_printed_once', args: ['--transport', 'ws', '--count', '4'], exit: 0, out: all(4), ms: 9000,
    async serve(c, n) { await c.accept('v1', n === 1 ? [hello(), told(1), told(2), told(3)] : [hello(3), told(2), told(3), told(4)]); if (n === 1) { await sleep(60); c.cut(); } } },
  // Long polls over connections that do not last, without and with a word about it.
  ...[['said_so', { Connection: 'close' }], ['did_not_say', {}]].map(([name, head]) => ({ name: `lp_each_answer_ends_its_connection_and_${name}`, args: ['--transport', 'lp', '--count', '3'], exit: 0, out: all(3), ms: 6000,
    async serve(c, n, run) { const r = await c.head(), from = n === 1 ? 0 : seqOf(r.since, NaN); if (from !== n - 1) run.fault(`connection ${n}: since ${r.since}`); c.end(response(poll([message(from + 1)]), head)); } })),
  { name: 'lp_answer_that_takes_its_time', args: ['--transport', 'lp', '--count', '2'], exit: 0, out: all(2), ms: 6000, cpu: 250, check: (run) => run.requests.length > 3 && `${run.requests.length} requests`,
    async serve(c) { for (;;) { const r = await c.head(), from = seqOf(r.since, 0); await sleep(1500); c.write(response(poll([message(from + 1)]))); } } },
  { name: 'lp_empty_answer_at_the_deadline', args: ['--transport', 'lp', '--count', '1'], exit: 0, out: 'm8\n', ms: 6000,
    async serve(c, n, run) { await c.head(); await sleep(800); c.write(response(poll([], cursor(7)))); const r = await c.head(); if (r.since !== cursor(7)) run.fault(`since ${r.since}, expected ${cursor(7)}`); c.write(response(poll([message(8)]))); } },
  { name: 'lp_binary_and_json', args: ['--transport', 'lp', '--count', '2'], exit: 0, out: '/wAK\n{"a":[1,2]}\n', async serve(c) { await c.head(); c.write(response(poll([message(1, '/wAK', { encoding: 'base64' }), message(2, { a: [1, 2] })]))); } },
  { name: 'backoff_grows_and_stays_within_bounds', args: ['--transport', 'ws'], exit: 'stopped', stop: 4000, cpu: 250, out: '', async serve(c) { await c.head(); c.reset(); },
    check: (run) => (run.requests.length < 2 || run.requests.length > 9) && `${run.requests.length} attempts in 4 s, expected 2 to 9` },
  { name: 'plain_comes_back', args: ['--plain', '--count', '2'], scheme: 'ws', exit: 0, out: 'a1\na2\n', ms: 9000, async serve(c, n) { await c.accept('plain', text(`a${n}`)); if (n === 1) { await sleep(50); c.cut(); } } },
  { name: 'no_reconnect_is_one_connection', args: ['--transport', 'ws', '--no-reconnect'], exit: 1, out: 'm1\n', conns: 1, async serve(c) { await c.accept('v1', hello(), told(1)); await sleep(50); c.cut(); } },
  { name: 'stdout_is_flushed_line_by_line', args: ['--plain'], scheme: 'ws', exit: 'stopped', stop: 1200, out: 'x\n', async serve(c) { await c.accept('plain', text('x')); } },
  { name: 'silent_half_open_server_is_left', args: ['--transport', 'ws', '--count', '1'], exit: 0, out: 'm1\n', ms: 9000,
    async serve(c, n) { if (n === 1) { await c.accept('v1', envelope({ type: 'hello', cursor: cursor(0), heartbeat: 500 })); await sleep(20000); } else await c.accept('v1', hello(), told(1)); } },
];

export default [...resumes, ...falls, ...drains, ...ends].map((c) => ({ ...c, name: `works_${c.name}` }));
