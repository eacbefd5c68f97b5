// The page: connects, joins by its address, shows an event, a job of a real command, and nothing from elsewhere.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { launch } from './chromium.mjs';

const [url, binary] = process.argv.slice(2);
const browser = await launch();
try {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
  page.on('request', (request) => request.url().startsWith(url) || complaints.push(`asked for ${request.url()}`));

  await page.goto(`${url}/?room=project:demo`);
  await page.getByText('connected · WebSocket').waitFor();
  await page.locator('#rooms').getByText('project:demo').waitFor();

  await page.fill('#room', 'agents');
  await page.getByRole('button', { name: 'Join' }).click();
  await page.locator('#rooms').getByText('agents').waitFor();
  const event = { event: 'agent_status_update', data: { agent_id: 'agent-123', status: 'active', html: '<b>not bold</b>' }, room: 'agents' };
  await fetch(`${url}/api/v1/events`, { method: 'POST', body: JSON.stringify(event) });
  const line = page.locator('#tail li').first();
  await line.getByText('<b>not bold</b>').waitFor();
  assert.equal(await line.locator('b').textContent(), 'agent_status_update');

  const script = 'echo "warning: low disk"; printf "\\r 40%%|###"; read line; exit 3';
  const run = spawn(binary, ['run', '--project', 'demo', '--name', 'nightly', '--url', url, '--', 'sh', '-c', script]);
  const job = page.locator('#jobs li').filter({ hasText: 'nightly' });
  await job.getByText('40%', { exact: true }).waitFor();
  run.stdin.end('\n');
  const [code] = await once(run, 'exit');
  assert.equal(code, 3);
  await job.getByText('exit code 3').waitFor();
  await page.locator('#log .WARNING').getByText('warning: low disk').waitFor();

  await page.fill('#filter', 'agent-123');
  assert.equal(await page.locator('#tail li:visible').count(), 1);
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.fill('#filter', '');
  const before = await page.locator('#tail li').count();
  await fetch(`${url}/api/v1/events`, { method: 'POST', body: JSON.stringify(event) });
  await page.getByText('paused').waitFor();
  await page.waitForFunction((count) => document.querySelector('#tail-count').textContent.startsWith(String(count + 1)), before);
  assert.equal(await page.locator('#tail li').count(), before);
  await page.getByRole('button', { name: 'Clear' }).click();
  assert.equal(await page.locator('#tail li').count(), 0);

  // Whoever comes later sees what has happened, by name, and its log.
  await page.reload();
  await job.getByText('exit code 3').waitFor();
  await page.locator('#log .WARNING').getByText('warning: low disk').waitFor();

  await page.getByRole('button', { name: 'Leave agents' }).click();
  await page.locator('#rooms').getByText('agents').waitFor({ state: 'detached' });
  await page.waitForFunction(() => Number(document.querySelector('#f-published').textContent) > 3);
  assert.deepEqual(complaints, []);
} finally {
  await browser.close();
}
console.log('done');
