// A queue's day: jobs of projects, their states and progress, for those who watch the project and nobody else.
import { createHmac } from 'node:crypto';
import { assert, assertMoment, connect, expectStatus, refusal, requests, run } from './watch.mjs';

const [url] = process.argv.slice(2);
const { KEY: key, SIGNING_SECRET: secret } = process.env;
const request = requests(url, key);
const pair = (user) => `${user}:${createHmac('sha256', secret).update(user).digest('hex')}`;
const open = (user) => connect(url, { query: { token: pair(user) } });
const jobs = '/api/v1/jobs';

// A payload, with a moment in place of its timestamp.
const timeless = ({ timestamp, ...payload }) => {
  assertMoment(timestamp);
  return payload;
};
const status = (job_id, state, more) => ({ job_id, status: state, event: 'status_change', result: null, error: null, ...more });
const progress = (job_id, percent, message = null) => ({ job_id, progress: percent, event: 'progress_update', message });
const nextStatus = async (watcher) => timeless(await watcher.next('agent_status'));
const nextProgress = async (watcher) => timeless(await watcher.next('agent_progress'));
const post = async (path, body, expected = 200) => expectStatus(expected, await request('POST', `${jobs}${path}`, body));

async function a_signed_pair_in_the_query_says_who_connects() {
  const watcher = await open('user123');
  assert.equal(watcher.greeting.user_id, 'user123');
  assert.ok(watcher.greeting.rooms.includes('user:user123'));
  watcher.close();
  const forged = pair('user123').replace(/^user123/, 'user124');
  assert.equal((await refusal(url, { query: { token: forged } })).code, 'token_wrong_signature');
  assert.equal((await refusal(url, {})).code, 'token_missing');
}

async function a_project_is_open_to_whom_the_application_lets_in() {
  const watcher = await open('user123');
  const answer = await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  assert.equal(answer.room, 'project:project_456');
  watcher.emit('subscribe_project', { project_id: 'secret' });
  const error = await watcher.next('error');
  assert.deepEqual([error.code, error.command], ['forbidden', 'subscribe_project']);
  assert.ok(error.message.length > 0);
  watcher.emit('subscribe_project', { project: 'project_456' });
  assert.equal((await watcher.next('error')).code, 'bad_payload');
  watcher.close();
}

async function a_job_goes_from_queued_over_running_to_success() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  const created = await post('', { job_id: 'job_1', project_id: 'project_456', kind: 'transcription', meta: { meeting: 'm' } }, 201);
  assert.equal(created.status, 'queued');
  assert.deepEqual(await nextStatus(watcher), status('job_1', 'queued'));
  await post('/job_1/status', { status: 'running' });
  assert.deepEqual(await nextStatus(watcher), status('job_1', 'running'));
  await post('/job_1/progress', { progress: 50, message: 'Half of it' });
  assert.deepEqual(await nextProgress(watcher), progress('job_1', 50, 'Half of it'));
  const result = { summary: 'Words that were said', tasks: ['one', { two: 2 }] };
  await post('/job_1/complete', { result });
  assert.deepEqual(await nextStatus(watcher), status('job_1', 'success', { result }));
  const shown = expectStatus(200, await request('GET', `${jobs}/job_1`));
  assert.deepEqual([shown.status, shown.result, shown.project_id], ['success', result, 'project_456']);
  watcher.close();
}

async function a_job_that_fails_says_why() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  await post('', { job_id: 'job_2', project_id: 'project_456' }, 201);
  await post('/job_2/status', { status: 'running' });
  await post('/job_2/fail', { error: 'too many requests' });
  assert.deepEqual(await nextStatus(watcher), status('job_2', 'queued'));
  assert.deepEqual(await nextStatus(watcher), status('job_2', 'running'));
  assert.deepEqual(await nextStatus(watcher), status('job_2', 'error', { error: 'too many requests' }));
  watcher.close();
}

async function nothing_follows_on_an_end() {
  await post('', { job_id: 'job_3', project_id: 'project_456' }, 201);
  await post('/job_3/cancel', {});
  for (const [verb, body] of [['complete', {}], ['fail', { error: 'x' }], ['status', { status: 'running' }]]) {
    const { status: code, body: answer } = await request('POST', `${jobs}/job_3/${verb}`, body);
    assert.equal(code, 409, JSON.stringify(answer));
    assert.ok(answer.error.code.length > 0);
  }
}

async function progress_is_throttled_and_the_newest_is_told() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  // A machine that is so slow that the interval is over before all of it was said is given a longer one.
  for (const interval of [1, 5, 20]) {
    const job = `job_4_${interval}`;
    const next = async () => {
      for (;;) {
        const told = await nextProgress(watcher);
        if (told.job_id === job) return told;
      }
    };
    await post('', { job_id: job, project_id: 'project_456', min_update_interval: interval }, 201);
    const begun = Date.now();
    await post(`/${job}/progress`, { progress: 25, message: 'Fetching' });
    assert.deepEqual(await next(), progress(job, 25, 'Fetching'));
    await post(`/${job}/progress`, { increment: 25, message: 'Reading' });
    await post(`/${job}/progress`, { progress: 75, message: 'Writing' });
    const said = Date.now() - begun;
    if (said > interval * 900) continue;
    assert.deepEqual(await next(), progress(job, 75, 'Writing'));
    const waited = Date.now() - begun;
    assert.ok(waited >= interval * 900, `the next came after ${waited} ms`);
    watcher.close();
    return;
  }
  assert.fail('the machine is too slow');
}

async function what_waits_is_told_before_the_end() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  // With the interval that holds where nobody says one, 5 s.
  await post('', { job_id: 'job_5', project_id: 'project_456' }, 201);
  await post('/job_5/progress', { progress: 10 });
  await post('/job_5/progress', { progress: 90, message: 'Nearly' });
  await post('/job_5/complete', {});
  const told = [];
  while (told.at(-1)?.status !== 'success') {
    await watcher.next('agent_status').then((payload) => told.push(payload));
  }
  const shown = watcher.rest('agent_progress').map(timeless);
  assert.deepEqual(shown.slice(0, 2), [progress('job_5', 10), progress('job_5', 90, 'Nearly')]);
  watcher.close();
}

async function progress_never_goes_back_and_stays_within_bounds() {
  await post('', { job_id: 'job_6', project_id: 'project_456' }, 201);
  await post('/job_6/progress', { progress: 60 });
  assert.equal((await post('/job_6/progress', { progress: 40 })).progress, 60);
  await post('/job_6/progress', { increment: 80 });
  await post('/job_6/complete', {});
  assert.equal(expectStatus(200, await request('GET', `${jobs}/job_6`)).progress, 100);
}

async function projects_are_isolated() {
  const [one, two] = [await open('user123'), await open('user789')];
  await one.succeed('subscribe_project', { project_id: 'project_1' });
  await two.succeed('subscribe_project', { project_id: 'project_2' });
  await post('', { job_id: 'of_1', project_id: 'project_1' }, 201);
  await post('/of_1/progress', { progress: 1 });
  await post('', { job_id: 'of_2', project_id: 'project_2' }, 201);
  assert.equal((await one.next('agent_status')).job_id, 'of_1');
  assert.equal((await two.next('agent_status')).job_id, 'of_2');
  await post('/of_1/cancel', {});
  for (const watcher of [one, two]) await watcher.succeed('ping', null);
  assert.ok(two.heard.every(([, payload]) => payload?.job_id !== 'of_1'), JSON.stringify(two.heard));
  assert.ok(one.heard.every(([, payload]) => payload?.job_id !== 'of_2'), JSON.stringify(one.heard));
  one.close();
  two.close();
}

async function a_job_can_be_watched_alone() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe', { room: 'job:alone' });
  await post('', { job_id: 'alone', project_id: 'project_3' }, 201);
  assert.deepEqual(await nextStatus(watcher), status('alone', 'queued'));
  watcher.close();
}

async function who_has_unsubscribed_hears_no_more() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_4' });
  await watcher.succeed('unsubscribe_project', { project_id: 'project_4' });
  await post('', { job_id: 'unheard', project_id: 'project_4' }, 201);
  await watcher.succeed('ping', null);
  assert.deepEqual(watcher.rest('agent_status'), []);
  watcher.close();
}

async function custom_events_reach_the_project() {
  const watcher = await open('user123');
  await watcher.succeed('subscribe_project', { project_id: 'project_456' });
  const event = { event: 'custom_event', data: { some: 'value' }, project: 'project_456' };
  expectStatus(201, await request('POST', '/api/v1/events', event));
  const { data, room } = await watcher.next('custom_event');
  assert.deepEqual([data, room], [{ some: 'value' }, 'project:project_456']);
  watcher.close();
}

async function jobs_are_listed_by_project_and_status() {
  const listed = async (query) => expectStatus(200, await request('GET', `${jobs}?${query}`)).jobs.map(({ job_id }) => job_id);
  for (const job_id of ['list_a', 'list_b', 'list_c']) await post('', { job_id, project_id: 'listed' }, 201);
  await post('/list_b/status', { status: 'running' });
  assert.deepEqual((await listed('project_id=listed')).sort(), ['list_a', 'list_b', 'list_c']);
  assert.deepEqual(await listed('project_id=listed&status=running'), ['list_b']);
  const { jobs: first, next } = expectStatus(200, await request('GET', `${jobs}?project_id=listed&limit=2`));
  const rest = await listed(`project_id=listed&limit=2&after=${encodeURIComponent(next)}`);
  assert.deepEqual([...first.map(({ job_id }) => job_id), ...rest].sort(), ['list_a', 'list_b', 'list_c']);
}

async function the_same_request_again_counts_once() {
  const again = async () => fetch(`${url}${jobs}/counted/progress`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'idempotency-key': 'step-1' },
    body: JSON.stringify({ increment: 30 }),
  });
  await post('', { job_id: 'counted', project_id: 'project_456' }, 201);
  for (let nth = 0; nth < 3; nth += 1) assert.equal((await again()).status, 200);
  assert.equal(expectStatus(200, await request('GET', `${jobs}/counted`)).progress, 30);
}

async function a_connection_lives_as_long_as_the_settings_say() {
  const response = await fetch(`${url}/socket.io/?EIO=4&transport=polling`);
  const { pingInterval, pingTimeout } = JSON.parse((await response.text()).slice(1));
  assert.deepEqual([pingInterval, pingTimeout], [25_000, 60_000]);
}

await run({
  a_signed_pair_in_the_query_says_who_connects,
  a_project_is_open_to_whom_the_application_lets_in,
  a_job_goes_from_queued_over_running_to_success,
  a_job_that_fails_says_why,
  nothing_follows_on_an_end,
  progress_is_throttled_and_the_newest_is_told,
  what_waits_is_told_before_the_end,
  progress_never_goes_back_and_stays_within_bounds,
  projects_are_isolated,
  a_job_can_be_watched_alone,
  who_has_unsubscribed_hears_no_more,
  custom_events_reach_the_project,
  jobs_are_listed_by_project_and_status,
  the_same_request_again_counts_once,
  a_connection_lives_as_long_as_the_settings_say,
});
