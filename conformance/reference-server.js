'use strict';
// The server-under-test contract (see README.md), implemented on the Node reference server.
// It exists to prove the tests right: what passes here tells of the protocol, not of our own habits.

const http = require('node:http');
const { parseArgs } = require('node:util');

const { values: flags } = parseArgs({
  options: {
    port: { type: 'string' },
    'ping-interval': { type: 'string' },
    'ping-timeout': { type: 'string' },
    'max-payload': { type: 'string' },
    'connect-timeout': { type: 'string' },
    'upgrade-timeout': { type: 'string' },
    path: { type: 'string' },
    'raw-engine-io': { type: 'boolean' },
    recovery: { type: 'string' },
    'recovery-skip-middlewares': { type: 'string' },
    'allow-eio3': { type: 'boolean' },
    parser: { type: 'string', default: 'json' },
    cors: { type: 'string' },
    cookie: { type: 'boolean' },
    'http-compression': { type: 'string' },
    'ws-deflate': { type: 'boolean' },
    transports: { type: 'string' },
    'cleanup-empty': { type: 'boolean' },
  },
});

const number = (name, fallback) => (flags[name] === undefined ? fallback : Number(flags[name]));

const engineOptions = {
  pingInterval: number('ping-interval', 25000),
  pingTimeout: number('ping-timeout', 20000),
  maxHttpBufferSize: number('max-payload', 1e6),
  upgradeTimeout: number('upgrade-timeout', 10000),
  allowEIO3: Boolean(flags['allow-eio3']),
  httpCompression: flags['http-compression'] === 'false' ? false : { threshold: 1024 },
  perMessageDeflate: Boolean(flags['ws-deflate']),
  transports: (flags.transports || 'polling,websocket').split(','),
};
if (flags.cors) engineOptions.cors = { origin: flags.cors };
if (flags.cookie) engineOptions.cookie = true;

const server = http.createServer((req, res) => res.writeHead(404).end());
const stop = flags['raw-engine-io'] ? startEngine() : startSocketServer();

server.listen(Number(flags.port), '127.0.0.1', () => console.log(`ready ${server.address().port}`));
process.on('SIGTERM', () => {
  stop();
  setTimeout(() => process.exit(0), 200);
});

function startEngine() {
  const engine = require('engine.io');
  const eio = engine.attach(server, { path: flags.path || '/engine.io/', ...engineOptions });
  eio.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
  return () => {
    eio.close();
    server.close();
  };
}

function startSocketServer() {
  const { Server } = require('socket.io');
  const options = {
    path: flags.path || '/socket.io/',
    connectTimeout: number('connect-timeout', 45000),
    cleanupEmptyChildNamespaces: Boolean(flags['cleanup-empty']),
    serveClient: false,
    ...engineOptions,
  };
  if (flags.parser === 'msgpack') options.parser = require('socket.io-msgpack-parser');
  if (flags.recovery !== undefined) {
    options.connectionStateRecovery = {
      maxDisconnectionDuration: Number(flags.recovery),
      skipMiddlewares: flags['recovery-skip-middlewares'] !== 'false',
    };
  }
  const io = new Server(server, options);
  const reasons = new Map();

  const guard = (socket, next) => {
    if (socket.handshake.auth.token === 'secret') return next();
    const refusal = new Error('not authorized');
    refusal.data = { code: 'UNAUTHORIZED', details: { need: 'token' } };
    next(refusal);
  };
  const greet = (socket) => setTimeout(() => socket.emit('auth', socket.handshake.auth), 5);

  for (const name of ['/', '/custom']) {
    io.of(name).on('connection', (socket) => {
      greet(socket);
      serve(io, socket, reasons);
    });
  }
  io.of('/guarded').use(guard).on('connection', (socket) => serve(io, socket, reasons));
  io.of(/^\/dynamic-\d+$/).on('connection', (socket) => serve(io, socket, reasons));
  return () => io.close();
}

function serve(io, socket, reasons) {
  const nsp = socket.nsp;
  const answer = (ack, ...values) => typeof ack === 'function' && ack(...values);
  socket.on('disconnect', (reason) => reasons.set(socket.id, reason));

  socket.on('message', (...args) => socket.emit('message-back', ...args));
  socket.on('message-with-ack', (...args) => {
    const ack = args.pop();
    answer(ack, ...args);
  });

  socket.on('join', (room, ack) => {
    socket.join(room);
    answer(ack, 'ok');
  });
  socket.on('leave', (room, ack) => {
    socket.leave(room);
    answer(ack, 'ok');
  });
  socket.on('rooms', (ack) => answer(ack, [...socket.rooms].sort()));

  socket.on('to', ({ rooms = [], except = [], event, args = [], volatile, self }, ack) => {
    let target = self ? nsp : socket.broadcast;
    if (rooms.length) target = target.to(rooms);
    if (except.length) target = target.except(except);
    if (volatile) target = target.volatile;
    target.emit(event, ...args);
    answer(ack, 'ok');
  });
  socket.on('ask', ({ room, timeout, event, args = [] }, ack) => {
    const target = room ? nsp.to(room) : socket;
    target.timeout(timeout).emit(event, ...args, (error, ...rest) => {
      const answers = room ? rest[0] : rest;
      answer(ack, error ? { error: error.message, answers } : { answers });
    });
  });
  socket.on('ask-me', (event, ...args) => {
    socket.emit(event, ...args, (...reply) => socket.emit('asked', ...reply));
  });

  socket.on('fetch', async (room, ack) => {
    const found = await (room ? nsp.in(room) : nsp).fetchSockets();
    ack(found.map((one) => ({ id: one.id, rooms: [...one.rooms].sort(), data: one.data })));
  });
  socket.on('sockets-join', (room, rooms, ack) => {
    nsp.in(room).socketsJoin(rooms);
    answer(ack, 'ok');
  });
  socket.on('sockets-leave', (room, rooms, ack) => {
    nsp.in(room).socketsLeave(rooms);
    answer(ack, 'ok');
  });
  socket.on('disconnect-sockets', (room, close, ack) => {
    answer(ack, 'ok');
    nsp.in(room).disconnectSockets(close);
  });
  socket.on('disconnect-me', (close) => socket.disconnect(close));

  socket.on('set-data', (value, ack) => {
    socket.data = value;
    answer(ack, 'ok');
  });
  socket.on('get-data', (ack) => answer(ack, socket.data));
  socket.on('recovered', (ack) => answer(ack, socket.recovered));
  socket.on('last-reason', (sid, ack) => answer(ack, reasons.get(sid) ?? null));
  socket.on('namespaces', (ack) => answer(ack, [...io._nsps.keys()].sort()));
  socket.on('handshake', (ack) => {
    const { headers, query, auth, address, secure, xdomain, url } = socket.handshake;
    answer(ack, { headers, query, auth, address, secure, xdomain, url });
  });

  socket.on('burst', (count) => {
    for (let i = 0; i < count; i++) socket.emit('burst', i);
  });
  socket.on('volatile-burst', (count) => {
    for (let i = 0; i < count; i++) socket.volatile.emit('volatile-burst', i);
  });
  socket.on('bin', (count) => {
    socket.emit('bin', Buffer.from(Array.from({ length: count }, (_, i) => i & 0xff)));
  });
  socket.on('bin-many', (count, ack) => {
    // A fixture whose server refuses the emit answers {error: text} here.
    socket.emit('bin-many', ...Array.from({ length: count }, (_, i) => Buffer.from([i])));
    answer(ack, 'ok');
  });
  socket.on('text', ({ bytes, compress = true }) => {
    socket.compress(compress).emit('text', 'x'.repeat(bytes));
  });
  socket.on('later', ({ ms, event, args = [], room, volatile }, ack) => {
    const target = room || socket.id;
    setTimeout(() => {
      const to = nsp.to(target);
      (volatile ? to.volatile : to).emit(event, ...args);
    }, ms);
    answer(ack, 'ok');
  });
  socket.on('drop-me', () => drop(socket.conn, 100));
}

/** Cuts the TCP connection under a session; a polling one when its next GET is held. */
function drop(conn, triesLeft) {
  const { transport } = conn;
  if (transport.name === 'websocket') return transport.socket._socket.destroy();
  if (transport.req) return transport.req.socket.destroy();
  if (triesLeft > 0) setTimeout(() => drop(conn, triesLeft - 1), 10);
}
