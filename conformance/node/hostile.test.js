'use strict';
// Input meant to harm. Each test runs beside a healthy client on the same server, whose traffic must go on undisturbed:
// it asks for an ack again and again, and no answer may be wrong or missing, nor may it have to connect again.

const assert = require('node:assert/strict');
const zlib = require('node:zlib');
const { describe, before, after } = require('node:test');
const { shared, IS_REFERENCE } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { request, Polling, Ws, Tcp, frame, OPCODE, upgradeRequest, join, sleep, eventually, within, SEPARATOR } = require('../lib/wire');

const path = '/socket.io/';
const EIO = `${path}?EIO=4&transport=polling`;
const P = (num) => `{"_placeholder":true,"num":${num}}`;

/** A healthy client that talks all the time and remembers the first fault. */
class Witness {
  static async on(options) {
    const witness = new Witness();
    const { port } = await shared(options);
    witness.port = port;
    witness.options = options;
    witness.peers = [await Ws.open(port, { path, pong: true }), (await Polling.open(port, { path })).pump()];
    witness.count = 0;
    witness.running = true;
    witness.loops = witness.peers.map((peer) => witness.talk(peer));
    return witness;
  }
  async talk(peer) {
    try {
      const socket = await join(peer, { nsp: '/dynamic-1' });
      while (this.running) {
        const value = { n: this.count++ };
        assert.deepEqual(await within(10000, socket.ask('message-with-ack', value), 'an answer to the witness'), value);
        await sleep(25);
      }
    } catch (error) {
      this.fault ??= error;
    }
  }
  /** Fails if the witness suffered since the last look. */
  async check() {
    const from = this.count;
    await eventually(() => this.fault || this.count >= from + 4, 'fresh answers to the witness', 10000);
    if (this.fault) throw new Error(`the healthy client was disturbed: ${this.fault.message}`);
  }
  async end() {
    this.running = false;
    await Promise.all(this.loops);
    this.peers[0].close();
    await this.peers[1].drop();
  }
}

function besideWitness(title, options, declare, concurrency = 4) {
  describe(title, { concurrency }, () => {
    let witness;
    before(async () => (witness = await Witness.on(options)));
    after(() => witness.end());
    declare((sentence, marks, body) => {
      if (typeof marks === 'function') [marks, body] = [{}, marks];
      conforms(`${title}: ${sentence}`, marks, async () => {
        await body(witness.port, witness);
        await witness.check();
      });
    });
  });
}

const openWs = (port) => Ws.open(port, { path });
async function joinedTcp(port, extra) {
  const tcp = await Tcp.upgrade(port, { path, extra });
  tcp.write(frame(OPCODE.text, '40'));
  await tcp.until((text) => text.includes('40{"sid"'));
  return tcp;
}

besideWitness('hostile frames', {}, (harm) => {
  for (const [sentence, bytes] of [
    ['a frame that claims 2^63 bytes', frame(OPCODE.text, 'x', { length: 2n ** 63n })],
    ['a frame that claims 2^62 bytes', frame(OPCODE.binary, 'x', { length: 2n ** 62n })],
    ['a frame that claims one byte over the limit', frame(OPCODE.text, 'x', { length: 1000001 })],
    ['an unmasked frame', frame(OPCODE.text, '3', { mask: false })],
    ['a frame with reserved bit 1 and no compression agreed on', frame(OPCODE.text, '3', { rsv: 4 })],
    ['a frame with reserved bit 2', frame(OPCODE.text, '3', { rsv: 2 })],
    ['a frame with reserved bit 3', frame(OPCODE.text, '3', { rsv: 1 })],
    ['opcode 3', frame(3, 'x')],
    ['opcode 11', frame(11, 'x')],
    ['opcode 15', frame(15, '')],
    ['a ping of 126 bytes', frame(OPCODE.ping, 'x'.repeat(126))],
    ['a fragmented ping', frame(OPCODE.ping, 'x', { fin: false })],
    ['a continuation of nothing', frame(OPCODE.continuation, 'x')],
    ['a new message inside a fragmented one', Buffer.concat([frame(OPCODE.text, '4', { fin: false }), frame(OPCODE.text, '4')])],
    ['a close frame of one byte', frame(OPCODE.close, 'x')],
    ['a close frame with the code 1005', frame(OPCODE.close, Buffer.from([0x03, 0xed]))],
    ['a close frame with the code 0', frame(OPCODE.close, Buffer.from([0, 0]))],
    ['a close frame whose reason is no UTF-8', frame(OPCODE.close, Buffer.from([0x03, 0xe8, 0xff]))],
    ['text that is no UTF-8', frame(OPCODE.text, Buffer.from([0x34, 0xff, 0xfe]))],
    ['text with an overlong encoding', frame(OPCODE.text, Buffer.from([0x34, 0xc0, 0xaf]))],
    ['text with an encoded surrogate', frame(OPCODE.text, Buffer.from([0x34, 0xed, 0xa0, 0x80]))],
    ['text that ends within a character', frame(OPCODE.text, Buffer.from([0x34, 0xf0, 0x9f]))],
    ['random bytes', Buffer.from(Array.from({ length: 500 }, (_, i) => (i * 197 + 91) & 255))],
    ['a second HTTP request', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
  ]) {
    harm(`${sentence} closes the connection`, async (port) => {
      const tcp = await joinedTcp(port);
      tcp.write(bytes);
      // Whoever read a whole frame may wait for our close frame; it must not wait for ever.
      await tcp.until((text) => tcp.isClosed || /\x88[\x00-\x7d]/.test(text.slice(-130)), 3000);
      tcp.drop();
    });
  }
  harm('a length that is longer than need be is taken or refused, not misread', async (port) => {
    const tcp = await joinedTcp(port);
    tcp.write(Buffer.from([0x81, 0x80 | 126, 0, 1, 0, 0, 0, 0, 0x33])); // "3" with a two-byte length
    tcp.write(frame(OPCODE.text, '42["message","after"]'));
    await tcp.until((text) => tcp.isClosed || text.includes('"after"') || text.includes('\x88'));
    tcp.drop();
  });
  harm('fragments without end stop at the size limit', async (port) => {
    const tcp = await joinedTcp(port);
    const piece = frame(OPCODE.continuation, 'x'.repeat(60000), { fin: false });
    tcp.write(frame(OPCODE.text, '4', { fin: false }));
    for (let i = 0; i < 30 && !tcp.isClosed; i++) {
      tcp.write(piece);
      await sleep(2);
    }
    await tcp.until((text) => tcp.isClosed || text.includes('\x88'));
    tcp.drop();
  });
  harm('a hundred thousand empty fragments cost at most the connection', async (port) => {
    const tcp = await joinedTcp(port);
    tcp.write(frame(OPCODE.text, '4', { fin: false }));
    const empties = Buffer.concat(Array.from({ length: 10000 }, () => frame(OPCODE.continuation, '', { fin: false })));
    for (let i = 0; i < 10 && !tcp.isClosed; i++) tcp.write(empties);
    await sleep(300);
    tcp.drop();
  });
  harm('twenty thousand pings of the WebSocket kind, unread answers included, cost at most the connection', async (port) => {
    const tcp = await joinedTcp(port);
    tcp.socket.pause();
    tcp.write(Buffer.concat(Array.from({ length: 20000 }, () => frame(OPCODE.ping, 'x'.repeat(125)))));
    await sleep(300);
    tcp.drop();
  });
  harm('a message in frames of one byte each is put together', async (port) => {
    const tcp = await joinedTcp(port);
    const text = '42["message","drip"]';
    [...text].forEach((char, i) => tcp.write(frame(i ? OPCODE.continuation : OPCODE.text, char, { fin: i === text.length - 1 })));
    await tcp.until((got) => got.includes('42["message-back","drip"]'));
    tcp.drop();
  });
  harm('a frame that comes byte by byte is put together', async (port) => {
    const tcp = await joinedTcp(port);
    for (const byte of frame(OPCODE.text, '42["message","slow"]')) {
      tcp.write(Buffer.from([byte]));
      await sleep(1);
    }
    await tcp.until((got) => got.includes('42["message-back","slow"]'));
    tcp.drop();
  });
});

besideWitness('hostile packets', {}, (harm) => {
  const fatal = (sentence, ...packets) => harm(`${sentence} closes the connection`, { referenceFails: sentence.includes('fraction') && 'it checks the range alone' }, async (port) => {
    const ws = await openWs(port);
    await join(ws);
    ws.send(...packets);
    await ws.closed(2000);
  });
  fatal('bad base64 in a text frame, or the bytes it can be read as,', 'b###');
  fatal('more attachments than a number can count', `4599999999999999999999-["message",${P(0)}]`);
  fatal('a million attachments announced', `451000000-["message",${P(0)}]`);
  fatal('attachments announced twice', `451-["message",${P(0)}]`, `451-["message",${P(0)}]`);
  fatal('an attachment index beyond any number', '451-["message",{"_placeholder":true,"num":1e308}]', Buffer.from([1]));
  fatal('an attachment index that is a fraction', '452-["message",{"_placeholder":true,"num":0.5}]', Buffer.from([1]), Buffer.from([2]));
  fatal('upgrade and CONNECT out of order', '5', '42/nowhere,["message"]');
  for (const depth of [1000, 100000]) {
    for (const [kind, open, close] of [['arrays', '[', ']'], ['objects', '{"a":', '}'], ['unclosed arrays', '[', '']]) {
      harm(`${depth} nested ${kind} cost at most the connection`, { oursOnly: depth > 1000 && 'it kills the reference' }, async (port) => {
        const ws = await openWs(port);
        await join(ws);
        ws.send(`42["message",${open.repeat(depth)}${close ? '1' + close.repeat(depth) : ''}]`);
        await sleep(200);
        ws.drop();
      });
    }
  }
  harm('an ack id of a thousand digits costs at most the connection', async (port) => {
    const ws = await openWs(port);
    await join(ws);
    ws.send(`42${'9'.repeat(1000)}["message-with-ack",1]`);
    await sleep(100);
    ws.drop();
  });
  harm('a CONNECT for a namespace with a name of 500,000 characters costs at most the connection', async (port) => {
    const ws = await openWs(port);
    ws.send(`40/${'n'.repeat(500000)},`);
    await sleep(100);
    ws.drop();
  });
  harm('two thousand CONNECTs to different namespaces on one connection cost at most the connection', async (port) => {
    const ws = await openWs(port);
    for (let i = 0; i < 2000; i++) ws.send(`40/dynamic-9${i},`);
    await sleep(300);
    ws.drop();
  });
  harm('a JSON object with fifty thousand keys and __proto__ among them is echoed or refused', async (port) => {
    const ws = await openWs(port);
    await join(ws);
    const keys = Array.from({ length: 50000 }, (_, i) => `"k${i}":0`).join(',');
    ws.send(`42["message",{"__proto__":{"polluted":1},${keys}}]`);
    await Promise.race([ws.nextMessage(5000), ws.closed(5000)]);
    ws.drop();
  });
  harm('a number with a hundred thousand digits costs at most the connection', async (port) => {
    const ws = await openWs(port);
    await join(ws);
    ws.send(`42["message",${'1'.repeat(100000)},1e999999999,-0]`);
    await sleep(100);
    ws.drop();
  });
  harm('an empty text frame, a lone type digit and a lone separator are no riddle', async (port) => {
    for (const packet of ['', '4', SEPARATOR, '40,', '4/', '40/', '42', '43', '45-', '451-']) {
      const ws = await openWs(port);
      ws.send(packet);
      await Promise.race([ws.closing, sleep(50)]);
      ws.drop();
    }
  });
  harm('one client that reads nothing while it is sent twenty megabytes harms nobody else', { timeout: 15000 }, async (port) => {
    const tcp = await joinedTcp(port);
    tcp.socket.pause();
    for (let i = 0; i < 40; i++) tcp.write(frame(OPCODE.text, '42["text",{"bytes":500000}]'));
    await sleep(500);
    tcp.drop();
  });
});

besideWitness('hostile polling', {}, (harm) => {
  for (const [sentence, body] of [
    ['an unknown packet', 'x'],
    ['a separator alone', SEPARATOR],
    ['a trailing separator', `3${SEPARATOR}`],
    ['a separator in front', `${SEPARATOR}3`],
    ['ten thousand separators', SEPARATOR.repeat(10000)],
    ['bytes that are no UTF-8', Buffer.from([0x34, 0xff, 0xfe])],
    ['zero bytes', Buffer.alloc(100)],
    ['revision 3 framing', '6:4hello'],
  ]) {
    harm(`a POST of ${sentence} costs at most the session`, async (port) => {
      const session = await Polling.open(port, { path });
      const reply = await session.post(body).catch(() => null);
      if (reply && !IS_REFERENCE) assert.ok([200, 400].includes(reply.status), `status ${reply.status}`);
    });
  }
  harm('a POST of bad base64 is refused or read forgivingly', async (port) => {
    for (const body of ['b', 'b=', 'b===', 'b###AQI', 'bA', 'bAQID=AQID', 'b\u00e9']) {
      const session = await Polling.open(port, { path });
      const reply = await session.post(body).catch(() => null);
      if (reply) assert.ok([200, 400].includes(reply.status), `${body}: ${reply.status}`);
    }
  });
  harm('a body far over the limit is cut off early with a 413, or the connection is', async (port) => {
    const session = await Polling.open(port, { path });
    const piece = Buffer.alloc(500000, 0x34);
    const reply = await session.post(Array.from({ length: 10 }, () => piece), { pieceDelay: 1 }).catch(() => null);
    if (reply) assert.equal(reply.status, 413);
  });
  harm('a Content-Length over the limit is refused before the body comes', { referenceFails: 'it waits for the bytes' }, async (port) => {
    const session = await Polling.open(port, { path });
    const tcp = await Tcp.open(port);
    tcp.write(`POST ${session.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n4x`);
    await tcp.until((text) => tcp.isClosed || text.startsWith('HTTP/1.1 413'), 2000);
    tcp.drop();
  });
  harm('bodies whose length is told twice, or in two ways, are refused', async (port) => {
    for (const headers of ['Content-Length: 2\r\nContent-Length: 3', 'Content-Length: 2\r\nTransfer-Encoding: chunked', 'Content-Length: -1', 'Content-Length: x', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity']) {
      const session = await Polling.open(port, { path });
      const tcp = await Tcp.open(port);
      tcp.write(`POST ${session.target} HTTP/1.1\r\nHost: x\r\n${headers}\r\n\r\n4xyz\r\n\r\n`);
      // A server may follow the chunked coding alone (RFC 9112 §6.1); what it reads then is no chunk.
      await tcp.until((text) => tcp.isClosed || /^HTTP\/1\.1 (4|5)\d\d/.test(text), 3000);
      tcp.drop();
    }
  });
  harm('a broken chunk is refused', async (port) => {
    const session = await Polling.open(port, { path });
    const tcp = await Tcp.open(port);
    tcp.write(`POST ${session.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n4x\r\n0\r\n\r\n`);
    await tcp.until((text) => tcp.isClosed || /^HTTP\/1\.1 4\d\d/.test(text), 3000);
    tcp.drop();
  });
  harm('headers of a hundred kilobytes are refused', async (port) => {
    const tcp = await Tcp.open(port);
    tcp.write(`GET ${EIO} HTTP/1.1\r\nHost: x\r\nX-Big: ${'x'.repeat(100000)}\r\n\r\n`);
    await tcp.until((text) => tcp.isClosed || /^HTTP\/1\.1 4\d\d/.test(text), 3000);
    assert.ok(!tcp.text.startsWith('HTTP/1.1 200'));
    tcp.drop();
  });
  harm('ten thousand headers are refused or cut', async (port) => {
    const tcp = await Tcp.open(port);
    tcp.write(`GET ${EIO} HTTP/1.1\r\nHost: x\r\n${Array.from({ length: 10000 }, (_, i) => `x${i}: 1\r\n`).join('')}\r\n`);
    await tcp.until((text) => tcp.isClosed || /^HTTP\/1\.1 4\d\d/.test(text), 3000);
    tcp.drop();
  });
  harm('bytes that are no HTTP are refused', async (port) => {
    for (const bytes of ['\r\n\r\n\r\nhello\r\n\r\n', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'GET\r\n\r\n', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'GET / HTTP/9.9\r\n\r\n']) {
      const tcp = await Tcp.open(port);
      tcp.write(Buffer.from(bytes, 'latin1'));
      await tcp.until((text) => tcp.isClosed || /^HTTP\/1\.[01] (4|5)\d\d/.test(text), 3000);
      tcp.drop();
    }
  });
  harm('ten thousand query keys cost one answer', async (port) => {
    const keys = Array.from({ length: 1500 }, (_, i) => `k${i}=`).join('&');
    const reply = await request(port, `${EIO}&${keys}`);
    assert.ok([200, 400, 414, 431].includes(reply.status));
  });
  harm('pipelined requests are answered in order', { referenceFails: 'it starts them all at once and takes the second POST for an overlap' }, async (port) => {
    const session = await Polling.open(port, { path });
    const tcp = await Tcp.open(port);
    const post = (body) => `POST ${session.target} HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    tcp.write(post('40') + `GET ${path}?EIO=4&transport=foo HTTP/1.1\r\nHost: x\r\n\r\n` + post('42["message",1]'));
    await tcp.until((text) => (text.match(/HTTP\/1\.1 /g) || []).length === 3);
    assert.deepEqual(tcp.text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 400', 'HTTP/1.1 200']);
    tcp.drop();
  });
});

besideWitness('hostile sessions', {}, (harm) => {
  harm('guessed session ids open nothing', async (port) => {
    const mine = await Polling.open(port, { path });
    const near = [mine.sid.toLowerCase() + 'x', mine.sid.slice(0, -1), mine.sid + 'A', [...mine.sid].reverse().join(''), '../' + mine.sid, mine.sid + '%00', '*'];
    for (const sid of near) {
      const reply = await request(port, `${EIO}&sid=${sid}`);
      assert.deepEqual([reply.status, JSON.parse(reply.text).code], [400, 1], sid);
    }
  });
  harm('a Socket.IO id is no session id', async (port) => {
    const ws = await openWs(port);
    const socket = await join(ws);
    assert.equal((await request(port, `${EIO}&sid=${socket.sid}`)).status, 400);
    ws.close();
  });
  harm('polling a session that is on WebSocket is refused and harms it not', async (port) => {
    const ws = await openWs(port);
    const socket = await join(ws);
    assert.equal((await request(port, `${EIO}&sid=${ws.sid}`)).status, 400);
    assert.equal((await request(port, `${EIO}&sid=${ws.sid}`, { method: 'POST', body: '1' })).status, 400);
    assert.equal(await socket.ask('message-with-ack', 'alive'), 'alive');
    ws.close();
  });
  harm('a WebSocket with the sid of a WebSocket session is closed and harms it not', { referenceFails: 'it lets the session upgrade from one WebSocket to another' }, async (port) => {
    const ws = await openWs(port);
    const socket = await join(ws);
    await Ws.connect(port, { path, extra: { sid: ws.sid } }).closed();
    assert.equal(await socket.ask('message-with-ack', 'alive'), 'alive');
    ws.close();
  });
  harm('fifty WebSockets on one session at once: at most one survives', async (port) => {
    const session = await Polling.open(port, { path });
    const peers = Array.from({ length: 50 }, () => Ws.connect(port, { path, extra: { sid: session.sid } }));
    await sleep(300);
    assert.ok(peers.filter((peer) => peer.closeCode === undefined && !peer.refusal && peer.socket.readyState === 1).length <= 1);
    for (const peer of peers) peer.drop();
  });
  harm('fifty polls on one session at once end it', async (port) => {
    const session = await Polling.open(port, { path });
    const replies = await within(5000, Promise.all(Array.from({ length: 50 }, () => session.poll().catch(() => ({ status: 0 })))), 'the answers');
    assert.ok(replies.filter((one) => one.status === 400).length >= 48);
  });
  harm('an upgrade request with a bad WebSocket key or version is refused', async (port) => {
    for (const change of [['Sec-WebSocket-Version: 13', 'Sec-WebSocket-Version: 7'], [/Sec-WebSocket-Key: .*/, 'Sec-WebSocket-Key: short'], [/Sec-WebSocket-Key: .*\r\n/, ''], ['GET', 'POST']]) {
      const tcp = await Tcp.open(port);
      tcp.write(upgradeRequest(port, `${path}?EIO=4&transport=websocket`).replace(...change));
      await tcp.until((text) => tcp.isClosed || text.includes('\r\n\r\n'), 3000);
      assert.ok(!tcp.text.startsWith('HTTP/1.1 101'), change[1]);
      tcp.drop();
    }
  });
});

besideWitness('hostile silence', { connectTimeout: 3000, pingInterval: 1000, pingTimeout: 4000 }, (harm) => {
  harm('two thousand connections that never speak leave room for others, and go', { timeout: 25000 }, async (port) => {
    const crowd = [];
    for (let i = 0; i < 2000; i += 100) {
      crowd.push(...await Promise.all(Array.from({ length: 100 }, () => Tcp.open(port))));
    }
    const ws = await openWs(port);
    const socket = await join(ws);
    assert.equal(await socket.ask('message-with-ack', 'room for me'), 'room for me');
    ws.close();
    for (const tcp of crowd) tcp.drop();
  });
  harm('five hundred WebSockets that never join are closed', { timeout: 20000 }, async (port) => {
    const crowd = await Promise.all(Array.from({ length: 500 }, () => Ws.open(port, { path })));
    await within(10000, Promise.all(crowd.map((ws) => ws.closing)), 'the closing of all');
  });
  harm('half-open connections are dropped by the heartbeat', async (port) => {
    const ws = await openWs(port);
    const watcher = await join(await Ws.open(port, { path, pong: true }));
    const socket = await join(ws);
    ws.freeze();
    await eventually(async () => (await watcher.ask('last-reason', socket.sid)) === 'ping timeout', 'the heartbeat', 4000);
    ws.drop();
    watcher.peer.close();
  });
  harm('a client that closes only its sending side is let go', async (port) => {
    const tcp = await joinedTcp(port);
    tcp.socket.end();
    await tcp.closed(5000);
  });
}, 2);

// Servers choose their own time-outs here; the bound is generous and only asks that there be one.
besideWitness('hostile slowness', {}, (harm) => {
  const slow = { oursOnly: 'the reference allows a minute for headers and five for a body', timeout: 50000 };
  const cut = async (tcp, drip) => {
    const end = Date.now() + 45000;
    while (!tcp.isClosed && Date.now() < end) {
      tcp.write(drip);
      await Promise.race([tcp.closing, sleep(1000)]);
    }
    assert.ok(tcp.isClosed, 'still open after 45 s');
  };
  harm('headers that drip for ever are cut off', slow, async (port) => {
    const tcp = await Tcp.open(port);
    tcp.write(`GET ${EIO} HTTP/1.1\r\nHost: x\r\n`);
    await cut(tcp, 'X-Drip: 1\r\n');
  });
  harm('a request line that drips for ever is cut off', slow, async (port) => {
    const tcp = await Tcp.open(port);
    tcp.write('GET /socket.io/?');
    await cut(tcp, 'x');
  });
  harm('a body that drips for ever is cut off', slow, async (port) => {
    const session = await Polling.open(port, { path });
    const tcp = await Tcp.open(port);
    tcp.write(`POST ${session.target} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n4`);
    await cut(tcp, 'x');
  });
  harm('a connection that never says a word is closed', slow, async (port) => {
    const tcp = await Tcp.open(port);
    await tcp.closed(45000);
  });
}, 4);

besideWitness('hostile compression', { wsDeflate: true, maxPayload: 100000 }, (harm) => {
  const offer = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };
  const deflating = async (port) => {
    const tcp = await Tcp.upgrade(port, { path, headers: offer });
    assert.match(tcp.text, /sec-websocket-extensions: permessage-deflate/i);
    tcp.write(frame(OPCODE.text, '40'));
    return tcp;
  };
  const deflated = (text) => zlib.deflateRawSync(text, { finishFlush: zlib.constants.Z_SYNC_FLUSH }).subarray(0, -4);
  /** All messages the server has sent so far, unpacked where they are compressed. */
  const unpacked = (tcp) => {
    let at = tcp.data.indexOf('\r\n\r\n') + 4;
    const plain = [];
    const packed = [];
    while (at + 2 <= tcp.data.length) {
      const [head, short] = [tcp.data[at], tcp.data[at + 1]];
      const length = short === 126 ? tcp.data.readUInt16BE(at + 2) : short;
      const start = at + (short === 126 ? 4 : 2);
      const body = tcp.data.subarray(start, start + length);
      if (head & 0x40) packed.push(body, Buffer.from([0, 0, 0xff, 0xff]));
      else plain.push(body);
      at = start + length;
    }
    return Buffer.concat(plain).toString() + zlib.inflateRawSync(Buffer.concat(packed), { finishFlush: zlib.constants.Z_SYNC_FLUSH });
  };
  harm('a compressed message works at all', async (port) => {
    const tcp = await deflating(port);
    await tcp.until(() => unpacked(tcp).includes('40{"sid"'));
    tcp.write(frame(OPCODE.text, deflated('42["message","packed"]'), { rsv: 4 }));
    await tcp.until(() => unpacked(tcp).includes('42["message-back","packed"]'));
    tcp.drop();
  });
  harm('a small frame that unpacks to a hundred megabytes is stopped at the limit', async (port) => {
    const tcp = await deflating(port);
    const bomb = deflated(Buffer.alloc(100e6, 0x34));
    assert.ok(bomb.length < 100000, `${bomb.length} bytes on the wire`);
    tcp.write(frame(OPCODE.text, bomb, { rsv: 4 }));
    await tcp.until((text) => tcp.isClosed || text.includes('\x88'), 5000);
    tcp.drop();
  });
  harm('bytes that are no deflate stream close the connection', async (port) => {
    const tcp = await deflating(port);
    tcp.write(frame(OPCODE.text, Buffer.alloc(50, 0xff), { rsv: 4 }));
    await tcp.until((text) => tcp.isClosed || text.includes('\x88'));
    tcp.drop();
  });
  harm('strange window bits in the offer are declined or refused', async (port) => {
    for (const bad of ['permessage-deflate; server_max_window_bits=99', 'permessage-deflate; client_max_window_bits=1', 'permessage-deflate; foo=bar', 'permessage-deflate; server_no_context_takeover=1', ';;;', 'permessage-deflate;'.repeat(200)]) {
      const tcp = await Tcp.open(port);
      tcp.write(upgradeRequest(port, `${path}?EIO=4&transport=websocket`, { 'Sec-WebSocket-Extensions': bad }));
      await tcp.until((text) => tcp.isClosed || text.includes('\r\n\r\n'));
      assert.doesNotMatch(tcp.text, /sec-websocket-extensions:.*(99|foo|_bits=1\b)/i);
      tcp.drop();
    }
  });
}, 2);
