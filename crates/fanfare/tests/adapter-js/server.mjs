// A Socket.IO server in Node with one socket, in the room `blue`; what that socket gets is a line each.

import { createServer } from "node:http";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { io } from "socket.io-client";

const [redisUrl, kind] = process.argv.slice(2);
const [pub, sub] = [0, 1].map(() => createClient({ url: redisUrl }));
await Promise.all([pub.connect(), sub.connect()]);
const requestsTimeout = 120_000;
const adapter = kind === "classic" ? createAdapter(pub, sub, { requestsTimeout }) : createShardedAdapter(pub, sub);
const http = createServer();
const server = new Server(http, { adapter });
const tell = (line) => console.log(JSON.stringify(line));
server.on("connection", (socket) => {
  socket.data.name = "ann";
  socket.join("blue");
});
server.on("reload", (number, answer) => (answer ? answer(number + 1) : tell(["reload", number])));
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
const client = io(`http://127.0.0.1:${http.address().port}`, { transports: ["websocket"], reconnection: false, timeout: 120_000 });
client.on("connect", () => tell(["ready", client.id]));
client.on("disconnect", (reason) => tell(["gone", reason]));
client.onAny((name, ...args) => {
  const answer = args.at(-1);
  if (name === "poll") answer(args[0] + 1);
  else if (name !== "silent") tell([name, ...args]);
});
process.stdin.on("data", () => {}).on("end", () => process.exit(0));
