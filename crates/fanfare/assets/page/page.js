// The page: joins rooms with the stock client, and shows what comes. It holds a bounded number of everything.
'use strict';

const TAIL_MAX = 500;
const LOG_MAX = 2000;
const JOBS_MAX = 200;
const SAMPLES_MAX = 60;
const LEVELS = { DEBUG: 0, INFO: 1, WARNING: 2, ERROR: 3, CRITICAL: 4 };

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

// ---- connection ----

const socket = io({ auth: { recovery: true } });
const wanted = new Set(new URLSearchParams(location.search).getAll('room'));
let joined = new Set();

function showState() {
  const transport = socket.io.engine?.transport?.name;
  const name = { polling: 'polling', websocket: 'WebSocket' }[transport] ?? transport;
  at('state').dataset.state = socket.connected ? 'open' : socket.active ? 'connecting' : 'lost';
  at('state-text').textContent = socket.connected ? `connected · ${name}` : socket.active ? 'connecting' : 'disconnected';
}

socket.on('connect', () => {
  showState();
  socket.io.engine.on('upgrade', showState);
});
socket.on('disconnect', showState);
socket.on('connect_error', (error) => {
  showState();
  if (error.context?.status === 404) complain('Socket.IO is switched off on this listener (api.socketio), so there is nothing to watch here.');
});

socket.on('connection_established', ({ rooms }) => {
  joined = new Set(rooms);
  for (const room of wanted) if (!joined.has(room)) join(room);
  showRooms();
});

async function join(room) {
  const answer = await command('subscribe', room);
  if (!answer) return;
  wanted.add(room);
  joined.add(room);
  remember();
  showRooms();
}

async function leave(room) {
  if (!(await command('unsubscribe', room))) return;
  wanted.delete(room);
  joined.delete(room);
  remember();
  showRooms();
}

async function command(name, room) {
  let complaint;
  try {
    const answer = await socket.timeout(5000).emitWithAck(name, { room });
    if (answer.ok) { at('complaint').hidden = true; return answer; }
    complaint = answer.error.message;
  } catch {
    complaint = `${room}: the server did not answer`;
  }
  complain(complaint);
  return undefined;
}

function complain(text) {
  at('complaint').textContent = text;
  at('complaint').hidden = false;
}

function remember() {
  const query = new URLSearchParams([...wanted].map((room) => ['room', room]));
  history.replaceState(null, '', wanted.size ? `?${query}` : location.pathname);
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
    room: isWrapped ? payload.room ?? 'all' : '',
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
at('clear').onclick = () => {
  at('tail').replaceChildren();
  eventsSeen = 0;
  at('tail-count').textContent = '';
  at('tail-empty').hidden = false;
};

// ---- jobs and their log ----

const jobs = new Map();
const logs = [];
let chosen = null;

function handleJob({ name, data }) {
  if (!data || typeof data !== 'object') return;
  if (name === 'log' && typeof data.text === 'string') return addLog(data);
  if (typeof data.job_id !== 'string' || (name !== 'agent_status' && name !== 'agent_progress')) return;
  const job = jobFor(data.job_id);
  if (name === 'agent_status') {
    job.status = String(data.status);
    job.name = data.name ?? job.name;
    if (job.status === 'running') job.began = Date.parse(data.timestamp) || Date.now();
    if (job.status === 'success') job.progress = 100;
    if (job.status === 'success' || job.status === 'error') {
      job.message = data.error ?? '';
      job.duration = data.result?.duration_ms ?? (job.began ? Date.now() - job.began : undefined);
    }
  } else {
    job.progress = Math.min(100, Math.max(0, Number(data.progress) || 0));
    job.message = data.message ?? '';
    if (job.status === 'unknown') job.status = 'running';
  }
  showJob(job);
}

function jobFor(id) {
  let job = jobs.get(id);
  if (job) return job;
  job = { id, name: id, status: 'unknown', progress: undefined, message: '', element: make('li') };
  const head = make('div', 'job-head');
  const line = make('div', 'job-line');
  const bar = make('div', 'bar');
  job.parts = { name: make('b'), badge: make('span', 'badge'), time: make('time'), bar, fill: make('i'), message: make('span'), figure: make('span') };
  head.append(job.parts.name, job.parts.badge, job.parts.time);
  bar.append(job.parts.fill);
  bar.role = 'progressbar';
  line.append(job.parts.message, job.parts.figure);
  job.element.append(head, make('div', 'job-id', id), bar, line);
  job.element.onclick = () => choose(chosen === id ? null : id);
  jobs.set(id, job);
  at('jobs').prepend(job.element);
  if (jobs.size > JOBS_MAX) {
    const [oldest, { element }] = jobs.entries().next().value;
    element.remove();
    jobs.delete(oldest);
  }
  at('jobs-empty').hidden = true;
  at('jobs-count').textContent = jobs.size;
  return job;
}

function showJob(job) {
  const { parts } = job;
  const isRunning = job.status === 'running' || job.status === 'unknown';
  job.element.dataset.status = job.status;
  parts.name.textContent = job.name;
  parts.badge.textContent = job.status;
  parts.badge.dataset.status = job.status;
  parts.bar.classList.toggle('unknown', isRunning && job.progress === undefined);
  parts.bar.ariaValueNow = job.progress ?? '';
  parts.fill.style.width = job.progress === undefined ? '' : `${job.progress}%`;
  parts.message.textContent = job.message;
  parts.message.title = job.message;
  parts.figure.textContent = job.progress === undefined ? '' : `${Math.round(job.progress)}%`;
  showDuration(job);
}

function showDuration(job) {
  const millis = job.duration ?? (job.began ? Math.max(0, Date.now() - job.began) : undefined);
  if (millis === undefined) return;
  const seconds = millis / 1000;
  const [whole, rest] = [Math.floor(seconds / 60), Math.floor(seconds % 60)];
  job.parts.time.textContent = seconds < 60 ? `${seconds.toFixed(1)} s` : `${whole} min ${rest} s`;
}
setInterval(() => {
  for (const job of jobs.values()) if (job.status === 'running') showDuration(job);
}, 500);

const isShown = (line) =>
  (chosen === null || line.job_id === chosen) && (LEVELS[line.level] ?? 1) >= Number(at('level').value);

function logLine(line) {
  const element = make('div', line.level in LEVELS ? line.level : 'INFO');
  element.append(make('time', '', clock(line.timestamp)), make('span', '', line.text || ' '));
  return element;
}

function addLog(line) {
  logs.push(line);
  if (logs.length > LOG_MAX) logs.shift();
  if (!isShown(line)) return;
  const box = at('log');
  // Follows the end, unless the reader has scrolled up.
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
  box.append(logLine(line));
  while (box.children.length > LOG_MAX) box.firstChild.remove();
  if (isAtEnd) box.scrollTop = box.scrollHeight;
  at('log-empty').hidden = true;
}

function showLog() {
  const lines = logs.filter(isShown);
  at('log').replaceChildren(...lines.map(logLine));
  at('log').scrollTop = at('log').scrollHeight;
  at('log-empty').hidden = lines.length > 0;
  at('log-job').textContent = chosen === null ? '' : chosen;
}

function choose(id) {
  chosen = id;
  for (const job of jobs.values()) job.element.ariaCurrent = String(job.id === id);
  showLog();
}
at('level').onchange = showLog;

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
  let stats;
  try {
    const response = await fetch('/stats', { signal: AbortSignal.timeout(4000) });
    if (!response.ok) return;
    stats = await response.json();
  } catch {
    return; // The state at the top says that the server is away.
  }
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

const url = location.origin === 'http://127.0.0.1:8000' ? '' : ` --url ${location.origin}`;
at('example').textContent = `fanfare run --project demo${url} -- cargo test`;
if (![...wanted].some((room) => room.startsWith('project:'))) at('example').textContent += '\n# then join project:demo above';
showState();
look();
setInterval(look, 1000);
