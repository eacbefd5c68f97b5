// A client behind a proxy that knows nothing of it: by polling, by WebSocket, and by changing from one to the other.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

const [url] = process.argv.slice(2);
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, resolve));
const publish = async (data) => {
  const body = JSON.stringify({ event: 'news', data, room: 'agents' });
  assert.equal((await fetch(`${url}/api/v1/events`, { method: 'POST', body })).status, 201);
};

for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
  const socket = io(url, { forceNew: true, transports, reconnectionDelay: 100 });
  socket.on('connect_error', (error) => console.error(`${transports}: ${error}, ${error.description}`));
  const news = [];
  socket.on('news', ({ data }) => news.push(data));
  const greeted = once(socket, 'connection_established');
  const upgraded = transports.length === 1 ? null : once(socket.io.engine ?? (await opened(socket)), 'upgrade');
  await greeted;
  await upgraded;
  assert.equal(socket.io.engine.transport.name, transports.at(-1));
  assert.equal((await socket.emitWithAck('subscribe', { room: 'agents' })).ok, true);
  for (let nth = 1; nth <= 20; nth += 1) {
    await publish(nth);
  }
  // Longer than one frame, and than one buffer of a proxy.
  const echo = 'x'.repeat(200_000);
  const pong = once(socket, 'pong');
  socket.emit('ping', echo);
  assert.equal((await pong).echo, echo);
  while (news.length < 20) await once(socket, 'news');
  assert.deepEqual(news, Array.from({ length: 20 }, (_, index) => index + 1));
  socket.disconnect();
}
console.log('done');
process.exit(0);

async function opened(socket) {
  while (!socket.io.engine) await new Promise((resolve) => setTimeout(resolve, 1));
  return socket.io.engine;
}
