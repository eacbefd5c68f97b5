// A stock Socket.IO server for the tests. Environment: PORT (0: any), PARSER=msgpack, RECOVERY=1, TRANSPORTS (comma-separated),
// PING_INTERVAL and PING_TIMEOUT (ms; as patient as stock servers are unless told).
// Prints the port it listens on. Needs the packages socket.io and socket.io-msgpack-parser in NODE_PATH.
const { createServer } = require("http");
const { Server } = require("socket.io");

const http = createServer();
const options = {
  pingInterval: Number(process.env.PING_INTERVAL || 25_000),
  pingTimeout: Number(process.env.PING_TIMEOUT || 120_000),
  connectTimeout: 120_000,
  maxHttpBufferSize: 2e6,
};
if (process.env.PARSER === "msgpack") options.parser = require("socket.io-msgpack-parser");
if (process.env.RECOVERY) options.connectionStateRecovery = { maxDisconnectionDuration: 60_000 };
if (process.env.TRANSPORTS) options.transports = process.env.TRANSPORTS.split(",");
const io = new Server(http, options);

function serve(socket) {
  socket.on("echo", (...args) => {
    const ack = args.pop();
    if (typeof ack === "function") ack(...args);
    else socket.emit("echo", ...args, ack);
  });
  socket.on("handshake", (ack) => ack({
    auth: socket.handshake.auth,
    query: socket.handshake.query,
    header: socket.handshake.headers["x-test"],
    transport: socket.conn.transport.name,
    recovered: socket.recovered,
    id: socket.id,
  }));
  socket.on("ask me", (question) => {
    socket.timeout(120_000).emit("question", question, (error, ...answers) => socket.emit("answered", error ? "late" : answers));
  });
  socket.on("burst", (n) => { for (let i = 0; i < n; i++) socket.emit("tick", i); });
  socket.on("never", () => {});
  socket.on("join", (room, ack) => { socket.join(room); ack(); });
  socket.on("data", (ack) => ack([...socket.rooms].filter((room) => room !== socket.id)));
  // Loses the connection as a broken network would, and emits to the room meanwhile.
  socket.on("cut", (room) => {
    const engine = socket.conn;
    setTimeout(() => {
      if (engine.transport.name === "websocket") engine.transport.socket.terminate();
      else engine.close(true);
      setTimeout(() => { io.to(room).emit("missed", 1); io.to(room).emit("missed", Buffer.from([2])); }, 50);
    }, 20);
  });
  socket.on("kick", () => socket.disconnect());
  socket.on("kick all", () => socket.disconnect(true));
  socket.on("garbage", () => socket.conn.write("2[\"open"));
}
io.on("connection", serve);
io.of("/chat").on("connection", serve);
io.of("/closed").use((socket, next) => {
  const error = new Error("members only");
  error.data = { why: 3 };
  next(error);
});
http.listen(Number(process.env.PORT || 0), "127.0.0.1", () => console.log(http.address().port));
