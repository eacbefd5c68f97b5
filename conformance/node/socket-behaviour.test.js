'use strict';
// Socket.IO v5 beyond the official suite: packets, namespaces, rooms, broadcasts, acks, binary, disconnect reasons.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { shared } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { Polling, Ws, join, sleep, within, eventually } = require('../lib/wire');

const path = '/socket.io/';
const server = (options = {}) => shared(options);
const openWs = async (options) => Ws.open((await server(options)).port, { path });
const P = (num) => `{"_placeholder":true,"num":${num}}`;

/** A joined socket with its greeting read. */
async function member({ nsp = '/', options, auth } = {}) {
  const socket = await join(await openWs(options), { nsp, auth });
  if (nsp === '/' || nsp === '/custom') await socket.event('auth');
  return socket;
}
let unique = 0;
const room = () => `room-${process.pid}-${unique++}`;
/** Everything that arrives until an echo of our own comes back. */
async function drain(socket) {
  const mark = `mark-${unique++}`;
  await socket.emit('message', mark);
  const seen = [];
  for (;;) {
    const one = await socket.peer.next();
    if (one === `42${socket.prefix}["message-back","${mark}"]`) return seen;
    seen.push(one);
  }
}

describe('packets that close the connection', { concurrency: 8 }, () => {
  for (const [sentence, ...packets] of [
    ['type 7', '47'],
    ['an empty message', '4'],
    ['a letter as type', '4x'],
    ['CONNECT with null', '40/custom,null'],
    ['CONNECT with an array', '40/custom,[]'],
    ['CONNECT with a string', '40/custom,"x"'],
    ['DISCONNECT with data', '41{}'],
    ['EVENT with an empty array', '42[]'],
    ['EVENT with a string', '42"message"'],
    ['EVENT with null', '42null'],
    ['EVENT whose name is an object', '42[{}]'],
    ['EVENT whose name is null', '42[null,1]'],
    ['EVENT with broken JSON', '42["message",'],
    ['EVENT with something behind its JSON', '42["message"]x'],
    ['EVENT with a trailing comma', '42["message",]'],
    ['EVENT with a bare word', '42[message]'],
    ['EVENT with single quotes', "42['message']"],
    ['EVENT with a raw control character in a string', '42["message","\u0001"]'],
    ['EVENT with NaN', '42["message",NaN]'],
    ['a reserved event name: connect', '42["connect"]'],
    ['a reserved event name: connect_error', '42["connect_error"]'],
    ['a reserved event name: disconnect', '42["disconnect"]'],
    ['a reserved event name: disconnecting', '42["disconnecting"]'],
    ['a reserved event name: newListener', '42["newListener"]'],
    ['a reserved event name: removeListener', '42["removeListener"]'],
    ['ACK with an object', '431{}'],
    ['CONNECT_ERROR from a client', '44{"message":"x"}'],
    ['a binary event without a count', '45["message"]'],
    ['a binary event with count and no dash', '451["message"]'],
    ['a binary event with count 0', '450-["message"]'],
    ['a binary event with a negative count', '45-1-["message"]'],
    ['a binary event with nothing but its type', '45'],
    ['a binary event with a count and nothing more', '451'],
    ['a binary event with 11 attachments', `4511-["message",${Array.from({ length: 11 }, (_, i) => P(i))}]`],
    ['a placeholder beyond the attachments', `451-["message",${P(1)}]`, Buffer.from([1])],
    ['a placeholder with a negative number', `451-["message",${P(-1)}]`, Buffer.from([1])],
    ['a placeholder whose number is a string', '451-["message",{"_placeholder":true,"num":"0"}]', Buffer.from([1])],
    ['a text packet while an attachment is due', `451-["message",${P(0)}]`, '42["message"]'],
    ['a binary message when none is due', Buffer.from([1, 2, 3])],
    ['one attachment too many', `451-["message",${P(0)}]`, Buffer.from([1]), Buffer.from([2])],
    ['an event for a namespace not joined', '42/custom,["message"]'],
    ['an event for a namespace that does not exist', '42/nowhere,["message"]'],
    ['DISCONNECT from a namespace not joined', '41/custom,'],
    ['a second CONNECT to the same namespace', '40'],
  ]) {
    conforms(`closes the connection: ${sentence}`, async () => {
      const socket = await member();
      socket.peer.send(...packets);
      await socket.peer.closed(1000);
    });
  }
  conforms('an event before any CONNECT closes the connection', async () => {
    const ws = await openWs();
    ws.send('42["message",1]');
    await ws.closed(1000);
  });
  conforms('a second CONNECT while the first is being answered never gives two sockets', { referenceFails: 'it creates two while middlewares run' }, async () => {
    const ws = await openWs();
    ws.send('40/guarded,{"token":"secret"}', '40/guarded,{"token":"secret"}');
    const first = await ws.next();
    assert.match(first, /^40\/guarded,/);
    const second = await ws.next(500).catch(() => null);
    assert.ok(second === null, `a second answer: ${second}`);
  });
  conforms('a violation in one namespace ends all of them, and the reason is forced close', async () => {
    const watcher = await member();
    const ws = await openWs();
    const main = await join(ws);
    const custom = await join(ws, { nsp: '/custom' });
    ws.send('42/custom,{}');
    await ws.closed(1000);
    await eventually(async () => (await watcher.ask('last-reason', main.sid)) === 'forced close', 'the reason of /');
    await eventually(async () => (await watcher.ask('last-reason', custom.sid)) === 'forced close', 'the reason of /custom');
    watcher.peer.close();
  });
});

describe('packets that are fine', { concurrency: 8 }, () => {
  for (const [sentence, packets, reply] of [
    ['an event whose name is a number', ['42[1,"a"]']],
    ['an event with white space around its JSON values', ['42[ "message" , 1 ]'], '42["message-back",1]'],
    ['an ack that nobody waits for', ['4399["x"]']],
    ['an ack without an id', ['43["x"]']],
    ['a binary ack that nobody waits for, as rust_socketio sends its events', [`461-7["message",${P(0)}]`, Buffer.from([1])]],
    ['the event names connection, error and message', ['42["connection"]', '42["error"]']],
    ['a placeholder-like object in a plain event', [`42["message",${P(0)}]`], `42["message-back",${P(0)}]`],
    ['an attachment that no placeholder uses', ['451-["message","a"]', Buffer.from([1])], '42["message-back","a"]'],
    ['an event for / with its name written out', ['42/,["message",1]'], '42["message-back",1]'],
    ['ack id 0', ['420["message-with-ack","a"]'], '430["a"]'],
    ['an ack id of nine digits', ['42123456789["message-with-ack","a"]'], '43123456789["a"]'],
    ['no arguments', ['42["message"]'], '42["message-back"]'],
    ['an ack without arguments', ['425["message-with-ack"]'], '435[]'],
    ['null, booleans and nesting', ['42["message",null,true,false,[[[]]],{"a":{"b":[{}]}}]'], '42["message-back",null,true,false,[[[]]],{"a":{"b":[{}]}}]'],
    ['the order of keys', ['42["message",{"z":1,"a":2,"m":3}]'], '42["message-back",{"z":1,"a":2,"m":3}]'],
    ['negative, fractional and large numbers', ['42["message",-1,0.5,1e21,9007199254740991]'], '42["message-back",-1,0.5,1e+21,9007199254740991]'],
    ['characters outside the basic plane', ['42["message","🎺é\\u2028"]']],
    ['an escaped record separator', ['42["message","a\\u001eb"]'], '42["message-back","a\\u001eb"]'],
    ['an escaped lone surrogate', ['42["message","\\ud800"]']],
  ]) {
    conforms(`accepted: ${sentence}`, async () => {
      const socket = await member();
      socket.peer.send(...packets);
      const seen = await drain(socket);
      if (reply) {
        assert.equal(seen.length, 1);
        // Servers may keep a number as it was written (1e21) or write it their way (1e+21); the value counts.
        const parse = (text) => JSON.parse(text.slice(text.indexOf('[')));
        assert.deepEqual(parse(seen[0]), parse(reply));
        assert.equal(seen[0].slice(0, seen[0].indexOf('[')), reply.slice(0, reply.indexOf('[')));
      }
      socket.peer.close();
    });
  }
  conforms('astral characters and separators come back as the same text', async () => {
    const socket = await member();
    await socket.emit('message', '🎺 grüße \u2028 \u001e \u0000 "\\');
    assert.deepEqual(await socket.event('message-back'), ['message-back', '🎺 grüße \u2028 \u001e \u0000 "\\']);
    socket.peer.close();
  });
  conforms('no reply over WebSocket or polling holds a raw record separator inside a packet', async () => {
    const session = await Polling.open((await server()).port, { path });
    const socket = await join(session);
    await socket.emit('message', 'a\u001eb');
    assert.deepEqual(await socket.event('message-back'), ['message-back', 'a\u001eb']);
    session.drop();
  });
  conforms('a very large JSON event comes back whole', async () => {
    const socket = await member();
    const big = Array.from({ length: 20000 }, (_, i) => ({ i, text: 'abc' }));
    await socket.emit('message', big);
    assert.deepEqual((await socket.event('message-back'))[1], big);
    socket.peer.close();
  });
  conforms('a large binary attachment comes back whole', async () => {
    const socket = await member();
    const big = Buffer.alloc(900000, 0xa5);
    socket.peer.send(`451-["message",${P(0)}]`, big);
    assert.equal(await socket.peer.next(), `451-["message-back",${P(0)}]`);
    assert.ok((await socket.peer.next()).equals(big));
    socket.peer.close();
  });
  conforms('an empty attachment and one used twice come back', async () => {
    const socket = await member();
    socket.peer.send(`451-["message",${P(0)}]`, Buffer.alloc(0));
    assert.equal(await socket.peer.next(), `451-["message-back",${P(0)}]`);
    assert.deepEqual(await socket.peer.next(), Buffer.alloc(0));
    socket.peer.send(`451-["message",${P(0)},${P(0)}]`, Buffer.from([7]));
    const head = await socket.peer.next();
    const count = Number(head.slice(2, head.indexOf('-')));
    assert.ok(count === 1 || count === 2);
    for (let i = 0; i < count; i++) assert.deepEqual(await socket.peer.next(), Buffer.from([7]));
    socket.peer.close();
  });
  conforms('ten attachments, nested and out of order, come back in place', async () => {
    const socket = await member();
    const order = [9, 0, 8, 1, 7, 2, 6, 3, 5, 4];
    socket.peer.send(`4510-["message",[${order.map(P)}]]`, ...Array.from({ length: 10 }, (_, i) => Buffer.from([i])));
    const head = await socket.peer.next();
    assert.match(head, /^4510-\["message-back",\[/);
    const places = JSON.parse(head.slice(5))[1];
    const parts = [];
    for (let i = 0; i < 10; i++) parts.push(await socket.peer.next());
    assert.deepEqual(places.map((place) => parts[place.num][0]), order);
    socket.peer.close();
  });
  conforms('a binary event in parts over several POSTs is put together', async () => {
    const session = await Polling.open((await server()).port, { path });
    const socket = await join(session);
    await socket.event('auth');
    await session.send(`452-["message",${P(0)},${P(1)}]`);
    await session.send(Buffer.from([1]));
    await session.send(Buffer.from([2]));
    assert.equal(await session.next(), `452-["message-back",${P(0)},${P(1)}]`);
    assert.deepEqual([await session.next(), await session.next()], [Buffer.from([1]), Buffer.from([2])]);
    session.drop();
  });
  conforms('a ping never comes between a header and its attachment', async () => {
    const ws = await Ws.open((await server({ pingInterval: 20, pingTimeout: 5000 })).port, { path });
    ws.socket.on('message', (data, isBinary) => !isBinary && data.toString() === '2' && ws.send('3'));
    await ws.send('40');
    await ws.nextMessage();
    for (let i = 0; i < 300; i++) ws.send('42["bin",5]');
    for (let got = 0; got < 300; ) {
      const one = await ws.next();
      if (typeof one !== 'string' || !one.startsWith('451-["bin"')) continue;
      assert.ok(Buffer.isBuffer(await ws.next()), 'an attachment must follow its header');
      got++;
    }
    ws.close();
  });
});

describe('namespaces', { concurrency: 8 }, () => {
  conforms('a refused CONNECT tells message and data, and the connection may go on and retry', async () => {
    const ws = await openWs();
    ws.send('40/guarded,{"token":"wrong"}');
    assert.equal(await ws.next(), '44/guarded,{"message":"not authorized","data":{"code":"UNAUTHORIZED","details":{"need":"token"}}}');
    ws.send('40/guarded,{"token":"secret"}');
    assert.match(await ws.next(), /^40\/guarded,\{"sid":"[^"]+"\}$/);
    ws.close();
  });
  conforms('dynamic namespaces are made on demand and keep to themselves', async () => {
    const [one, same, two] = await Promise.all(['/dynamic-101', '/dynamic-101', '/dynamic-202'].map((nsp) => member({ nsp })));
    await one.ask('to', { event: 'hello', args: [1] });
    assert.deepEqual(await same.event('hello'), ['hello', 1]);
    assert.deepEqual(await drain(two), []);
    for (const socket of [one, same, two]) socket.peer.close();
  });
  conforms('a name that no namespace and no pattern knows is refused', async () => {
    const ws = await openWs();
    for (const nsp of ['/dynamic-', '/dynamic-1x', '/Custom', '/custom/', '/constructor', '/__proto__']) {
      ws.send(`40${nsp},`);
      assert.equal(await ws.next(), `44${nsp},{"message":"Invalid namespace"}`);
    }
    ws.close();
  });
  conforms('a query tail is part of the name in this protocol version', async () => {
    const ws = await openWs();
    ws.send('40/custom?x=1,');
    assert.equal(await ws.next(), '44/custom?x=1,{"message":"Invalid namespace"}');
    ws.close();
  });
  conforms('several namespaces share a connection with ids of their own', async () => {
    const ws = await openWs();
    const main = await join(ws);
    const custom = await join(ws, { nsp: '/custom', auth: { who: 'me' } });
    const dynamic = await join(ws, { nsp: '/dynamic-5' });
    assert.equal(new Set([main.sid, custom.sid, dynamic.sid, ws.sid]).size, 4);
    for (const id of [main.sid, custom.sid, dynamic.sid]) assert.match(id, /^[A-Za-z0-9_-]{20}$/);
    assert.deepEqual((await custom.ask('handshake')).auth, { who: 'me' });
    assert.deepEqual((await dynamic.ask('handshake')).auth, {});
    ws.close();
  });
  conforms('a namespace left may be joined again, with a new id', async () => {
    const ws = await openWs();
    const first = await join(ws, { nsp: '/dynamic-6' });
    ws.send('41/dynamic-6,');
    await sleep(30);
    const second = await join(ws, { nsp: '/dynamic-6' });
    assert.notEqual(first.sid, second.sid);
    ws.close();
  });
  conforms('an event to a namespace after leaving it closes the connection', async () => {
    const ws = await openWs();
    await join(ws);
    await join(ws, { nsp: '/dynamic-6' });
    ws.send('41/dynamic-6,');
    await sleep(30);
    ws.send('42/dynamic-6,["message"]');
    await ws.closed(1000);
  });
  conforms('leaving and joining again in one breath works too', { referenceFails: 'it handles the leaving a tick after the next packet' }, async () => {
    const ws = await openWs();
    const first = await join(ws, { nsp: '/dynamic-6' });
    const tcp = ws.socket._socket;
    tcp.cork(); // Both frames in one segment.
    ws.send('41/dynamic-6,', '40/dynamic-6,');
    tcp.uncork();
    const reply = await ws.next();
    assert.match(reply, /^40\/dynamic-6,/);
    assert.ok(!reply.includes(first.sid));
    ws.close();
  });
  conforms('an event for a namespace still in its middlewares closes the connection, or waits its turn', async () => {
    const ws = await openWs();
    ws.send('40/guarded,{"token":"secret"}', '42/guarded,["message","early"]');
    const seen = [];
    const end = await Promise.race([ws.closed(1500).then(() => 'closed'), (async () => {
      for (;;) {
        seen.push(await ws.next());
        if (seen.at(-1).startsWith('42')) return 'answered';
      }
    })().catch(() => 'closed')]);
    // Servers whose middlewares answer within the same turn have joined the socket by then.
    if (end === 'answered') assert.match(seen[0], /^40\/guarded,/);
    ws.drop();
  });
  conforms('with --cleanup-empty a dynamic namespace vanishes with its last socket', async () => {
    const options = { cleanupEmpty: true };
    const watcher = await member({ options });
    const guest = await member({ nsp: '/dynamic-77', options });
    assert.ok((await watcher.ask('namespaces')).includes('/dynamic-77'));
    guest.peer.close();
    await eventually(async () => !(await watcher.ask('namespaces')).includes('/dynamic-77'), 'the clean-up');
    assert.ok((await watcher.ask('namespaces')).includes('/custom'), 'fixed namespaces stay');
    watcher.peer.close();
  });
  conforms('a connection that leaves all namespaces after joining one is not closed by the connect time-out', async () => {
    const ws = await openWs({ connectTimeout: 4000 });
    await join(ws);
    ws.send('41');
    await sleep(5000);
    await join(ws, { nsp: '/custom' });
    ws.close();
  });
  conforms('a refused CONNECT does not stop the connect time-out', async () => {
    const ws = await openWs({ connectTimeout: 4000 });
    ws.send('40/nowhere,');
    assert.match(await ws.next(), /^44/);
    await ws.closed(4000);
  });
  conforms('the handshake shows headers, query, auth, address and url of the first request', async () => {
    const ws = await Ws.open((await server()).port, { path, extra: { mine: 'a b' }, headers: { 'x-mine': 'yes', origin: 'http://o.example' } });
    const socket = await join(ws, { auth: { k: [1] } });
    const shake = await socket.ask('handshake');
    assert.equal(shake.headers['x-mine'], 'yes');
    assert.equal(shake.query.mine, 'a b');
    assert.deepEqual([shake.query.EIO, shake.query.transport, shake.query.sid], ['4', 'websocket', undefined]);
    assert.deepEqual(shake.auth, { k: [1] });
    assert.match(shake.address, /127\.0\.0\.1$/);
    assert.deepEqual([shake.secure, shake.xdomain], [false, true]);
    assert.ok(shake.url.startsWith('/socket.io/?'));
    ws.close();
  });
});

describe('rooms and broadcasts', { concurrency: 8 }, () => {
  conforms('a socket is in the room of its own id from the start', async () => {
    const socket = await member();
    assert.deepEqual(await socket.ask('rooms'), [socket.sid]);
    const name = room();
    assert.equal(await socket.ask('join', name), 'ok');
    assert.deepEqual(await socket.ask('rooms'), [socket.sid, name].sort());
    await socket.ask('leave', name);
    assert.deepEqual(await socket.ask('rooms'), [socket.sid]);
    socket.peer.close();
  });
  conforms('a broadcast reaches everyone in the namespace but the sender', async () => {
    const [one, two, three] = await Promise.all([1, 2, 3].map(() => member({ nsp: '/dynamic-900' })));
    await one.ask('to', { event: 'news', args: ['x'] });
    assert.deepEqual(await two.event('news'), ['news', 'x']);
    assert.deepEqual(await three.event('news'), ['news', 'x']);
    assert.deepEqual(await drain(one), []);
    await one.ask('to', { event: 'news', args: ['y'], self: true });
    assert.deepEqual(await one.event('news'), ['news', 'y']);
    for (const socket of [one, two, three]) socket.peer.close();
  });
  conforms('a socket in several of the rooms gets one copy', async () => {
    const [sender, both, none] = await Promise.all([1, 2, 3].map(() => member()));
    const [a, b] = [room(), room()];
    await both.ask('join', a);
    await both.ask('join', b);
    await sender.ask('to', { rooms: [a, b], event: 'once' });
    // What one socket sends comes in its order; an echo that another asks for may come before it.
    await sender.ask('to', { rooms: [both.sid, none.sid], event: 'end' });
    const heard = async (socket) => {
      const seen = [];
      for (;;) {
        const one = await socket.peer.next();
        if (one === '42["end"]') return seen;
        seen.push(one);
      }
    };
    assert.deepEqual((await heard(both)).filter((one) => one.includes('once')), ['42["once"]']);
    assert.deepEqual(await heard(none), []);
    for (const socket of [sender, both, none]) socket.peer.close();
  });
  conforms('except takes out members of a room, and a socket id is a room', async () => {
    const [sender, one, two, three] = await Promise.all([1, 2, 3, 4].map(() => member()));
    const [all, muted] = [room(), room()];
    for (const socket of [one, two, three]) await socket.ask('join', all);
    await one.ask('join', muted);
    await sender.ask('to', { rooms: [all], except: [muted, two.sid], event: 'hey' });
    assert.deepEqual(await three.event('hey'), ['hey']);
    assert.deepEqual(await drain(one), []);
    assert.deepEqual(await drain(two), []);
    for (const socket of [sender, one, two, three]) socket.peer.close();
  });
  conforms('a message to a socket id reaches that socket alone', async () => {
    const [sender, target, other] = await Promise.all([1, 2, 3].map(() => member()));
    await sender.ask('to', { rooms: [target.sid], event: 'psst', args: [{ a: 1 }] });
    assert.deepEqual(await target.event('psst'), ['psst', { a: 1 }]);
    assert.deepEqual(await drain(other), []);
    for (const socket of [sender, target, other]) socket.peer.close();
  });
  conforms('a room of the same name in another namespace is another room', async () => {
    const name = room();
    const [main, custom] = [await member(), await member({ nsp: '/custom' })];
    await main.ask('join', name);
    await custom.ask('join', name);
    await main.ask('to', { rooms: [name], event: 'here', self: true });
    assert.deepEqual(await main.event('here'), ['here']);
    assert.deepEqual(await drain(custom), []);
    main.peer.close();
    custom.peer.close();
  });
  conforms('room names like __proto__ and constructor are ordinary names', async () => {
    const [sender, target] = [await member(), await member()];
    for (const name of ['__proto__', 'constructor', 'toString', '']) {
      await target.ask('join', name);
      await sender.ask('to', { rooms: [name], event: 'odd', args: [name] });
      assert.deepEqual(await target.event('odd'), ['odd', name]);
      await target.ask('leave', name);
    }
    sender.peer.close();
    target.peer.close();
  });
  conforms('a broadcast reaches polling and WebSocket members alike, binary included', async () => {
    const name = room();
    const sender = await member();
    const ws = await member();
    const polling = await join(await Polling.open((await server()).port, { path }));
    for (const socket of [ws, polling]) await socket.ask('join', name);
    await sender.ask('to', { rooms: [name], event: 'mixed', args: [1] });
    for (const socket of [ws, polling]) assert.deepEqual(await socket.event('mixed'), ['mixed', 1]);
    sender.peer.send(`451-["to",{"rooms":["${name}"],"event":"bits","args":[${P(0)}]}]`, Buffer.from([1, 2]));
    for (const socket of [ws, polling]) {
      await socket.until((one) => one === `451-["bits",${P(0)}]`);
      assert.deepEqual(await socket.peer.next(), Buffer.from([1, 2]));
    }
    sender.peer.close();
    ws.peer.close();
    polling.peer.drop();
  });
  conforms('after a disconnect a socket is in no room any more', async () => {
    const [watcher, leaver] = [await member(), await member()];
    const name = room();
    await leaver.ask('join', name);
    assert.equal((await watcher.ask('fetch', name)).length, 1);
    leaver.peer.close();
    await eventually(async () => (await watcher.ask('fetch', name)).length === 0, 'the leaving');
    assert.deepEqual(await watcher.ask('fetch', leaver.sid), []);
    watcher.peer.close();
  });
  conforms('fetch tells id, rooms and data of each member', async () => {
    const socket = await member();
    const name = room();
    await socket.ask('join', name);
    await socket.ask('set-data', { user: 'ada', n: [1] });
    assert.deepEqual(await socket.ask('fetch', name), [{ id: socket.sid, rooms: [socket.sid, name].sort(), data: { user: 'ada', n: [1] } }]);
    assert.deepEqual(await socket.ask('get-data'), { user: 'ada', n: [1] });
    socket.peer.close();
  });
  conforms('all members of a room can be made to join and leave others', async () => {
    const [one, two, other] = await Promise.all([1, 2, 3].map(() => member()));
    const [from, to] = [room(), room()];
    for (const socket of [one, two]) await socket.ask('join', from);
    await other.ask('sockets-join', from, to);
    assert.deepEqual((await other.ask('fetch', to)).map((s) => s.id).sort(), [one.sid, two.sid].sort());
    await other.ask('sockets-leave', from, to);
    assert.deepEqual(await other.ask('fetch', to), []);
    for (const socket of [one, two, other]) socket.peer.close();
  });
  conforms('all members of a room can be disconnected, with or without their connection', async () => {
    const [one, two, other] = await Promise.all([1, 2, 3].map(() => member()));
    const name = room();
    await one.ask('join', name);
    await other.ask('disconnect-sockets', name, false);
    assert.equal(await one.peer.next(), '41');
    await join(one.peer, { nsp: '/custom' });
    await two.ask('join', name);
    await other.ask('disconnect-sockets', name, true);
    assert.equal(await two.peer.next(), '41');
    await two.peer.closed();
    assert.equal(await other.ask('last-reason', two.sid), 'server namespace disconnect');
    one.peer.close();
    other.peer.close();
  });
});

describe('acks', { concurrency: 8 }, () => {
  conforms('the server can ask a socket and get the answer', async () => {
    const socket = await member();
    await socket.emit('ask-me', 'question', 1, 'two');
    const asked = await socket.until((one) => /^42\d+\["question"/.test(one));
    const id = asked.match(/^42(\d+)/)[1];
    assert.deepEqual(JSON.parse(asked.slice(2 + id.length)), ['question', 1, 'two']);
    await socket.peer.send(`43${id}["answer",{"n":1}]`);
    assert.deepEqual(await socket.event('asked'), ['asked', 'answer', { n: 1 }]);
    socket.peer.close();
  });
  conforms('a binary answer to the server arrives', async () => {
    const socket = await member({ nsp: '/custom' });
    await socket.emit('ask-me', 'question');
    const asked = await socket.until((one) => /^42\/custom,\d+\["question"\]/.test(one));
    const id = asked.match(/^42\/custom,(\d+)/)[1];
    socket.peer.send(`461-/custom,${id}[${P(0)}]`, Buffer.from([9, 8]));
    assert.equal(await socket.peer.next(), `451-/custom,["asked",${P(0)}]`);
    assert.deepEqual(await socket.peer.next(), Buffer.from([9, 8]));
    socket.peer.close();
  });
  conforms('only the first of two answers counts', async () => {
    const socket = await member();
    await socket.emit('ask-me', 'question');
    const id = (await socket.until((one) => /^42\d+\["question"/.test(one))).match(/^42(\d+)/)[1];
    socket.peer.send(`43${id}[1]`, `43${id}[2]`);
    assert.equal(await socket.until((one) => one.includes('asked')), '42["asked",1]');
    assert.deepEqual((await drain(socket)).filter((one) => one.includes('asked')), []);
    socket.peer.close();
  });
  conforms('a question without an answer times out', async () => {
    const socket = await member();
    const before = Date.now();
    const result = await socket.ask('ask', { timeout: 200, event: 'question' });
    assert.equal(result.error, 'operation has timed out');
    assert.ok(Date.now() - before >= 190);
    socket.peer.close();
  });
  conforms('an answer after the time-out is ignored', async () => {
    const socket = await member();
    await socket.emit('ask', { timeout: 50, event: 'question' });
    const id = (await socket.until((one) => /^42\d+\["question"/.test(one))).match(/^42(\d+)/)[1];
    await sleep(150);
    socket.peer.send(`43${id}["late"]`);
    await drain(socket);
    socket.peer.close();
  });
  conforms('a broadcast question gathers every first answer', async () => {
    const [asker, one, two] = await Promise.all([1, 2, 3].map(() => member()));
    const name = room();
    for (const [socket, answer] of [[one, 'a'], [two, 'b']]) {
      await socket.ask('join', name);
      socket.until((text) => /^42\d+\["vote"/.test(text)).then((text) => socket.peer.send(`43${text.match(/^42(\d+)/)[1]}["${answer}","extra"]`));
    }
    const result = await asker.ask('ask', { room: name, timeout: 60000, event: 'vote' });
    assert.deepEqual(result.answers.sort(), ['a', 'b']);
    assert.equal(result.error, undefined);
    for (const socket of [asker, one, two]) socket.peer.close();
  });
  conforms('a broadcast question with a silent member times out with the answers there are', async () => {
    const [asker, one, silent] = await Promise.all([1, 2, 3].map(() => member()));
    const name = room();
    for (const socket of [one, silent]) await socket.ask('join', name);
    one.until((text) => /^42\d+\["vote"/.test(text)).then((text) => one.peer.send(`43${text.match(/^42(\d+)/)[1]}["a"]`));
    const result = await asker.ask('ask', { room: name, timeout: 3000, event: 'vote' });
    assert.deepEqual(result, { error: 'operation has timed out', answers: ['a'] });
    for (const socket of [asker, one, silent]) socket.peer.close();
  });
  conforms('a broadcast question to an empty room succeeds at once with no answers', async () => {
    const asker = await member();
    const result = await within(1000, asker.ask('ask', { room: room(), timeout: 5000, event: 'vote' }), 'the answer');
    assert.deepEqual(result, { answers: [] });
    asker.peer.close();
  });
  conforms('an answer given by a socket that was not asked is ignored', async () => {
    const [asker, asked, liar] = await Promise.all([1, 2, 3].map(() => member()));
    const name = room();
    await asked.ask('join', name);
    const result = asker.ask('ask', { room: name, timeout: 3000, event: 'vote' });
    const id = (await asked.until((text) => /^42\d+\["vote"/.test(text))).match(/^42(\d+)/)[1];
    liar.peer.send(`43${id}["lie"]`);
    await drain(liar);
    asked.peer.send(`43${id}["truth"]`);
    assert.deepEqual((await result).answers, ['truth']);
    for (const socket of [asker, asked, liar]) socket.peer.close();
  });
});

describe('order and delivery', { concurrency: 8 }, () => {
  for (const transport of ['websocket', 'polling']) {
    conforms(`1,000 events arrive in order over ${transport}`, async () => {
      const { port } = await server();
      const peer = transport === 'polling' ? await Polling.open(port, { path }) : await Ws.open(port, { path });
      const socket = await join(peer);
      await socket.emit('burst', 1000);
      for (let i = 0; i < 1000; i++) assert.equal((await socket.event('burst'))[1], i);
      transport === 'polling' ? peer.drop() : peer.close();
    });
  }
  conforms('events sent in one breath right after joining are handled in order', async () => {
    const ws = await openWs();
    await join(ws);
    ws.send(...Array.from({ length: 50 }, (_, i) => `42["message",${i}]`));
    const seen = [];
    while (seen.length < 50) {
      const one = await ws.next();
      if (one.startsWith('42["message-back"')) seen.push(JSON.parse(one.slice(2))[1]);
    }
    assert.deepEqual(seen, Array.from({ length: 50 }, (_, i) => i));
    ws.close();
  });
  conforms('CONNECT is answered before any event of the namespace', async () => {
    const ws = await openWs();
    ws.send('40/custom,');
    assert.match(await ws.next(), /^40\/custom,/);
    ws.close();
  });
  conforms('volatile events come at most once and in order, and normal ones after them still come', async () => {
    const socket = await member();
    await socket.emit('volatile-burst', 20);
    await socket.emit('burst', 3);
    const seen = await drain(socket);
    const volatiles = seen.filter((one) => one.startsWith('42["volatile-burst"')).map((one) => JSON.parse(one.slice(2))[1]);
    assert.ok(volatiles.length >= 1 && volatiles.length <= 20, `${volatiles.length} came`);
    assert.deepEqual(volatiles, [...volatiles].sort((a, b) => a - b));
    assert.equal(seen.filter((one) => one.startsWith('42["burst"')).length, 3);
    socket.peer.close();
  });
  conforms('a volatile event to a polling client that is not polling is dropped', async () => {
    const { port } = await server();
    const sender = await member();
    const session = await Polling.open(port, { path });
    await session.send('40');
    let text = '';
    while (!text.includes('42["auth"')) text += (await session.poll()).text;
    const sid = text.match(/"sid":"([^"]+)"/)[1];
    await sender.ask('to', { rooms: [sid], event: 'vanishes', volatile: true });
    await sender.ask('to', { rooms: [sid], event: 'stays' });
    assert.equal((await session.poll()).text, '42["stays"]');
    sender.peer.close();
  });
  conforms('an event sent later by the server arrives by itself', async () => {
    const socket = await member();
    await socket.ask('later', { ms: 50, event: 'tick', args: [1] });
    assert.deepEqual(await socket.event('tick'), ['tick', 1]);
    socket.peer.close();
  });
});

describe('disconnect', { concurrency: 8 }, () => {
  conforms('disconnecting one namespace by the server leaves the connection up', async () => {
    const ws = await openWs();
    const main = await join(ws);
    const dynamic = await join(ws, { nsp: '/dynamic-8' });
    await dynamic.emit('disconnect-me', false);
    await main.until((one) => one === '41/dynamic-8,');
    assert.equal(await main.ask('last-reason', dynamic.sid), 'server namespace disconnect');
    ws.close();
  });
  conforms('disconnect(true) says so to every namespace in order of joining, then closes', async () => {
    const ws = await openWs();
    const main = await join(ws);
    await main.event('auth');
    await join(ws, { nsp: '/dynamic-1' });
    await join(ws, { nsp: '/dynamic-2' });
    await main.emit('disconnect-me', true);
    assert.deepEqual([await ws.next(), await ws.next(), await ws.next()].sort(), ['41', '41/dynamic-1,', '41/dynamic-2,']);
    await ws.closed();
  });
  for (const [reason, leave, options] of [
    ['client namespace disconnect', (ws) => ws.send('41/dynamic-3,')],
    ['transport close', (ws) => ws.close()],
    ['transport close', (ws) => ws.drop(), undefined, 'without a close frame'],
    ['transport close', (ws) => ws.send('42/dynamic-3,["drop-me"]'), undefined, 'cut by the server'],
    ['ping timeout', () => {}, { pingInterval: 500, pingTimeout: 4000 }],
    ['parse error', (ws) => ws.send('x')],
    ['forced close', (ws) => ws.send('42/dynamic-3,{}')],
    ['server namespace disconnect', (ws) => ws.send('42/dynamic-3,["disconnect-me",true]')],
  ].map(([reason, leave, options, how]) => [reason, leave, options, how])) {
    const how = leave.toString().includes('drop()') ? ' (no close frame)' : leave.toString().includes('drop-me') ? ' (cut by the server)' : '';
    conforms(`the server records the reason: ${reason}${how}`, async () => {
      const { port } = await server(options);
      const watcher = await join(await Ws.open(port, { path, pong: true }), { nsp: '/dynamic-4' });
      const ws = await Ws.open(port, { path });
      const socket = await join(ws, { nsp: '/dynamic-3' });
      leave(ws);
      const got = await eventually(() => watcher.ask('last-reason', socket.sid), 'a reason');
      assert.equal(got, reason);
      watcher.peer.close();
      ws.close();
    });
  }
  conforms('the server records transport error when a polling client cuts its poll', async () => {
    const { port } = await server();
    const watcher = await member();
    const session = await Polling.open(port, { path });
    const socket = await join(session);
    await socket.event('auth');
    await session.drop();
    assert.equal(await eventually(() => watcher.ask('last-reason', socket.sid), 'a reason'), 'transport error');
    watcher.peer.close();
  });
  conforms('the server records transport close when a polling client says goodbye', async () => {
    const { port } = await server();
    const watcher = await member();
    const session = await Polling.open(port, { path });
    const socket = await join(session);
    await session.send('1');
    assert.equal(await eventually(() => watcher.ask('last-reason', socket.sid), 'a reason'), 'transport close');
    watcher.peer.close();
  });
});
