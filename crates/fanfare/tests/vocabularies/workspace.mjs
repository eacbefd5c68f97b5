// A workspace's day: users with tokens watch their projects and agents, which backends tell of.
import { Watcher, assert, assertMoment, connect, eventually, expectStatus, refusal, requests, run } from './watch.mjs';

const [url] = process.argv.slice(2);
const { KEY: key, ANN: ann, BEN: ben, SHORT: short } = process.env;
const request = requests(url, key);
const open = (token, options) => connect(`${url}/ws`, { auth: { token }, ...options });

const events = {
  'project.created': { project_name: 'Shop', created_by: 'ann', repository_url: 'https://git.example/shop' },
  'project.updated': { status: 'active', updated_by: 'ann', changes: { name: ['Shop', 'Store'] } },
  'project.deleted': { deleted_by: 'ann' },
  'agent.status_changed': { agent_id: 'builder', status: 'busy', previous_status: 'idle' },
  'agent.connected': { agent_id: 'builder' },
  'agent.disconnected': { agent_id: 'builder' },
  'workflow.started': { workflow_id: 'wf-1', workflow_name: 'Release' },
  'workflow.progress': { workflow_id: 'wf-1', progress: 40, step: 'compile' },
  'workflow.completed': { workflow_id: 'wf-1' },
  'workflow.failed': { workflow_id: 'wf-1', error: 'no space left' },
  'workflow.cancelled': { workflow_id: 'wf-1' },
  'pr.created': { number: 7, title: 'Faster', author: 'ben', url: 'https://git.example/shop/7' },
  'pr.updated': { number: 7, title: 'Much faster' },
  'pr.closed': { number: 7 },
  'pr.merged': { number: 7 },
  'issue.created': { number: 8, title: 'Slow', labels: ['bug'] },
  'issue.updated': { number: 8, labels: ['bug', 'perf'] },
  'issue.closed': { number: 8 },
  'ai.suggestion': { suggestion: 'Split this file', confidence: 0.9 },
  'ai.analysis_complete': { analysis_id: 'an-1' },
};

const tell = async (event, data, room) => expectStatus(201, await request('POST', '/api/v1/events', { event, data, room }));

async function a_token_is_taken_from_auth_header_or_query() {
  const places = [
    { auth: { token: ann } },
    { extraHeaders: { authorization: `Bearer ${ann}` } },
    { query: { token: ann } },
  ];
  for (const place of places) {
    for (const transport of ['polling', 'websocket']) {
      const { greeting, socket } = await connect(`${url}/ws`, { ...place, transports: [transport] });
      const { server_time, ...rest } = greeting;
      assertMoment(server_time);
      assert.deepEqual(rest, {
        type: 'connection.established',
        connection_id: socket.id,
        user_id: 'ann',
        session_id: null,
        rooms: ['global', 'user:ann'],
        recovered: false,
      });
      socket.close();
    }
  }
}

async function who_has_no_good_token_is_told_why() {
  assert.equal((await refusal(`${url}/ws`, {})).code, 'token_missing');
  assert.equal((await refusal(`${url}/ws`, { auth: { token: 'nonsense' } })).code, 'token_malformed');
  const forged = `${ann.slice(0, -4)}AAAA`;
  const { code, message } = await refusal(`${url}/ws`, { auth: { token: forged } });
  assert.equal(code, 'token_wrong_signature');
  assert.ok(!message.includes(forged));
}

async function rooms_are_open_to_those_who_were_granted_them() {
  const watcher = await open(ann);
  for (const room of ['project:shop', 'agent:builder', 'user:ann', 'agents']) {
    assert.equal((await watcher.succeed('subscribe', { room })).room, room);
  }
  for (const room of ['project:other', 'agent:other', 'user:ben', 'admin', 'whatever']) {
    assert.equal(await watcher.refused('subscribe', { room }), 'forbidden');
  }
  watcher.emit('subscribe', { room: 'project:other' });
  const error = await watcher.next('error');
  assert.deepEqual([error.code, error.command], ['forbidden', 'subscribe']);
  watcher.close();
}

async function every_workspace_event_reaches_its_project_in_order() {
  const [watcher, other] = [await open(ann), await open(ben)];
  await watcher.succeed('subscribe', { room: 'project:shop' });
  await other.succeed('subscribe', { room: 'project:other' });
  let before = null;
  for (const [event, more] of Object.entries(events)) {
    const data = { project_id: 'shop', ...more };
    const { id } = await tell(event, data, 'project:shop');
    const { timestamp, epoch, seq, ...wrapped } = await watcher.next(event);
    assert.deepEqual(wrapped, { event, data, room: 'project:shop', id });
    assertMoment(timestamp);
    assert.ok(Number.isInteger(epoch));
    assert.ok(before === null || seq === before + 1, `${seq} follows on ${before}`);
    before = seq;
  }
  await other.succeed('ping', null);
  for (const event of Object.keys(events)) assert.deepEqual(other.rest(event), [], event);
  watcher.close();
  other.close();
}

async function who_has_unsubscribed_hears_no_more() {
  const watcher = await open(ann);
  await watcher.succeed('subscribe', { room: 'project:shop' });
  await tell('project.updated', { project_id: 'shop', status: 'heard' }, 'project:shop');
  assert.equal((await watcher.next('project.updated')).data.status, 'heard');
  assert.deepEqual(await watcher.succeed('unsubscribe', { room: 'project:shop' }), { room: 'project:shop' });
  await tell('project.updated', { project_id: 'shop', status: 'not heard' }, 'project:shop');
  await watcher.succeed('ping', null);
  assert.deepEqual(watcher.rest('project.updated'), []);
  watcher.close();
}

async function users_and_everybody_are_told_without_subscribing() {
  const [watcher, other] = [await open(ann), await open(ben)];
  expectStatus(201, await request('POST', '/api/v1/events', { event: 'hint', data: 1, user: 'ann' }));
  assert.equal((await watcher.next('hint')).room, 'user:ann');
  await tell('news', { text: 'hello' }, 'global');
  for (const each of [watcher, other]) assert.deepEqual((await each.next('news')).data, { text: 'hello' });
  assert.deepEqual(other.rest('hint'), []);
  watcher.close();
  other.close();
}

async function a_ping_is_answered_with_a_pong() {
  const watcher = await open(ann);
  watcher.emit('ping', { sent: 3 });
  const { echo, timestamp } = await watcher.next('pong');
  assert.deepEqual(echo, { sent: 3 });
  assertMoment(timestamp);
  watcher.close();
}

async function who_comes_later_is_given_what_was_missed() {
  const early = await open(ann);
  const { epoch, seq } = await early.succeed('subscribe', { room: 'project:shop' });
  early.close();
  for (const step of ['one', 'two', 'three']) {
    await tell('workflow.progress', { project_id: 'shop', workflow_id: 'w', progress: 1, step }, 'project:shop');
  }
  const late = await open(ann);
  const answer = await late.succeed('subscribe', { room: 'project:shop', since: { epoch, seq } });
  assert.equal(answer.recovered, true);
  const steps = late.rest('workflow.progress').map(({ data, seq: at }) => [data.step, at]);
  assert.deepEqual(steps, [['one', seq + 1], ['two', seq + 2], ['three', seq + 3]]);
  const history = await late.succeed('history', { room: 'project:shop', last: 2 });
  assert.deepEqual(history.events.map(({ data }) => data.step), ['two', 'three']);
  const page = expectStatus(200, await request('GET', `/api/v1/rooms/project:shop/events?after=${seq}&limit=2`));
  assert.deepEqual(page.events.map(({ data }) => data.step), ['one', 'two']);
  late.close();
}

async function members_of_a_room_are_known() {
  const watcher = await open(ann);
  await watcher.succeed('subscribe', { room: 'project:shop' });
  const { users } = await watcher.succeed('presence', { room: 'project:shop' });
  assert.deepEqual(users, ['ann']);
  watcher.close();
  const rooms = async () => expectStatus(200, await request('GET', '/socket/rooms')).rooms.map(({ room }) => room);
  // Whoever disconnects is in no room any more, and a room without members is gone.
  await eventually(rooms, (found) => !found.includes('project:shop') && !found.includes('user:ann'));
}

async function publishing_needs_a_key() {
  const event = { event: 'project.updated', data: { project_id: 'shop' }, room: 'project:shop' };
  assert.equal((await requests(url)('POST', '/api/v1/events', event)).status, 401);
  assert.equal((await requests(url, ann)('POST', '/api/v1/events', event)).status, 403);
  expectStatus(201, await request('POST', '/api/v1/events', event));
}

async function statistics_tell_connections_rooms_and_events() {
  const watcher = await open(ann);
  // Watchers of before may still be leaving.
  const ask = async () => expectStatus(200, await request('GET', '/api/v1/websocket/stats'));
  const stats = await eventually(ask, ({ connections }) => connections.total_connections === 1);
  assert.deepEqual(stats.connections.by_namespace, { '/ws': 1 });
  assert.ok(stats.rooms.largest.some(({ room, members }) => room === 'user:ann' && members === 1));
  assert.ok(stats.events.published > 0 && stats.events.out > 0);
  watcher.close();
}

async function a_socket_ends_with_its_token() {
  const watcher = await open(short);
  const { expires_at } = await watcher.next('token_expiring');
  assertMoment(expires_at);
  assert.equal(await watcher.next('disconnect'), 'io server disconnect');
  assert.ok(Date.now() > Date.parse(expires_at) - 1_000, `${expires_at} is yet to come`);
}

await run({
  a_socket_ends_with_its_token,
  a_token_is_taken_from_auth_header_or_query,
  who_has_no_good_token_is_told_why,
  rooms_are_open_to_those_who_were_granted_them,
  every_workspace_event_reaches_its_project_in_order,
  who_has_unsubscribed_hears_no_more,
  users_and_everybody_are_told_without_subscribing,
  a_ping_is_answered_with_a_pong,
  who_comes_later_is_given_what_was_missed,
  members_of_a_room_are_known,
  publishing_needs_a_key,
  statistics_tell_connections_rooms_and_events,
});
