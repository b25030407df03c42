// What stands between the browser and the daemon in client.test.js: a TCP proxy that serves the tests' page itself and
// cuts, stalls (no byte is lost, as in a real network), refuses and swallows connections by what they are asked for.
import net from 'node:net';

export function kindOf(head) {
  if (/^upgrade: *websocket/im.test(head)) return 'websocket';
  if (/^accept: *text\/event-stream/im.test(head)) return 'sse';
  if (/^GET \/live\S*[?&]wait=[1-9]/.test(head)) return 'longpoll';
  if (/^GET \/live/.test(head)) return 'shortpoll';
  return /^POST \/live/.test(head) ? 'post' : 'other';
}

export class Proxy {
  constructor(target, pages = {}) {
    Object.assign(this, { target, pages, pairs: new Set(), refused: new Set(), silent: new Set(), seen: [], isStalled: false, isClosed: false });
    this.server = net.createServer(from => this.pair(from));
  }

  async listen() {
    await new Promise(done => this.server.listen(0, '127.0.0.1', done));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  pair(from) {
    const to = net.connect(this.target, '127.0.0.1'), pair = { from, to, kind: '' };
    const end = () => { from.destroy(); to.destroy(); this.pairs.delete(pair); };
    this.pairs.add(pair);
    for (const s of [from, to]) s.on('error', end).on('close', end).setNoDelay(true);
    if (this.isClosed) return end();
    if (this.isStalled) from.pause(), to.pause();
    from.on('data', d => {
      const head = d.toString('latin1'), [, method, path] = /^([A-Z]+) (\S+) HTTP/.exec(head) || [];
      if (method) {
        pair.kind = kindOf(head);
        this.seen.push(pair.kind);
        if (this.refused.has(pair.kind)) return end();
        pair.isSilent = this.silent.has(pair.kind);
        const page = this.pages[path.split('?')[0]];
        if (page) {
          from.end(`HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(page)}\r\nConnection: close\r\n\r\n${page}`);
          return;
        }
      }
      to.write(d);
    });
    to.on('data', d => { if (!pair.isSilent) from.write(d); });
  }

  // What is on its way waits.
  stall(is) {
    this.isStalled = is;
    for (const { from, to } of this.pairs) for (const s of [from, to]) is ? s.pause() : s.resume();
  }

  count(kind) { return [...this.pairs].filter(pair => pair.kind === kind && !pair.from.destroyed).length; }

  cut(kind) { for (const pair of this.pairs) if (!kind || pair.kind === kind) { pair.from.destroy(); pair.to.destroy(); } }

  close() {
    this.stall(false);
    this.cut();
    return new Promise(done => this.server.close(done));
  }
}
