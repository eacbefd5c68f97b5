// An operator's day: log lines and runs on the listener for sockets, decisions on the one for requests.
import { assert, assertMoment, connect, eventually, expectStatus, requests, run } from './watch.mjs';

const [api, realtime] = process.argv.slice(2);
const request = requests(api);
const logs = (auth) => connect(`${realtime}/logs`, auth && { auth });
const admin = () => connect(`${realtime}/admin`);
const log = async (...lines) => expectStatus(202, await request('POST', '/api/v1/logs', lines));
const runs = '/api/v1/runs';

// The next event of a run, whatever happens to others meanwhile.
async function nextRunEvent(watcher, thread_id) {
  for (;;) {
    const { type, data } = await watcher.next('admin_event');
    if (type === 'run_event' && data.thread_id === thread_id) return data;
  }
}

async function log_lines_stream_to_their_namespace() {
  const watcher = await logs();
  const line = { text: 'it begins', thread_id: 'thread-123', level: 'INFO', timestamp: '2024-01-01T00:00:00.000Z' };
  assert.deepEqual(await log(line), { accepted: 1 });
  assert.deepEqual(await watcher.next('log'), line);
  await log({ text: 'no more than a text' });
  const { timestamp, ...bare } = await watcher.next('log');
  assert.deepEqual(bare, { text: 'no more than a text', thread_id: null, level: 'INFO' });
  assertMoment(timestamp);
  watcher.close();
}

async function a_time_without_a_zone_is_taken_as_utc() {
  const watcher = await logs();
  await log({ text: 'x', timestamp: '2024-01-01T00:00:00' });
  assert.equal((await watcher.next('log')).timestamp, '2024-01-01T00:00:00.000Z');
  watcher.close();
}

async function lines_come_one_by_one_as_an_array_or_as_lines() {
  const watcher = await logs();
  const send = (body) => fetch(`${api}/api/v1/logs`, { method: 'POST', body });
  await send('{"text": "1"}');
  await send('[{"text": "2"}, {"text": "3"}]');
  await send('{"text": "4"}\n{"text": "5"}\n');
  for (const text of ['1', '2', '3', '4', '5']) assert.equal((await watcher.next('log')).text, text);
  watcher.close();
}

async function lines_are_narrowed_by_thread_and_level() {
  const [narrow, all] = [await logs({ thread_id: 'mine', level: 'WARNING' }), await logs()];
  const lines = [
    { text: 'a', thread_id: 'mine', level: 'INFO' },
    { text: 'b', thread_id: 'other', level: 'ERROR' },
    { text: 'c', thread_id: 'mine', level: 'ERROR' },
    { text: 'd', thread_id: 'mine', level: 'WARNING' },
  ];
  await log(...lines);
  for (const text of ['a', 'b', 'c', 'd']) assert.equal((await all.next('log')).text, text);
  for (const text of ['c', 'd']) assert.equal((await narrow.next('log')).text, text);
  await narrow.succeed('filter', { level: 'INFO', thread_id: 'other' });
  await log(...lines);
  assert.equal((await narrow.next('log')).text, 'b');
  assert.deepEqual(narrow.rest('log'), []);
  narrow.emit('filter', { level: 'LOUD' });
  assert.equal((await narrow.next('error')).command, 'filter');
  narrow.close();
  all.close();
}

async function a_run_is_started_watched_approved_and_completed() {
  const watcher = await admin();
  const thread_id = 'thread-123';
  const started = expectStatus(201, await request('POST', '/start', { thread_id, input: { ask: 1 }, metadata: { flow: 'release' } }));
  assert.deepEqual([started.thread_id, started.status], [thread_id, 'started']);
  const { timestamp, ...first } = await nextRunEvent(watcher, thread_id);
  assert.deepEqual(first, { thread_id, checkpoint_id: null, metadata: { flow: 'release' }, status: 'started' });
  assertMoment(timestamp);

  const say = async (body) => expectStatus(200, await request('POST', `${runs}/${thread_id}/status`, body));
  await say({ status: 'running', checkpoint_id: 'cp-1', metadata: { step: 'plan' } });
  const running = await nextRunEvent(watcher, thread_id);
  assert.deepEqual([running.status, running.checkpoint_id, running.metadata], ['running', 'cp-1', { flow: 'release', step: 'plan' }]);

  await say({ status: 'waiting_approval', checkpoint_id: 'cp-2' });
  assert.equal((await nextRunEvent(watcher, thread_id)).status, 'waiting_approval');
  const shown = expectStatus(200, await request('GET', `/status/${thread_id}`));
  assert.deepEqual([shown.status, shown.checkpoint_id, shown.input], ['waiting_approval', 'cp-2', { ask: 1 }]);

  // The runner waits for the decision while it is made.
  const waiting = request('GET', `${runs}/${thread_id}/control?wait=30s`);
  const approval = { thread_id, checkpoint_id: 'cp-2', approved: true, comment: 'go on' };
  assert.equal(expectStatus(200, await request('POST', '/approve', approval)).status, 'approved');
  const { commands } = expectStatus(200, await waiting);
  assert.equal(commands.length, 1);
  assert.deepEqual([commands[0].verb, commands[0].checkpoint_id, commands[0].comment], ['approve', 'cp-2', 'go on']);
  const approved = await nextRunEvent(watcher, thread_id);
  assert.deepEqual([approved.status, approved.decision.approved], ['approved', true]);

  // What was obeyed is acknowledged, and a wait without a decision ends empty.
  const after = await request('GET', `${runs}/${thread_id}/control?wait=100ms&after=${commands[0].id}`);
  assert.deepEqual(expectStatus(200, after), { commands: [] });
  await say({ status: 'completed' });
  assert.equal((await nextRunEvent(watcher, thread_id)).status, 'completed');
  watcher.close();
}

async function an_operator_rejects_from_a_socket() {
  const [watcher, page] = [await admin(), await connect(realtime)];
  const { thread_id } = expectStatus(201, await request('POST', '/start', {}));
  assert.ok(thread_id.length > 0);
  await page.succeed('subscribe', { room: `run:${thread_id}` });
  expectStatus(200, await request('POST', `${runs}/${thread_id}/status`, { status: 'waiting_approval' }));
  assert.equal((await page.next('admin_event')).data.status, 'waiting_approval');
  const { run: decided } = await page.succeed('approve', { thread_id, approved: false, comment: 'not today' });
  assert.equal(decided.status, 'rejected');
  const { commands } = expectStatus(200, await request('GET', `${runs}/${thread_id}/control`));
  assert.deepEqual([commands[0].verb, commands[0].comment], ['reject', 'not today']);
  for (const status of ['started', 'waiting_approval', 'rejected']) {
    assert.equal((await nextRunEvent(watcher, thread_id)).status, status);
  }
  assert.equal(await page.refused('approve', { thread_id: 'nowhere', approved: true }), 'not_found');
  watcher.close();
  page.close();
}

async function runs_are_listed_and_unknown_ones_are_not_found() {
  const { runs: listed } = expectStatus(200, await request('GET', `${runs}?status=completed`));
  assert.ok(listed.some(({ thread_id }) => thread_id === 'thread-123'));
  assert.equal((await request('GET', '/status/nowhere')).status, 404);
}

async function health_tells_who_watches_what() {
  const quiet = ({ body }) => body.connections.total_connections === 0;
  await eventually(() => requests(realtime)('GET', '/health'), quiet);
  const watchers = [await logs(), await logs(), await admin()];
  const health = expectStatus(200, await requests(realtime)('GET', '/health'));
  const { status, service, port, connections } = health;
  assert.deepEqual({ status, service, port, connections }, {
    status: 'healthy',
    service: 'socketio',
    port: Number(new URL(realtime).port),
    connections: { log_connections: 2, admin_connections: 1, total_connections: 3 },
  });
  assert.equal(expectStatus(200, await request('GET', '/health')).port, Number(new URL(api).port));
  for (const watcher of watchers) watcher.close();
}

async function statistics_are_on_the_listener_for_sockets() {
  const watcher = await logs();
  // Watchers of before may still be leaving.
  const ask = async () => expectStatus(200, await requests(realtime)('GET', '/stats'));
  const { connections } = await eventually(ask, (stats) => stats.connections.total_connections === 1);
  assert.deepEqual(connections.by_namespace, { '/logs': 1 });
  assert.equal(connections.by_transport.polling + connections.by_transport.websocket, connections.sessions);
  watcher.close();
}

async function the_listener_for_sockets_takes_no_requests() {
  assert.equal((await requests(realtime)('POST', '/start', {})).status, 404);
}

await run({
  log_lines_stream_to_their_namespace,
  a_time_without_a_zone_is_taken_as_utc,
  lines_come_one_by_one_as_an_array_or_as_lines,
  lines_are_narrowed_by_thread_and_level,
  a_run_is_started_watched_approved_and_completed,
  an_operator_rejects_from_a_socket,
  runs_are_listed_and_unknown_ones_are_not_found,
  health_tells_who_watches_what,
  statistics_are_on_the_listener_for_sockets,
  the_listener_for_sockets_takes_no_requests,
});
