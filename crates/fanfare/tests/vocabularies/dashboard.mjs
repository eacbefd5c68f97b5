// A dashboard's day: rooms for its sections, updates that its agents send, and the figures that its operators read.
import { Watcher, assert, assertMoment, connect, eventually, expectStatus, requests, run } from './watch.mjs';

const [url] = process.argv.slice(2);
const request = requests(url);
const sections = ['agents', 'tasks', 'metrics', 'workflows', 'system'];
const updates = [
  ['agent_status_update', 'agents', { agent_id: 'agent-123', status: 'active', metadata: { cpu: 75, memory: 60 } }],
  ['task_update', 'tasks', { task_id: 'task-456', status: 'completed', result: 'success' }],
  ['system_metrics_update', 'metrics', { cpu_percent: 41.5, disks: [{ name: 'a', free: 9 }] }],
  ['workflow_event', 'workflows', { workflow_id: 'wf-7', event_type: 'step_completed', status: 'running' }],
];

async function pages_of_dashboards_find_the_server_at_both_paths() {
  for (const options of [{}, { path: '/ws/socket.io/' }, { transports: ['polling'] }, { transports: ['websocket'] }]) {
    const page = await connect(url, { cors: { origin: 'http://localhost:3001', methods: ['GET', 'POST'] }, ...options });
    const { connection_id, rooms, type } = page.greeting;
    assert.deepEqual({ connection_id, rooms, type }, {
      connection_id: page.socket.id,
      rooms: ['dashboard', 'global'],
      type: 'connection.established',
    });
    page.close();
  }
}

async function rooms_of_sections_are_joined_and_left() {
  const page = await connect(url);
  for (const room of sections) {
    page.emit('join_room', { room });
    assert.deepEqual(await page.next('room_joined'), { room });
  }
  for (const room of sections) {
    page.emit('leave_room', { room });
    assert.deepEqual(await page.next('room_left'), { room });
  }
  page.close();
}

async function the_room_of_admins_is_closed_to_others() {
  const page = await connect(url);
  page.emit('join_room', { room: 'admin' });
  const error = await page.next('error');
  assert.deepEqual([error.code, error.command], ['forbidden', 'join_room']);
  page.close();
}

async function updates_reach_their_room_and_the_dashboard_once_each() {
  const [sender, member, onlooker] = [await connect(url), await connect(url), await connect(url)];
  for (const [event, room, data] of updates) {
    await sender.succeed('join_room', { room });
    await member.succeed('join_room', { room });
    const { id } = await sender.succeed(event, data);
    for (const page of [sender, member, onlooker]) {
      const { timestamp, epoch, seq, ...wrapped } = await page.next(event);
      assert.deepEqual(wrapped, { event, data, room, id });
      assertMoment(timestamp);
      // The newest metrics alone are kept, so they have no place in a log.
      assert.equal(Number.isInteger(epoch) && Number.isInteger(seq), room !== 'metrics');
    }
  }
  // Whatever came twice would have come before the answers to this.
  for (const page of [sender, member, onlooker]) {
    await page.succeed('ping', null);
    for (const [event] of updates) assert.deepEqual(page.rest(event), []);
    page.close();
  }
}

async function updates_come_in_the_order_in_which_they_were_sent() {
  const [sender, member] = [await connect(url), await connect(url)];
  await member.succeed('join_room', { room: 'tasks' });
  // What the dashboard had to show came first.
  while (member.rest('task_update').length > 0) await member.next('task_update');
  for (let progress = 0; progress < 50; progress += 1) {
    sender.emit('task_update', { task_id: 'ordered', status: 'running', progress });
  }
  let before = 0;
  for (let progress = 0; progress < 50; progress += 1) {
    const { data, seq } = await member.next('task_update');
    assert.equal(data.progress, progress);
    assert.ok(progress === 0 || seq === before + 1, `${seq} follows on ${before}`);
    before = seq;
  }
  sender.close();
  member.close();
}

async function who_has_left_a_room_hears_no_more_of_it() {
  // Not on `/`, whose sockets have the dashboard.
  const [sender, page] = [await connect(url), await connect(`${url}/ws`)];
  await page.succeed('join_room', { room: 'agents' });
  await sender.succeed('agent_status_update', { agent_id: 'a', status: 'idle' });
  assert.equal((await page.next('agent_status_update')).data.status, 'idle');
  await page.succeed('leave_room', { room: 'agents' });
  await sender.succeed('agent_status_update', { agent_id: 'a', status: 'gone' });
  await page.succeed('ping', null);
  assert.deepEqual(page.rest('agent_status_update'), []);
  sender.close();
  page.close();
}

async function a_dashboard_that_opens_later_gets_the_newest_of_each() {
  const sender = await connect(url);
  for (const status of ['starting', 'busy']) await sender.succeed('agent_status_update', { agent_id: 'late', status });
  await sender.succeed('agent_status_update', { agent_id: 'later', status: 'idle' });
  const page = await connect(url);
  await page.succeed('join_room', { room: 'dashboard' });
  const newest = new Map(page.rest('agent_status_update').map(({ data }) => [data.agent_id, data.status]));
  assert.equal(newest.get('late'), 'busy');
  assert.equal(newest.get('later'), 'idle');
  sender.close();
  page.close();
}

async function backends_publish_what_pages_see() {
  const page = await connect(url);
  await page.succeed('join_room', { room: 'system' });
  const { id } = expectStatus(201, await request('POST', '/api/v1/events', {
    event: 'maintenance', data: { at: 'noon' }, room: 'system',
  }));
  const { data, room, ...more } = await page.next('maintenance');
  assert.deepEqual([data, room, more.id], [{ at: 'noon' }, 'system', id]);
  page.close();
}

async function a_ping_is_answered_with_a_pong() {
  const page = await connect(url);
  page.emit('ping', { sent: 17 });
  const { echo, timestamp } = await page.next('pong');
  assert.deepEqual(echo, { sent: 17 });
  assertMoment(timestamp);
  page.close();
}

async function what_is_malformed_is_told_as_an_error_event() {
  const page = await connect(url);
  for (const [command, payload, code] of [
    ['join_room', 'agents', 'bad_payload'],
    ['join_room', { room: '' }, 'bad_room_name'],
    ['leave_room', undefined, 'bad_payload'],
    ['agent_status_update', { status: 'active' }, 'bad_payload'],
    ['task_update', [], 'bad_payload'],
    ['no_such_command', {}, 'unknown_command'],
  ]) {
    page.emit(command, payload);
    const error = await page.next('error');
    assert.deepEqual([error.code, error.command], [code, command]);
    assert.ok(error.message.length > 0);
  }
  assert.equal(page.socket.connected, true);
  page.close();
}

async function health_counts_connections_and_rooms() {
  const page = await connect(url);
  await page.succeed('join_room', { room: 'agents' });
  const health = expectStatus(200, await request('GET', '/health'));
  assert.equal(health.status, 'healthy');
  const { active_connections, rooms } = health.checks.socketio_manager;
  assert.ok(active_connections >= 1, `${active_connections} connections`);
  assert.ok(rooms >= 3, `${rooms} rooms`);
  page.close();
}

async function who_disconnects_is_cleaned_up() {
  const before = await eventually(() => request('GET', '/health'), ({ body }) => body.connections.total_connections === 0);
  assert.equal(before.body.checks.socketio_manager.active_connections, 0);
  // A name of its own: rooms with a log are not counted once nobody is in them.
  const page = await connect(url);
  await page.succeed('join_room', { room: 'workflows' });
  const rooms = async () => (await request('GET', '/socket/rooms')).body.rooms.map(({ room }) => room);
  assert.ok((await rooms()).includes('workflows'));
  page.close();
  await eventually(rooms, (found) => !found.includes('workflows'));
  await eventually(() => request('GET', '/health'), ({ body }) => body.connections.total_connections === 0);
}

async function a_page_that_lost_its_connection_comes_back_by_itself() {
  const page = new Watcher(url, { reconnection: true, reconnectionDelay: 50, transports: ['websocket'] });
  await page.next('connection_established');
  await page.succeed('join_room', { room: 'tasks' });
  // What the dashboard had to show came first.
  while (page.rest('task_update').length > 0) await page.next('task_update');
  // Below the client: to it that is a network that broke.
  page.socket.io.engine.close();
  await page.next('disconnect');
  const missed = { task_id: 'missed', status: 'done' };
  expectStatus(201, await request('POST', '/api/v1/events', { event: 'task_update', data: missed, room: 'tasks' }));
  assert.deepEqual((await page.next('task_update')).data, missed);
  assert.equal(page.socket.recovered, true);
  page.close();
}

await run({
  pages_of_dashboards_find_the_server_at_both_paths,
  rooms_of_sections_are_joined_and_left,
  the_room_of_admins_is_closed_to_others,
  updates_reach_their_room_and_the_dashboard_once_each,
  updates_come_in_the_order_in_which_they_were_sent,
  who_has_left_a_room_hears_no_more_of_it,
  a_dashboard_that_opens_later_gets_the_newest_of_each,
  backends_publish_what_pages_see,
  a_ping_is_answered_with_a_pong,
  what_is_malformed_is_told_as_an_error_event,
  health_counts_connections_and_rooms,
  who_disconnects_is_cleaned_up,
  a_page_that_lost_its_connection_comes_back_by_itself,
});
