// The example `restore`, killed and started again under stock clients: `node --test crates/engine/tests/e2e/restore.test.js`.
// RESTORE_EXAMPLE names the program; the packages and the Python are those of conformance/.
'use strict';
const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { existsSync, mkdtempSync, rmSync } = require('node:fs');
const { createRequire } = require('node:module');
const { createServer } = require('node:net');
const { tmpdir } = require('node:os');
const { join, resolve } = require('node:path');
const { test } = require('node:test');

const root = resolve(__dirname, '../../../..');
const conformance = join(root, 'conformance');
const { io } = createRequire(join(conformance, 'package.json'))('socket.io-client');
const target = process.env.CARGO_TARGET_DIR ?? join(root, 'target');
const program = process.env.RESTORE_EXAMPLE ?? join(target, 'debug/examples/restore');

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

async function start(port, file) {
  const child = spawn(program, [String(port), file], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(child.stdout, 'data');
  assert.equal(String(line), 'ready\n');
  return child;
}

async function kill(child) {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

// Runs `body` with an application that can be killed and started again.
async function withApplication(body) {
  const folder = mkdtempSync(join(tmpdir(), 'restore-'));
  const port = await freePort();
  const file = join(folder, 'memory');
  let child = await start(port, file);
  try {
    await body({
      url: `http://127.0.0.1:${port}`,
      async restart() {
        await kill(child);
        child = await start(port, file);
      },
    });
  } finally {
    await kill(child);
    rmSync(folder, { recursive: true });
  }
}

// A stock client that notes what it hears and how often it has come back.
function watch(url, transports) {
  const socket = io(url, { transports, forceNew: true, reconnectionDelay: 20, reconnectionDelayMax: 50, randomizationFactor: 0 });
  const watcher = { socket, heard: [], recovered: [], ids: new Set() };
  socket.on('connect', () => {
    watcher.recovered.push(socket.recovered);
    watcher.ids.add(socket.id);
  });
  socket.on('said', (number) => watcher.heard.push(number));
  return watcher;
}

async function until(what, holds) {
  const end = Date.now() + 20_000;
  while (!holds()) {
    assert.ok(Date.now() < end, `in time: ${what}`);
    await new Promise((wake) => setTimeout(wake, 5));
  }
}

const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);

for (const transports of [['websocket'], ['polling'], ['polling', 'websocket']]) {
  test(`killed twice, recovered twice, over ${transports.join(' then ')}`, async () => {
    await withApplication(async ({ url, restart }) => {
      const watchers = [];
      for (let index = 0; index < 4; index++) watchers.push(watch(url, transports));
      for (const { socket } of watchers) assert.equal(await socket.emitWithAck('join', 'r'), true);
      let said = 0;
      const say = async ({ socket }) => {
        assert.equal(await socket.timeout(20_000).emitWithAck('say', 'r', 'x'), true);
        said += 1;
      };
      for (let round = 1; round <= 2; round++) {
        for (let index = 0; index < 10; index++) await say(watchers[index % 4]);
        await restart();
        // Those who are back first speak before the others are.
        for (const watcher of watchers) {
          await until('it is back', () => watcher.recovered.length === round + 1);
          await say(watcher);
        }
        for (const watcher of watchers) {
          await until('it has heard all', () => watcher.heard.length >= said);
          assert.deepEqual(watcher.heard, upTo(said), 'each once, in order');
        }
      }
      await new Promise((wake) => setTimeout(wake, 100));
      for (const { socket, heard, recovered, ids } of watchers) {
        assert.deepEqual(heard, upTo(said), 'and nothing comes twice');
        assert.deepEqual(recovered, [false, true, true]);
        assert.equal(ids.size, 1, 'it keeps its id');
        socket.disconnect();
      }
    });
  });
}

test('events said while nobody is there are missed, and come', async () => {
  await withApplication(async ({ url, restart }) => {
    const watcher = watch(url, ['websocket']);
    assert.equal(await watcher.socket.emitWithAck('join', 'r'), true);
    const other = watch(url, ['websocket']);
    assert.equal(await other.socket.emitWithAck('say', 'r', 'before'), true);
    await until('the first', () => watcher.heard.length === 1);
    // Out of reach, as far as the watcher knows, through the whole restart.
    watcher.socket.io.reconnectionDelay(1_000);
    watcher.socket.io.reconnectionDelayMax(1_000);
    await restart();
    await until('the other is back', () => other.recovered.length === 2);
    for (let index = 0; index < 20; index++) {
      assert.equal(await other.socket.timeout(20_000).emitWithAck('say', 'r', 'meanwhile'), true);
    }
    assert.deepEqual(watcher.heard, [1]);
    await until('all', () => watcher.heard.length >= 21);
    assert.deepEqual(watcher.heard, upTo(21));
    assert.deepEqual(watcher.recovered, [false, true]);
    watcher.socket.disconnect();
    other.socket.disconnect();
  });
});

const python = join(conformance, '.venv/bin/python');
test('a Python client sees no offsets, and connects as new', { skip: !existsSync(python) && 'no Python of conformance/' }, async () => {
  await withApplication(async ({ url, restart }) => {
    const script = `
import socketio, sys
client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.1)
client.on('said', lambda *args: print('said', len(args), args[0], flush=True))
client.on('connect', lambda: print('connect', client.get_sid(), flush=True))
client.connect(sys.argv[1], transports=['websocket'])
for line in sys.stdin:
    print(line.strip(), client.call(*eval(line)), flush=True)
`;
    const child = spawn(python, ['-c', script, url], { stdio: ['pipe', 'pipe', 'inherit'] });
    let output = '';
    child.stdout.on('data', (data) => (output += data));
    const connects = () => output.match(/connect \S+/g) ?? [];
    await until('it connects', () => connects().length === 1);
    child.stdin.write(`'join', 'r'\n`);
    await until('it joins', () => output.includes(`'join', 'r' True`));
    const other = watch(url, ['websocket']);
    assert.equal(await other.socket.emitWithAck('say', 'r', 'one'), true);
    await until('it hears', () => output.includes('said 2 1'));
    await restart();
    await until('it connects again', () => connects().length === 2);
    assert.notEqual(connects()[0], connects()[1]);
    child.stdin.write(`'join', 'r'\n`);
    await until('it joins again', () => output.match(/'join', 'r' True/g).length === 2);
    assert.equal(await other.socket.timeout(20_000).emitWithAck('say', 'r', 'two'), true);
    await until('it hears again', () => output.includes('said 2 2'));
    other.socket.disconnect();
    await kill(child);
  });
});
