'use strict';
// The stock JavaScript clients, three generations by three transport settings, plus the two extras: msgpack and revision 3.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { once } = require('node:events');
const { shared, startServer, startOn } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { request, within, sleep, eventually } = require('../lib/wire');
const engineClient = require('engine.io-client');
const msgpack = require('socket.io-msgpack-parser');

const CLIENTS = { '4.8.4': require('socket.io-client'), '4.0.0': require('socket.io-client-40'), '3.1.3': require('socket.io-client-3') };
const TRANSPORTS = { default: undefined, 'polling only': ['polling'], 'websocket only': ['websocket'] };
const io2 = require('socket.io-client-2');

const next = (emitter, event, ms = 4000) => within(ms, once(emitter, event), `the event ${event}`);
const ask = (socket, ...event) => within(4000, new Promise((resolve) => socket.emit(...event, (...answer) => resolve(answer))), `the answer to ${event[0]}`);
const bytes = (...values) => Buffer.from(values);

for (const [version, client] of Object.entries(CLIENTS)) {
  for (const [setting, transports] of Object.entries(TRANSPORTS)) {
    describe(`socket.io-client ${version}, ${setting}`, { concurrency: 6 }, () => {
      const grid = (sentence, options, body) => {
        if (typeof options === 'function') [options, body] = [{}, options];
        conforms(`socket.io-client ${version}, ${setting}: ${sentence}`, options, async (t) => {
          const open = [];
          const connect = (url, extra = {}) => {
            const socket = client.io(url, { transports: transports ?? ['polling', 'websocket'], forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100, ...extra });
            open.push(socket);
            return socket;
          };
          try {
            await body(connect, t);
          } finally {
            for (const socket of open) socket.disconnect();
          }
        });
      };
      const connected = async (connect, nsp = '', options = {}, serverOptions = {}) => {
        const socket = connect((await shared(serverOptions)).url + nsp, options);
        await next(socket, 'connect');
        return socket;
      };
      /** With the default transports, waits until the upgrade has been made. */
      const settled = async (socket) => {
        if (setting === 'default') await eventually(() => socket.io.engine.transport.name === 'websocket', 'the upgrade');
        return socket;
      };

      grid('connects with auth, which the server reads', async (connect) => {
        const socket = connect((await shared()).url, { auth: { token: 'x', nested: { n: [1] } } });
        const [auth] = await next(socket, 'auth');
        assert.deepEqual(auth, { token: 'x', nested: { n: [1] } });
        const [shake] = await ask(socket, 'handshake');
        assert.deepEqual(shake.auth, { token: 'x', nested: { n: [1] } });
        assert.equal(shake.query.EIO, '4');
      });
      grid('ends on the transport it was told to use', async (connect) => {
        const socket = await settled(await connected(connect));
        assert.equal(socket.io.engine.transport.name, setting === 'polling only' ? 'polling' : 'websocket');
      });
      grid('is told why a namespace refused it, and gets in with the right token', async (connect) => {
        const socket = connect((await shared()).url + '/guarded', { auth: { token: 'wrong' } });
        const [error] = await next(socket, 'connect_error');
        assert.equal(error.message, 'not authorized');
        assert.deepEqual(error.data, { code: 'UNAUTHORIZED', details: { need: 'token' } });
        socket.auth = { token: 'secret' };
        socket.connect();
        await next(socket, 'connect');
      });
      grid('is told that a namespace does not exist', async (connect) => {
        const [error] = await next(connect((await shared()).url + '/nowhere'), 'connect_error');
        assert.equal(error.message, 'Invalid namespace');
      });
      grid('sends and receives every kind of JSON value', async (connect) => {
        const socket = await connected(connect);
        const args = [1, -0.5, 'two', { 3: [true, null], deep: { er: [{}] } }, [], '🎺 grüße', 'a\u001eb', '"\\\u0000\n', 9007199254740991];
        socket.emit('message', ...args);
        assert.deepEqual(await next(socket, 'message-back'), args);
        socket.emit('message');
        assert.deepEqual(await next(socket, 'message-back'), []);
      });
      grid('gets acks and gives them', async (connect) => {
        const socket = await connected(connect);
        assert.deepEqual(await ask(socket, 'message-with-ack', 1, { a: ['b'] }), [1, { a: ['b'] }]);
        socket.on('question', (value, answer) => answer(value + 1, 'ok'));
        socket.emit('ask-me', 'question', 41);
        assert.deepEqual(await next(socket, 'asked'), [42, 'ok']);
      });
      grid('sends and receives binary, in events and in acks', async (connect) => {
        const socket = await connected(connect);
        const three = [bytes(1, 2, 3), { deep: [bytes(0, 255, 30)] }, bytes()];
        socket.emit('message', ...three);
        assert.deepEqual(await next(socket, 'message-back'), three);
        assert.deepEqual(await ask(socket, 'message-with-ack', ...three), three);
        socket.emit('bin', 300);
        const [all] = await next(socket, 'bin');
        assert.deepEqual([...all], Array.from({ length: 300 }, (_, i) => i & 255));
      });
      grid('uses two namespaces on one connection', async (connect) => {
        const main = await connected(connect);
        const custom = main.io.socket('/custom', {});
        await next(custom, 'connect');
        assert.notEqual(main.id, custom.id);
        custom.emit('message', 'c');
        main.emit('message', 'm');
        const [[c], [m]] = await Promise.all([next(custom, 'message-back'), next(main, 'message-back')]);
        assert.deepEqual([c, m], ['c', 'm']);
        custom.emit('disconnect-me', false);
        assert.equal((await next(custom, 'disconnect'))[0], 'io server disconnect');
        assert.deepEqual(await ask(main, 'message-with-ack', 1), [1]);
      });
      grid('joins a dynamic namespace', async (connect) => {
        const socket = await connected(connect, '/dynamic-42');
        assert.deepEqual(await ask(socket, 'message-with-ack', 1), [1]);
      });
      grid('does not come back by itself after a disconnect by the server', async (connect) => {
        const socket = await connected(connect);
        socket.emit('disconnect-me', true);
        assert.equal((await next(socket, 'disconnect'))[0], 'io server disconnect');
        await sleep(200);
        assert.equal(socket.connected, false);
      });
      grid('disconnects by itself, and the server knows that it meant to', async (connect) => {
        const watcher = await connected(connect);
        const socket = await connected(connect);
        const { id } = socket;
        socket.disconnect();
        const reason = await eventually(async () => (await ask(watcher, 'last-reason', id))[0], 'the reason');
        // Old clients close the transport so soon that the goodbye may not make it.
        assert.ok(['client namespace disconnect', 'transport close', 'transport error'].includes(reason), reason);
      });
      grid('reconnects with a new id after its connection was cut', async (connect) => {
        const socket = await settled(await connected(connect));
        const before = socket.id;
        socket.emit('drop-me');
        await next(socket, 'disconnect');
        await next(socket, 'connect');
        assert.notEqual(socket.id, before);
        assert.deepEqual(await ask(socket, 'message-with-ack', 'again'), ['again']);
      });
      grid('reconnects after the server was killed and came back', { timeout: 15000 }, async (connect) => {
        const server = await startServer();
        const socket = connect(server.url);
        await next(socket, 'connect');
        await settled(socket);
        const before = socket.id;
        await Promise.all([next(socket, 'disconnect'), server.kill()]);
        const again = await startOn(server.port);
        try {
          await next(socket, 'connect', 6000);
          assert.notEqual(socket.id, before);
        } finally {
          socket.disconnect();
          await again.stop();
        }
      });
      grid('stays connected over several heartbeats', async (connect) => {
        const socket = await connected(connect, '', {}, { pingInterval: 200, pingTimeout: 5000 });
        let dropped;
        socket.on('disconnect', (reason) => (dropped = reason));
        await sleep(1300);
        assert.equal(dropped, undefined);
        assert.deepEqual(await ask(socket, 'message-with-ack', 1), [1]);
      });
      grid('receives 1,000 events in order', async (connect) => {
        const socket = await connected(connect);
        const seen = [];
        socket.on('burst', (i) => seen.push(i));
        socket.emit('burst', 1000);
        await eventually(() => seen.length >= 1000, '1,000 events', 8000);
        assert.deepEqual(seen, Array.from({ length: 1000 }, (_, i) => i));
      });
      grid('sends 1,000 events in order while connecting and upgrading', async (connect) => {
        const socket = connect((await shared()).url);
        const seen = [];
        socket.on('message-back', (i) => seen.push(i));
        for (let i = 0; i < 500; i++) socket.emit('message', i);
        await next(socket, 'connect');
        for (let i = 500; i < 1000; i++) {
          socket.emit('message', i);
          if (i % 50 === 0) await sleep(2);
        }
        await eventually(() => seen.length >= 1000, '1,000 echoes', 8000);
        assert.deepEqual(seen, Array.from({ length: 1000 }, (_, i) => i));
      });
      grid('a message just under the limit passes and one above it costs the connection', async (connect) => {
        const socket = await settled(await connected(connect, '', {}, { maxPayload: 10000 }));
        const [echo] = await ask(socket, 'message-with-ack', 'x'.repeat(9900));
        assert.equal(echo.length, 9900);
        const before = socket.id;
        socket.emit('message', 'x'.repeat(10100));
        await next(socket, 'disconnect');
        await next(socket, 'connect');
        assert.notEqual(socket.id, before);
      });
      grid('takes part in rooms and broadcasts', async (connect) => {
        const [one, two] = [await connected(connect), await connected(connect)];
        const room = `grid-${version}-${setting}`;
        assert.deepEqual(await ask(two, 'join', room), ['ok']);
        one.emit('to', { rooms: [room], event: 'news', args: [1, { a: 2 }, bytes(1)] });
        assert.deepEqual(await next(two, 'news'), [1, { a: 2 }, bytes(1)]);
      });
    });
  }
}

describe('more about socket.io-client 4.8.4', { concurrency: 6 }, () => {
  const { io } = CLIENTS['4.8.4'];
  conforms('acks with a time-out: in time, too late, and of a room', async () => {
    const { url } = await shared();
    const [one, two] = [io(url, { forceNew: true }), io(url, { forceNew: true })];
    await Promise.all([next(one, 'connect'), next(two, 'connect')]);
    assert.equal(await one.timeout(60000).emitWithAck('message-with-ack', 7), 7);
    await assert.rejects(one.timeout(100).emitWithAck('no-such-event'), /timed out/);
    two.on('vote', (answer) => answer('yes'));
    await ask(two, 'join', 'voters');
    assert.deepEqual((await ask(one, 'ask', { room: 'voters', timeout: 60000, event: 'vote' }))[0], { answers: ['yes'] });
    one.disconnect();
    two.disconnect();
  });
  conforms('resends what got no answer, in order (retries)', async () => {
    const socket = io((await shared()).url, { forceNew: true, retries: 2, ackTimeout: 30000 });
    const answers = await Promise.all([1, 2, 3].map((n) => new Promise((resolve) => socket.emit('message-with-ack', n, (error, value) => resolve(error ?? value)))));
    assert.deepEqual(answers, [1, 2, 3]);
    socket.disconnect();
  });
  conforms('a payload larger than maxPayload is split over several POSTs', async () => {
    const socket = io((await shared({ maxPayload: 10000 })).url, { forceNew: true, transports: ['polling'] });
    let seen = 0;
    socket.on('message-back', () => seen++);
    for (let i = 0; i < 30; i++) socket.emit('message', 'x'.repeat(1000));
    await eventually(() => seen === 30, '30 echoes');
    socket.disconnect();
  });
  conforms('the bare engine client connects, upgrades and echoes text and binary', async () => {
    const { port } = await shared({ rawEngineIo: true });
    for (const transports of [['polling', 'websocket'], ['polling'], ['websocket']]) {
      const socket = new engineClient.Socket(`ws://127.0.0.1:${port}`, { transports, path: '/engine.io/' });
      socket.binaryType = 'nodebuffer';
      await next(socket, 'open');
      if (transports.length === 2) await next(socket, 'upgrade');
      socket.send('hi 🎺');
      assert.equal((await next(socket, 'message'))[0], 'hi 🎺');
      socket.send(bytes(1, 2, 255));
      assert.deepEqual(Buffer.from((await next(socket, 'message'))[0]), bytes(1, 2, 255));
      const closed = next(socket, 'close'); // Some transports tell it before close() returns.
      socket.close();
      await closed;
    }
  });
  conforms('a hundred clients connect, talk and leave at once', { timeout: 20000 }, async () => {
    const { url } = await shared();
    await Promise.all(Array.from({ length: 100 }, async (_, i) => {
      const socket = io(url, { forceNew: true });
      await next(socket, 'connect', 15000);
      assert.deepEqual(await within(10000, new Promise((r) => socket.emit('message-with-ack', i, (x) => r([x]))), 'the ack'), [i]);
      socket.disconnect();
    }));
  });
});

describe('the msgpack parser', { concurrency: 6 }, () => {
  const { io } = CLIENTS['4.8.4'];
  const options = { parser: 'msgpack' };
  const connect = async (nsp = '', extra = {}) => io((await shared(options)).url + nsp, { parser: msgpack, forceNew: true, ...extra });
  for (const [setting, transports] of Object.entries({ ...TRANSPORTS, default: ['polling', 'websocket'] })) {
    conforms(`msgpack, ${setting}: connects with auth, emits, acks and carries bytes`, async () => {
      const socket = await connect('', { transports, auth: { token: 'x' } });
      assert.deepEqual((await next(socket, 'auth'))[0], { token: 'x' });
      const args = [1, -1, 300, -70000, 2 ** 40, 0.5, 'é🎺', null, true, [1, [2]], { a: { b: 'c' } }, bytes(1, 2, 3)];
      socket.emit('message', ...args);
      assert.deepEqual(await next(socket, 'message-back'), args);
      assert.deepEqual(await ask(socket, 'message-with-ack', ...args), args);
      socket.emit('bin', 500);
      assert.equal((await next(socket, 'bin'))[0].length, 500);
      socket.on('question', (n, answer) => answer(n + 1));
      socket.emit('ask-me', 'question', 1);
      assert.deepEqual(await next(socket, 'asked'), [2]);
      socket.disconnect();
    });
  }
  conforms('msgpack: namespaces are confirmed, refused and left', async () => {
    const guarded = await connect('/guarded', { auth: { token: 'no' } });
    const [error] = await next(guarded, 'connect_error');
    assert.equal(error.message, 'not authorized');
    assert.deepEqual(error.data, { code: 'UNAUTHORIZED', details: { need: 'token' } });
    guarded.disconnect();
    const [missing] = await next(await connect('/nowhere', { reconnection: false }), 'connect_error');
    assert.equal(missing.message, 'Invalid namespace');
    const custom = await connect('/custom');
    await next(custom, 'auth');
    custom.emit('disconnect-me', false);
    assert.equal((await next(custom, 'disconnect'))[0], 'io server disconnect');
    custom.disconnect();
  });
  conforms('msgpack: broadcasts reach polling and WebSocket members', async () => {
    const [one, two, three] = await Promise.all([undefined, ['polling'], ['websocket']].map((transports) => connect('', { transports: transports ?? ['polling', 'websocket'] })));
    for (const socket of [two, three]) await ask(socket, 'join', 'packed');
    one.emit('to', { rooms: ['packed'], event: 'news', args: [bytes(9), 'x'] });
    for (const got of await Promise.all([next(two, 'news'), next(three, 'news')])) assert.deepEqual(got, [bytes(9), 'x']);
    for (const socket of [one, two, three]) socket.disconnect();
  });
  const { Ws } = require('../lib/wire');
  const packedWs = async () => Ws.open((await shared(options)).port, { path: '/socket.io/' });
  const hex = (text) => Buffer.from(text.replace(/\s/g, ''), 'hex');
  const CONNECT = hex('83 a474797065 00 a464617461 d40000 a36e7370 a12f');
  conforms('msgpack: the bytes of a hand-written CONNECT, event and ack', async () => {
    const ws = await packedWs();
    ws.send(CONNECT);
    const decoder = new msgpack.Decoder();
    const packets = [];
    decoder.on('decoded', (packet) => packets.push(packet));
    decoder.add(await ws.next());
    assert.equal(packets[0].type, 0);
    assert.equal(packets[0].nsp, '/');
    assert.equal(typeof packets[0].data.sid, 'string');
    await ws.next(); // the greeting
    // ["message-with-ack", 7, <ca fe>] with ack id 3 and the extra key `options`
    ws.send(hex(`85 a474797065 02 a464617461 93 b0${Buffer.from('message-with-ack').toString('hex')} 07 c402cafe a76f7074696f6e73 81 a8636f6d7072657373 c3 a26964 03 a36e7370 a12f`));
    decoder.add(await ws.next());
    const ack = packets.at(-1);
    assert.deepEqual([ack.type, ack.id, ack.nsp, ack.data], [3, 3, '/', [7, bytes(0xca, 0xfe)]]);
    ws.close();
  });
  for (const [sentence, packet] of [
    ['a text packet', '40'],
    ['no msgpack', hex('c1')],
    ['a cut-off map', CONNECT.subarray(0, 9)],
    ['type 5', hex('83 a474797065 05 a464617461 90 a36e7370 a12f')],
    ['a CONNECT with nil', hex('83 a474797065 00 a464617461 c0 a36e7370 a12f')],
    ['a namespace that is a number', hex('82 a474797065 00 a36e7370 01')],
    ['an array', hex('93 00 01 02')],
    ['an event whose data is a map', hex('83 a474797065 02 a464617461 80 a36e7370 a12f')],
    ['a string that claims four gigabytes', hex('81 dbffffffff')],
    ['an array that claims four thousand million entries', hex('82 a474797065 02 a464617461 ddffffffff')],
  ]) {
    conforms(`msgpack: closes the connection for ${sentence}`, async () => {
      const ws = await packedWs();
      ws.send(packet);
      await ws.closed(1000);
    });
  }
  conforms('msgpack: ten thousand nested arrays cost at most the connection', async () => {
    const watcher = await connect('', { transports: ['websocket'] });
    await next(watcher, 'connect');
    const ws = await packedWs();
    ws.send(CONNECT);
    await ws.next();
    ws.send(Buffer.concat([hex('83 a474797065 02 a36e7370 a12f a464617461'), Buffer.alloc(10000, 0x91), hex('c0')]));
    await sleep(200);
    assert.deepEqual(await ask(watcher, 'message-with-ack', 'alive'), ['alive']);
    watcher.disconnect();
    ws.drop();
  });
});

describe('revision 3: socket.io-client 2.5.0', { concurrency: 4 }, () => {
  for (const [setting, transports] of Object.entries(TRANSPORTS)) {
    const connect = (url, extra = {}) => io2(url, { transports: transports ?? ['polling', 'websocket'], forceNew: true, reconnection: false, ...extra });
    conforms(`revision 3, ${setting}: refused cleanly while it is off`, async () => {
      const socket = connect((await shared()).url);
      await next(socket, 'connect_error');
      socket.close();
    });
    conforms(`revision 3, ${setting}: events, acks, binary and namespaces with --allow-eio3`, async () => {
      const { url } = await shared({ allowEio3: true });
      const socket = connect(url);
      const greeting = next(socket, 'auth');
      await next(socket, 'connect');
      await greeting;
      const args = [1, 'é🎺', { a: [true, null] }];
      socket.emit('message', ...args);
      assert.deepEqual(await next(socket, 'message-back'), args);
      assert.deepEqual(await ask(socket, 'message-with-ack', ...args), args);
      socket.emit('message', bytes(1, 2, 255), 'mixed');
      const [back, text] = await next(socket, 'message-back');
      assert.deepEqual([[...Buffer.from(back)], text], [[1, 2, 255], 'mixed']);
      const custom = socket.io.socket('/custom');
      await next(custom, 'auth');
      assert.deepEqual(await ask(custom, 'message-with-ack', 1), [1]);
      const guarded = socket.io.socket('/guarded');
      await next(guarded, 'error');
      const missing = socket.io.socket('/nowhere');
      await next(missing, 'error');
      socket.close();
    });
    conforms(`revision 3, ${setting}: 300 events in order with --allow-eio3`, async () => {
      const socket = connect((await shared({ allowEio3: true })).url);
      await next(socket, 'connect');
      const seen = [];
      socket.on('burst', (i) => seen.push(i));
      socket.emit('burst', 300);
      await eventually(() => seen.length >= 300, '300 events');
      assert.deepEqual(seen, Array.from({ length: 300 }, (_, i) => i));
      socket.close();
    });
    conforms(`revision 3, ${setting}: its own heartbeat keeps it connected`, async () => {
      const socket = connect((await shared({ allowEio3: true, pingInterval: 200, pingTimeout: 5000 })).url);
      await next(socket, 'connect');
      let dropped;
      socket.on('disconnect', (reason) => (dropped = reason));
      await sleep(1300);
      assert.equal(dropped, undefined);
      assert.deepEqual(await ask(socket, 'message-with-ack', 1), [1]);
      socket.close();
    });
    conforms(`revision 3, ${setting}: shares rooms with clients of today`, async () => {
      const { url } = await shared({ allowEio3: true });
      const [old, young] = [connect(url), CLIENTS['4.8.4'].io(url, { forceNew: true })];
      await Promise.all([next(old, 'connect'), next(young, 'connect')]);
      const room = `ages-${setting}`;
      await ask(old, 'join', room);
      young.emit('to', { rooms: [room], event: 'news', args: ['é', bytes(1)] });
      const [text, back] = await next(old, 'news');
      assert.deepEqual([text, [...Buffer.from(back)]], ['é', [1]]);
      old.close();
      young.disconnect();
    });
  }
  conforms('revision 3: its polling framing counts UTF-16 units and its main namespace is joined unasked', async () => {
    const { port } = await shared({ allowEio3: true });
    const reply = await request(port, '/socket.io/?EIO=3&transport=polling&b64=1');
    assert.equal(reply.status, 200);
    const [, length, rest] = reply.text.match(/^(\d+):(0.*)$/s);
    const open = JSON.parse(rest.slice(1, Number(length)));
    assert.deepEqual(open.upgrades, ['websocket']);
    const following = rest.slice(Number(length)) || (await request(port, `/socket.io/?EIO=3&transport=polling&b64=1&sid=${open.sid}`)).text;
    assert.ok(following.startsWith('2:40'), following);
    await request(port, `/socket.io/?EIO=3&transport=polling&b64=1&sid=${open.sid}`, { method: 'POST', body: '19:42["message","é🎺"]' });
    let echoed = '';
    while (!echoed.includes('message-back')) echoed = (await request(port, `/socket.io/?EIO=3&transport=polling&b64=1&sid=${open.sid}`)).text;
    assert.match(echoed, /24:42\["message-back","é🎺"\]/);
    const second = await request(port, `/socket.io/?EIO=4&transport=polling&sid=${open.sid}`);
    assert.equal(second.status, 400);
    assert.match(second.text, /"code":3/);
  });
});
