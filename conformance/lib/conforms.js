'use strict';
// The one way to declare a test: a sentence, optionally what the reference server is known to do wrong, and a function.

const { test } = require('node:test');
const path = require('node:path');
const { IS_REFERENCE, patience } = require('./server');

const skips = require(path.join(__dirname, '..', 'skips.json'));

/**
 * Declares one test.
 * - `referenceFails`: why the Node reference server does not pass; there a failure is counted as a skip.
 * - `oursOnly`: why running it against the reference makes no sense at all; there it is not run.
 * - `timeout`: milliseconds, 10 000 unless told, and then `patience`, see `server.js`.
 */
function conforms(name, options, body) {
  if (typeof options === 'function') [options, body] = [{}, options];
  const listed = skips.find((one) => one.suite === 'node' && one.test === name && (one.server === 'any' || one.server === (IS_REFERENCE ? 'reference' : 'fanfare')));
  const skip = listed?.reason ?? (IS_REFERENCE && options.oursOnly);
  const timeout = patience(options.timeout ?? 10000);
  if (skip) return test(name, { skip }, () => {});
  if (!(IS_REFERENCE && options.referenceFails)) return test(name, { timeout }, body);
  return test(name, { timeout: timeout + 1000 }, async (t) => {
    let timer;
    const tooLate = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error('timed out')), timeout);
    });
    try {
      await Promise.race([Promise.resolve(body(t)), tooLate]);
    } catch (error) {
      t.skip(`the reference fails, as known: ${options.referenceFails} (${String(error.message).split('\n')[0]})`);
    } finally {
      clearTimeout(timer);
    }
  });
}

module.exports = { conforms };
