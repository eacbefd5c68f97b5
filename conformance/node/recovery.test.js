'use strict';
// Connection state recovery, over WebSocket and over polling alone: what the reference's own tests ask, and the known pitfalls.
// Hand-made peers ask for it with auth.recovery, so that servers which look at who is asking give it to them.

const assert = require('node:assert/strict');
const { describe } = require('node:test');
const { once } = require('node:events');
const { shared } = require('../lib/server');
const { conforms } = require('../lib/conforms');
const { Polling, Ws, join, sleep, within, eventually } = require('../lib/wire');
const { io } = require('socket.io-client');
const io40 = require('socket.io-client-40').io;

const path = '/socket.io/';
const ON = { recovery: 60000 };
const P = (num) => `{"_placeholder":true,"num":${num}}`;
const next = (emitter, event, ms = 4000) => within(ms, once(emitter, event), `the event ${event}`);
const ask = (socket, ...event) => within(4000, new Promise((resolve) => socket.emit(...event, resolve)), `the answer to ${event[0]}`);

let serial = 0;
/** A namespace of one's own: no other test's events are stored in it. */
const freshNamespace = () => `/dynamic-${++serial}`;

for (const kind of ['websocket', 'polling']) {
  describe(`recovery over ${kind}`, { concurrency: 8 }, () => {
    const recovers = (sentence, options, body) => conforms(`recovery over ${kind}: ${sentence}`, options, body);
    const openPeer = async (options) => {
      const { port } = await shared(options);
      return kind === 'websocket' ? Ws.open(port, { path, pong: true }) : (await Polling.open(port, { path })).pump();
    };
    /** A watcher that never leaves and a victim that will, both in one namespace. */
    async function pair({ options = ON, nsp = freshNamespace(), auth = {} } = {}) {
      const { port } = await shared(options);
      const watcher = await join(await Ws.open(port, { path, pong: true }), { nsp, auth: { recovery: false, token: auth.token } });
      const victim = await join(await openPeer(options), { nsp, auth: { recovery: true, ...auth } });
      victim.options = options;
      return { watcher, victim };
    }
    async function lose(watcher, victim) {
      await victim.peer.drop();
      await eventually(async () => (await watcher.ask('fetch', victim.sid)).length === 0, 'the loss');
    }
    async function comeBack(victim, offset, auth = {}) {
      const back = await join(await openPeer(victim.options), { nsp: victim.nsp, auth: { recovery: true, pid: victim.pid, offset, ...auth } });
      back.options = victim.options;
      // Before CONNECT or behind it: clients cannot tell, unless they lose the connection in between.
      await back.ask('recovered');
      back.missed = [...back.early, ...back.peer.inbox.items.splice(0)].filter((one) => one !== '2');
      return back;
    }
    /** Sends the victim one event and gives the offset that came with it. */
    async function touch(watcher, victim, value = 'touch') {
      await watcher.ask('to', { rooms: [victim.sid], event: 'touch', args: [value] });
      const event = await victim.event('touch');
      assert.equal(event.length, 3, 'a stored event carries an offset behind its arguments');
      assert.equal(typeof event[2], 'string');
      return event[2];
    }
    /** The events of one name among raw packets, without their offsets. */
    const plain = (socket, packets) => packets.filter((one) => typeof one === 'string' && one.startsWith('42')).map((one) => JSON.parse(one.slice(2 + socket.prefix.length)).slice(0, -1));

    recovers('CONNECT tells sid and pid, in this order, 20 characters each', {}, async () => {
      const { victim } = await pair();
      assert.deepEqual(Object.keys(victim.reply), ['sid', 'pid']);
      assert.match(victim.pid, /^[A-Za-z0-9_-]{20}$/);
      assert.notEqual(victim.pid, victim.sid);
    });
    recovers('missed events of all, of a room and of the socket come in order, with sid and pid unchanged, and by polling before CONNECT', {}, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'room1');
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      await watcher.ask('to', { event: 'one', args: [1] });
      await watcher.ask('to', { rooms: ['room1'], event: 'two', args: ['2'] });
      await watcher.ask('to', { rooms: [victim.sid], event: 'three' });
      const back = await comeBack(victim, offset);
      assert.deepEqual([back.sid, back.pid], [victim.sid, victim.pid]);
      assert.deepEqual(plain(back, back.missed), [['one', 1], ['two', '2'], ['three']]);
      if (kind === 'polling') assert.deepEqual(plain(back, back.early).length, 3);
    });
    recovers('rooms and data are back, and the server says recovered', {}, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'room1');
      await victim.ask('join', 'room2');
      await victim.ask('set-data', { user: 'ada' });
      const offset = await touch(watcher, victim);
      assert.equal(await victim.ask('recovered'), false);
      await lose(watcher, victim);
      const back = await comeBack(victim, offset);
      assert.equal(await back.ask('recovered'), true);
      assert.deepEqual(await back.ask('rooms'), [victim.sid, 'room1', 'room2'].sort());
      assert.deepEqual(await back.ask('get-data'), { user: 'ada' });
    });
    recovers('middlewares are skipped by default', {}, async () => {
      const { watcher, victim } = await pair({ nsp: '/guarded', auth: { token: 'secret' } });
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      const back = await comeBack(victim, offset, { token: 'now wrong' });
      assert.equal(back.sid, victim.sid);
    });
    recovers('middlewares run when asked to', {}, async () => {
      const options = { recovery: 5000, recoverySkipMiddlewares: 'false' };
      const { watcher, victim } = await pair({ options, nsp: '/guarded', auth: { token: 'secret' } });
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      await assert.rejects(comeBack(victim, offset, { token: 'now wrong' }), (error) => {
        assert.match(error.reply, /^44\/guarded,\{"message":"not authorized"/);
        return true;
      });
    });
    recovers('an unknown pid gives a new session with a new sid and pid', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      const back = await comeBack({ ...victim, pid: 'A'.repeat(20) }, offset);
      assert.notEqual(back.sid, victim.sid);
      assert.notEqual(back.pid, victim.pid);
      assert.notEqual(back.pid, 'A'.repeat(20));
      assert.equal(await back.ask('recovered'), false);
    });
    recovers('switched off: no pid, no offsets, and a pid sent anyway is ignored', {}, async () => {
      const { watcher, victim } = await pair({ options: {} });
      assert.deepEqual(Object.keys(victim.reply), ['sid']);
      await watcher.ask('to', { rooms: [victim.sid], event: 'touch', args: ['x'] });
      assert.deepEqual(await victim.event('touch'), ['touch', 'x']);
      await lose(watcher, victim);
      const back = await comeBack({ ...victim, pid: 'A'.repeat(20) }, 'x');
      assert.deepEqual(Object.keys(back.reply), ['sid']);
      assert.notEqual(back.sid, victim.sid);
    });

    recovers('a socket that never got an event is recovered too', { referenceFails: 'without an offset it does not try' }, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'room1');
      await lose(watcher, victim);
      await watcher.ask('to', { rooms: ['room1'], event: 'missed', args: [1] });
      const back = await comeBack(victim, undefined);
      assert.equal(back.sid, victim.sid);
      assert.deepEqual(plain(back, back.missed), [['missed', 1]]);
    });
    recovers('a connection quiet for longer than the buffer is recovered', {}, async () => {
      const { watcher, victim } = await pair({ options: { recovery: 2000 } });
      const offset = await touch(watcher, victim);
      for (let i = 0; i < 5; i++) {
        await sleep(900);
        // Others' events push the buffer on; none is for the victim.
        await watcher.ask('to', { rooms: ['elsewhere'], event: 'noise', args: [i] });
      }
      await lose(watcher, victim);
      await watcher.ask('to', { rooms: [victim.sid], event: 'missed' });
      const back = await comeBack(victim, offset);
      assert.equal(back.sid, victim.sid);
      assert.deepEqual(plain(back, back.missed), [['missed']]);
    });
    recovers('coming back before the server noticed takes over, and the old connection loses nothing of it later', { referenceFails: 'there is no saved session yet' }, async () => {
      const options = { recovery: 20000, pingInterval: 300, pingTimeout: 4000 };
      const { watcher, victim } = await pair({ options });
      await victim.ask('join', 'room1');
      const offset = await touch(watcher, victim);
      // The old connection stays open and is not read any more, as when a phone changes networks.
      victim.peer.freeze();
      const back = await comeBack(victim, offset);
      assert.deepEqual([back.sid, back.pid], [victim.sid, victim.pid]);
      await sleep(5000); // The old connection's heartbeat is over by now.
      assert.deepEqual((await watcher.ask('fetch', 'room1')).map((one) => one.id), [victim.sid]);
      await watcher.ask('to', { rooms: ['room1'], event: 'after', args: [1] });
      assert.deepEqual((await back.event('after')).slice(0, 2), ['after', 1]);
    });
    recovers('a recovered session cannot be had twice at the same time', {}, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'room1');
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      const [one, two] = [await comeBack(victim, offset), await comeBack(victim, offset)];
      await watcher.ask('to', { rooms: ['room1'], event: 'single' });
      const got = await Promise.all([one, two].map((socket) => socket.event('single', 600).then(() => 1, () => 0)));
      assert.equal(got[0] + got[1], 1, 'one of the two is the socket');
    });
    recovers('works several times in a row', {}, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'room1');
      let offset = await touch(watcher, victim);
      let current = victim;
      for (let round = 0; round < 4; round++) {
        await lose(watcher, current);
        await watcher.ask('to', { rooms: ['room1'], event: 'missed', args: [round] });
        const back = await comeBack(current, offset);
        assert.deepEqual([back.sid, back.pid], [victim.sid, victim.pid]);
        assert.deepEqual(plain(back, back.missed), [['missed', round]]);
        offset = JSON.parse(back.missed[0].slice(2 + back.prefix.length)).at(-1);
        current = back;
      }
    });
    recovers('replayed events carry the offsets they had, and old ones can be asked for again', {}, async () => {
      const { watcher, victim } = await pair();
      const first = await touch(watcher, victim, 'a');
      const second = await touch(watcher, victim, 'b');
      const third = await touch(watcher, victim, 'c');
      await lose(watcher, victim);
      const back = await comeBack(victim, first);
      assert.deepEqual(back.missed.map((one) => JSON.parse(one.slice(2 + back.prefix.length))), [['touch', 'b', second], ['touch', 'c', third]]);
    });
    recovers('offsets are on stored events only: not on volatile ones alone, on acks or on questions', {}, async () => {
      const { victim } = await pair();
      await victim.emit('ask-me', 'question', 'x');
      const question = await victim.until((one) => typeof one === 'string' && one.includes('"question"'));
      assert.ok(question.endsWith('["question","x"]'), question);
      assert.equal(await victim.ask('message-with-ack', 'y'), 'y');
    });
    recovers('volatile events and questions are not replayed', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      await watcher.ask('to', { rooms: [victim.sid], event: 'gone', args: ['x'], volatile: true });
      await watcher.ask('ask', { room: victim.sid, timeout: 50, event: 'question' });
      await watcher.ask('to', { rooms: [victim.sid], event: 'kept', args: ['x'] });
      const back = await comeBack(victim, offset);
      assert.deepEqual(plain(back, back.missed), [['kept', 'x']]);
    });
    recovers('binary events are replayed with their attachments', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      watcher.peer.send(`451-${watcher.nsp},["to",{"rooms":["${victim.sid}"],"event":"bits","args":[${P(0)}]}]`, Buffer.from([1, 2, 3]));
      await watcher.ask('to', { rooms: [victim.sid], event: 'text' });
      const back = await comeBack(victim, offset);
      assert.equal(back.missed.length, 3);
      assert.ok(back.missed[0].startsWith(`451-${back.nsp},["bits",${P(0)},"`), back.missed[0]);
      assert.deepEqual(back.missed[1], Buffer.from([1, 2, 3]));
      assert.deepEqual(plain(back, back.missed), [['text']]);
    });
    recovers('what was not for the socket is not replayed', {}, async () => {
      const { watcher, victim } = await pair();
      await victim.ask('join', 'mine');
      await victim.ask('join', 'left');
      await victim.ask('leave', 'left');
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      await watcher.ask('to', { rooms: ['left'], event: 'no1' });
      await watcher.ask('to', { rooms: ['foreign'], event: 'no2' });
      await watcher.ask('to', { except: ['mine'], event: 'no3' });
      await watcher.ask('to', { rooms: ['mine', 'foreign'], event: 'yes' });
      const back = await comeBack(victim, offset);
      assert.deepEqual(plain(back, back.missed), [['yes']]);
    });
    recovers('a session that is too old is not recovered', {}, async () => {
      const { watcher, victim } = await pair({ options: { recovery: 300 } });
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      await sleep(700);
      const back = await comeBack(victim, offset);
      assert.notEqual(back.sid, victim.sid);
      assert.equal(await back.ask('recovered'), false);
    });
    recovers('leaving on purpose leaves nothing to recover', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await victim.peer.send(`41${victim.nsp},`);
      await eventually(() => watcher.ask('last-reason', victim.sid), 'the leaving');
      const back = await comeBack(victim, offset);
      assert.notEqual(back.sid, victim.sid);
    });
    recovers('being thrown out leaves nothing to recover', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await victim.emit('disconnect-me', true);
      await eventually(() => watcher.ask('last-reason', victim.sid), 'the throwing out');
      const back = await comeBack(victim, offset);
      assert.notEqual(back.sid, victim.sid);
    });
    recovers('an offset nobody issued never loses events silently', {}, async () => {
      const { watcher, victim } = await pair();
      await touch(watcher, victim);
      await lose(watcher, victim);
      await watcher.ask('to', { rooms: [victim.sid], event: 'missed' });
      for (const offset of ['nonsense', '', '-1', '99999999999999999999-0', '\u0000', 'A'.repeat(3000)]) {
        const back = await comeBack(victim, offset);
        if (back.sid !== victim.sid) continue;
        assert.ok(plain(back, back.missed).some(([name]) => name === 'missed'), `recovered by ${JSON.stringify(offset)} without the missed event`);
        return;
      }
    });
    recovers('a pid that is no string, or of another namespace, gives an ordinary session', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      for (const pid of [1, null, true, [], {}, [victim.pid]]) {
        const back = await comeBack({ ...victim, pid }, offset);
        assert.notEqual(back.sid, victim.sid);
      }
      const foreign = await comeBack({ ...victim, nsp: freshNamespace() }, offset);
      assert.notEqual(foreign.sid, victim.sid);
      const back = await comeBack(victim, offset);
      assert.equal(back.sid, victim.sid, 'and the failed tries do not spoil it');
    });
    recovers('a Socket.IO violation is no reason to lose the session', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await victim.peer.send(`42${victim.nsp},{}`).catch(() => {});
      await eventually(() => watcher.ask('last-reason', victim.sid), 'the loss');
      const back = await comeBack(victim, offset);
      assert.equal(back.sid, victim.sid);
    });
    recovers('the handshake of a recovered socket is the new one', {}, async () => {
      const { watcher, victim } = await pair({ auth: { version: 1 } });
      const offset = await touch(watcher, victim);
      await lose(watcher, victim);
      const back = await comeBack(victim, offset, { version: 2 });
      assert.equal(back.sid, victim.sid);
      assert.equal((await back.ask('handshake')).auth.version, 2);
    });
    recovers('events with more than ten attachments are refused, so that none can poison a recovery', { referenceFails: 'it sends and stores them, and its client can never read them' }, async () => {
      const { victim } = await pair();
      const result = await victim.ask('bin-many', 11);
      assert.equal(typeof result.error, 'string');
    });
    recovers('events with ten attachments are sent and recovered', {}, async () => {
      const { watcher, victim } = await pair();
      const offset = await touch(watcher, victim);
      await victim.emit('bin-many', 10);
      await victim.until((one) => typeof one === 'string' && one.startsWith('4510-'));
      await lose(watcher, victim);
      const back = await comeBack(victim, offset);
      assert.equal(back.sid, victim.sid);
      assert.equal(back.missed.length, 11);
    });
    recovers('who refuses recovery by auth gets neither pid nor offsets', { referenceFails: 'it knows no such wish' }, async () => {
      const { port } = await shared(ON);
      const nsp = freshNamespace();
      const peer = kind === 'websocket' ? await Ws.open(port, { path }) : await Polling.open(port, { path });
      const socket = await join(peer, { nsp, auth: { recovery: false } });
      assert.deepEqual(Object.keys(socket.reply), ['sid']);
      await socket.emit('message', 'x');
      assert.deepEqual(await socket.event('message-back'), ['message-back', 'x']);
    });
  });

  describe(`recovery of the stock client over ${kind}`, { concurrency: 4 }, () => {
    const connect = async (nsp, extra = {}, options = ON) => {
      const { url } = await shared(options);
      return io(url + nsp, { transports: [kind], forceNew: true, reconnectionDelay: 30, reconnectionDelayMax: 60, ...extra });
    };
    const conform = (sentence, options, body) => conforms(`recovery of the stock client over ${kind}: ${sentence}`, options, body);
    conform('recovered is false at first and true afterwards, with the same id, and missed events come', {}, async () => {
      const nsp = freshNamespace();
      const [victim, watcher] = [await connect(nsp), await connect(nsp)];
      await Promise.all([next(victim, 'connect'), next(watcher, 'connect')]);
      assert.equal(victim.recovered, false);
      const { id } = victim;
      watcher.emit('to', { rooms: [id], event: 'touch' });
      await next(victim, 'touch');
      victim.io.reconnection(false);
      const missed = next(victim, 'missed');
      victim.io.engine.close(); // Tells its disconnect before it returns.
      await eventually(() => ask(watcher, 'last-reason', id), 'the loss');
      await ask(watcher, 'to', { rooms: [id], event: 'missed', args: [1] });
      const again = next(victim, 'connect');
      victim.connect();
      await again;
      assert.deepEqual([victim.recovered, victim.id], [true, id]);
      assert.equal((await missed)[0], 1);
      victim.disconnect();
      watcher.disconnect();
    });
    conform('a volatile event that ends in a text does not spoil it', { referenceFails: 'the client takes that text for an offset' }, async () => {
      const nsp = freshNamespace();
      const [victim, watcher] = [await connect(nsp), await connect(nsp)];
      await Promise.all([next(victim, 'connect'), next(watcher, 'connect')]);
      const { id } = victim;
      watcher.emit('to', { rooms: [id], event: 'touch' });
      await next(victim, 'touch');
      const fleeting = next(victim, 'fleeting');
      for (let i = 0; i < 10; i++) {
        // Over polling a volatile event is dropped between two polls.
        watcher.emit('to', { rooms: [id], event: 'fleeting', args: ['looks like an offset'], volatile: true });
        await sleep(30);
      }
      await fleeting;
      victim.io.engine.close();
      await next(victim, 'connect');
      assert.deepEqual([victim.recovered, victim.id], [true, id]);
      victim.disconnect();
      watcher.disconnect();
    });
    conform('three losses in a stream of events cost none, repeat none and mix up none', { timeout: 15000 }, async () => {
      const nsp = freshNamespace();
      const [victim, watcher] = [await connect(nsp), await connect(nsp, { transports: ['websocket'] })];
      await Promise.all([next(victim, 'connect'), next(watcher, 'connect')]);
      const seen = [];
      victim.on('count', (n) => seen.push(n));
      let sent = 0;
      const sending = setInterval(() => watcher.emit('to', { event: 'count', args: [sent++] }), 5);
      for (let i = 0; i < 3; i++) {
        await sleep(250);
        victim.io.engine.close();
        await next(victim, 'connect');
        assert.equal(victim.recovered, true);
      }
      await sleep(100);
      clearInterval(sending);
      await eventually(() => seen.length >= sent, 'all events');
      assert.deepEqual(seen, Array.from({ length: sent }, (_, i) => i));
      victim.disconnect();
      watcher.disconnect();
    });
    // The client keeps what comes before CONNECT, beyond its connection, and shows an offset that knows nothing of it.
    const keepsHalf = kind === 'websocket' ? { referenceFails: 'it sends what was missed before CONNECT' } : {};
    conform('a connection lost in the middle of a return costs no event and repeats none', { timeout: 15000, ...keepsHalf }, async () => {
      const nsp = freshNamespace();
      const [victim, watcher] = [await connect(nsp), await connect(nsp)];
      await Promise.all([next(victim, 'connect'), next(watcher, 'connect')]);
      const { id } = victim;
      const seen = [];
      victim.on('missed', (n) => seen.push(n));
      watcher.emit('to', { rooms: [id], event: 'touch' });
      await next(victim, 'touch');
      victim.io.reconnection(false);
      victim.io.engine.close();
      await eventually(() => ask(watcher, 'last-reason', id), 'the loss');
      // More than some servers put into one reply.
      for (let n = 0; n < 40; n++) await ask(watcher, 'to', { rooms: [id], event: 'missed', args: [n] });
      let lost = false;
      victim.io.on('open', () => victim.io.engine.on('packet', ({ type, data }) => {
        if (lost || type !== 'message' || !data.startsWith('2')) return;
        lost = true;
        // When the client has done what it does with what came in one piece.
        setImmediate(() => victim.io.engine.close());
      }));
      victim.io.reconnection(true);
      victim.connect();
      await eventually(() => lost && victim.connected && seen.length >= 40, 'all events');
      assert.equal(await ask(victim, 'recovered'), true);
      assert.deepEqual(seen, Array.from({ length: 40 }, (_, n) => n));
      victim.disconnect();
      watcher.disconnect();
    });
    conform('with auth.recovery false its listeners get their arguments alone', { referenceFails: 'it knows no such wish' }, async () => {
      const socket = await connect(freshNamespace(), { auth: { recovery: false } });
      socket.emit('message', 1);
      assert.deepEqual(await next(socket, 'message-back'), [1]);
      socket.emit('message', 'x');
      assert.deepEqual(await next(socket, 'message-back'), ['x']);
      socket.disconnect();
    });
    conform('a client of before recovery talks to a recovering server', {}, async () => {
      const socket = io40((await shared(ON)).url, { transports: [kind], forceNew: true });
      await next(socket, 'connect');
      socket.emit('message', 1, 'two');
      assert.deepEqual((await next(socket, 'message-back')).slice(0, 2), [1, 'two']);
      assert.equal(await ask(socket, 'message-with-ack', 1), 1);
      socket.disconnect();
    });
  });
}
