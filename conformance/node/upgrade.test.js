'use strict';
// Moving a session from polling to WebSocket: order, loss, time-outs and every wrong way to do it.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { shared } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { Polling, Ws, sleep, within, splitPayload, eventually } = require('../lib/wire');

const raw = (options = {}) => shared({ rawEngineIo: true, ...options });

async function probing(options) {
  const session = await Polling.open((await raw(options)).port);
  return { session, ws: await another(session) };
}
async function another(session) {
  const ws = Ws.connect(session.port, { extra: { sid: session.sid } });
  await ws.opened;
  return ws;
}
async function assertPollingLives(session) {
  assert.equal((await session.post('4alive')).status, 200);
  for (;;) {
    const reply = await session.poll();
    assert.equal(reply.status, 200);
    if (reply.text === '6') continue; // The noop of a probe may still be due.
    assert.equal(reply.text, '4alive');
    return;
  }
}
async function assertUpgrades(session) {
  const ws = await another(session);
  ws.send('2probe');
  assert.equal(await ws.next(), '3probe');
  ws.send('5', '4moved');
  assert.equal(await ws.next(), '4moved');
  ws.close();
}

describe('upgrade', { concurrency: 8 }, () => {
  conforms('a poll held before the probe is ended by a noop, and so is the next', async () => {
    const session = await Polling.open((await raw()).port);
    const held = session.poll();
    const ws = await another(session);
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    assert.equal((await within(5000, held, 'the noop')).text, '6');
    const again = session.poll();
    assert.equal((await within(5000, again, 'the second noop')).text, '6');
    ws.send('5', '4x');
    assert.equal(await ws.next(), '4x');
    ws.close();
  });
  conforms('the upgrade needs no probe', async () => {
    const { session, ws } = await probing();
    ws.send('5', '4x');
    assert.equal(await ws.next(), '4x');
    assert.equal((await session.poll()).status, 400);
    ws.close();
  });
  conforms('an upgrade before the first poll works, as Python and Rust clients do it', async () => {
    await assertUpgrades(await Polling.open((await raw()).port));
  });
  for (const packet of ['2', '4early', '3', '6', '2other', 'x', '']) {
    conforms(`${JSON.stringify(packet)} instead of a probe closes that WebSocket, and polling lives on`, async () => {
      const { session, ws } = await probing();
      ws.send(packet);
      await ws.closed();
      await assertPollingLives(session);
      await assertUpgrades(session);
    });
  }
  conforms('a probe that never becomes an upgrade is closed after the upgrade time-out, and polling lives on', async () => {
    const { session, ws } = await probing({ upgradeTimeout: 4000 });
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    await ws.closed(4000);
    await assertPollingLives(session);
    await assertUpgrades(session);
  });
  conforms('a WebSocket that never probes is closed after the upgrade time-out', async () => {
    const { session, ws } = await probing({ upgradeTimeout: 4000 });
    await ws.closed(4000);
    await assertPollingLives(session);
  });
  conforms('losing the WebSocket while probing leaves polling alive and able to try again', async () => {
    const { session, ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    ws.drop();
    await sleep(50);
    await assertPollingLives(session);
    await assertUpgrades(session);
  });
  conforms('a second WebSocket while the first is probing is closed and the first completes', async () => {
    const { session, ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    const second = Ws.connect(session.port, { extra: { sid: session.sid } });
    await second.closed();
    ws.send('5', '4first');
    assert.equal(await ws.next(), '4first');
    ws.close();
  });
  conforms('a message posted while probing is handled at once', async () => {
    const { session, ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    assert.equal((await session.post('4during')).status, 200);
    const reply = await eventually(async () => {
      const { text } = await session.poll();
      return text === '6' ? null : text;
    }, 'the echo');
    assert.equal(reply, '4during');
    ws.send('5', '4after');
    assert.equal(await ws.next(), '4after');
    ws.close();
  });
  conforms('what is queued when the upgrade arrives comes first over the WebSocket', async () => {
    const { session, ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    await session.send('4one', '4two');
    ws.send('5', '4three');
    assert.deepEqual([await ws.next(), await ws.next(), await ws.next()], ['4one', '4two', '4three']);
    ws.close();
  });
  conforms('a poll still held when the upgrade arrives is ended', async () => {
    const { session, ws } = await probing();
    const held = await session.hold();
    ws.send('5');
    const reply = await within(5000, held.reply, 'the end of the poll');
    assert.ok(['6', '1'].includes(reply.text), reply.text);
    ws.send('4x');
    assert.equal(await ws.next(), '4x');
    ws.close();
  });
  conforms('nothing is lost or reordered across 30 upgrades under way while messages flow', async () => {
    const { port } = await raw();
    await Promise.all(Array.from({ length: 30 }, async () => {
      const session = await Polling.open(port);
      const seen = [];
      let upgraded = false;
      const polls = (async () => {
        while (!upgraded) {
          const reply = await session.poll();
          if (reply.status !== 200) return;
          seen.push(...splitPayload(reply.text).filter((one) => one[0] === '4'));
        }
      })();
      let next = 0;
      for (let i = 0; i < 5; i++) await session.send(`4${next++}`, `4${next++}`);
      const ws = await another(session);
      ws.send('2probe');
      assert.equal(await ws.next(), '3probe');
      for (let i = 0; i < 5; i++) await session.send(`4${next++}`, `4${next++}`);
      upgraded = true;
      await polls; // As the stock client does: the running poll ends before the switch.
      ws.send('5');
      for (let i = 0; i < 10; i++) ws.send(`4${next++}`);
      while (seen.length < next) seen.push(await ws.next());
      assert.deepEqual(seen, Array.from({ length: next }, (_, i) => `4${i}`));
      ws.close();
    }));
  });
  conforms('closing the session while probing closes the probing WebSocket too', async () => {
    const { session, ws } = await probing();
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    assert.equal((await session.post('1')).status, 200);
    await ws.closed();
    assert.equal((await session.poll()).status, 400);
  });
  conforms('a session that times out while probing closes the probing WebSocket too', async () => {
    const { ws } = await probing({ pingInterval: 500, pingTimeout: 5000 });
    ws.send('2probe');
    assert.equal(await ws.next(), '3probe');
    await ws.closed(4000);
  });
  conforms('a server without WebSocket takes no upgrade', async () => {
    const session = await Polling.open((await raw({ transports: 'polling' })).port);
    await Ws.connect(session.port, { extra: { sid: session.sid } }).closed();
    await assertPollingLives(session);
  });
});
