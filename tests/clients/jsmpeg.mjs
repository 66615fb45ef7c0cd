#!/usr/bin/env node
//! Stock jsmpeg in a browser: `node jsmpeg.mjs ws://HOST/h5/STREAM [--seconds 10] [--stamp n|wall] [--fps 30] [--shot F.png]`.
//! Prints one JSON object, exits 1 when nothing was decoded.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startChromium } from './browser/chromium.mjs';
import { summariseStamps } from './browser/summary.mjs';

const text = { type: 'string' };
const { values: options, positionals } = parseArgs({ allowPositionals: true, options: { seconds: text, stamp: text, fps: text, shot: text } });
if (positionals.length !== 1) {
  console.error('node jsmpeg.mjs ws://HOST/h5/STREAM [--seconds 10] [--stamp n|wall] [--fps 30] [--shot F.png]');
  process.exit(2);
}
const library = join(dirname(createRequire(import.meta.url).resolve('@cycjimmy/jsmpeg-player')), 'jsmpeg-player.umd.js');
const page = '<!doctype html><meta charset=utf-8><canvas></canvas><script src=/jsmpeg.js></script>';
const server = createServer((request, response) => {
  const script = request.url === '/jsmpeg.js';
  response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
  response.end(script ? readFileSync(library) : page);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

const browser = await startChromium({});
const report = { ok: false, chromium: browser.version() };
try {
  const tab = await browser.newPage();
  tab.on('pageerror', (error) => (report.error ??= error.message));
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  for (const file of ['page_watch.js', 'page_jsmpeg.js']) await tab.addScriptTag({ path: fileURLToPath(new URL(`browser/${file}`, import.meta.url)) });
  await tab.evaluate((url) => window.patchbayJsmpeg(url), positionals[0]);
  await tab.waitForTimeout(1000 * Number(options.seconds ?? 10));
  if (options.shot) await tab.screenshot({ path: options.shot });
  const seen = await tab.evaluate(() => window.patchbaySeen);
  const stamps = summariseStamps(seen.samples, { kind: options.stamp ?? 'wall', fps: Number(options.fps ?? 30) });
  const rms = seen.sound ? +Math.sqrt(seen.energy / seen.sound).toFixed(4) : 0;
  const frames = { presented: seen.pictures, unreadable: seen.unreadable };
  Object.assign(report, { ok: seen.pictures > 0, size: seen.size, firstFrameMs: seen.firstMs, frames, stamps, audio: { samples: seen.sound, rate: seen.rate, rms } });
} catch (error) {
  report.error = String(error.message ?? error).split('\n')[0];
}
await browser.close();
server.close();
console.log(JSON.stringify(report));
process.exitCode = report.ok ? 0 : 1;
