'use strict';
// Starts and stops the server under test. Knows the command line of the contract (README.md) and nothing of protocols.

const { spawn } = require('node:child_process');
const path = require('node:path');
const { after } = require('node:test');

const REFERENCE = `node ${path.join(__dirname, '..', 'reference-server.js')}`;
const FIXTURE = process.env.FANFARE_FIXTURE || REFERENCE;
/** True when the tests run against the Node reference server; a few expectations differ. */
const IS_REFERENCE = FIXTURE.includes('reference-server.js');

/**
 * Milliseconds to wait for what usually takes much less than `ms`: a limit only says when to give up, and on a machine that is busy
 * with other things that is many times later. What the reference is known not to do is not waited for as long.
 */
const patience = (ms) => ms * (IS_REFERENCE ? 3 : 10);

const started = new Map();

/** One server per distinct set of options and test file, started at first use, stopped after the file's last test. */
function shared(options = {}) {
  const key = JSON.stringify(options);
  if (!started.has(key)) started.set(key, startServer(options));
  return started.get(key);
}

after(async () => {
  const servers = await Promise.allSettled(started.values());
  await Promise.all(servers.filter((one) => one.status === 'fulfilled').map((one) => one.value.stop()));
});

/**
 * Starts a server of one's own, on any free port. Options are the contract's flags in camel case; `true` gives a bare flag.
 * The caller stops it.
 */
const startServer = (options = {}) => tryStart(0, options);

/** Starts a server on a given port, for tests that bring one back. */
const startOn = (port, options = {}) => tryStart(port, options);

function tryStart(port, options) {
  const args = ['--port', String(port)];
  for (const [name, value] of Object.entries(options)) {
    args.push('--' + name.replace(/[A-Z]/g, (c) => '-' + c.toLowerCase()));
    if (value !== true) args.push(String(value));
  }
  // `exec`, so that our signals reach the server and not a shell in between.
  const child = spawn('sh', ['-c', `exec ${FIXTURE} "$@"`, 'fixture', ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.on('exit', (code, signal) => resolve({ code, signal })));
  return new Promise((resolve, reject) => {
    const giveUp = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`no "ready" within a minute from: ${FIXTURE} ${args.join(' ')}`));
    }, 60000);
    exited.then((how) => reject(new Error(`server ended (${JSON.stringify(how)}) before "ready": ${FIXTURE} ${args.join(' ')}`)));
    let text = '';
    child.stdout.on('data', (chunk) => {
      text += chunk;
      const ready = /^ready (\d+)$/m.exec(text);
      if (!ready) return;
      const bound = Number(ready[1]);
      clearTimeout(giveUp);
      resolve({
        port: bound,
        pid: child.pid,
        url: `http://127.0.0.1:${bound}`,
        exited,
        /** Graceful stop by SIGTERM; after half a minute by force. */
        async stop() {
          child.kill('SIGTERM');
          const force = setTimeout(() => child.kill('SIGKILL'), 30000);
          const how = await exited;
          clearTimeout(force);
          return how;
        },
        kill() {
          child.kill('SIGKILL');
          return exited;
        },
      });
    });
  });
}

module.exports = { shared, startServer, startOn, patience, IS_REFERENCE };
