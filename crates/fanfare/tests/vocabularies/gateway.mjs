// A gateway's day: users with sessions ask tools, are told what becomes of it, and are moved between rooms.
import { assert, assertMoment, connect, eventually, expectStatus, requests, run } from './watch.mjs';

const [url] = process.argv.slice(2);
const request = requests(url);
const open = (userId, sessionId, options) =>
  connect(url, { auth: { userId, sessionId }, transports: ['websocket', 'polling'], ...options });
const get = async (path) => expectStatus(200, await request('GET', path));
const post = async (path, body, status = 200) => expectStatus(status, await request('POST', path, body));

async function a_user_and_a_session_have_rooms_of_their_own() {
  const page = await open('user123', 'session456');
  const { user_id, session_id, rooms } = page.greeting;
  assert.deepEqual([user_id, session_id], ['user123', 'session456']);
  assert.deepEqual(rooms, ['dashboard', 'global', 'session:session456', 'user:user123']);
  assert.equal(page.socket.io.engine.transport.name, 'websocket');
  page.close();
}

async function a_page_without_websocket_falls_back_to_polling() {
  const page = await open('user123', 'session456', { transports: ['polling'] });
  assert.equal(page.socket.io.engine.transport.name, 'polling');
  await page.succeed('ping', null);
  page.close();
}

async function a_tool_is_asked_and_answers() {
  const [page, other] = [await open('user123', 'session456'), await open('user789', 'session0')];
  page.emit('ai_request', { toolId: 'echo', message: 'Hello there', requestId: 'req123', sessionId: 'session456' });
  const accepted = await page.next('status_update');
  assert.equal(accepted.requestId, 'req123');
  assert.equal(accepted.status, 'accepted');
  assertMoment(accepted.timestamp);
  // Whole, or word by word: what is told until it is done is the answer.
  let told = '';
  for (let isDone = false; !isDone; ) {
    const answer = await page.next('ai_response');
    assert.deepEqual([answer.requestId, answer.toolId, answer.sessionId], ['req123', 'echo', 'session456']);
    assertMoment(answer.timestamp);
    told = answer.message ?? told + (answer.delta ?? '');
    isDone = answer.done;
  }
  assert.ok(told.includes('Hello there'), told);
  let status;
  do status = (await page.next('status_update')).status; while (status === 'running');
  assert.equal(status, 'completed');
  await other.succeed('ping', null);
  assert.deepEqual([other.rest('ai_response'), other.rest('status_update')], [[], []]);
  page.close();
  other.close();
}

async function an_answer_reaches_all_windows_of_the_user() {
  const [one, two] = [await open('user123', 'session1'), await open('user123', 'session2')];
  const { requestId } = await one.succeed('ai_request', { toolId: 'echo', message: 'x' });
  for (const page of [one, two]) assert.equal((await page.next('ai_response')).requestId, requestId);
  one.close();
  two.close();
}

async function a_tool_that_nobody_knows_is_an_error_event() {
  const page = await open('user123', 'session456');
  page.emit('ai_request', { toolId: 'tool1', message: 'Hello', requestId: 'req124' });
  const error = await page.next('error');
  assert.deepEqual([error.code, error.command], ['unknown_tool', 'ai_request']);
  page.emit('ai_request', { toolId: 'echo' });
  assert.equal((await page.next('error')).code, 'bad_payload');
  page.emit('ai_request', { toolId: 'echo', message: 'x', sessionId: 'of somebody else' });
  assert.equal((await page.next('error')).code, 'forbidden');
  page.close();
}

async function connected_users_are_known() {
  const pages = [await open('anna', 's1'), await open('anna', 's2'), await open('bert', 's3')];
  const { users } = await get('/socket/users');
  const connections = (user) => users.find(({ userId }) => userId === user)?.connections;
  assert.deepEqual([connections('anna'), connections('bert')], [2, 1]);
  assert.deepEqual(await get('/socket/users/anna/connected'), { connected: true, connections: 2 });
  assert.deepEqual(await get('/api/v1/users/nobody/connected'), { connected: false, connections: 0 });
  for (const page of pages) page.close();
  await eventually(() => get('/socket/users/anna/connected'), ({ connected }) => !connected);
}

async function operators_move_users_between_rooms() {
  const [page, other] = [await open('anna', 's1'), await open('bert', 's2')];
  const room = 'project:apollo';
  assert.deepEqual(await post('/socket/rooms/join', { userId: 'anna', room }), { room, sockets: 1 });
  await post('/socket/rooms/message', { room, event: 'launch', data: { in: 10 } }, 201);
  assert.deepEqual(await page.next('launch'), { in: 10 });
  const { rooms } = await get('/socket/rooms');
  assert.equal(rooms.find((found) => found.room === room)?.members, 1);

  assert.deepEqual(await post('/socket/rooms/leave', { userId: 'anna', room }), { room, sockets: 1 });
  await post('/socket/rooms/join', { sessionId: 's2', room });
  await post('/socket/rooms/message', { room, event: 'launch', data: { in: 9 } }, 201);
  assert.deepEqual(await other.next('launch'), { in: 9 });
  await page.succeed('ping', null);
  assert.deepEqual(page.rest('launch'), []);
  page.close();
  other.close();
  const names = async () => (await get('/socket/rooms')).rooms.map((found) => found.room);
  await eventually(names, (found) => !found.includes(room));
}

async function sessions_are_told_as_groups() {
  const [one, two, other] = [await open('anna', 'shared'), await open('bert', 'shared'), await open('anna', 'own')];
  await post('/socket/rooms/message', { room: 'session:shared', event: 'hint', data: 1 }, 201);
  for (const page of [one, two]) assert.equal(await page.next('hint'), 1);
  await other.succeed('ping', null);
  assert.deepEqual(other.rest('hint'), []);
  for (const page of [one, two, other]) page.close();
}

async function health_and_statistics_are_at_the_gateways_paths() {
  const page = await open('anna', 's1');
  const health = await get('/socket/health');
  assert.equal(health.status, 'healthy');
  assert.ok(health.connections.total_connections >= 1);
  const stats = await get('/socket/stats');
  assert.ok(stats.connections.total_connections >= 1);
  assert.ok(stats.commands.ai_request >= 1 && stats.errors.unknown_tool >= 1, JSON.stringify([stats.commands, stats.errors]));
  assert.ok(Number.isFinite(stats.events.in_per_second));
  page.close();
}

async function settings_have_the_names_that_gateways_give_them() {
  const response = await fetch(`${url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: 'http://localhost:3000' } });
  assert.equal(response.headers.get('access-control-allow-origin'), 'http://localhost:3000');
  const { pingInterval, pingTimeout } = JSON.parse((await response.text()).slice(1));
  assert.deepEqual([pingInterval, pingTimeout], [25_000, 60_000]);
  const other = await fetch(`${url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: 'http://evil.example' } });
  assert.equal(other.headers.get('access-control-allow-origin'), null);
  assert.ok(other.status >= 400, `${other.status}`);
}

await run({
  a_user_and_a_session_have_rooms_of_their_own,
  a_page_without_websocket_falls_back_to_polling,
  a_tool_is_asked_and_answers,
  an_answer_reaches_all_windows_of_the_user,
  a_tool_that_nobody_knows_is_an_error_event,
  connected_users_are_known,
  operators_move_users_between_rooms,
  sessions_are_told_as_groups,
  health_and_statistics_are_at_the_gateways_paths,
  settings_have_the_names_that_gateways_give_them,
});
