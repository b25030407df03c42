// A TCP proxy that can lose its network: cut.mjs TO_PORT. Prints `port N`. On stdin: `cut`: nothing passes any more, in
// either direction, new connections included, and nobody is told (as with a cable pulled); `heal`: what was under way
// goes on. `drop` ends all connections at once.
import net from 'node:net';
import readline from 'node:readline';

const to = Number(process.argv[2]), pairs = new Set();
let isCut = false;

const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (near) => {
  const pair = { near, far: null };
  pairs.add(pair);
  near.on('error', () => end(pair)).on('close', () => end(pair));
  if (!isCut) join(pair);
});

function join(pair) {
  const far = pair.far = net.connect({ port: to, host: '127.0.0.1', allowHalfOpen: true }), { near } = pair;
  near.setNoDelay(true);
  far.setNoDelay(true);
  far.on('error', () => end(pair)).on('close', () => end(pair));
  near.pipe(far);
  far.pipe(near);
}

function end(pair) {
  if (isCut || !pairs.delete(pair)) return;
  pair.near.destroy();
  if (pair.far) pair.far.destroy();
}

const words = {
  cut() {
    isCut = true;
    for (const { near, far } of pairs) if (far) near.unpipe(far), far.unpipe(near), near.pause(), far.pause();
  },
  heal() {
    isCut = false;
    for (const pair of [...pairs]) {
      if (pair.near.destroyed || (pair.far && pair.far.destroyed)) end(pair);
      else if (!pair.far) join(pair);
      else pair.near.pipe(pair.far), pair.far.pipe(pair.near);
    }
  },
  drop() { for (const pair of [...pairs]) end(pair); },
};

server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
readline.createInterface({ input: process.stdin }).on('line', (line) => words[line]?.()).on('close', () => process.exit(0));
