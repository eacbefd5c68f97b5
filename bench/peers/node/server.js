// The benchmark fixture on Socket.IO for Node. node server.js PORT; prints "ready" once it listens. With REDIS_URL it is one of
// several, by the Redis adapter.
"use strict";

process.env.NODE_ENV = "production";
const http = require("node:http");
const { Server } = require("socket.io");

const port = Number(process.argv[2]);
const server = http.createServer();
const io = new Server(server, {
  serveClient: false,
  perMessageDeflate: false,
  httpCompression: false,
  pingInterval: 25_000,
  pingTimeout: 20_000,
  maxHttpBufferSize: 1_000_000,
});

let sunk = 0;
io.on("connection", (socket) => {
  socket.on("join", ({ room }, ack) => {
    socket.join(room);
    ack("ok");
  });
  socket.on("pub", ({ room, data }) => {
    io.to(room).emit("msg", data);
  });
  socket.on("echo", (value, ack) => ack(value));
  socket.on("sink", () => {
    sunk += 1;
  });
  socket.on("sunk", (_, ack) => ack(sunk));
});

async function join(url) {
  const { createClient } = require("redis");
  const { createAdapter } = require("@socket.io/redis-adapter");
  const publishing = createClient({ url });
  const subscribing = publishing.duplicate();
  await Promise.all([publishing.connect(), subscribing.connect()]);
  io.adapter(createAdapter(publishing, subscribing));
}

const joined = process.env.REDIS_URL ? join(process.env.REDIS_URL) : Promise.resolve();
joined.then(() => server.listen({ port, host: "127.0.0.1", backlog: 4096 }, () => console.log("ready")));
