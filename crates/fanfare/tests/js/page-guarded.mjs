// The page on a server that wants to know who looks: it says what is refused and why, and shows the rest.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { launch } from './chromium.mjs';

const [url, binary] = process.argv.slice(2);
const { ANN, ADMIN, KEY } = process.env;
const browser = await launch();

/** A command of project `demo` and its exit code, once it was let go on. */
function run(name, script) {
  const options = ['--project', 'demo', '--name', name, '--url', url];
  const running = spawn(binary, ['run', ...options, '--', 'sh', '-c', script], { env: { ...process.env, FANFARE_API_KEY: KEY } });
  const exit = once(running, 'exit').then(([code]) => code);
  return { exit, goOn: () => running.stdin.end('\n') };
}

async function open(path) {
  const context = await browser.newContext();
  const page = await context.newPage();
  page.on('pageerror', (error) => assert.fail(error));
  await page.goto(`${url}${path}`);
  return page;
}

try {
  // Without a token nothing is shown but the question.
  const page = await open('/?room=project:demo&room=project:other');
  await page.getByText('This server wants to know who you are.').waitFor();
  await page.getByText('not let in').waitFor();
  assert.equal(await page.locator('main').isVisible(), false);
  await page.fill('#token', 'not-a-token');
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.locator('#sign-in').getByText('token_malformed').waitFor();

  // With one it is connected, and each refusal has its reason.
  assert.equal(await run('early', 'echo before').exit, 0);
  await page.fill('#token', ANN);
  await page.getByRole('button', { name: 'Go on' }).click();
  await page.getByText('connected · WebSocket').waitFor();
  await page.getByText('as ann').waitFor();
  assert.equal(await page.locator('#sign-in').isVisible(), false);
  await page.locator('#rooms').getByText('project:demo').waitFor();
  await page.locator('#complaints').getByText('you may not join the room `project:other` (forbidden)').waitFor();
  await page.locator('#refused').getByText('scope_missing').waitFor();
  assert.equal(await page.locator('#figures').isVisible(), false);
  assert.match(await page.locator('#example').textContent(), /^FANFARE_API_KEY=… fanfare run --project demo /);

  // Jobs of before come with the room's log, those of now as they happen.
  await page.locator('#log').getByText('before').waitFor();
  await page.locator('#jobs li[data-status="success"]').waitFor();
  const running = run('late', 'printf "\\r 40%%|###"; read line; echo; echo "error: no"; exit 9');
  const job = page.locator('#jobs li').first();
  await job.getByText('40%', { exact: true }).waitFor();
  running.goOn();
  assert.equal(await running.exit, 9);
  await job.getByText('exit code 9').waitFor();
  await page.locator('#log .ERROR').getByText('error: no').waitFor();
  assert.equal(await page.locator('#jobs li').count(), 2);

  // The token is nowhere but in memory.
  const kept = () => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]);
  assert.ok(!(await page.evaluate(kept)).includes(ANN));
  await page.reload();
  await page.getByText('This server wants to know who you are.').waitFor();

  // It may come with the address, which forgets it. An admin sees figures and names.
  const admin = await open(`/?room=project:demo#token=${ADMIN}`);
  await admin.getByText('connected · WebSocket').waitFor();
  assert.equal(admin.url(), `${url}/?room=project:demo`);
  await admin.locator('#jobs li').filter({ hasText: 'early' }).getByText('success').waitFor();
  await admin.locator('#jobs li').filter({ hasText: 'late' }).getByText('exit code 9').waitFor();
  await admin.waitForFunction(() => Number(document.querySelector('#f-connections').textContent) > 0);
  assert.equal(await admin.locator('#refused').isVisible(), false);
} finally {
  await browser.close();
}
console.log('done');
