// The page: joins rooms with the stock client, and shows what comes; `jobs.js` has the jobs. It holds a bounded number of
// everything.
'use strict';

const TAIL_MAX = 500;
const SAMPLES_MAX = 60;
// Events of the past that a room begins with.
const REPLAY = 200;

const at = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const clock = (time) => {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? '' : date.toLocaleTimeString([], { hour12: false });
};

// ---- who looks, and what is refused ----

// A token comes with the address (#token=…), which it leaves at once, or is asked for. It is kept in this variable only: a
// page that is loaded anew asks again.
let token = new URLSearchParams(location.hash.slice(1)).get('token') || undefined;
const forget = () => history.replaceState(null, '', location.pathname + location.search);
if (location.hash) forget();
addEventListener('hashchange', () => {
  const other = new URLSearchParams(location.hash.slice(1)).get('token');
  forget();
  if (other) use(other);
});

const complaints = new Map();

/** Shows a complaint about something until it is settled. */
function complain(about, text) {
  complaints.set(about, text);
  showComplaints();
}

function settle(about) {
  if (complaints.delete(about)) showComplaints();
}

function showComplaints() {
  at('complaints').replaceChildren(...[...complaints.values()].map((text) => make('li', '', text)));
  at('complaints').hidden = complaints.size === 0;
}

/** Asks for a token, and says why. */
function askForToken(why, code) {
  at('sign-in').hidden = false;
  document.body.classList.toggle('outside', !socket.connected);
  at('sign-in-why').textContent = why;
  at('sign-in-code').textContent = code ?? '';
  at('token').focus();
}

/** Goes on with another token: in place if the socket is open, since what it has would be lost otherwise. */
async function use(other) {
  token = other;
  if (socket.connected) {
    const answer = await command('refresh_token', { token }, 'the token');
    if (!answer) return;
    for (const room of answer.left ?? []) joined.delete(room);
    showRooms();
    at('sign-in').hidden = true;
    refusal = undefined;
    look();
    readJobs();
  } else {
    refusal = undefined;
    socket.connect();
  }
}

at('sign-in').onsubmit = (event) => {
  event.preventDefault();
  const typed = at('token').value.trim();
  at('token').value = '';
  if (typed) use(typed);
};

/** Why requests are refused; sockets may be open to those whose requests are not. */
let refusal;

/** GETs a path as JSON; nothing if it is refused, which is noted, or the server is away. */
async function read(path) {
  if (refusal) return undefined;
  try {
    const headers = token ? { authorization: `Bearer ${token}` } : {};
    const response = await fetch(path, { headers, signal: AbortSignal.timeout(4000) });
    if (response.ok) return await response.json();
    if (response.status !== 401 && response.status !== 403) return undefined;
    const { error } = await response.json();
    refusal = `${error.message} (${error.code})`;
    showRefusal();
  } catch {
    // The state at the top says that the server is away.
  }
  return undefined;
}

function showRefusal() {
  at('figures').hidden = refusal !== undefined;
  at('refused').hidden = refusal === undefined;
  at('refused').textContent = refusal === undefined ? '' : `Figures and records of past jobs are not for this token: ${refusal}. What is in the rooms below comes all the same.`;
}

// ---- connection ----

const socket = io({ auth: (tell) => tell({ recovery: true, token }) });
const wanted = new Set(new URLSearchParams(location.search).getAll('room'));
let joined = new Set();

/** Sections, by what empties them: after a gap everything is asked for anew. */
const emptying = [];

function showState() {
  const transport = socket.io.engine?.transport?.name;
  const name = { polling: 'polling', websocket: 'WebSocket' }[transport] ?? transport;
  const isRefused = !at('sign-in').hidden;
  at('state').dataset.state = socket.connected ? 'open' : socket.active ? 'connecting' : 'lost';
  at('state-text').textContent = socket.connected ? `connected · ${name}`
    : socket.active ? 'connecting' : isRefused ? 'not let in' : 'disconnected';
}

socket.on('connect', () => {
  at('sign-in').hidden = true;
  document.body.classList.remove('outside');
  showState();
  socket.io.engine.on('upgrade', showState);
  if (!socket.recovered) emptying.forEach((empty) => empty());
});
socket.on('disconnect', (reason) => {
  showState();
  // The server ended it: the token has expired or was revoked, and the answer to another CONNECT says which.
  if (reason === 'io server disconnect') setTimeout(() => socket.connect(), 1000);
});
socket.on('connect_error', (error) => {
  const { code, retry_after: seconds } = error.data ?? {};
  if (code && seconds) setTimeout(() => socket.connect(), seconds * 1000);
  else if (code === 'token_missing') askForToken('This server wants to know who you are.');
  else if (code) askForToken(`${error.message[0].toUpperCase()}${error.message.slice(1)}.`, code);
  if (error.context?.status === 404) complain('engine', 'Socket.IO is switched off on this listener (api.socketio), so there is nothing to watch here.');
  showState();
});

socket.on('connection_established', ({ rooms, user_id: user }) => {
  at('user').textContent = user ? `as ${user}` : '';
  joined = new Set(rooms);
  for (const room of wanted) if (!joined.has(room)) join(room);
  showRooms();
  look();
});
socket.on('token_expiring', ({ expires_at: end }) => askForToken(`Your token ends at ${clock(end)}. Give another one to go on.`));

/** Joins, after what the room had before. */
async function join(room) {
  const answer = await command('subscribe', { room, last: REPLAY }, room);
  if (!answer) return;
  wanted.add(room);
  joined.add(room);
  remember();
  showRooms();
  readJobs([room]);
}

async function leave(room) {
  if (!(await command('unsubscribe', { room }, room))) return;
  wanted.delete(room);
  joined.delete(room);
  remember();
  showRooms();
}

/** Asks the server to do something; nothing if it does not, and then why is shown. */
async function command(name, payload, about) {
  try {
    const answer = await socket.timeout(5000).emitWithAck(name, payload);
    if (answer.ok) {
      settle(about);
      return answer;
    }
    const { code, message } = answer.error;
    complain(about, `${message.includes(about) ? '' : `${about}: `}${message} (${code})`);
  } catch {
    complain(about, `${about}: the server did not answer`);
  }
  return undefined;
}

function remember() {
  const query = new URLSearchParams([...wanted].map((room) => ['room', room]));
  // Names of rooms are full of colons, which may stay as they are.
  history.replaceState(null, '', wanted.size ? `?${query.toString().replaceAll('%3A', ':')}` : location.pathname);
}

function showRooms() {
  at('rooms').replaceChildren(...[...joined].sort().map((room) => {
    const chip = make('li', '', room);
    const button = make('button', '', '×');
    button.title = `Leave ${room}`;
    button.ariaLabel = `Leave ${room}`;
    button.onclick = () => leave(room);
    chip.append(button);
    return chip;
  }));
  showExample();
}

/** What to type for a job to come, in the project that is watched. */
function showExample() {
  const project = [...joined].find((room) => room.startsWith('project:'))?.slice('project:'.length);
  const url = location.origin === 'http://127.0.0.1:8000' ? '' : ` --url ${location.origin}`;
  const key = token ? 'FANFARE_API_KEY=… ' : '';
  at('example').textContent = `${key}fanfare run --project ${project ?? 'demo'}${url} -- cargo test`;
  if (!project) at('example').textContent += '\n# then join project:demo above';
}

at('join').onsubmit = (event) => {
  event.preventDefault();
  const room = at('room').value.trim();
  if (!room) return;
  at('room').value = '';
  join(room);
};

// ---- events ----

let isPaused = false;
let eventsSeen = 0;
const OWN = new Set(['connection_established', 'room_joined', 'room_left', 'pong']);

socket.onAny((name, payload) => {
  if (OWN.has(name)) return;
  // Wrapped events carry their room and time; flat ones are the payload itself.
  const isWrapped = payload && typeof payload === 'object' && payload.event === name && 'data' in payload && 'room' in payload;
  const event = {
    name,
    data: isWrapped ? payload.data : payload,
    room: isWrapped ? payload.room ?? 'all' : payload?.job_id ? `job:${payload.job_id}` : '',
    time: payload?.timestamp ?? Date.now(),
  };
  eventsSeen += 1;
  handleJob(event);
  if (!isPaused) addToTail(event);
  at('tail-count').textContent = `${eventsSeen}${isPaused ? ' · paused' : ''}`;
});

function addToTail({ name, data, room, time }) {
  const line = make('li');
  const text = JSON.stringify(data) ?? '';
  line.append(make('time', '', clock(time)), make('b', '', name), make('span', 'room', room), make('code', '', text));
  line.dataset.text = `${name} ${room} ${text}`.toLowerCase();
  line.onclick = () => {
    if (getSelection().toString()) return;
    const isOpen = line.classList.toggle('open');
    line.lastChild.textContent = isOpen ? JSON.stringify(data, null, 2) : text;
  };
  line.hidden = !matches(line);
  const tail = at('tail');
  tail.prepend(line);
  while (tail.children.length > TAIL_MAX) tail.lastChild.remove();
  at('tail-empty').hidden = true;
}

const matches = (line) => line.dataset.text.includes(at('filter').value.trim().toLowerCase());

at('filter').oninput = () => {
  for (const line of at('tail').children) line.hidden = !matches(line);
};
at('pause').onclick = () => {
  isPaused = !isPaused;
  at('pause').ariaPressed = String(isPaused);
  at('pause').textContent = isPaused ? 'Resume' : 'Pause';
  at('tail-count').textContent = `${eventsSeen || ''}${isPaused ? ' · paused' : ''}`;
};
const emptyTail = () => {
  at('tail').replaceChildren();
  eventsSeen = 0;
  at('tail-count').textContent = '';
  at('tail-empty').hidden = false;
};
at('clear').onclick = emptyTail;
emptying.push(emptyTail);

// ---- figures ----

const samples = { connections: [], in: [], out: [], published: [] };

function chart(id, values) {
  const svg = at(id);
  if (values.length < 2) return;
  const top = Math.max(1, ...values);
  const points = values.map((value, nth) => `${(nth / (values.length - 1)) * 100},${(26 - (value / top) * 22).toFixed(2)}`);
  const draw = (className, d) => {
    const path = svg.querySelector(`.${className}`) ?? svg.appendChild(document.createElementNS(svg.namespaceURI, 'path'));
    path.setAttribute('class', className);
    path.setAttribute('d', d);
  };
  draw('area', `M0,28 L${points.join(' L')} L100,28 Z`);
  draw('stroke', `M${points.join(' L')}`);
}

const short = (value) => new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 }).format(value);
const duration = (seconds) => seconds < 60 ? `${seconds} s` : seconds < 3600 ? `${Math.floor(seconds / 60)} min`
  : seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;

async function look() {
  const stats = document.hidden ? undefined : await read('/stats');
  if (!stats) return;
  showRefusal();
  const { connections, events, rooms } = stats;
  const last = samples.publishedTotal ?? events.published;
  samples.publishedTotal = events.published;
  const figures = { connections: connections.total_connections, in: events.in_per_second, out: events.out_per_second, published: Math.max(0, events.published - last) };
  for (const [name, value] of Object.entries(figures)) {
    samples[name].push(value);
    if (samples[name].length > SAMPLES_MAX) samples[name].shift();
    chart(`c-${name}`, samples[name]);
  }
  at('f-connections').textContent = short(figures.connections);
  at('f-in').textContent = short(figures.in);
  at('f-out').textContent = short(figures.out);
  at('f-published').textContent = short(events.published);
  at('f-rooms').textContent = short(rooms.total);
  at('f-errors').textContent = short(Object.values(stats.errors).reduce((sum, count) => sum + count, 0));
  at('f-uptime').textContent = `up ${duration(stats.uptime_s)}`;
  const { websocket, polling } = connections.by_transport;
  at('f-transports').textContent = `${websocket} WebSocket · ${polling} polling`;
  at('version').textContent = stats.version;
}

showExample();
showState();
setInterval(() => socket.connected && look(), 1000);
