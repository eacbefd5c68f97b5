// What the tests of adapters share: a client that remembers what it gets, and waiting.

import assert from "node:assert/strict";
import { io } from "socket.io-client";

const PATIENCE_MS = 120_000;

// A connected client; `next(name)` resolves with the arguments of the next event of that name.
export async function watcher(url, namespace = "/") {
  const socket = io(url + namespace, { transports: ["websocket"], forceNew: true, timeout: PATIENCE_MS });
  const seen = new Map();
  const waiting = new Map();
  const all = [];
  socket.onAny((name, ...args) => {
    if (typeof args.at(-1) === "function") return;
    // Behind the arguments there may be an offset, which is nobody's business.
    all.push(name);
    const resolve = waiting.get(name)?.shift();
    if (resolve) resolve(args);
    else seen.set(name, [...(seen.get(name) ?? []), args]);
  });
  socket.next = (name) => {
    const args = seen.get(name)?.shift();
    if (args) return Promise.resolve(args);
    return within(`an event ${name}`, new Promise((resolve) => {
      waiting.set(name, [...(waiting.get(name) ?? []), resolve]);
    }));
  };
  socket.all = all;
  await within("a connection", new Promise((resolve, reject) => {
    socket.on("connect", resolve);
    socket.on("connect_error", reject);
  }));
  return socket;
}

export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in time: ${what}`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Looks until something holds.
export async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await holds())) {
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export async function get(url) {
  return (await fetch(url)).json();
}

export async function publish(url, event) {
  const response = await fetch(`${url}/api/v1/events`, { method: "POST", body: JSON.stringify(event) });
  assert.equal(response.status, 201, await response.text());
}
