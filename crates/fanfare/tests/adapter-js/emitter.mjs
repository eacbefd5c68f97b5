// A process without a server of its own: @socket.io/redis-emitter publishes into rooms of ours.

import assert from "node:assert/strict";
import { Emitter } from "@socket.io/redis-emitter";
import { createClient } from "redis";
import { get, until, watcher } from "./watch.mjs";

const [redisUrl, url] = process.argv.slice(2);
const redis = createClient({ url: redisUrl });
await redis.connect();
const emitter = new Emitter(redis);

const one = await watcher(url);
const two = await watcher(url);
const other = await watcher(url, "/ws");
assert.equal((await one.emitWithAck("subscribe", { room: "blue" })).ok, true);
assert.equal((await two.emitWithAck("subscribe", { room: "red", filter: { level: 2 } })).ok, true);

// To everyone, with whatever JavaScript has.
emitter.emit("all", 7, { a: [null, "ü"] }, Buffer.from([1, 2, 3]), new Date(5), 1.5, undefined);
for (const watching of [one, two]) {
  const args = await watching.next("all");
  assert.deepEqual(args.slice(0, 2), [7, { a: [null, "ü"] }]);
  assert.deepEqual([...args[2]], [1, 2, 3]);
  assert.deepEqual(args.slice(3, 6), ["1970-01-01T00:00:00.005Z", 1.5, null]);
}

// Rooms, a namespace, exceptions, a socket's own room, flags. What is not for somebody would come before `end`.
emitter.to("blue").emit("blue");
emitter.to(["blue", "red"]).emit("both", { level: 2 });
emitter.to("red").emit("filtered", { level: 1 });
emitter.to("red").emit("filtered", { level: 2 });
emitter.to(two.id).emit("own");
emitter.except("blue").emit("rest");
emitter.volatile.emit("maybe");
emitter.of("/ws").emit("elsewhere", 1);
emitter.of("/nowhere").emit("lost");
emitter.emit("end");
await one.next("end");
await two.next("end");
await other.next("elsewhere");
const told = (socket) => socket.all.filter((name) => !/^(connection|dashboard|system|presence)/.test(name));
assert.deepEqual(told(one), ["all", "blue", "both", "maybe", "end"]);
assert.deepEqual(told(two), ["all", "both", "filtered", "own", "rest", "maybe", "end"]);
assert.deepEqual(told(other), ["elsewhere"]);
assert.equal((await two.next("filtered"))[0].level, 2);

// Joins and leaves.
emitter.in("blue").socketsJoin(["green", "vip"]);
emitter.to("green").emit("green");
await one.next("green");
emitter.in("blue").socketsLeave("green");
emitter.to("green").emit("not any more");
emitter.to("vip").emit("vip");
await one.next("vip");
assert.ok(!one.all.includes("not any more"));
const rooms = (await get(`${url}/socket/rooms`)).rooms.map(({ room }) => room);
assert.ok(rooms.includes("vip") && !rooms.includes("green"), rooms.join());

// What is for servers is counted.
emitter.serverSideEmit("reload", 1);
await until("it is counted", async () => (await get(`${url}/stats`)).adapter.server_side === 1);

// Nonsense harms nobody.
for (const bytes of ["", "{", "nonsense", Buffer.from([0x93, 0xa1, 0xff]), Buffer.alloc(1000, 0x91)]) {
  await redis.publish("socket.io#/#", bytes);
  await redis.publish("socket.io-request#/#", bytes);
}
emitter.emit("still there");
await one.next("still there");
assert.ok((await get(`${url}/stats`)).adapter.undecodable >= 8);

const gone = new Promise((resolve) => one.on("disconnect", resolve));
emitter.in("blue").disconnectSockets(true);
assert.ok(["io server disconnect", "transport close"].includes(await gone));
assert.ok(two.connected);

for (const socket of [one, two, other]) socket.close();
await redis.quit();
console.log("done");
