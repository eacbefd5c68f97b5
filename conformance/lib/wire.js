'use strict';
// Hand-made peers: plain HTTP requests, WebSockets, bare TCP and WebSocket frames written byte by byte.
// Everything received is queued, so no test can miss a message that came together with another.

const http = require('node:http');
const net = require('node:net');
const crypto = require('node:crypto');
const WebSocket = require('ws');
const { patience } = require('./server');

const SEPARATOR = '\x1e';
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects with `what` when `promise` takes longer than `limit` milliseconds, and patience. */
function within(limit, promise, what) {
  const ms = patience(limit);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not happen within ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Calls `probe` every 20 ms until it gives something true. */
async function eventually(probe, what, limit = 3000) {
  const ms = patience(limit);
  const end = Date.now() + ms;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what} did not come true within ${ms} ms`);
    await sleep(20);
  }
}

/**
 * One HTTP request on a connection of its own. Resolves with {status, headers, body, text}; the promise also carries
 * `req`, so that a test can cut it. `body` may be an array: its pieces are sent apart (chunked).
 */
function request(port, target, { method = 'GET', headers = {}, body, agent = false, pieceDelay = 20 } = {}) {
  let req;
  const promise = new Promise((resolve, reject) => {
    req = http.request({ host: '127.0.0.1', port, method, path: target, headers, agent }, (res) => {
      const chunks = [];
      res.on('data', (chunk) => chunks.push(chunk));
      res.on('error', reject);
      res.on('aborted', () => reject(new Error('response cut off')));
      res.on('end', () => {
        const whole = Buffer.concat(chunks);
        resolve({ status: res.statusCode, headers: res.headers, body: whole, text: whole.toString() });
      });
    });
    req.on('error', reject);
    if (Array.isArray(body)) {
      (async () => {
        for (const piece of body) {
          if (req.destroyed) return;
          req.write(piece);
          await Promise.race([sleep(pieceDelay), new Promise((resolve) => req.once('close', resolve))]);
        }
        req.end();
      })();
    } else req.end(body);
  });
  promise.req = req;
  promise.catch(() => {}); // A test that cuts a request need not look at its failure.
  return promise;
}

function query(fields) {
  return '?' + Object.entries(fields).filter(([, v]) => v !== undefined).map(([k, v]) => `${k}=${encodeURIComponent(v)}`).join('&');
}

/** A queue with a consumer that may wait. */
class Inbox {
  constructor() {
    this.items = [];
    this.waiting = [];
    this.ended = null;
  }
  push(item) {
    const waiter = this.waiting.shift();
    if (waiter) waiter.resolve(item);
    else this.items.push(item);
  }
  end(why) {
    this.ended ??= new Error(why);
    for (const waiter of this.waiting.splice(0)) waiter.reject(this.ended);
  }
  next(ms = 3000) {
    if (this.items.length) return Promise.resolve(this.items.shift());
    if (this.ended) return Promise.reject(this.ended);
    let waiter;
    const got = new Promise((resolve, reject) => {
      waiter = { resolve, reject };
      this.waiting.push(waiter);
    });
    return within(ms, got, 'the next message').catch((error) => {
      this.waiting = this.waiting.filter((one) => one !== waiter);
      throw error;
    });
  }
}

/** A session over long-polling, one request at a time unless a test wants otherwise. */
class Polling {
  static async open(port, { path = '/engine.io/', extra = {}, headers = {} } = {}) {
    const reply = await request(port, path + query({ EIO: 4, transport: 'polling', ...extra }), { headers });
    if (reply.status !== 200) throw new Error(`handshake answered ${reply.status}: ${reply.text}`);
    const peer = new Polling();
    Object.assign(peer, { port, path, extra, requestHeaders: headers, reply, open: JSON.parse(reply.text.slice(1)), inbox: new Inbox(), pumping: null });
    peer.sid = peer.open.sid;
    return peer;
  }
  get target() {
    return this.path + query({ EIO: 4, transport: 'polling', ...this.extra, sid: this.sid });
  }
  poll(options = {}) {
    return request(this.port, this.target, { headers: this.requestHeaders, ...options });
  }
  post(body, options = {}) {
    return request(this.port, this.target, { method: 'POST', body, headers: { 'content-type': 'text/plain;charset=UTF-8', ...this.requestHeaders }, ...options });
  }
  /** Sends packets (text with its digit, or bytes) in one payload. */
  async send(...packets) {
    const reply = await this.post(packets.map((one) => (typeof one === 'string' ? one : 'b' + one.toString('base64'))).join(SEPARATOR));
    if (reply.status !== 200) throw new Error(`POST answered ${reply.status}: ${reply.text}`);
  }
  /** Keeps polling into the inbox and answers pings, until the session ends. */
  pump() {
    this.pumping ??= (async () => {
      for (;;) {
        let reply;
        try {
          this.held = this.poll();
          reply = await this.held;
        } catch (error) {
          return this.inbox.end(`poll failed: ${error.message}`);
        }
        if (this.stopped) return this.inbox.end('stopped by the test');
        if (reply.status !== 200) return this.inbox.end(`poll answered ${reply.status}`);
        for (const packet of splitPayload(reply.text)) {
          if (packet === '2') this.send('3').catch(() => {});
          else if (packet === '1') this.inbox.end('close packet');
          else if (packet !== '6') this.inbox.push(packet);
        }
      }
    })();
    return this;
  }
  next(ms) {
    this.pump();
    return this.inbox.next(ms);
  }
  /** Starts a poll, and returns it as `{ reply }` when the server has it, as far as others can tell. */
  async hold() {
    const reply = this.poll();
    await within(3000, new Promise((resolve) => reply.req.once('finish', resolve)), 'the sending of the poll');
    await this.passBy();
    return { reply };
  }
  /** A stray pong changes nothing; when it has been answered, what was sent before has most likely been read, too. */
  async passBy() {
    await this.post('3').catch(() => {});
    await sleep(40);
  }
  /** Breaks the session as a lost network would: the held GET is cut, once one has had the time to reach the server. */
  async drop() {
    this.pump();
    await this.passBy();
    this.stopped = true;
    this.held.req.destroy();
  }
  /** Stops reading and answering, and leaves the held GET open. */
  freeze() {
    this.stopped = true;
  }
  async ended(ms = 3000) {
    this.pump();
    return eventually(() => this.inbox.ended, 'the end of the session', ms);
  }
}

function splitPayload(text) {
  return text.split(SEPARATOR).map((one) => (one.startsWith('b') ? Buffer.from(one.slice(1), 'base64') : one));
}

/** A WebSocket peer; text messages arrive as strings, binary ones as Buffers. */
class Ws {
  /** `pong: true` answers and hides pings. */
  static connect(port, { path = '/engine.io/', extra = {}, headers = {}, pong = false, deflate = false } = {}) {
    const peer = new Ws();
    peer.inbox = new Inbox();
    peer.socket = new WebSocket(`ws://127.0.0.1:${port}${path}${query({ EIO: 4, transport: 'websocket', ...extra })}`, {
      headers,
      perMessageDeflate: deflate,
      handshakeTimeout: patience(5000),
    });
    peer.port = port;
    peer.path = path;
    peer.opened = new Promise((resolve, reject) => {
      peer.socket.on('open', resolve);
      peer.socket.on('error', reject);
    });
    peer.opened.catch(() => {});
    peer.closing = new Promise((resolve) => {
      peer.settleClosing = resolve;
      peer.socket.on('close', (code) => {
        peer.closeCode = code;
        peer.inbox.end(`connection closed (${code})`);
        resolve(code);
      });
    });
    peer.socket.on('upgrade', (res) => (peer.response = res));
    peer.socket.on('unexpected-response', (req, res) => {
      let text = '';
      res.on('data', (chunk) => (text += chunk));
      res.on('end', () => {
        peer.refusal = { status: res.statusCode, text, headers: res.headers };
        peer.inbox.end(`upgrade refused with ${res.statusCode}`);
        req.destroy();
        peer.settleClosing(null); // Such a WebSocket tells no closing of its own.
      });
      peer.socket.emit('error', new Error(`upgrade refused with ${res.statusCode}`));
    });
    peer.socket.on('message', (data, isBinary) => {
      const item = isBinary ? data : data.toString();
      if (pong && item === '2') return peer.socket.readyState === WebSocket.OPEN && peer.socket.send('3');
      peer.inbox.push(item);
    });
    return peer;
  }
  /** Connects and reads the open packet. */
  static async open(port, options) {
    const peer = Ws.connect(port, options);
    await peer.opened;
    const first = await peer.next();
    if (first[0] !== '0') throw new Error(`expected an open packet, got ${first}`);
    peer.open = JSON.parse(first.slice(1));
    peer.sid = peer.open.sid;
    return peer;
  }
  next(ms) {
    return this.inbox.next(ms);
  }
  /** The next message that is not a ping. */
  async nextMessage(ms) {
    for (;;) {
      const item = await this.next(ms);
      if (item !== '2') return item;
    }
  }
  async send(...packets) {
    for (const packet of packets) this.socket.send(packet);
  }
  closed(ms = 3000) {
    return within(ms, this.closing, 'the closing of the connection');
  }
  close() {
    this.socket.close();
  }
  /** Stops reading and answering, and leaves the connection open. */
  freeze() {
    this.socket.pause();
  }
  /** Breaks the connection without a close frame. */
  drop() {
    this.socket.on('error', () => {});
    this.socket.terminate();
  }
}

/** A bare TCP connection. */
class Tcp {
  static async open(port) {
    const peer = new Tcp();
    peer.data = Buffer.alloc(0);
    peer.socket = net.connect(port, '127.0.0.1');
    peer.socket.setNoDelay(true);
    peer.isClosed = false;
    peer.socket.on('data', (chunk) => {
      peer.data = Buffer.concat([peer.data, chunk]);
    });
    peer.socket.on('error', () => {});
    peer.closing = new Promise((resolve) => {
      const over = () => {
        peer.isClosed = true;
        resolve();
      };
      peer.socket.on('end', over); // The server's end of stream is enough: it will take nothing more.
      peer.socket.on('close', over);
    });
    await within(5000, new Promise((resolve, reject) => {
      peer.socket.on('connect', resolve);
      peer.socket.on('error', reject);
    }), 'the TCP connection');
    return peer;
  }
  /** Opens a WebSocket by hand; what follows the 101 stays in `data`. */
  static async upgrade(port, { path = '/engine.io/', extra = {}, headers = {} } = {}) {
    const peer = await Tcp.open(port);
    peer.write(upgradeRequest(port, path + query({ EIO: 4, transport: 'websocket', ...extra }), headers));
    await peer.until((text) => text.includes('\r\n\r\n'));
    if (!peer.text.startsWith('HTTP/1.1 101')) throw new Error(`upgrade answered ${peer.text.split('\r\n')[0]}`);
    return peer;
  }
  get text() {
    return this.data.toString('latin1');
  }
  write(bytes) {
    this.socket.write(bytes);
  }
  until(condition, ms = 3000) {
    return eventually(() => condition(this.text), 'the awaited bytes', ms);
  }
  closed(ms = 3000) {
    return within(ms, this.closing, 'the closing of the connection');
  }
  drop() {
    this.socket.destroy();
  }
}

function upgradeRequest(port, target, headers = {}) {
  const lines = [`GET ${target} HTTP/1.1`, `Host: 127.0.0.1:${port}`, 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${crypto.randomBytes(16).toString('base64')}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  return lines.join('\r\n') + '\r\n\r\n';
}

const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/** One WebSocket frame as a client sends it; the options allow every lie. */
function frame(opcode, payload = '', { fin = true, mask = true, rsv = 0, length } = {}) {
  const bytes = Buffer.from(payload);
  const claimed = length ?? bytes.length;
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
  const flag = mask ? 0x80 : 0;
  if (claimed < 126) head.push(flag | Number(claimed));
  else if (claimed < 65536) head.push(flag | 126, Number(claimed) >> 8, Number(claimed) & 255);
  else {
    const eight = Buffer.alloc(8);
    eight.writeBigUInt64BE(BigInt(claimed));
    head.push(flag | 127, ...eight);
  }
  if (!mask) return Buffer.concat([Buffer.from(head), bytes]);
  const key = crypto.randomBytes(4);
  const masked = Buffer.from(bytes);
  for (let i = 0; i < masked.length; i++) masked[i] ^= key[i & 3];
  return Buffer.concat([Buffer.from(head), key, masked]);
}

/**
 * Joins a namespace on an open engine session and returns {peer, sid, pid, early, emit, ask, event, until}.
 * `early` are the messages that came before the CONNECT reply.
 */
async function join(peer, { nsp = '/', auth, ms } = {}) {
  const prefix = nsp === '/' ? '' : nsp + ',';
  await peer.send(`40${prefix}${auth === undefined ? '' : JSON.stringify(auth)}`);
  const early = [];
  let reply;
  for (;;) {
    reply = await peer.next(ms);
    if (reply === '2') continue;
    if (typeof reply === 'string' && (reply.startsWith('40' + prefix + '{') || reply.startsWith('44'))) break;
    early.push(reply);
  }
  if (reply.startsWith('44')) {
    const refusal = new Error(`CONNECT refused: ${reply}`);
    refusal.reply = reply;
    throw refusal;
  }
  return new Joined(peer, nsp, JSON.parse(reply.slice(2 + prefix.length)), early);
}

/** A socket: one session inside one namespace. Understands plain events only; binary stays as received. */
class Joined {
  constructor(peer, nsp, reply, early) {
    Object.assign(this, { peer, nsp, reply, early, sid: reply.sid, pid: reply.pid, nextAck: 1 });
    this.prefix = nsp === '/' ? '' : nsp + ',';
  }
  emit(...event) {
    return this.peer.send(`42${this.prefix}${JSON.stringify(event)}`);
  }
  /** Emits with an ack id and resolves with the first value of the answer; other messages meanwhile are kept in order. */
  async ask(...event) {
    const id = this.nextAck++;
    await this.peer.send(`42${this.prefix}${id}${JSON.stringify(event)}`);
    const start = `43${this.prefix}${id}[`;
    const answer = await this.until((one) => typeof one === 'string' && one.startsWith(start), true);
    return JSON.parse(answer.slice(start.length - 1))[0];
  }
  /** The next event of this name as [name, ...args]; skips all else. */
  async event(name, ms) {
    const start = `42${this.prefix}["${name}"`;
    const text = await this.until((one) => typeof one === 'string' && one.startsWith(start), false, ms);
    return JSON.parse(text.slice(2 + this.prefix.length));
  }
  async until(matches, keepOthers, ms) {
    const others = [];
    try {
      for (;;) {
        const one = await this.peer.next(ms);
        if (matches(one)) return one;
        others.push(one);
      }
    } finally {
      if (keepOthers) this.peer.inbox.items.unshift(...others);
    }
  }
}

module.exports = { request, query, Polling, Ws, Tcp, frame, OPCODE, upgradeRequest, join, within, eventually, sleep, splitPayload, SEPARATOR };
