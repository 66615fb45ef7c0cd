//! Starts Debian's Chromium for a test: headless, silent on the network, able to do WebRTC on loopback.
//! Knows nothing of what the page then does.
import { realpathSync } from 'node:fs';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
  '--autoplay-policy=no-user-gesture-required',
  // Host candidates as plain addresses: the random x.local names are resolved by nobody here.
  '--disable-features=WebRtcHideLocalIpsWithMdns',
  // Loopback is left out of the candidates when another interface exists.
  '--allow-loopback-in-peer-connection',
];

/** `options`: chromium (path), video-file / audio-file (fake camera and microphone), ignore-cors, insecure. */
export async function startChromium(options) {
  const args = [...FLAGS];
  if (options['video-file']) args.push('--use-file-for-fake-video-capture=' + realpathSync(options['video-file']));
  if (options['audio-file']) args.push('--use-file-for-fake-audio-capture=' + realpathSync(options['audio-file']));
  if (options.insecure) args.push('--ignore-certificate-errors');
  if (options['ignore-cors']) args.push('--disable-web-security');
  const executablePath = options.chromium ?? process.env.CHROMIUM ?? '/usr/bin/chromium';
  return chromium.launch({ executablePath, headless: true, args });
}
