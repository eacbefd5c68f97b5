// What all of these tests share: a stock client that keeps what it hears, requests, and the list of what was shown.
import assert from 'node:assert/strict';
import { io } from 'socket.io-client';

export { assert };

// Longer than anything here takes on a busy machine; the tests wait for events, never for time alone.
const patience = 120_000;

const inTime = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what()} did not come in time`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// A connection of its own, which remembers events until they are asked for.
export class Watcher {
  constructor(url, options = {}) {
    this.heard = [];
    this.waiting = [];
    this.socket = io(url, { forceNew: true, reconnection: false, timeout: patience, ...options });
    for (const name of ['connect_error', 'disconnect']) {
      this.socket.on(name, (value) => this.#hear(name, value));
    }
    // The first argument alone: a recovery offset may follow it.
    this.socket.onAny((name, value) => this.#hear(name, value));
  }

  #hear(name, value) {
    const index = this.waiting.findIndex((waiter) => waiter.name === name);
    if (index >= 0) this.waiting.splice(index, 1)[0].resolve(value);
    else this.heard.push([name, value]);
  }

  // The next event of this name, whatever else comes before it.
  next(name) {
    const index = this.heard.findIndex(([heard]) => heard === name);
    if (index >= 0) return Promise.resolve(this.heard.splice(index, 1)[0][1]);
    const arrival = new Promise((resolve) => this.waiting.push({ name, resolve }));
    return inTime(arrival, () => `${name} (there is ${JSON.stringify(this.heard)})`);
  }

  // What has come of this name and was not asked for; nothing is waited for.
  rest(name) {
    return this.heard.filter(([heard]) => heard === name).map(([, value]) => value);
  }

  emit(command, payload) {
    this.socket.emit(command, payload);
  }

  // A command's ack.
  ask(command, payload) {
    return inTime(this.socket.emitWithAck(command, payload), () => `the ack of ${command}`);
  }

  // A command's ack, which must be good; without the `ok`.
  async succeed(command, payload) {
    const { ok, ...answer } = await this.ask(command, payload);
    assert.equal(ok, true, `${command}: ${JSON.stringify(answer)}`);
    return answer;
  }

  // The code of a command's refusal.
  async refused(command, payload) {
    const answer = await this.ask(command, payload);
    assert.equal(answer.ok, false, `${command} is accepted: ${JSON.stringify(answer)}`);
    return answer.error.code;
  }

  close() {
    this.socket.close();
  }
}

// A watcher that was greeted, and its greeting.
export async function connect(url, options) {
  const watcher = new Watcher(url, options);
  const greeted = watcher.next('connection_established');
  const refusal = watcher.next('connect_error').then((error) => {
    throw error;
  });
  // Only one of the two ever comes.
  refusal.catch(() => {});
  watcher.greeting = await Promise.race([greeted, refusal]);
  return watcher;
}

// The refusal of a connection.
export async function refusal(url, options) {
  const watcher = new Watcher(url, options);
  const error = await watcher.next('connect_error');
  watcher.close();
  return { message: error.message, code: error.data?.code };
}

// Requests to one address, with a key if there is one.
export const requests = (base, key) => async (method, path, body) => {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  const response = await fetch(`${base}${path}`, { method, headers, body: body && JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
};

// The body of an answer, which must have this status.
export function expectStatus(status, answer) {
  assert.equal(answer.status, status, JSON.stringify(answer.body));
  return answer.body;
}

// Asks again until an answer is as it should be; the last one is shown if none is.
export async function eventually(ask, isAsItShould) {
  const until = Date.now() + patience;
  for (;;) {
    const answer = await ask();
    if (isAsItShould(answer)) return answer;
    assert.ok(Date.now() < until, `it never came: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

// A moment in RFC 3339, in UTC, with milliseconds.
export function assertMoment(text) {
  assert.match(text, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
}

// Runs what a file shows, in its order, and says so.
export async function run(features) {
  for (const [name, feature] of Object.entries(features)) {
    try {
      await feature();
    } catch (error) {
      console.error(`${name}: ${error.stack}`);
      process.exit(1);
    }
    console.log(name);
  }
  console.log('done');
  process.exit(0);
}
