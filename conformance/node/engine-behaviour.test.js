'use strict';
// Engine.IO v4 beyond the official suite: refusals, polling, WebSocket, heartbeat, compression, CORS, cookie, closing.

const assert = require('node:assert/strict');
const http = require('node:http');
const zlib = require('node:zlib');
const { describe } = require('node:test');
const { shared, startServer, IS_REFERENCE } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { request, Polling, Ws, Tcp, join, sleep, eventually, within, upgradeRequest, splitPayload, SEPARATOR } = require('../lib/wire');

const EIO = '/engine.io/';
const SIO = '/socket.io/';
const raw = (options = {}) => shared({ rawEngineIo: true, ...options });
const MESSAGES = ['Transport unknown', 'Session ID unknown', 'Bad handshake method', 'Bad request', 'Forbidden', 'Unsupported protocol version'];

function assertRefused(reply, code) {
  assert.equal(reply.status, 400, `status ${reply.status}: ${reply.text}`);
  assert.match(reply.headers['content-type'], /^application\/json/);
  assert.equal(reply.text, JSON.stringify({ code, message: MESSAGES[code] }));
}
async function assertGone(session) {
  assertRefused(await session.poll(), 1);
}
async function assertAlive(session, text = 'still here') {
  assert.equal((await session.post('4' + text)).status, 200);
  assert.equal((await session.poll()).text, '4' + text);
}

describe('refusals over HTTP', { concurrency: 8 }, () => {
  for (const [sentence, target, code, options] of [
    ['no transport', '?EIO=4', 0],
    ['an unknown transport', '?EIO=4&transport=foo', 0],
    ['webtransport in a query', '?EIO=4&transport=webtransport', 0],
    ['a transport named constructor', '?EIO=4&transport=constructor', 0],
    ['a transport named __proto__', '?EIO=4&transport=__proto__', 0],
    ['an unknown transport of revision 3: the transport is looked at first', '?EIO=3&transport=foo', 0],
    ['an unknown sid', '?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAA', 1],
    ['a sid named constructor', '?EIO=4&transport=polling&sid=constructor', 1],
    ['a sid named __proto__', '?EIO=4&transport=polling&sid=__proto__', 1],
    ['a sid of 5,000 characters', '?EIO=4&transport=polling&sid=' + 'A'.repeat(5000), 1],
    ['a sid with percent-encoded bytes that are no UTF-8', '?EIO=4&transport=polling&sid=%ff%fe%00', 1],
    ['a handshake by POST', '?EIO=4&transport=polling', 2, { method: 'POST', body: '4x' }],
    ['a handshake by PUT', '?EIO=4&transport=polling', 2, { method: 'PUT' }],
    ['a handshake by DELETE', '?EIO=4&transport=polling', 2, { method: 'DELETE' }],
    ['a handshake by OPTIONS without CORS', '?EIO=4&transport=polling', 2, { method: 'OPTIONS' }],
    ['transport=websocket without an upgrade', '?EIO=4&transport=websocket', 3],
    ['revision 3 while it is off', '?EIO=3&transport=polling', 5],
    ['no EIO, which means revision 3', '?transport=polling', 5],
    ['EIO=5', '?EIO=5&transport=polling', 5],
  ]) {
    conforms(`refused with code ${code}: ${sentence}`, async () => {
      assertRefused(await request((await raw()).port, EIO + target, options), code);
    });
  }
  conforms('a handshake by HEAD is a 400 without a body', async () => {
    const reply = await request((await raw()).port, EIO + '?EIO=4&transport=polling', { method: 'HEAD' });
    assert.deepEqual([reply.status, reply.text], [400, '']);
  });
  conforms('the last of repeated query keys wins', async () => {
    const { port } = await raw();
    assert.equal((await request(port, EIO + '?EIO=3&EIO=4&transport=polling')).status, 200);
    assertRefused(await request(port, EIO + '?EIO=4&EIO=3&transport=polling'), 5);
  });
  conforms('an empty sid asks for a new session', async () => {
    const reply = await request((await raw()).port, EIO + '?EIO=4&transport=polling&sid=');
    assert.equal(reply.status, 200);
    assert.equal(reply.text[0], '0');
  });
  conforms('a request of another revision than the session is code 3 and the session lives', async () => {
    const session = await Polling.open((await raw()).port);
    assertRefused(await request(session.port, `${EIO}?EIO=3&transport=polling&sid=${session.sid}`), 3);
    await assertAlive(session);
  });
  conforms('a polling request after the upgrade is code 3', async () => {
    const session = await Polling.open((await raw()).port);
    const ws = Ws.connect(session.port, { extra: { sid: session.sid } });
    await ws.opened;
    ws.send('2probe', '5', '4moved');
    assert.equal(await ws.next(), '3probe');
    assert.equal(await ws.next(), '4moved');
    assertRefused(await session.poll(), 3);
    assertRefused(await session.post('4x'), 3);
    ws.close();
  });
  conforms('a known session asked with a strange method answers an error and lives', async () => {
    const session = await Polling.open((await raw()).port);
    for (const method of ['PUT', 'DELETE', 'PATCH']) {
      const reply = await request(session.port, session.target, { method });
      // The reference says 500; a client error would be more to the point.
      assert.ok(IS_REFERENCE ? reply.status === 500 : reply.status >= 400, `${method} answered ${reply.status}`);
    }
    await assertAlive(session);
  });
  conforms('a path that is not ours is a 404', async () => {
    assert.equal((await request((await raw()).port, '/elsewhere?EIO=4&transport=polling')).status, 404);
  });
  conforms('a JSONP request is a 400', { referenceFails: 'it still serves JSONP' }, async () => {
    assert.equal((await request((await raw()).port, EIO + '?EIO=4&transport=polling&j=0')).status, 400);
  });
  conforms('a switched-off transport is unknown, and polling alone offers no upgrade', async () => {
    const pollingOnly = await raw({ transports: 'polling' });
    assert.deepEqual((await Polling.open(pollingOnly.port)).open.upgrades, []);
    const ws = Ws.connect(pollingOnly.port);
    await ws.closed();
    const websocketOnly = await raw({ transports: 'websocket' });
    assertRefused(await request(websocketOnly.port, EIO + '?EIO=4&transport=polling'), 0);
    const alone = await Ws.open(websocketOnly.port);
    alone.close();
  });
  conforms('the path is configurable', async () => {
    const { port } = await shared({ path: '/live/' });
    assert.equal((await request(port, '/live/?EIO=4&transport=polling')).status, 200);
    assert.equal((await request(port, '/socket.io/?EIO=4&transport=polling')).status, 404);
  });
});

describe('refusals of an upgrade request', { concurrency: 8 }, () => {
  for (const [sentence, extra, code] of [
    ['an unknown transport', { transport: 'foo' }, 0],
    ['an unknown sid', { sid: 'AAAAAAAAAAAAAAAAAAAA' }, 1],
    ['a sid named __proto__', { sid: '__proto__' }, 1],
  ]) {
    conforms(`an upgrade with ${sentence} is an HTTP 400 with the bare message`, async () => {
      const ws = Ws.connect((await raw()).port, { extra });
      await eventually(() => ws.refusal, 'the refusal');
      assert.deepEqual([ws.refusal.status, ws.refusal.text], [400, MESSAGES[code]]);
    });
  }
  conforms('an upgrade of revision 3 while it is off is refused before the 101', { referenceFails: 'it writes the refusal into the upgraded stream' }, async () => {
    const ws = Ws.connect((await raw()).port, { extra: { EIO: 3 } });
    await eventually(() => ws.refusal, 'the refusal', 1000);
    assert.deepEqual([ws.refusal.status, ws.refusal.text], [400, MESSAGES[5]]);
  });
  conforms('an upgrade request that names polling ends at once', async () => {
    await Ws.connect((await raw()).port, { extra: { transport: 'polling' } }).closed(1500);
  });
  conforms('an upgrade request on a foreign path is ended within 2 s', async () => {
    const tcp = await Tcp.open((await raw()).port);
    tcp.write(upgradeRequest(tcp.socket.remotePort, '/elsewhere'));
    await tcp.closed(2000);
    assert.ok(!tcp.text.startsWith('HTTP/1.1 101'));
  });
  conforms('garbage right behind an upgrade request harms only that connection', async () => {
    const { port } = await raw();
    const healthy = await Ws.open(port);
    const tcp = await Tcp.open(port);
    tcp.write(Buffer.concat([Buffer.from(upgradeRequest(port, EIO + '?EIO=4&transport=websocket')), Buffer.alloc(200, 0xff)]));
    await tcp.closed();
    healthy.send('4fine');
    assert.equal(await healthy.next(), '4fine');
    healthy.close();
  });
});

describe('the handshake', { concurrency: 8 }, () => {
  conforms('a polling handshake reply carries text, its length and no-store', async () => {
    const { reply } = await Polling.open((await raw()).port);
    assert.match(reply.headers['content-type'], /^text\/plain; charset=utf-8$/i);
    assert.equal(reply.headers['content-length'], String(reply.body.length));
    assert.match(reply.headers['cache-control'], /no-store/);
  });
  conforms('session ids are 20 characters of the URL-safe alphabet and all different', async () => {
    const { port } = await raw();
    const sids = await Promise.all(Array.from({ length: 50 }, async () => (await Polling.open(port)).sid));
    for (const sid of sids) assert.match(sid, /^[A-Za-z0-9_-]{20}$/);
    assert.equal(new Set(sids).size, 50);
  });
  conforms('the polling handshake reply holds nothing but the open packet', async () => {
    const { reply } = await Polling.open((await shared()).port, { path: SIO });
    assert.ok(!reply.text.includes(SEPARATOR));
    JSON.parse(reply.text.slice(1));
  });
  conforms('no cookie is set unless asked for', async () => {
    const { reply } = await Polling.open((await raw()).port);
    assert.equal(reply.headers['set-cookie'], undefined);
  });
  conforms('with --cookie the first polling reply alone sets io=<sid>', async () => {
    const session = await Polling.open((await raw({ cookie: true })).port);
    assert.deepEqual(session.reply.headers['set-cookie'], [`io=${session.sid}; Path=/; HttpOnly; SameSite=Lax`]);
    assert.equal((await session.post('4x')).headers['set-cookie'], undefined);
    assert.equal((await session.poll()).headers['set-cookie'], undefined);
    const ws = await Ws.open(session.port);
    assert.equal(ws.response.headers['set-cookie'], undefined);
    ws.close();
  });
  conforms('one TCP connection carries a whole polling session', async () => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const session = await Polling.open((await raw()).port);
    let local;
    for (let i = 0; i < 5; i++) {
      const post = session.post(`4n${i}`, { agent });
      await post;
      local ??= post.req.socket.localPort;
      assert.equal(post.req.socket.localPort, local);
      assert.equal((await session.poll({ agent })).text, `4n${i}`);
    }
    agent.destroy();
  });
  conforms('a client that closes its connection after each request keeps its session', async () => {
    const session = await Polling.open((await raw()).port, { headers: { connection: 'close' } });
    await assertAlive(session, 'one');
    await assertAlive(session, 'two');
  });
});

describe('CORS', { concurrency: 8 }, () => {
  const origin = 'http://app.example';
  conforms('without the option no reply has CORS headers', async () => {
    const reply = await request((await raw()).port, EIO + '?EIO=4&transport=polling', { headers: { origin } });
    assert.equal(reply.headers['access-control-allow-origin'], undefined);
  });
  conforms('a preflight is a 204 that names origin, methods and the wanted headers', async () => {
    const { port } = await raw({ cors: origin });
    const reply = await request(port, EIO + '?EIO=4&transport=polling', {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'x-mine,content-type' },
    });
    assert.deepEqual([reply.status, reply.text], [204, '']);
    assert.equal(reply.headers['access-control-allow-origin'], origin);
    assert.match(reply.headers['access-control-allow-methods'], /GET.*POST/);
    assert.match(reply.headers['access-control-allow-headers'], /x-mine/);
  });
  conforms('polling replies and refusals both carry the allowed origin', async () => {
    const { port } = await raw({ cors: origin });
    const good = await request(port, EIO + '?EIO=4&transport=polling', { headers: { origin } });
    assert.equal(good.headers['access-control-allow-origin'], origin);
    const bad = await request(port, EIO + '?EIO=4&transport=foo', { headers: { origin } });
    assertRefused(bad, 0);
    assert.equal(bad.headers['access-control-allow-origin'], origin);
  });
  conforms('a star is sent as a star', async () => {
    const reply = await request((await raw({ cors: '*' })).port, EIO + '?EIO=4&transport=polling', { headers: { origin } });
    assert.equal(reply.headers['access-control-allow-origin'], '*');
  });
  conforms('a foreign origin never gets itself allowed', async () => {
    const reply = await request((await raw({ cors: origin })).port, EIO + '?EIO=4&transport=polling', { headers: { origin: 'http://evil.example' } });
    assert.notEqual(reply.headers['access-control-allow-origin'], 'http://evil.example');
    assert.notEqual(reply.headers['access-control-allow-origin'], '*');
  });
  conforms('CORS does not keep a WebSocket of a foreign origin out', async () => {
    const ws = await Ws.open((await raw({ cors: origin })).port, { headers: { origin: 'http://evil.example' } });
    ws.close();
  });
});

describe('polling', { concurrency: 8 }, () => {
  conforms('a POST reply is text/html with length 2 and no-store', async () => {
    const session = await Polling.open((await raw()).port);
    const { headers, text } = await session.post('4x');
    assert.equal(text, 'ok');
    assert.match(headers['content-type'], /^text\/html/);
    assert.equal(headers['content-length'], '2');
    assert.match(headers['cache-control'], /no-store/);
  });
  conforms('a poll reply is UTF-8 text with no-store', async () => {
    const session = await Polling.open((await raw()).port);
    await session.post('4grüße 🎺');
    const reply = await session.poll();
    assert.equal(reply.text, '4grüße 🎺');
    assert.match(reply.headers['content-type'], /^text\/plain; charset=utf-8$/i);
    assert.match(reply.headers['cache-control'], /no-store/);
  });
  conforms('a held poll is answered as soon as something is queued', async () => {
    const session = await Polling.open((await raw()).port);
    const held = session.poll();
    await sleep(50);
    await session.post('4now');
    assert.equal((await within(5000, held, 'the answer')).text, '4now');
  });
  conforms('several packets queued while a poll is held are separated in the reply', async () => {
    const session = await Polling.open((await shared()).port, { path: SIO });
    await session.send('40');
    const seen = [];
    const held = session.poll();
    await session.send('42["burst",3]');
    seen.push(...splitPayload((await held).text));
    while (!seen.includes('42["burst",2]')) seen.push(...splitPayload((await session.poll()).text));
    assert.deepEqual(seen.filter((one) => one.startsWith('42["burst"')), ['42["burst",0]', '42["burst",1]', '42["burst",2]']);
  });
  conforms('no poll reply holds more than 16 packets', { referenceFails: 'it has no such cap, and python clients drop the session' }, async () => {
    const session = await Polling.open((await shared()).port, { path: SIO });
    await session.send('40');
    await session.send('42["burst",40]');
    const seen = [];
    while (!seen.includes('42["burst",39]')) {
      const packets = splitPayload((await session.poll()).text);
      assert.ok(packets.length <= 16, `${packets.length} packets in one reply`);
      seen.push(...packets);
    }
    assert.deepEqual(seen.filter((one) => one.startsWith('42["burst"')), Array.from({ length: 40 }, (_, i) => `42["burst",${i}]`));
  });
  conforms('more than 16 packets in one POST are all taken', async () => {
    const session = await Polling.open((await raw()).port);
    const sent = Array.from({ length: 60 }, (_, i) => `4n${i}`);
    await session.send(...sent);
    const seen = [];
    while (seen.length < 60) seen.push(...splitPayload((await session.poll()).text));
    assert.deepEqual(seen, sent);
  });
  for (const [what, headers] of [
    ['text/plain', { 'content-type': 'text/plain' }],
    ['application/json', { 'content-type': 'application/json' }],
    ['application/x-www-form-urlencoded', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['no content type', {}],
  ]) {
    conforms(`a POST with ${what} is read as text`, async () => {
      const session = await Polling.open((await raw()).port);
      assert.equal((await session.post('4a=b', { headers })).text, 'ok');
      assert.equal((await session.poll()).text, '4a=b');
    });
  }
  conforms('an octet-stream POST is a 400 and closes the session', async () => {
    const session = await Polling.open((await raw()).port);
    assert.equal((await session.post('4x', { headers: { 'content-type': 'application/octet-stream' } })).status, 400);
    await assertGone(session);
  });
  conforms('a chunked POST that splits a character is put together', async () => {
    const session = await Polling.open((await raw()).port);
    const bytes = Buffer.from('4é🎺');
    assert.equal((await session.post([bytes.subarray(0, 2), bytes.subarray(2, 5), bytes.subarray(5)])).text, 'ok');
    assert.equal((await session.poll()).text, '4é🎺');
  });
  conforms('a POST of exactly the limit passes', async () => {
    const session = await Polling.open((await raw({ maxPayload: 100 })).port);
    await assertAlive(session, 'x'.repeat(99));
  });
  conforms('a POST over the limit is a 413 and the session lives', async () => {
    const session = await Polling.open((await raw({ maxPayload: 100 })).port);
    const reply = await session.post('4' + 'x'.repeat(100));
    assert.deepEqual([reply.status, reply.text], [413, '']);
    await assertAlive(session);
  });
  conforms('a chunked POST over the limit is a 413 and the session lives', async () => {
    const session = await Polling.open((await raw({ maxPayload: 100 })).port);
    const reply = await session.post(['4' + 'x'.repeat(60), 'x'.repeat(60)]);
    assert.equal(reply.status, 413);
    await assertAlive(session);
  });
  conforms('packets before a bad one in a payload are delivered', async () => {
    const session = await Polling.open((await raw()).port);
    const held = await session.hold();
    await session.post(['4good', 'zbad', '4never'].join(SEPARATOR)).catch(() => {});
    const reply = await held.reply;
    assert.equal(splitPayload(reply.text)[0], '4good');
    assert.ok(!reply.text.includes('never'));
    await assertGone(session);
  });
  conforms('an empty POST is a bad packet: 400 and closed', { referenceFails: 'it answers 200' }, async () => {
    const session = await Polling.open((await raw()).port);
    assert.equal((await session.post('')).status, 400);
    await assertGone(session);
  });
  conforms('a second POST while the first is still arriving closes the session', async () => {
    const session = await Polling.open((await raw()).port);
    const slow = session.post(['4a', 'b', 'c'], { pieceDelay: 3000 });
    await sleep(300);
    assert.equal((await session.post('4second')).status, 400);
    const first = await slow.catch(() => null);
    assert.ok(first === null || first.status >= 400, 'the first POST must fail too');
    await assertGone(session);
  });
  conforms('a poll and a POST at the same time are normal', async () => {
    const session = await Polling.open((await raw()).port);
    for (let i = 0; i < 20; i++) {
      const [poll, post] = await Promise.all([session.poll(), session.post(`4n${i}`)]);
      assert.deepEqual([poll.text, post.text], [`4n${i}`, 'ok']);
    }
  });
  conforms('a client that cuts its held poll loses the session', async () => {
    const session = await Polling.open((await raw()).port);
    const held = await session.hold();
    held.reply.req.destroy();
    // A stray pong looks without touching: a message would be echoed into the poll that was cut, if it came first.
    await eventually(async () => (await session.post('3')).status === 400, 'the end of the session', 10000);
    await assertGone(session);
  });
  conforms('a client that cuts its POST in the middle loses the session', async () => {
    const session = await Polling.open((await raw()).port);
    const slow = session.post(['4a', 'b', 'c'], { pieceDelay: 5000 });
    await sleep(200);
    slow.req.destroy();
    await sleep(1000); // No look before: a second POST would end the session by itself.
    await assertGone(session);
  });
  conforms('a binary message that starts like a text packet stays binary', async () => {
    const session = await Polling.open((await raw()).port);
    await session.send(Buffer.from('4hello'));
    assert.equal((await session.poll()).text, 'b' + Buffer.from('4hello').toString('base64'));
  });
  conforms('all 256 byte values survive a polling round trip', async () => {
    const session = await Polling.open((await raw()).port);
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await session.send(bytes);
    assert.deepEqual(splitPayload((await session.poll()).text), [bytes]);
  });
  for (const packet of ['0', '0{"sid":"x"}', '5', '6', '3', '3probe']) {
    conforms(`a stray ${packet} in a POST is ignored`, async () => {
      const session = await Polling.open((await raw()).port);
      assert.equal((await session.post(packet)).status, 200);
      await assertAlive(session);
    });
  }
  conforms('a ping from the client closes a polling session: the heartbeat has one direction', async () => {
    const session = await Polling.open((await raw()).port);
    await session.post('2').catch(() => {});
    await assertGone(session);
  });
});

describe('WebSocket', { concurrency: 8 }, () => {
  conforms('a separator inside a frame does not split the message', async () => {
    const ws = await Ws.open((await raw()).port);
    ws.send(`4a${SEPARATOR}4b`);
    assert.equal(await ws.next(), `4a${SEPARATOR}4b`);
    ws.close();
  });
  conforms('a text frame that starts with b is a binary message', async () => {
    const ws = await Ws.open((await raw()).port);
    ws.send('bAQID');
    assert.deepEqual(await ws.next(), Buffer.from([1, 2, 3]));
    ws.close();
  });
  conforms('with b64 in the query the server sends binary as text', async () => {
    const ws = await Ws.open((await raw()).port, { extra: { b64: 1 } });
    ws.send(Buffer.from([1, 2, 3]));
    assert.equal(await ws.next(), 'bAQID');
    ws.close();
  });
  conforms('an empty binary frame is an empty message', async () => {
    const ws = await Ws.open((await raw()).port);
    ws.send(Buffer.alloc(0));
    assert.deepEqual(await ws.next(), Buffer.alloc(0));
    ws.close();
  });
  for (const packet of ['0', '0{"sid":"x"}', '5', '6', '3', '3probe']) {
    conforms(`a stray ${packet} over WebSocket is ignored`, async () => {
      const ws = await Ws.open((await raw()).port);
      ws.send(packet, '4alive');
      assert.equal(await ws.next(), '4alive');
      ws.close();
    });
  }
  for (const packet of ['2', '2probe', '', 'x', '7', ' 4']) {
    conforms(`${JSON.stringify(packet)} over an established WebSocket closes it`, async () => {
      const ws = await Ws.open((await raw()).port);
      ws.send(packet);
      await ws.closed(1000);
      assert.equal(ws.inbox.items.length, 0);
    });
  }
  conforms('a message of exactly the limit passes', async () => {
    const ws = await Ws.open((await raw({ maxPayload: 100 })).port);
    ws.send('4' + 'x'.repeat(99));
    assert.equal(await ws.next(), '4' + 'x'.repeat(99));
    ws.close();
  });
  conforms('a message over the limit closes the WebSocket with 1009', async () => {
    const ws = await Ws.open((await raw({ maxPayload: 100 })).port);
    ws.send('4' + 'x'.repeat(100));
    assert.equal(await ws.closed(), 1009);
  });
  conforms('a message of many fragments with pings of the WebSocket kind in between arrives whole', async () => {
    const { frame, OPCODE } = require('../lib/wire');
    const tcp = await Tcp.upgrade((await raw()).port);
    tcp.write(frame(OPCODE.text, '4a', { fin: false }));
    tcp.write(frame(OPCODE.ping, 'hi'));
    tcp.write(frame(OPCODE.continuation, 'b', { fin: false }));
    tcp.write(frame(OPCODE.continuation, 'c'));
    await tcp.until((text) => text.includes('4abc'));
    assert.ok(tcp.text.includes('\x8a\x02hi'), 'the ping must be answered');
    tcp.drop();
  });
  conforms('a close frame is answered with a close frame', async () => {
    const ws = await Ws.open((await raw()).port);
    ws.socket.close(1000);
    assert.equal(await ws.closed(), 1000);
  });
  conforms('compression is not agreed on unless the server has it', async () => {
    const ws = await Ws.open((await raw()).port, { deflate: true });
    assert.equal(ws.socket.extensions, '');
    ws.close();
  });
  conforms('with --ws-deflate compression is agreed on and large echoes survive it', async () => {
    const ws = await Ws.open((await raw({ wsDeflate: true })).port, { deflate: true });
    assert.match(ws.socket.extensions, /permessage-deflate/);
    for (const text of ['4small', '4' + 'abc'.repeat(5000), '4' + 'z'.repeat(100)]) {
      ws.send(text);
      assert.equal(await ws.next(), text);
    }
    ws.close();
  });
  conforms('with --ws-deflate a client without it works too', async () => {
    const ws = await Ws.open((await raw({ wsDeflate: true })).port);
    ws.send('4' + 'abc'.repeat(5000));
    assert.equal(await ws.next(), '4' + 'abc'.repeat(5000));
    ws.close();
  });
});

describe('heartbeat', { concurrency: 8 }, () => {
  // A pong may be late on a busy machine; where it is not to come at all, the session is to end soon.
  const beating = () => raw({ pingInterval: 300, pingTimeout: 5000 });
  const ending = () => raw({ pingInterval: 300, pingTimeout: 2000 });
  conforms('the next ping comes one interval after the pong, not after the ping', async () => {
    const ws = await Ws.open((await beating()).port);
    assert.equal(await ws.next(), '2');
    await sleep(100);
    const ponged = Date.now();
    ws.send('3');
    assert.equal(await ws.next(), '2');
    const waited = Date.now() - ponged;
    assert.ok(waited >= 280, `ping ${waited} ms after the pong`);
    ws.close();
  });
  conforms('a pong may carry any payload', async () => {
    const ws = await Ws.open((await beating()).port);
    for (let i = 0; i < 3; i++) {
      assert.equal(await ws.next(), '2');
      ws.send('3whatever');
    }
    ws.close();
  });
  conforms('messages are no substitute for pongs', async () => {
    const ws = await Ws.open((await ending()).port);
    const chatter = setInterval(() => ws.socket.readyState === 1 && ws.send('4x'), 50);
    // Two time-outs are granted: newer releases of the reference start it anew once for the first packet after a ping.
    await ws.closed(6000);
    clearInterval(chatter);
  });
  conforms('a ping is kept for a polling client that is between two polls', async () => {
    const session = await Polling.open((await beating()).port);
    await sleep(350);
    assert.equal((await within(5000, session.poll(), 'the ping')).text, '2');
    assert.equal((await session.post('3')).text, 'ok');
    assert.equal((await session.poll()).text, '2');
  });
  conforms('a held poll of a session that times out is ended', async () => {
    const session = await Polling.open((await ending()).port);
    assert.equal((await session.poll()).text, '2');
    const reply = await within(5000, session.poll(), 'the end of the poll');
    assert.ok(reply.text === '1' || reply.status === 400, `${reply.status} ${reply.text}`);
    await assertGone(session);
  });
  conforms('the heartbeat goes on over the WebSocket after an upgrade', async () => {
    const session = await Polling.open((await raw({ pingInterval: 300, pingTimeout: 4000 })).port);
    const ws = Ws.connect(session.port, { extra: { sid: session.sid } });
    await ws.opened;
    ws.send('2probe', '5');
    assert.equal(await ws.next(), '3probe');
    for (let i = 0; i < 3; i++) {
      assert.equal(await ws.next(), '2');
      ws.send('3');
    }
    await ws.closed(4000);
  });
});

describe('compression of polling replies', { concurrency: 8 }, () => {
  const asking = async (encoding, bytes, { options = {}, compress } = {}) => {
    const session = await Polling.open((await shared(options)).port, { path: SIO });
    await session.send('40');
    let greeted = '';
    while (!greeted.includes('42["auth"')) greeted += (await session.poll()).text;
    await session.send(`42["text",${JSON.stringify({ bytes, compress })}]`);
    const reply = await session.poll({ headers: encoding ? { 'accept-encoding': encoding } : {} });
    const unpack = { gzip: zlib.gunzipSync, deflate: zlib.inflateSync }[reply.headers['content-encoding']] ?? ((x) => x);
    assert.equal(unpack(reply.body).toString(), `42["text","${'x'.repeat(bytes)}"]`);
    return reply.headers['content-encoding'];
  };
  conforms('a large reply is gzipped for who accepts gzip', async () => assert.equal(await asking('gzip', 5000), 'gzip'));
  conforms('a large reply is deflated for who accepts only deflate', async () => assert.equal(await asking('deflate', 5000), 'deflate'));
  conforms('gzip wins when both are accepted', async () => assert.equal(await asking('gzip, deflate', 5000), 'gzip'));
  conforms('a reply under 1,024 bytes is sent plain', async () => assert.equal(await asking('gzip', 500), undefined));
  conforms('a reply is plain for who accepts no encoding', async () => assert.equal(await asking(undefined, 5000), undefined));
  conforms('a reply is plain for who accepts only unknown encodings', async () => assert.equal(await asking('foo', 5000), undefined));
  conforms('an encoding refused by q=0 is not used', async () => assert.equal(await asking('gzip;q=0', 5000), undefined));
  conforms('a message sent uncompressed is sent plain', async () => assert.equal(await asking('gzip', 5000, { compress: false }), undefined));
  conforms('compression can be switched off', async () => assert.equal(await asking('gzip', 5000, { options: { httpCompression: false } }), undefined));
});

describe('closing', { concurrency: 8 }, () => {
  conforms('a server close over WebSocket is a plain close frame and never a close packet', async () => {
    const ws = await Ws.open((await shared()).port, { path: SIO });
    const socket = await join(ws);
    await socket.event('auth');
    await socket.emit('disconnect-me', true);
    assert.equal(await ws.next(), '41');
    assert.equal(await ws.closed(), 1005);
    assert.equal(ws.inbox.items.length, 0);
  });
  conforms('a server close over polling delivers what is queued, then a close packet', async () => {
    const session = await Polling.open((await shared()).port, { path: SIO });
    await session.send('40');
    await session.send('42["burst",5]', '42["disconnect-me",true]');
    const seen = [];
    while (!seen.includes('1')) {
      const reply = await session.poll();
      assert.equal(reply.status, 200);
      seen.push(...splitPayload(reply.text).filter((one) => one !== '6' && !one.startsWith('40') && !one.startsWith('42["auth"')));
    }
    assert.deepEqual(seen, ['42["burst",0]', '42["burst",1]', '42["burst",2]', '42["burst",3]', '42["burst",4]', '41', '1']);
    await assertGone(session);
  });
  conforms('a server close over WebSocket delivers what is queued first', async () => {
    const ws = await Ws.open((await shared()).port, { path: SIO });
    await join(ws);
    ws.send('42["burst",200]', '42["disconnect-me",true]');
    await ws.closed();
    const bursts = ws.inbox.items.filter((one) => one.startsWith('42["burst"'));
    assert.equal(bursts.length, 200);
    assert.equal(ws.inbox.items.at(-1), '41');
  });
  conforms('on SIGTERM every transport is ended and the process exits with 0', { timeout: 15000 }, async () => {
    const server = await startServer();
    const ws = await Ws.open(server.port, { path: SIO });
    await join(ws);
    const session = await Polling.open(server.port, { path: SIO });
    await session.send('40');
    for (let i = 0; i < 2; i++) await session.poll();
    const held = await session.hold();
    const stopped = server.stop();
    await ws.closed();
    await within(3000, held.reply.catch(() => 'cut'), 'the end of the held poll');
    assert.deepEqual(await stopped, { code: 0, signal: null });
  });
});
