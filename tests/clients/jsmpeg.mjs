#!/usr/bin/env node
//! Stock jsmpeg in a browser: `node jsmpeg.mjs ws://HOST/h5/STREAM [options]`. Prints one JSON object, exits 1 when nothing
//! was decoded.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startChromium } from './browser/chromium.mjs';
import { summariseStamps } from './browser/summary.mjs';

const HELP = `node jsmpeg.mjs ws://HOST/h5/STREAM [options]
  --seconds N      measure for N seconds (10), or until SIGUSR2 comes
  --settle N       seconds after the first picture in which stamps are not judged (2)
  --stamp n|wall   what the source's stamps are (wall)       --fps N   of the source (30)
  --lib WHICH      a build of jsmpeg: 6 (@cycjimmy/jsmpeg-player 6.1.2, the default), 3 (jsmpeg-player 3.0.3), or a file
  --no-wasm        decode in JavaScript                      --shot F.png   screenshot at the end`;

const text = { type: 'string' };
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: text, settle: text, stamp: text, fps: text, shot: text, lib: text, 'no-wasm': { type: 'boolean' } },
});
if (positionals.length !== 1) {
  console.error(HELP);
  process.exit(2);
}
const require = createRequire(import.meta.url);
const builds = {
  6: () => resolve(dirname(require.resolve('@cycjimmy/jsmpeg-player')), 'jsmpeg-player.umd.js'),
  3: () => require.resolve('jsmpeg-player'),
};
const library = builds[options.lib ?? 6]?.() ?? resolve(options.lib);
const asked = new Promise((done) => process.once('SIGUSR2', done));
const page = '<!doctype html><meta charset=utf-8><canvas></canvas><script src=/jsmpeg.js></script>';
const server = createServer((request, response) => {
  const script = request.url === '/jsmpeg.js';
  response.setHeader('content-type', script ? 'text/javascript' : 'text/html');
  response.end(script ? readFileSync(library) : page);
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));

const browser = await startChromium({});
const report = { ok: false, chromium: browser.version() };
try {
  const tab = await browser.newPage();
  tab.on('pageerror', (error) => (report.pageError ??= error.message));
  await tab.goto(`http://127.0.0.1:${server.address().port}/`);
  for (const file of ['page_watch.js', 'page_jsmpeg.js']) await tab.addScriptTag({ path: fileURLToPath(new URL(`browser/${file}`, import.meta.url)) });
  await tab.evaluate(([url, more]) => window.patchbayJsmpeg(url, more), [positionals[0], { disableWebAssembly: !!options['no-wasm'] }]);
  await Promise.race([tab.waitForTimeout(1000 * Number(options.seconds ?? 10)), asked]);
  if (options.shot) await tab.screenshot({ path: options.shot });
  const seen = await tab.evaluate(() => ({ ...window.patchbaySeen, timeOrigin: performance.timeOrigin }));
  const settled = seen.timeOrigin + seen.firstAt + 1000 * Number(options.settle ?? 2);
  const samples = seen.samples.filter(([wall]) => wall >= settled);
  const rms = seen.sound ? +Math.sqrt(seen.energy / seen.sound).toFixed(4) : 0;
  Object.assign(report, {
    ok: seen.pictures > 0,
    wasm: seen.wasm,
    sockets: seen.sockets,
    sizes: seen.sizes,
    firstFrameMs: seen.firstAt && Math.round(seen.firstAt - seen.openAt),
    frames: { presented: seen.pictures, unreadable: seen.unreadable },
    stamps: summariseStamps(samples, { kind: options.stamp ?? 'wall', fps: Number(options.fps ?? 30) }),
    audio: { samples: seen.sound, rate: seen.rate, rms },
  });
} catch (error) {
  report.error = String(error.message ?? error).split('\n')[0];
}
await browser.close();
server.close();
console.log(JSON.stringify(report));
process.exitCode = report.ok ? 0 : 1;
