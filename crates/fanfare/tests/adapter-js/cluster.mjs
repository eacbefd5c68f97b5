// A Socket.IO server in Node and ours, which are one cluster by way of the adapter that Node uses.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createAdapter, createShardedAdapter } from "@socket.io/redis-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";
import { get, publish, until, watcher } from "./watch.mjs";

const [redisUrl, url, kind] = process.argv.slice(2);
const [pub, sub, watching] = [0, 1, 2].map(() => createClient({ url: redisUrl }));
await Promise.all([pub.connect(), sub.connect(), watching.connect()]);
const sharded = kind !== "classic";
const adapter = {
  classic: () => createAdapter(pub, sub, { requestsTimeout: 120_000 }),
  sharded: () => createShardedAdapter(pub, sub),
  "sharded-static": () => createShardedAdapter(pub, sub, { subscriptionMode: "static" }),
}[kind]();
const http = createServer();
const server = new Server(http, { adapter });
server.of("/ws");
server.on("connection", (socket) => socket.join("blue"));
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));

const theirs = await watcher(`http://127.0.0.1:${http.address().port}`);
const ours = await watcher(url);
assert.equal((await ours.emitWithAck("subscribe", { room: "blue" })).ok, true);
await until("each counts the other", async () => {
  const counted = await server.of("/").adapter.serverCount();
  return counted === 2 && (await get(`${url}/stats`)).adapter.others["/"] === 1;
});
// Where rooms have channels it takes a moment until one is listened to.
const heard = async (room, by) => {
  if (kind !== "sharded") return;
  const channel = `socket.io#/#${room}#`;
  await until(`${room} is heard`, async () => {
    return Number((await watching.sendCommand(["PUBSUB", "SHARDNUMSUB", channel]))[1]) === by;
  });
};
await heard("blue", 2);

// From theirs to both.
server.emit("all", 7, { a: [null, "ü"] }, 1.5);
server.to("blue").emit("binary", Buffer.from([1, 2, 3]), { deep: Buffer.from([4]) });
server.to(["blue", "red"]).emit("both");
server.to(["blue", "red"]).except(ours.id).emit("not for us");
server.to(ours.id).emit("own", 1);
server.volatile.emit("maybe");
server.local.emit("theirs only");
server.emit("end");
assert.deepEqual((await ours.next("all")).slice(0, 3), [7, { a: [null, "ü"] }, 1.5]);
const [bytes, { deep }] = await ours.next("binary");
assert.deepEqual([[...bytes], [...deep]], [[1, 2, 3], [4]]);
for (const name of ["both", "own", "maybe", "end"]) await ours.next(name);
assert.ok(!ours.all.includes("not for us") && !ours.all.includes("theirs only"));
await theirs.next("end");

// From ours to both: the same.
await publish(url, { event: "n", room: "blue", data: { some: ["thing"] } });
const [there] = await theirs.next("n");
const [here] = await ours.next("n");
assert.deepEqual(there, here);
assert.deepEqual([there.data, there.room, typeof there.seq], [{ some: ["thing"] }, "blue", "number"]);
await publish(url, { event: "n", rooms: ["blue", "other"], data: 2 });
await publish(url, { event: "n", room: "blue", except: [theirs.id], data: "not for them" });
await publish(url, { event: "n", namespace: "/", data: 3 });
await publish(url, { event: "task_update", room: "blue", data: { task_id: "t", status: "running" } });
assert.equal((await theirs.next("n"))[0].data, 2);
assert.equal((await theirs.next("n"))[0].data, 3);
assert.equal((await theirs.next("task_update")).length, 1);

// Rooms and sockets.
server.in(ours.id).socketsJoin(["vip", "other"]);
await until("ours has joined", async () => {
  const rooms = (await get(`${url}/socket/rooms`)).rooms.map(({ room }) => room);
  return rooms.includes("vip");
});
await heard("vip", 1);
server.to("vip").emit("vip");
await ours.next("vip");
const sockets = await server.fetchSockets();
assert.deepEqual(sockets.map(({ id }) => id).sort(), [ours.id, theirs.id].sort());
const remote = sockets.find(({ id }) => id === ours.id);
assert.ok(["blue", "vip", "other", ours.id].every((room) => remote.rooms.has(room)), [...remote.rooms].join());
assert.deepEqual(
  Object.keys(remote.handshake).sort(),
  ["address", "auth", "headers", "issued", "query", "secure", "time", "url", "xdomain"],
);
assert.equal(remote.handshake.query.transport, "websocket");
assert.equal((await server.in("vip").fetchSockets()).length, 1);
assert.equal((await server.in("nobody").fetchSockets()).length, 0);
if (!sharded) {
  const rooms = await server.of("/").adapter.allRooms();
  assert.ok([ours.id, theirs.id, "vip"].every((room) => rooms.has(room)), [...rooms].join());
}
server.in("vip").socketsLeave("vip");
await until("ours has left", async () => (await server.in("vip").fetchSockets()).length === 0);

// Acks: of both, of ours alone, of nobody.
ours.on("poll", (question, answer) => answer(question + 1));
theirs.on("poll", (question, answer) => answer(question + 2));
assert.deepEqual((await server.timeout(30_000).emitWithAck("poll", 40)).sort(), [41, 42]);
assert.deepEqual(await server.in(ours.id).timeout(30_000).emitWithAck("poll", 1), [2]);
assert.deepEqual(await server.in("nobody").timeout(30_000).emitWithAck("poll", 1), []);
ours.on("silent", () => {});
theirs.on("silent", (answer) => answer(1));
// A machine that is too slow for the first time-out has a longer one.
let answered = [];
for (const limit of [500, 5_000, 50_000]) {
  if (answered.length === 0) {
    answered = await server.timeout(limit).emitWithAck("silent").then(() => assert.fail("one is silent"), ({ responses }) => responses);
  }
}
assert.deepEqual(answered, [1]);

// What is for servers.
const before = (await get(`${url}/stats`)).adapter.server_side;
server.serverSideEmit("reload", 1);
assert.deepEqual(await server.serverSideEmitWithAck("reload", 2), [null]);
assert.equal((await get(`${url}/stats`)).adapter.server_side, before + 2);

// Nonsense harms nobody.
for (const bytes of ["", "{", "nonsense", Buffer.from([0x93, 0xa1, 0xff])]) {
  if (sharded) await pub.sPublish("socket.io#/#", bytes).catch(() => {});
}
server.in(ours.id).disconnectSockets();
await until("ours is gone", () => !ours.connected);
assert.ok(theirs.connected);
assert.equal(theirs.all.filter((name) => name === "n").length, 3, "each came once, and what was not for them never");

theirs.close();
await server.close();
await Promise.all([pub, sub, watching].map((client) => client.close()));
await until("they no longer count", async () => (await get(`${url}/stats`)).adapter.others["/"] === 0);
console.log("done");
process.exit(0);
