// The page's jobs and what they print, from events and from records. Whatever comes is shown as text, and bounded.
'use strict';

const LOG_MAX = 2000;
const JOBS_MAX = 200;
// Jobs of a project that are there from the beginning.
const RECORDS = 50;
const LEVELS = { DEBUG: 0, INFO: 1, WARNING: 2, ERROR: 3, CRITICAL: 4 };

const ENDS = new Set(['success', 'error', 'cancelled']);
const jobs = new Map();
const logs = [];
let chosen = null;

function handleJob({ name, data }) {
  if (!data || typeof data !== 'object') return;
  if (name === 'log' && typeof data.text === 'string') return addLog(data);
  if (typeof data.job_id !== 'string' || (name !== 'agent_status' && name !== 'agent_progress')) return;
  const time = Date.parse(data.timestamp) || Date.now();
  const job = jobs.get(data.job_id) ?? addJob(data.job_id, time);
  job.told = Math.max(job.told, time);
  if (name === 'agent_status') {
    job.status = String(data.status);
    if (job.status === 'running') job.began ??= time;
    if (ENDS.has(job.status)) {
      job.ended = time;
      job.message = data.error ?? '';
    }
  } else {
    job.progress = Math.min(100, Math.max(0, Number(data.progress) || 0));
    job.message = data.message ?? '';
    if (job.status === 'unknown') job.status = 'running';
  }
  showJob(job);
}

/** Reads the records of the jobs of rooms, which say more than their events: names, and what happened long ago. */
async function readJobs(rooms = [...joined]) {
  for (const room of rooms) {
    const [kind, id] = [room.slice(0, room.indexOf(':')), encodeURIComponent(room.slice(room.indexOf(':') + 1))];
    if (kind === 'project') {
      const page = await read(`/api/v1/jobs?project_id=${id}&limit=${RECORDS}`);
      page?.jobs.forEach(handleRecord);
    } else if (kind === 'job') {
      const record = await read(`/api/v1/jobs/${id}`);
      if (record) handleRecord(record);
    }
  }
}

function handleRecord(record) {
  const created = Date.parse(record.created_at);
  const job = jobs.get(record.job_id) ?? addJob(record.job_id, created);
  const name = record.meta?.name;
  job.name = typeof name === 'string' && name ? name : record.kind ?? record.job_id;
  // Events that came meanwhile know better.
  if (Date.parse(record.updated_at) >= job.told) {
    job.status = record.status;
    job.progress = record.progress > 0 || ENDS.has(record.status) ? record.progress : undefined;
    job.message = record.error ?? record.message ?? '';
    job.began = Date.parse(record.started_at) || undefined;
    job.ended = Date.parse(record.finished_at) || undefined;
  }
  showJob(job);
}

/** A job that was not known, among the others: the newest is first. */
function addJob(id, created) {
  const job = { id, created, name: id, status: 'unknown', progress: undefined, message: '', told: 0, element: make('li') };
  const head = make('div', 'job-head');
  const line = make('div', 'job-line');
  const bar = make('div', 'bar');
  job.parts = { name: make('b'), id: make('div', 'job-id', id), badge: make('span', 'badge'), time: make('time'), bar, fill: make('i'), message: make('span'), figure: make('span') };
  head.append(job.parts.name, job.parts.badge, job.parts.time);
  bar.append(job.parts.fill);
  bar.role = 'progressbar';
  line.append(job.parts.message, job.parts.figure);
  job.element.append(head, job.parts.id, bar, line);
  job.element.tabIndex = 0;
  job.element.onclick = () => choose(chosen === id ? null : id);
  job.element.onkeydown = ({ key }) => key === 'Enter' && choose(chosen === id ? null : id);
  jobs.set(id, job);
  const list = at('jobs');
  const older = [...jobs.values()].filter((other) => other.created < created);
  const next = older.reduce((newest, other) => (newest && newest.created >= other.created ? newest : other), undefined);
  list.insertBefore(job.element, next?.element ?? null);
  if (jobs.size > JOBS_MAX) {
    const oldest = [...jobs.values()].find(({ element }) => element === list.lastChild);
    oldest.element.remove();
    jobs.delete(oldest.id);
  }
  at('jobs-empty').hidden = true;
  at('jobs-count').textContent = jobs.size;
  // Its name stands in its record only.
  if (Date.now() - created < 60_000) read(`/api/v1/jobs/${encodeURIComponent(id)}`).then((record) => record && handleRecord(record));
  return job;
}

emptying.push(() => {
  jobs.clear();
  logs.length = 0;
  at('jobs').replaceChildren();
  at('jobs-count').textContent = '';
  at('jobs-empty').hidden = false;
  choose(null);
});

function showJob(job) {
  const { parts } = job;
  const isOpen = !ENDS.has(job.status) && job.status !== 'lost';
  // A job that says nothing of its progress has come to its end all the same.
  const progress = job.status === 'success' ? 100 : job.progress;
  job.element.dataset.status = job.status;
  parts.name.textContent = job.name;
  parts.id.hidden = job.name === job.id;
  parts.badge.textContent = job.status;
  parts.badge.dataset.status = job.status;
  parts.bar.classList.toggle('unknown', job.status === 'running' && progress === undefined);
  parts.bar.ariaValueNow = progress ?? '';
  parts.fill.style.width = progress === undefined ? '' : `${progress}%`;
  parts.message.textContent = job.message;
  parts.message.title = job.message;
  parts.figure.textContent = progress === undefined || (!isOpen && progress === 0) ? '' : `${Math.round(progress)}%`;
  showDuration(job);
}

function showDuration({ began, ended, status, parts }) {
  if (began === undefined) return;
  if (ended === undefined && status !== 'running') return;
  const millis = Math.max(0, (ended ?? Date.now()) - began);
  const seconds = Math.floor(millis / 1000);
  parts.time.textContent = ended !== undefined && millis < 1000 ? `${millis} ms` : seconds < 60 ? `${(millis / 1000).toFixed(1)} s`
    : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
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
