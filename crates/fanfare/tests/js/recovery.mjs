// A client that lost its connection gets its rooms and what it missed back.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

const [url] = process.argv.slice(2);
const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
const publish = async (data) => {
  const body = JSON.stringify({ event: 'news', data, room: 'agents' });
  assert.equal((await fetch(`${url}/api/v1/events`, { method: 'POST', body })).status, 201);
};

const socket = io(url, { transports: ['websocket'], reconnectionDelay: 200 });
await once(socket, 'connection_established');
assert.equal((await socket.emitWithAck('subscribe', { room: 'agents' })).ok, true);
const seen = [];
socket.on('news', ({ data }) => seen.push(data));
const first = once(socket, 'news');
await publish(1);
await first;

const id = socket.id;
const greeted = once(socket, 'connection_established');
const lost = once(socket, 'disconnect');
socket.io.engine.close();
await lost;
await publish(2);
const greeting = await greeted;
assert.equal(socket.recovered, true);
assert.equal(socket.id, id);
assert.equal(greeting.recovered, true);
assert.deepEqual(greeting.rooms.sort(), ['agents', 'dashboard', 'global']);
const third = once(socket, 'news');
await publish(3);
await third;
assert.deepEqual(seen, [1, 2, 3]);
console.log('done');
process.exit(0);
