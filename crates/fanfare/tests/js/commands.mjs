// What users of the stock client write: join a room, ping, watch what is published.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

const [url, api, transport] = process.argv.slice(2);
const transports = transport === 'both' ? ['polling', 'websocket'] : [transport];
const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));
const publish = async (event) => {
  const response = await fetch(`${api}/api/v1/events`, { method: 'POST', body: JSON.stringify(event) });
  assert.equal(response.status, 201);
  return (await response.json()).id;
};

const socket = io(url, { transports, cors: { origin: 'http://localhost:3001', methods: ['GET', 'POST'] } });
const greeting = await once(socket, 'connection_established');
assert.equal(greeting.connection_id, socket.id);
assert.deepEqual(greeting.rooms, ['dashboard', 'global']);

const joined = once(socket, 'room_joined');
socket.emit('join_room', { room: 'agents' });
assert.deepEqual(await joined, { room: 'agents' });

const pong = once(socket, 'pong');
const answer = await socket.emitWithAck('ping', { sent: 1 });
assert.equal(answer.ok, true);
assert.deepEqual((await pong).echo, { sent: 1 });

const update = once(socket, 'agent_status_update');
const data = { agent_id: 'agent-123', status: 'active', metadata: { cpu: 75, memory: 60 } };
const id = await publish({ event: 'agent_status_update', data, room: 'agents' });
const { timestamp, epoch, seq, ...wrapped } = await update;
assert.deepEqual(wrapped, { event: 'agent_status_update', data, room: 'agents', id });
assert.ok(timestamp && Number.isInteger(epoch) && seq > 0);

const refused = once(socket, 'error');
socket.emit('join_room', 'agents');
assert.equal((await refused).code, 'bad_payload');
assert.equal((await socket.emitWithAck('join_room', { room: '' })).error.code, 'bad_room_name');
assert.equal((await socket.emitWithAck('no_such_command')).error.code, 'unknown_command');
assert.deepEqual((await socket.emitWithAck('ping', new Uint8Array([1, 2]))).echo, { $base64: 'AQI=' });

const left = once(socket, 'room_left');
socket.emit('leave_room', { room: 'agents' });
assert.deepEqual(await left, { room: 'agents' });
socket.on('agent_status_update', () => assert.fail('it has left the room'));
const last = once(socket, 'last');
await publish({ event: 'agent_status_update', data, room: 'agents' });
await publish({ event: 'last', room: 'global' });
await last;

// The other namespace shares the rooms, on the same connection.
const other = io(`${url}/ws`, { transports });
assert.deepEqual((await once(other, 'connection_established')).rooms, ['global']);
assert.equal((await other.emitWithAck('subscribe', { room: 'agents' })).ok, true);
const shared = once(other, 'shared');
await publish({ event: 'shared', data: [1], room: 'agents' });
assert.deepEqual((await shared).data, [1]);

const nowhere = io(`${url}/nowhere`, { transports, reconnection: false });
assert.equal((await once(nowhere, 'connect_error')).message, 'Invalid namespace');

// The path of older dashboards.
const legacy = io(url, { path: '/ws/socket.io/', transports, forceNew: true });
assert.equal((await once(legacy, 'connection_established')).recovered, false);
if (transport === 'both') {
  if (legacy.io.engine.transport.name !== 'websocket') await new Promise((resolve) => legacy.io.engine.once('upgrade', resolve));
  assert.equal(legacy.io.engine.transport.name, 'websocket');
}

console.log('done');
process.exit(0);
