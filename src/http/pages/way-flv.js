// A stream as FLV over a WebSocket, else over HTTP, through mpegts.js and Media Source Extensions into the video element.
// Refuses: parsing; the library does.

import { t, bytes, rate } from "./words.js";
import { addresses, keyQuery, refusal, Problem } from "./api.js";
import { loadScript } from "./ui.js";
import { pretty } from "./pairs.js";

/** What the ledger calls it. */
export const protocols = ["ws-flv", "http-flv"];

const LIBRARY = "/assets/vendor/mpegts-1.8.2.js";
// Little is held back: what is late by more than the longest is caught up with by playing a little faster, and by a jump
// when it is seconds (the computer slept).
const LIVE = {
  enableStashBuffer: false, lazyLoad: false, autoCleanupSourceBuffer: true, statisticsInfoReportInterval: 1000,
  liveSync: true, liveSyncTargetLatency: 0.5, liveSyncMaxLatency: 1.0, liveSyncPlaybackRate: 1.2,
  liveBufferLatencyChasing: true, liveBufferLatencyMaxLatency: 4, liveBufferLatencyMinRemain: 0.5,
};

// "avc1.42c01f" (RFC 6381) → "h264", as the server calls it.
const NAMES = { avc1: "h264", hvc1: "h265", hev1: "h265", av01: "av1", vp09: "vp9", mp4a: "aac", opus: "opus" };
const codecName = (text = "") => NAMES[text.split(".")[0].toLowerCase()] ?? text;

export class Connection {
  constructor({ stream, screen, onFrame, onRefused }) {
    Object.assign(this, { stream, screen, onFrame, onRefused });
    this.session = null;
    this.onUp = () => {};
    this.onLost = () => {};
    this.isUp = false;
    this.received = 0;
    this.closed = false;
    this.before = null;
  }

  async open() {
    await loadScript(LIBRARY);
    if (this.closed) return;
    if (!mpegts.isSupported()) throw new Problem(0, { title: t("noMse") }, { final: true });
    mpegts.LoggingControl.applyConfig({ enableAll: false });
    this.postedAt = performance.now();
    this.play(addresses(this.stream, null, keyQuery()).wsflv, () => this.overHttp());
  }

  // A WebSocket does not say why it was refused, HTTP does; and where a proxy lets no WebSocket through, FLV over HTTP plays.
  async overHttp() {
    const problem = await refusal(this.stream);
    if (this.closed) return;
    if (problem) this.onLost(problem);
    else this.play(addresses(this.stream, null, keyQuery()).flv, (why) => this.onLost(why));
  }

  play(url, onRefused) {
    this.dispose();
    const video = this.screen.showVideo();
    video.srcObject = null;
    const player = mpegts.createPlayer({ type: "flv", isLive: true, url }, LIVE);
    this.player = player;
    const { Events } = mpegts;
    player.on(Events.ERROR, (type, detail) => this.fail(player, new Problem(0, { title: `${type}: ${detail}` }), onRefused));
    player.on(Events.LOADING_COMPLETE, () => this.fail(player, new Problem(0, { title: t("unplugged") }), onRefused));
    player.on(Events.MEDIA_INFO, () => this.up(player));
    player.on(Events.STATISTICS_INFO, ({ speed }) => { this.kbps = speed * 8.192; this.received += speed * 1024; });
    player.attachMediaElement(video);
    player.load();
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_now, frame) => this.onFrame(frame.presentationTime));
    else video.addEventListener("loadeddata", () => this.onFrame(performance.now()), { once: true });
    this.screen.startVideo(this.onRefused);
  }

  up(player) {
    if (this.player !== player || this.isUp) return;
    this.isUp = true;
    this.onUp();
  }

  // The library is in the middle of its own call when it reports; it is taken apart after that.
  fail(player, problem, onRefused) {
    if (this.player !== player || this.failed === player) return;
    this.failed = player;
    setTimeout(() => {
      if (this.player !== player) return;
      if (this.isUp) this.onLost(problem);
      else onRefused(problem);
    });
  }

  dispose() {
    this.player?.destroy();
    this.player = null;
  }

  close() {
    this.closed = true;
    this.dispose();
  }

  async read() {
    const { video } = this.screen;
    const info = this.player?.mediaInfo ?? {};
    const quality = video.getVideoPlaybackQuality?.() ?? { totalVideoFrames: 0, droppedVideoFrames: 0 };
    const now = performance.now();
    const shown = this.before ? (quality.totalVideoFrames - this.before.frames) * 1000 / (now - this.before.at) : 0;
    this.before = { at: now, frames: quality.totalVideoFrames };
    const { buffered } = video;
    const end = buffered.length ? buffered.end(buffered.length - 1) : 0;
    return {
      video: {
        width: video.videoWidth, height: video.videoHeight, fps: Math.max(0, shown), codec: codecName(info.videoCodec),
        framesDecoded: quality.totalVideoFrames, framesDropped: quality.droppedVideoFrames,
      },
      audio: info.audioCodec ? { codec: codecName(info.audioCodec) } : null,
      kbps: this.kbps ?? 0,
      bufferMs: Math.max(0, end - video.currentTime) * 1000,
      bytes: this.received,
      received: end,
      unseen: video.currentTime > 0 && (document.hidden || !video.videoWidth),
    };
  }
}

/** The figures that make sense for this way, as rows of a list. */
export function rows({ video: v, audio: a, kbps, bufferMs, bytes: count }) {
  return [
    [t("resolution"), v.width ? `${v.width} × ${v.height}` : null],
    [t("fps"), v.width ? v.fps.toFixed(0) : null],
    [t("bitrateAll"), rate(kbps)],
    [t("buffered"), `${bufferMs.toFixed(0)} ms`],
    [t("dropped"), v.width ? String(v.framesDropped) : null],
    [t("codecs"), [v.codec, a?.codec].filter(Boolean).map(pretty).join(" + ") || null],
    [t("received"), bytes(count)],
  ];
}
