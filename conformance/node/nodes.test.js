'use strict';
// Several nodes behind a balancer that takes connections in turn: hardly any request comes to the node that has its session.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { once } = require('node:events');
const { startServer } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { Polling, within, eventually } = require('../lib/wire');
const { io } = require('socket.io-client');
const engineClient = require('engine.io-client');

const ours = { oursOnly: 'the reference passes nothing on to other nodes', timeout: 60000 };
const ROUNDS = 150;

// A server of its own for each test: one of them loses a node.
async function withNodes(options, body) {
  const server = await startServer({ nodes: 3, ...options });
  try {
    await body(server);
  } finally {
    await server.stop();
  }
}

const ask = (socket, ...event) =>
  within(20000, new Promise((resolve) => socket.emit(...event, (...answer) => resolve(answer))), `the answer to ${event[0]}`);
const next = (emitter, event) => within(20000, once(emitter, event), `the event ${event}`);

describe('nodes', { concurrency: 4 }, () => {
  for (const [setting, transports] of Object.entries({ 'polling only': ['polling'], 'polling, then websocket': ['polling', 'websocket'] })) {
    conforms(`socket.io-client keeps its session whichever node it comes to, ${setting}`, ours, async () => {
      await withNodes({}, async ({ url }) => {
        const sockets = [1, 2, 3, 4].map(() => io(url, { transports, forceNew: true }));
        const losses = [];
        for (const socket of sockets) {
          socket.on('disconnect', (reason) => losses.push(reason));
          socket.on('connect_error', (error) => losses.push(error.message));
        }
        await Promise.all(sockets.map((socket) => next(socket, 'connect')));
        const ids = sockets.map((socket) => socket.id);
        await Promise.all(
          sockets.map(async (socket, index) => {
            for (let round = 0; round < ROUNDS; round++) {
              const sent = { round, bytes: Buffer.alloc(round * 20, index) };
              assert.deepEqual(await ask(socket, 'message-with-ack', sent), [sent]);
              if (round % 50 === 0) {
                const coming = next(socket, 'bin');
                socket.emit('bin', 200000);
                const [bytes] = await coming;
                assert.ok(bytes.length === 200000 && bytes.every((byte, at) => byte === at % 256));
              }
            }
          }),
        );
        assert.deepEqual(losses, []);
        assert.deepEqual(sockets.map((socket) => socket.id), ids);
        if (transports.includes('websocket')) {
          for (const socket of sockets) assert.equal(socket.io.engine.transport.name, 'websocket');
        }
        for (const socket of sockets) socket.disconnect();
      });
    });
  }

  conforms('engine.io-client keeps its session whichever node it comes to, and ends it', ours, async () => {
    await withNodes({ rawEngineIo: true }, async ({ url }) => {
      for (const transports of [['polling'], ['polling', 'websocket']]) {
        const socket = new engineClient.Socket(url, { path: '/engine.io/', transports });
        await next(socket, 'open');
        for (let round = 0; round < ROUNDS; round++) {
          const coming = next(socket, 'message');
          socket.send(round % 2 ? `round ${round}` : Buffer.alloc(1000, round));
          const [echo] = await coming;
          assert.deepEqual(round % 2 ? echo : Buffer.from(echo), round % 2 ? `round ${round}` : Buffer.alloc(1000, round));
        }
        const closed = next(socket, 'close');
        socket.close();
        await closed;
      }
    });
  });

  conforms('a close packet ends the session for every node', ours, async () => {
    await withNodes({ rawEngineIo: true }, async ({ port }) => {
      const session = await Polling.open(port);
      const held = session.poll();
      assert.equal((await session.post('1')).status, 200);
      // By another way it may also come after the close packet.
      assert.ok([200, 400].includes((await within(5000, held, 'the end of the poll')).status));
      for (let node = 0; node < 3; node++) {
        const reply = await session.poll();
        assert.deepEqual([reply.status, JSON.parse(reply.text).code], [400, 1]);
      }
    });
  });

  conforms('two polls at once end the session, by whatever nodes they come', ours, async () => {
    await withNodes({ rawEngineIo: true }, async ({ port }) => {
      const session = await Polling.open(port);
      const both = await within(5000, Promise.all([session.poll(), session.poll()]), 'the end of both polls');
      assert.ok(both.some((reply) => reply.status === 400));
      assert.equal((await session.poll()).status, 400);
    });
  });

  conforms('when a node dies its clients come back on the others and go on', ours, async () => {
    await withNodes({}, async ({ url, pid }) => {
      const options = { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
      const settings = [['polling'], ['polling', 'websocket'], ['websocket']];
      const sockets = settings.flatMap((transports) => [1, 2, 3].map(() => io(url, { transports, ...options })));
      await Promise.all(sockets.map((socket) => next(socket, 'connect')));
      // Whoever loses its probe while polling is paused waits for the time-out of its heartbeat.
      const upgrading = sockets.filter((socket) => socket.io.opts.transports.length === 2);
      const isUpgraded = (socket) => socket.io.engine.transport.name === 'websocket';
      await eventually(() => upgrading.every(isUpgraded), 'the upgrades', 20000);
      const ids = new Map(sockets.map((socket) => [socket, socket.id]));
      process.kill(pid, 'SIGUSR2');
      // Each is asked until it answers: what was under way at the dying node is lost.
      await Promise.all(
        sockets.map((socket) =>
          eventually(
            () => new Promise((resolve) => socket.timeout(1000).emit('message-with-ack', 1, (error) => resolve(!error))),
            'an answer after the death of a node',
            30000,
          ),
        ),
      );
      assert.ok(sockets.some((socket) => socket.id !== ids.get(socket)), 'some were there');
      for (const socket of sockets) socket.disconnect();
    });
  });
});
