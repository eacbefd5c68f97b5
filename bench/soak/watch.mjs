// Stock clients that watch rooms of several servers, lose their connections, come back at any of them, and tell what they
// see: one JSON object a line. They end when their input does.
import { io } from 'socket.io-client';

const [count, first, dropEvery, servers, rooms, roomsEach] = process.argv.slice(2);
const allRooms = rooms.split(',');
const roomsOf = (number) =>
  Array.from({ length: Number(roomsEach) }, (_, nth) => allRooms[(number * Number(roomsEach) + nth) % allRooms.length]);
const urls = servers.split(',').map((server) => `http://${server}`);
let next = 0;
const anyUrl = () => urls[next++ % urls.length];
const tell = (told, watcher, more) => console.log(JSON.stringify({ told, watcher, ...more }));

function watch(watcher) {
  const transports = [['websocket'], ['polling'], ['polling', 'websocket']][watcher % 3];
  const socket = io(`${anyUrl()}/ws`, {
    forceNew: true, transports, reconnectionDelay: 100, reconnectionDelayMax: 1000, timeout: 10_000,
  });
  socket.io.on('reconnect_attempt', () => { socket.io.uri = anyUrl(); });
  const has = new Map();
  let pending = new Set(roomsOf(watcher));
  let connections = 0;
  socket.on('connect', async () => {
    const connection = ++connections;
    if (connection > 1) tell('back', watcher, { recovered: socket.recovered, at: Date.now() });
    if (!socket.recovered) pending = new Set(roomsOf(watcher));
    while (pending.size > 0) {
      for (const room of [...pending]) {
        const since = has.get(room);
        const answer = await socket.timeout(20_000).emitWithAck('subscribe', { room, since }).catch(() => null);
        if (connection !== connections || !socket.connected) return;
        if (!answer?.ok) {
          await new Promise((resolve) => setTimeout(resolve, 200));
          continue;
        }
        pending.delete(room);
        if (since && answer.recovered === false) tell('refused', watcher, { room });
        if (!has.has(room)) {
          const { epoch, seq } = answer;
          has.set(room, { epoch, seq });
          tell('joined', watcher, { room, epoch, seq });
        }
      }
    }
  });
  socket.on('disconnect', (why) => tell('lost', watcher, { why: `stock: ${why}`, at: Date.now() }));
  socket.on('soak', ({ room, data, epoch, seq }) => {
    has.set(room, { epoch, seq });
    tell('saw', watcher, { room, epoch, seq, n: data.n, after_ms: Math.max(0, Date.now() - data.at) });
  });
  const drop = () => {
    if (socket.connected) {
      tell('dropped', watcher);
      const link = socket.io.engine.transport.ws?._socket;
      link ? link.destroy() : socket.io.engine.close();
    }
    later();
  };
  const later = () => setTimeout(drop, dropEvery * 1000 * (0.5 + Math.random()));
  if (Number(dropEvery) > 0) later();
}

for (let nth = 0; nth < Number(count); nth += 1) watch(Number(first) + nth);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
