// Clients that only reconnect, as their users have it, while their server is stopped in good order and started again.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

const [url, count, drain] = process.argv.slice(2);
const publish = async (data) => {
  const body = JSON.stringify({ event: 'news', data, room: 'agents' });
  assert.equal((await fetch(`${url}/api/v1/events`, { method: 'POST', body })).status, 201);
};
const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

const clients = await Promise.all(
  Array.from({ length: Number(count) }, async (_, nth) => {
    const transports = [['websocket'], ['polling'], ['polling', 'websocket']][nth % 3];
    const socket = io(url, { forceNew: true, transports, reconnectionDelay: 100, reconnectionDelayMax: 500, timeout: 120_000 });
    const client = { socket, seen: [], hints: [], ends: [] };
    socket.on('news', ({ data }) => client.seen.push(data));
    socket.on('server_shutdown', (hint) => client.hints.push(hint));
    socket.on('disconnect', (reason) => client.ends.push(reason));
    await once(socket, 'connection_established');
    client.id = socket.id;
    assert.equal((await socket.emitWithAck('subscribe', { room: 'agents' })).ok, true);
    return client;
  }),
);
const all = async (what, holds) => {
  const deadline = Date.now() + 120_000;
  while (!clients.every(holds)) {
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(clients.map(({ socket, ...rest }) => rest))}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};
await publish(1);
await all('the first event', ({ seen }) => seen.length === 1);
console.log('connected');
await all('the hint', ({ hints }) => hints.length === 1);
await publish(2);
console.log('told');
await all('the end', ({ ends }) => ends.length === 1);
await all('being back', ({ socket }) => socket.connected);
await publish(3);
await all('the last event', ({ seen }) => seen.includes(3));
for (const { socket, id, seen, hints, ends } of clients) {
  assert.deepEqual(seen, [1, 2, 3]);
  assert.deepEqual(hints, [{ reason: 'shutdown', reconnect_in_ms: Number(drain) }]);
  assert.deepEqual(ends, ['transport close']);
  assert.equal(socket.recovered, true);
  assert.equal(socket.id, id);
}
console.log('done');
process.exit(0);
