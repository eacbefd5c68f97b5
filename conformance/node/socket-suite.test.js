'use strict';
// The 32 expectations of the official Socket.IO v5 suite, told anew. Ours reads through a queue, so messages that arrive
// together are never lost; in exchange it is strict about what comes in between (only pings may).
// Server: ping interval 500 ms, ping timeout 6 s, connect time-out 8 s.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { shared } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { request, Polling, Ws, sleep, eventually } = require('../lib/wire');

const path = '/socket.io/';
/** Milliseconds; the time-out is long enough for a pong of a machine that is busy. */
const [INTERVAL, TIMEOUT] = [500, 6000];
const server = () => shared({ pingInterval: INTERVAL, pingTimeout: TIMEOUT, connectTimeout: 8000, maxPayload: 1000000, cors: '*' });
const get = async (query, options) => request((await server()).port, path + query, options);
const openWs = async () => Ws.open((await server()).port, { path });
const P = (num) => `{"_placeholder":true,"num":${num}}`;

/** A WebSocket that joined `/` and has read the `auth` event. */
async function joined() {
  const ws = await openWs();
  ws.send('40');
  const reply = await ws.nextMessage();
  assert.match(reply, /^40\{"sid":"[^"]+"\}$/);
  assert.equal(await ws.nextMessage(), '42["auth",{}]');
  return ws;
}

describe('Socket.IO suite: Engine.IO handshake', { concurrency: 8 }, () => {
  conforms('socket.io path: a polling handshake answers one open packet with exactly the five keys', async () => {
    const reply = await get('?EIO=4&transport=polling');
    assert.equal(reply.status, 200);
    const open = JSON.parse(reply.text.slice(1));
    assert.equal(reply.text[0], '0');
    assert.deepEqual(Object.keys(open), ['sid', 'upgrades', 'pingInterval', 'pingTimeout', 'maxPayload']);
    assert.deepEqual(open.upgrades, ['websocket']);
    assert.deepEqual([open.pingInterval, open.pingTimeout, open.maxPayload], [INTERVAL, TIMEOUT, 1000000]);
  });
  conforms('socket.io path: a polling handshake with a missing or bad EIO is a 400', async () => {
    assert.equal((await get('?transport=polling')).status, 400);
    assert.equal((await get('?EIO=abc&transport=polling')).status, 400);
  });
  conforms('socket.io path: a polling handshake with a missing or bad transport is a 400', async () => {
    assert.equal((await get('?EIO=4')).status, 400);
    assert.equal((await get('?EIO=4&transport=abc')).status, 400);
  });
  conforms('socket.io path: a POST or PUT without a session is a 400', async () => {
    assert.equal((await get('?EIO=4&transport=polling', { method: 'POST' })).status, 400);
    assert.equal((await get('?EIO=4&transport=polling', { method: 'PUT' })).status, 400);
  });
  conforms('socket.io path: a WebSocket handshake starts with an open packet that offers no upgrade', async () => {
    const ws = await openWs();
    assert.deepEqual(ws.open.upgrades, []);
    assert.deepEqual([ws.open.pingInterval, ws.open.pingTimeout, ws.open.maxPayload], [INTERVAL, TIMEOUT, 1000000]);
    ws.close();
  });
  for (const extra of [{ EIO: undefined }, { EIO: 'abc' }, { transport: undefined }, { transport: 'abc' }]) {
    conforms(`socket.io path: a WebSocket handshake with ${JSON.stringify(extra)}${Object.values(extra)[0] ? '' : ` (no ${Object.keys(extra)[0]})`} is refused`, async () => {
      await Ws.connect((await server()).port, { path, extra }).closed();
    });
  }
});

describe('Socket.IO suite: heartbeat, close and upgrade', { concurrency: 8 }, () => {
  conforms('socket.io path: three polls are ended by three pings', async () => {
    const session = await Polling.open((await server()).port, { path });
    for (let i = 0; i < 3; i++) {
      assert.equal((await session.poll()).text, '2');
      assert.equal((await session.post('3')).status, 200);
    }
  });
  conforms('socket.io path: a polling session without pongs is gone an interval and a time-out after its handshake', async () => {
    const session = await Polling.open((await server()).port, { path });
    await sleep(INTERVAL + TIMEOUT);
    // A poll that comes before the server has noticed gets the ping, and the next one the end.
    await eventually(async () => (await session.poll()).status === 400, 'the end of the session');
  });
  conforms('socket.io path: three pings come over WebSocket when each is answered', async () => {
    const ws = await openWs();
    for (let i = 0; i < 3; i++) {
      assert.equal(await ws.next(), '2');
      ws.send('3');
    }
    ws.close();
  });
  conforms('socket.io path: a WebSocket without pongs is closed', async () => {
    await (await openWs()).closed(4000);
  });
  conforms('socket.io path: a posted close packet ends the held poll with a noop, then the session is gone', async () => {
    const session = await Polling.open((await server()).port, { path });
    const held = await session.hold();
    await session.post('1');
    const poll = await held.reply;
    assert.deepEqual([poll.status, poll.text], [200, '6']);
    assert.equal((await session.poll()).status, 400);
  });
  conforms('socket.io path: a close packet over WebSocket closes it at once', { referenceFails: 'it ignores the packet' }, async () => {
    const ws = await openWs();
    ws.send('1');
    await ws.closed(200);
  });
  const probing = async () => {
    const session = await Polling.open((await server()).port, { path });
    const ws = Ws.connect(session.port, { path, extra: { sid: session.sid } });
    await ws.opened;
    return { session, ws };
  };
  conforms('socket.io path: a probe is answered and the upgrade accepted', async () => {
    const { ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    ws.send('5', '40');
    assert.match(await ws.nextMessage(), /^40\{"sid":/);
    ws.close();
  });
  conforms('socket.io path: polling after an upgrade is a 400', async () => {
    const { session, ws } = await probing();
    ws.send('2probe', '5');
    assert.equal(await ws.next(), '3probe');
    assert.equal((await session.poll()).status, 400);
    ws.close();
  });
  conforms('socket.io path: a second WebSocket on an upgraded session is closed', async () => {
    const { session, ws } = await probing();
    ws.send('2probe', '5');
    assert.equal(await ws.next(), '3probe');
    await Ws.connect(session.port, { path, extra: { sid: session.sid } }).closed();
    ws.close();
  });
});

describe('Socket.IO suite: connect', { concurrency: 8 }, () => {
  for (const [nsp, auth] of [['/', undefined], ['/', { token: '123' }], ['/custom', undefined], ['/custom', { token: 'abc' }]]) {
    conforms(`CONNECT to ${nsp} ${auth ? 'with' : 'without'} auth is confirmed with a sid alone, and auth reaches the application`, async () => {
      const ws = await openWs();
      const prefix = nsp === '/' ? '' : nsp + ',';
      ws.send(`40${prefix}${auth ? JSON.stringify(auth) : ''}`);
      const reply = await ws.nextMessage();
      assert.ok(reply.startsWith(`40${prefix}{`), reply);
      const confirmed = JSON.parse(reply.slice(2 + prefix.length));
      assert.deepEqual(Object.keys(confirmed), ['sid']);
      assert.equal(typeof confirmed.sid, 'string');
      assert.notEqual(confirmed.sid, ws.sid, 'the public id must not be the secret one of the session');
      assert.equal(await ws.nextMessage(), `42${prefix}["auth",${JSON.stringify(auth ?? {})}]`);
      ws.close();
    });
  }
  conforms('CONNECT to an unknown namespace is refused with exactly "Invalid namespace"', async () => {
    const ws = await openWs();
    ws.send('40/random');
    assert.equal(await ws.nextMessage(), '44/random,{"message":"Invalid namespace"}');
    ws.close();
  });
  conforms('a malformed packet before CONNECT closes the connection', async () => {
    const ws = await openWs();
    ws.send('4abc');
    await ws.closed(250);
  });
  conforms('a connection that joins no namespace is closed after the connect time-out', async () => {
    const { port } = await server();
    const before = Date.now();
    const ws = Ws.connect(port, { path, pong: true });
    await ws.opened;
    await ws.closed(4000);
    assert.ok(Date.now() - before > 7900, 'not before its time');
  });
});

describe('Socket.IO suite: disconnect', { concurrency: 8 }, () => {
  conforms('DISCONNECT from the only namespace leaves the connection up and unanswered', async () => {
    const ws = await joined();
    ws.send('41');
    assert.equal(await ws.next(), '2');
    ws.close();
  });
  conforms('DISCONNECT from one namespace leaves the other working', async () => {
    const ws = await joined();
    assert.equal(await ws.next(), '2');
    ws.send('40/custom');
    assert.match(await ws.next(), /^40\/custom,\{"sid":/);
    assert.equal(await ws.next(), '42/custom,["auth",{}]');
    ws.send('41/custom');
    ws.send('42["message","message to main namespace"]');
    assert.equal(await ws.next(), '42["message-back","message to main namespace"]');
    ws.close();
  });
});

describe('Socket.IO suite: messages', { concurrency: 8 }, () => {
  conforms('an event is echoed with the same JSON text', async () => {
    const ws = await joined();
    ws.send('42["message",1,"2",{"3":[true]}]');
    assert.equal(await ws.nextMessage(), '42["message-back",1,"2",{"3":[true]}]');
    ws.close();
  });
  conforms('a binary event is echoed as header and two attachments, in order', async () => {
    const ws = await joined();
    ws.send(`452-["message",${P(0)},${P(1)}]`, Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6]));
    assert.equal(await ws.nextMessage(), `452-["message-back",${P(0)},${P(1)}]`);
    assert.deepEqual(await ws.nextMessage(), Buffer.from([1, 2, 3]));
    assert.deepEqual(await ws.nextMessage(), Buffer.from([4, 5, 6]));
    ws.close();
  });
  conforms('an event with an ack id is acknowledged under it', async () => {
    const ws = await joined();
    ws.send('42456["message-with-ack",1,"2",{"3":[false]}]');
    assert.equal(await ws.nextMessage(), '43456[1,"2",{"3":[false]}]');
    ws.close();
  });
  conforms('a binary event with an ack id is acknowledged in binary under it', async () => {
    const ws = await joined();
    ws.send(`452-789["message-with-ack",${P(0)},${P(1)}]`, Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6]));
    assert.equal(await ws.nextMessage(), `462-789[${P(0)},${P(1)}]`);
    assert.deepEqual(await ws.nextMessage(), Buffer.from([1, 2, 3]));
    assert.deepEqual(await ws.nextMessage(), Buffer.from([4, 5, 6]));
    ws.close();
  });
  for (const [what, packet] of [
    ['an unknown packet type', '4abc'],
    ['an event that is no array', '42{}'],
    ['an ack id that is no number', '42abc["message-with-ack",1,"2",{"3":[false]}]'],
  ]) {
    conforms(`${what} closes the connection`, async () => {
      const ws = await joined();
      ws.send(packet);
      await ws.closed(250);
    });
  }
});
