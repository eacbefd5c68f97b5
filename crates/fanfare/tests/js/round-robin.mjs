// Clients behind a proxy that sends each connection to the next node. Usage: round-robin.mjs PROXY API... SECONDS TRANSPORT
// where the nodes' API URLs are separated by commas. Each client asks, is answered and watches a log; none may lose its session.
import assert from 'node:assert/strict';
import http from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { io } from 'socket.io-client';

const [proxy, apis, seconds, transport] = process.argv.slice(2);
const nodes = apis.split(',');
const transports = transport === 'both' ? ['polling', 'websocket'] : [transport];
const CLIENTS = 12;
const ROOM = 'project:round';
// A connection of its own for each request, so that each goes to the next node.
http.globalAgent.keepAlive = false;

const faults = [];
const clients = Array.from({ length: CLIENTS }, (_, nth) => {
  const socket = io(proxy, { transports, forceNew: true, auth: { userId: `user-${nth}` }, path: '/ws/socket.io/', timeout: 120_000 });
  const client = { socket, seqs: [], answers: 0 };
  socket.on('n', (event) => client.seqs.push(event.seq));
  socket.on('connect_error', (error) => faults.push(`${nth}: ${error.message} ${error.context?.responseText ?? ''}`));
  socket.on('disconnect', (reason) => faults.push(`${nth}: ${reason}`));
  return client;
});
await Promise.all(clients.map(async ({ socket }) => {
  if (!socket.connected) await new Promise((resolve) => socket.once('connect', resolve));
  const joined = await socket.emitWithAck('join_room', { room: ROOM });
  assert.equal(joined.ok, true, JSON.stringify(joined));
}));

const end = Date.now() + Number(seconds) * 1000;
let published = 0;
const publishing = (async () => {
  while (Date.now() < end) {
    const reply = await fetch(`${nodes[published % nodes.length]}/api/v1/events`, {
      method: 'POST',
      body: JSON.stringify({ event: 'n', room: ROOM, data: published }),
    });
    assert.equal(reply.status, 201);
    published += 1;
    await sleep(20);
  }
})();
const asking = clients.map(async (client) => {
  while (Date.now() < end) {
    const text = 'x'.repeat(client.answers % 2000);
    const answer = await client.socket.emitWithAck('ping', text);
    assert.equal(answer.echo, text);
    client.answers += 1;
    await sleep(30);
  }
});
await Promise.all([publishing, ...asking]);
for (const client of clients) {
  while (client.seqs.length < published && faults.length === 0) await sleep(20);
  assert.ok(published > 0);
  assert.deepEqual(client.seqs, Array.from({ length: published }, (_, nth) => client.seqs[0] + nth));
}
assert.deepEqual(faults, []);
if (transport === 'both') {
  for (const { socket } of clients) assert.equal(socket.io.engine.transport.name, 'websocket');
}
const answers = clients.reduce((sum, client) => sum + client.answers, 0);
for (const { socket } of clients) socket.off('disconnect').disconnect();
console.log(JSON.stringify({ published, answers }));
console.log('done');
