// A browser that asks for nothing by itself.
import { chromium } from 'playwright-core';

const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'];

// Longer than anything takes on a busy machine.
const timeout = 180_000;

/** A browser whose pages are patient. */
export async function launch() {
  const browser = await chromium.launch({ executablePath, args, timeout });
  const open = async (options) => {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(timeout);
    return context;
  };
  return { newContext: open, newPage: async () => (await open()).newPage(), close: () => browser.close() };
}
