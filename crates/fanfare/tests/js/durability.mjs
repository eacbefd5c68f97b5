// A client that only reconnects, as its users have it, misses nothing and sees nothing twice while the server is killed.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

const [url, room] = process.argv.slice(2);
const socket = io(url, { transports: ['websocket'], reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 120_000 });
let last = 0;
let connections = 0;
let id;
socket.on('connect', () => {
  connections += 1;
  if (connections === 1) id = socket.id;
  assert.equal(socket.recovered, connections > 1, `connection ${connections}, after ${last}`);
  assert.equal(socket.id, id);
});
socket.on('n', ({ data, seq }) => {
  assert.equal(seq, last + 1);
  last = seq;
  if (data === 'end') {
    console.log(`done ${last}`);
    process.exit(0);
  }
});
socket.once('connect', async () => {
  assert.equal((await socket.emitWithAck('subscribe', { room })).ok, true);
  console.log('ready');
});
setTimeout(() => assert.fail(`no end, after ${last}`), 900_000);
