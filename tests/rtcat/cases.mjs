// Every case, in the order of its layer.
import tcp from './tcp.mjs';
import handshake from './handshake.mjs';
import frames from './frames.mjs';
import envelope from './envelope.mjs';
import http from './http.mjs';
import sse from './sse.mjs';
import works from './works.mjs';

export const cases = [...tcp, ...handshake, ...frames, ...envelope, ...http, ...sse, ...works];
const names = new Set();
for (const { name, exit } of cases) {
  if (names.has(name) || exit === undefined) throw new Error(`${name}: ${exit === undefined ? 'no exit code' : 'twice'}`);
  names.add(name);
}
