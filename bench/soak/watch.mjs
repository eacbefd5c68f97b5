// Stock clients that watch rooms of several servers, lose their connections, come back at any of them, and tell what they
// see: one JSON object a line. They end when their input does.
import { Agent } from 'node:http';
import { io } from 'socket.io-client';

const [count, first, dropEvery, away, servers, rooms, roomsEach, pollingShare] = process.argv.slice(2);
const allRooms = rooms.split(',');
const roomsOf = (number) =>
  Array.from({ length: Number(roomsEach) }, (_, nth) => allRooms[(number * Number(roomsEach) + nth) % allRooms.length]);
const urls = servers.split(',').map((server) => `http://${server}`);
let next = 0;
const anyUrl = () => urls[next++ % urls.length];
const tell = (told, watcher, more) => console.log(JSON.stringify({ told, watcher, ...more }));

/** So many in a hundred only poll, spread evenly; the others take turns. */
const transportsOf = (watcher) => {
  if ((watcher * 61) % 100 < Number(pollingShare)) return ['polling'];
  return watcher % 2 === 0 ? ['websocket'] : ['polling', 'websocket'];
};
/** What a client's connections are made by, so that all of them can be cut at once, as by a network. */
class Cuttable extends Agent {
  links = new Set();
  createConnection(...options) {
    const link = super.createConnection(...options);
    this.links.add(link);
    link.once('close', () => this.links.delete(link));
    return link;
  }
  cut() {
    for (const link of this.links) link.destroy();
  }
}

const DELAY_MS = 100;
const DELAY_MAX_MS = 1000;

function watch(watcher) {
  const agent = new Cuttable();
  const socket = io(`${anyUrl()}/ws`, {
    agent, forceNew: true, transports: transportsOf(watcher), reconnectionDelay: DELAY_MS, reconnectionDelayMax: DELAY_MAX_MS, timeout: 10_000,
  });
  const manager = socket.io;
  manager.on('reconnect_attempt', () => {
    manager.uri = anyUrl();
    manager.reconnectionDelay(DELAY_MS).reconnectionDelayMax(DELAY_MAX_MS).randomizationFactor(0.5);
  });
  const has = new Map();
  /** What explains a repeat: when it came and went, where, and what the client showed of itself. */
  const note = (what) => {
    const { uri, engine } = manager;
    const seqs = [...has.values()].map(({ seq }) => seq).join(',');
    const state = `offset=${socket._lastOffset} early=${socket.receiveBuffer.length} has=${seqs}`;
    tell('note', watcher, {
      note: `${(performance.now() / 1000).toFixed(2)} s ${what} ${uri.slice(7)} ${engine?.transport?.name} sid=${engine?.id} ${state}`,
    });
  };
  manager.on('open', () => note('opened'));
  manager.on('close', (reason) => note(`closed by ${reason}`));
  let pending = new Set(roomsOf(watcher));
  let connections = 0;
  socket.on('connect', async () => {
    const connection = ++connections;
    note(socket.recovered ? 'recovered' : 'connected');
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
    // Between two requests of polling there is nothing to cut.
    if (socket.connected && agent.links.size === 0) return setTimeout(drop, 10);
    if (socket.connected) {
      tell('dropped', watcher);
      const delay = Math.random() * Number(away) * 1000;
      manager.reconnectionDelay(delay).reconnectionDelayMax(Math.max(delay, DELAY_MAX_MS)).randomizationFactor(0);
      agent.cut();
    }
    later();
  };
  const later = () => setTimeout(drop, dropEvery * 1000 * (0.5 + Math.random()));
  if (Number(dropEvery) > 0) later();
}

for (let nth = 0; nth < Number(count); nth += 1) watch(Number(first) + nth);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
