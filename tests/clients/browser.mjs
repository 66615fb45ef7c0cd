#!/usr/bin/env node
//! A real browser as publisher or viewer: `node browser.mjs --help`. Prints one JSON object, exits 1 when it failed.
import { createServer } from 'node:http';
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startChromium } from './browser/chromium.mjs';
import { percentile, summariseWatch } from './browser/summary.mjs';

const HELP = `node browser.mjs [--whip URL] [--whep URL | --flv URL | --page URL] [options]
what
  --whip URL        publish: the fake camera, or --canvas (stamped picture and beeps), or --video-file F.mjpeg --audio-file F.wav
  --whep URL        play over WebRTC
  --flv URL         play HTTP-FLV or WebSocket-FLV with mpegts.js and Media Source Extensions
  --page URL        open a page and watch the media element or the canvas that it plays
how long
  --seconds N       measure for N seconds (10), or until SIGUSR2 comes
  --whep-delay MS   wait between --whip and --whep (1500)
measure
  --stamp n|wall    what the source's stamps are: frame numbers or the wall clock (wall)
  --fps N           of the source (30)             --shot F.png      screenshot at the end
  --settle N        seconds after the first frame in which stamps and lip-sync are not judged (2)
  --no-stamp        do not expect stamps           --sdp             offer and answer into the report
negotiate
  --codec C         video codec alone in the offer (H264 for --whip)  --no-video / --no-audio
  --simulcast       three encodings: whole, half and quarter size       --leave-out-after N  the largest ends after N s
  --cors            POST from the page, not from Node                 --token T   Bearer token
  --width --height  of what is published (640x360)                    --min-kbps --max-kbps  of the published video
page
  --click SELECTOR  click this first               --ignore-cors     turn the browser's CORS checks off
  --without LIST    a browser without some of rtc, mse, udp, ice         --state S   only wait until body[data-state] is this
  --viewport WxH    (1280x720)                     --dark            prefer dark colours
other
  --insecure        take any certificate
  --chromium PATH   (/usr/bin/chromium)            --verbose         the page's console on stderr`;

const text = { type: 'string' };
const flag = { type: 'boolean' };
const { values: options } = parseArgs({
  options: {
    whip: text, whep: text, flv: text, page: text, seconds: text, 'whep-delay': text, stamp: text, fps: text, shot: text, codec: text, token: text,
    width: text, height: text, 'min-kbps': text, 'max-kbps': text, 'video-file': text, 'audio-file': text, click: text, chromium: text, settle: text,
    without: text, state: text, viewport: text, dark: flag,
    simulcast: flag, 'leave-out-after': text, canvas: flag, 'no-stamp': flag, sdp: flag, cors: flag, 'no-video': flag, 'no-audio': flag, 'ignore-cors': flag, verbose: flag, insecure: flag, help: flag,
  },
});
if (options.help || !(options.whip || options.whep || options.flv || options.page)) {
  console.error(HELP);
  process.exit(2);
}

// Of this process: what it posts itself.
if (options.insecure) process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
const seconds = Number(options.seconds ?? 10);
const asked = new Promise((done) => process.once('SIGUSR2', done));
const measure = { kind: options.stamp ?? 'wall', fps: Number(options.fps ?? 30), settle: Number(options.settle ?? 2) };
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const resources = [];
const authorization = options.token ? { authorization: 'Bearer ' + options.token } : {};

/** What a page function needs to know of one WHIP or WHEP session. */
const session = (url, codec) => ({
  url, codec, token: options.token, cors: options.cors, sdp: options.sdp, canvas: options.canvas, audio: !options['no-audio'], video: !options['no-video'],
  width: Number(options.width ?? 640), height: Number(options.height ?? 360), fps: measure.fps,
  simulcast: options.simulcast, leaveOutAfter: options['leave-out-after'] && Number(options['leave-out-after']),
  minKbps: options['min-kbps'] && Number(options['min-kbps']), maxKbps: options['max-kbps'] && Number(options['max-kbps']),
});

async function post(url, sdp) {
  const reply = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/sdp', ...authorization }, body: sdp });
  const location = reply.headers.get('location');
  if (location) resources.push(new URL(location, url).href);
  return { status: reply.status, location, body: await reply.text() };
}

async function openBlank(page) {
  const server = createServer((_, reply) => reply.setHeader('content-type', 'text/html').end('<!doctype html><meta charset=utf-8><title>client</title><body style="margin:0">'));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  server.unref();
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
}

async function playFlv(page) {
  await page.addScriptTag({ path: here('node_modules/mpegts.js/dist/mpegts.js') });
  await page.evaluate(async (url) => {
    const video = document.createElement('video');
    Object.assign(video, { autoplay: true, playsInline: true });
    video.style.width = '320px';
    document.body.append(video);
    const watch = (window.patchbayWatching = window.patchbayWatch(video));
    mpegts.LoggingControl.enableAll = false;
    const player = mpegts.createPlayer({ type: 'flv', isLive: true, url }, { enableStashBuffer: false, lazyLoad: false, liveBufferLatencyChasing: true });
    player.on(mpegts.Events.ERROR, (...what) => { watch.error ??= what.slice(0, 2).join(' ') + ' ' + JSON.stringify(what[2] ?? {}); });
    player.on(mpegts.Events.MEDIA_INFO, (info) => { window.patchbayMedia = { mime: info.mimeType, audio: info.audioCodec, video: info.videoCodec, rate: info.audioSampleRate, channels: info.audioChannelCount }; });
    player.attachMediaElement(video);
    watch.postedAt = performance.now();
    player.load();
    await watch.listen((context) => context.createMediaElementSource(video));
  }, options.flv);
}

/** Runs before the page's own scripts: takes away what an older browser would not have, or a firewall would not let through. */
function withoutFeatures(list) {
  const names = { rtc: ['RTCPeerConnection', 'webkitRTCPeerConnection'], mse: ['MediaSource', 'ManagedMediaSource', 'WebKitMediaSource'] };
  for (const name of list.flatMap((feature) => names[feature] ?? [])) delete window[name];
  if (!list.includes('udp') && !list.includes('ice')) return;
  // Nobody answers on the discard port.
  const blocked = list.includes('ice') ? / \d+ typ host/g : /(?<= udp \d+ \S+) \d+ typ host/g;
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
    return setRemoteDescription.call(this, { type, sdp: sdp.replace(blocked, ' 9 typ host') });
  };
}

/** Waits until the page plays something, then watches it without touching it. */
async function openPage(page) {
  const errors = (result.pageErrors = []);
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(options.page);
  if (options.click) await page.click(options.click, { timeout: 10000 });
  if (options.state) return void (await page.waitForSelector(`body[data-state="${options.state}"]`, { timeout: 20000 }));
  const playing = () => {
    const shown = [...document.querySelectorAll('video')].find((v) => v.videoWidth > 0 && v.currentTime > 0);
    return shown ?? (document.body.dataset.state === 'playing' && document.querySelector('canvas:not([hidden])'));
  };
  const found = await page.waitForFunction(playing, null, { timeout: 30000 });
  await page.evaluate(async (element) => {
    const drawn = element instanceof HTMLCanvasElement;
    const video = drawn ? await window.patchbayCanvasVideo(element) : element;
    const watch = (window.patchbayWatching = window.patchbayWatch(video));
    watch.postedAt = performance.now();
    watch.startTime = video.currentTime;
    if (drawn) return void (window.patchbaySpeaker && watch.meter(window.patchbaySpeaker));
    const sound = video.srcObject ?? video.captureStream();
    if (!sound.getAudioTracks().length) return;
    const context = new AudioContext();
    const analyser = new AnalyserNode(context);
    context.createMediaStreamSource(sound).connect(analyser);
    watch.meter(analyser);
  }, found);
  // A busy machine starts its sound late; what is measured begins with it. That there is none at all is for the verdict.
  const heard = () => !window.patchbayWatching.analyser || window.patchbayWatching.rms.some((level) => level > 0.001);
  if (!options['no-audio']) await page.waitForFunction(heard, null, { timeout: 8000 }).catch(() => {});
}

/** What the page tells programs (window.patchbay), without its long parts. */
async function readPage(page) {
  return page.evaluate(() => {
    const { state, via, fallbacks, stream, firstFrameMs, stats, session, pair, error } = window.patchbay ?? {};
    const text = (id) => document.getElementById(id)?.innerText;
    return { state, via, fallbacks, stream, firstFrameMs, stats, session, pair, error, verdict: text('verdict'), way: text('way'), facts: text('stats') };
  });
}

async function report(page) {
  const out = { stats: await page.evaluate(() => window.patchbayStats()) };
  const raw = await page.evaluate(async () => {
    const watch = window.patchbayWatching;
    return watch && { ...(await watch.result()), postedAt: watch.postedAt ?? 0, startTime: watch.startTime ?? 0, media: window.patchbayMedia, offsets: window.patchbayOffsets };
  });
  if (!raw) return out;
  Object.assign(out, summariseWatch(raw, raw.postedAt, measure), { advancedSeconds: +(raw.currentTime - raw.startTime).toFixed(2) });
  if (raw.media) out.media = raw.media;
  if (raw.offsets) out.playoutOffsetMs = { count: raw.offsets.length, p50: percentile(raw.offsets, 0.5), last: raw.offsets.at(-1) ?? null };
  return out;
}

/** Why the run failed although nothing threw, or null. */
function verdict(result, seconds) {
  const playing = options.whep || options.flv || options.page;
  if (!playing || options.state) return null;
  if (!options['no-video']) {
    if (!result.frames.callbacks) return 'no picture was shown';
    if (result.advancedSeconds < seconds / 2) return `the picture advanced ${result.advancedSeconds} s in ${seconds.toFixed(1)} s`;
    if (!options['no-stamp'] && !options.page && !result.stamps.read) return 'no stamp could be read (source without stamps? --no-stamp)';
  }
  if (!options['no-audio'] && !(result.audio.loudest > 0.001)) return 'no sound was heard';
  return null;
}

const result = { ok: false };
const watchdog = setTimeout(() => { console.log(JSON.stringify({ ok: false, error: 'the client itself hung' })); process.exit(1); }, (seconds + 90) * 1000);
const browser = await startChromium(options);
try {
  const [width, height] = (options.viewport ?? '1280x720').split('x').map(Number);
  const viewport = { width, height };
  const page = await (await browser.newContext({ viewport, colorScheme: options.dark ? 'dark' : 'light' })).newPage();
  if (options.verbose) page.on('console', (message) => console.error('[page]', message.text()));
  page.on('pageerror', (error) => console.error('[page error]', error.message));
  await page.exposeFunction('patchbayPost', post);
  await page.exposeFunction('patchbayResource', (url) => void resources.push(url));
  for (const script of ['page_watch.js', 'page_source.js', 'page_rtc.js', 'page_canvas.js']) await page.addInitScript({ path: here('browser/' + script) });
  if (options.without) await page.addInitScript(withoutFeatures, options.without.split(','));
  result.chromium = browser.version();
  if (options.page) await openPage(page);
  else await openBlank(page);
  if (options.whip) result.whip = await page.evaluate((o) => window.patchbayWhip(o), session(options.whip, options.codec ?? 'H264'));
  if (options.whip && options.whep) await page.waitForTimeout(Number(options['whep-delay'] ?? 1500));
  if (options.whep) {
    result.whep = await page.evaluate((o) => window.patchbayWhep(o), session(options.whep, options.codec));
    await page.evaluate(() => window.patchbayPlayout());
  }
  if (options.flv) await playFlv(page);
  const begin = performance.now();
  await Promise.race([page.waitForTimeout(seconds * 1000), asked]);
  const took = (performance.now() - begin) / 1000;
  Object.assign(result, await report(page));
  if (options.page) result.page = await readPage(page);
  if (options.shot) writeFileSync(options.shot, await page.screenshot({ fullPage: Boolean(options.page) }));
  const fault = verdict(result, took);
  if (fault) throw new Error(fault);
  result.ok = true;
} catch (error) {
  result.error = String(error.message ?? error).split('\n')[0];
  process.exitCode = 1;
}
for (const url of resources) {
  const status = await fetch(url, { method: 'DELETE', headers: authorization }).then((r) => r.status, String);
  (result.deletes ??= []).push(status);
}
await browser.close();
clearTimeout(watchdog);
console.log(JSON.stringify(result));
