// The play page: one stream over WHEP with its statistics and what patchbay decided for it.
// Refuses: deciding anything about media; it asks for video and audio and shows what comes.
//
// Address: /play/{stream}?muted=1&autoplay=1&controls=1&embed=0&lang=en. For programs: window.patchbay and body[data-state]:
// idle | connecting | waiting | playing | stalled | retrying | failed | stopped.

import { t, onLanguage, duration, bytes, rate } from "./words.js";
import { byId, setText, copyRow, facts, openPage, overlay, clearKeyed } from "./ui.js";
import { getJson, streamFromPath, addresses, inPath } from "./api.js";
import { showVerdict } from "./pairs.js";
import { Link, askStereo, readStats } from "./webrtc.js";

const STALL_S = 3;

const query = new URLSearchParams(location.search);
const flag = (name, fallback) => (query.has(name) ? !["0", "false", "no"].includes(query.get(name)) : fallback);
const options = { muted: flag("muted", true), autoplay: flag("autoplay", true), controls: flag("controls", true), embed: flag("embed", false) };
const stream = streamFromPath("/play/");

const video = byId("video");
const page = { state: "idle", stream, firstFrameMs: null, stats: null, session: null, pair: null, error: null, reconnects: 0 };
window.patchbay = page;

const say = overlay(() => link.start());
let sayAgain = () => {};
let memory = {};
let lastArrival = { at: 0, bytes: 0 };
let retryAt = 0;

function enter(state, more = {}) {
  page.state = state;
  document.body.dataset.state = state;
  sayAgain = () => {
    const problem = more.problem?.text ?? "";
    const waitS = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    switch (state) {
      case "idle": return say({ again: `▶ ${t("play")}` });
      case "connecting": return say({ text: t("connecting"), busy: true });
      case "waiting": return say({ text: t("waiting"), busy: true });
      case "stalled": return say({ text: t("stalled", { s: more.seconds }), busy: true });
      case "retrying": return say({ text: problem, more: t("retry", { s: waitS }), again: t("retryNow"), busy: true });
      case "failed": return say({ text: problem, again: t("again") });
      case "stopped": return say({ text: t("stopped"), again: t("again") });
      default: return say({});
    }
  };
  sayAgain();
  setText(byId("toggle"), t(["idle", "failed", "stopped"].includes(state) ? "start" : "stop"));
}

// First frame: from the POST to the moment the browser hands the first picture to the compositor.
function armFirstFrame() {
  page.firstFrameMs = null;
  const connection = link.connection;
  const shown = (at) => {
    if (link.connection !== connection) return;
    page.firstFrameMs = Math.round(at - connection.postedAt);
    enter("playing");
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_now, frame) => shown(frame.presentationTime));
  else video.addEventListener("loadeddata", () => shown(performance.now()), { once: true });
}

// Muted playback is allowed everywhere; sound often needs a click first. Rather a silent picture than none.
async function startVideo() {
  try {
    await video.play();
  } catch (error) {
    if (error.name !== "NotAllowedError") return;
    video.muted = true;
    showSound();
    await video.play().catch(() => enter("idle"));
  }
}

const link = new Link({
  endpoint: `/whep/${inPath(stream)}`,
  tweak: askStereo,
  prepare(pc) {
    const media = new MediaStream();
    memory = {};
    page.stats = null;
    page.pair = null;
    pc.addTransceiver("video", { direction: "recvonly" });
    pc.addTransceiver("audio", { direction: "recvonly" });
    // One MediaStream for both: that is what makes the browser keep lips and sound together.
    pc.ontrack = ({ track }) => {
      media.addTrack(track);
      if (video.srcObject !== media) video.srcObject = media;
      startVideo();
    };
    armFirstFrame();
  },
  onState(state, more) {
    page.error = more.problem ? { code: more.problem.code, status: more.problem.status, text: more.problem.text } : null;
    retryAt = performance.now() + (more.waitS ?? 0) * 1000;
    if (state === "connected") {
      page.session = link.session;
      page.reconnects = link.reconnects;
      lastArrival = { at: performance.now(), bytes: 0 };
      if (page.state !== "playing") enter("waiting");
    } else {
      enter(state, more);
    }
  },
});

function showSound() {
  const silent = video.muted || video.volume === 0;
  setText(byId("mute"), t(silent ? "unmute" : "mute"));
  byId("unmute-big").hidden = !silent || !options.controls;
}

function toggleSound() {
  video.muted = !(video.muted || video.volume === 0);
  if (!video.muted && video.volume === 0) video.volume = 1;
  byId("volume").value = String(video.volume);
  startVideo();
}

function showStats() {
  const { video: v, audio: a, rttMs } = page.stats;
  facts(byId("stats"), [
    [t("firstFrame"), page.firstFrameMs === null ? null : `${page.firstFrameMs} ms`],
    [t("resolution"), v && v.width ? `${v.width} × ${v.height}` : null],
    [t("fps"), v ? v.fps.toFixed(0) : null],
    [t("bitrate"), `${rate((v?.kbps ?? 0))} + ${rate(a?.kbps ?? 0)}`],
    [t("jitter"), [v, a].filter(Boolean).map((track) => `${track.jitterBufferMs.toFixed(0)} ms`).join(" + ") || null],
    [t("loss"), [v, a].filter(Boolean).map((track) => `${track.lost} (${track.lossPercent.toFixed(1)} %)`).join(" + ") || null],
    [t("freezes"), v ? `${v.freezes} (${duration(v.freezeMs / 1000)})` : null],
    [t("dropped"), v ? String(v.framesDropped) : null],
    [t("rtt"), `${rttMs.toFixed(1)} ms`],
    [t("codecs"), [v?.codec, a?.codec].filter(Boolean).join(" + ")],
    [t("received"), bytes((v?.bytes ?? 0) + (a?.bytes ?? 0))],
    [t("reconnects"), page.reconnects > 0 ? String(page.reconnects) : null],
  ]);
}

function watchArrival(now) {
  const total = (page.stats.video?.bytes ?? 0) + (page.stats.audio?.bytes ?? 0);
  if (total !== lastArrival.bytes) {
    lastArrival = { at: now, bytes: total };
    // Without a picture to show (sound only, or a hidden tab) no frame callback will come.
    const decoded = page.stats.video?.framesDecoded > 0;
    const unseen = decoded ? document.hidden : page.stats.audio?.samples > 0;
    if (page.state === "stalled" || (page.state === "waiting" && unseen)) enter("playing");
  } else if (page.state === "playing" || page.state === "stalled") {
    const seconds = Math.round((now - lastArrival.at) / 1000);
    if (seconds >= STALL_S) enter("stalled", { seconds });
  }
}

async function showPair() {
  if (!link.session) return;
  const asked = link.connection;
  try {
    const pair = await getJson(`/v1/pairs/${encodeURIComponent(link.session)}`);
    if (link.connection !== asked) return;
    page.pair = pair;
    showVerdict(byId("verdict"), pair);
    setText(byId("verdict-more"), [
      `${pair.from} → ${pair.to}`, `${t("rule")}: ${pair.rule?.text || pair.rule?.id || "?"}`,
      `${t("delay")}: ${Number(pair.added_delay_ms ?? 0).toFixed(1)} ms`,
    ].join(" · "));
  } catch (problem) {
    // A session the server forgot while nothing arrives is dead, whatever the browser still hopes.
    const silentMs = performance.now() - lastArrival.at;
    if (problem.status === 404 && silentMs > STALL_S * 1000 && link.connection === asked) link.lost(problem);
  }
}

async function second() {
  if (["retrying", "stalled"].includes(page.state)) sayAgain();
  const pc = link.pc;
  if (!pc || pc.connectionState !== "connected") return;
  const stats = await readStats(pc, memory);
  if (link.pc !== pc) return;
  page.stats = stats;
  showStats();
  watchArrival(performance.now());
  await showPair();
}

function showUrls(info) {
  const all = addresses(stream, info);
  byId("urls").replaceChildren(...["page", "whep", "rtmp", "flv", "wsflv"].map((kind) => copyRow(t(kind), all[kind]).node));
}

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (byId("stage").requestFullscreen) byId("stage").requestFullscreen().catch(() => {});
  else video.webkitEnterFullscreen?.();
}

function bindControls() {
  const toggle = () => (["idle", "failed", "stopped"].includes(page.state) ? link.start() : link.stop());
  byId("mute").addEventListener("click", toggleSound);
  byId("unmute-big").addEventListener("click", toggleSound);
  byId("volume").addEventListener("input", (event) => { video.volume = Number(event.target.value); video.muted = video.volume === 0; });
  byId("fullscreen").addEventListener("click", fullscreen);
  byId("toggle").addEventListener("click", toggle);
  byId("pip").hidden = !document.pictureInPictureEnabled;
  byId("pip").addEventListener("click", () => {
    if (document.pictureInPictureElement) document.exitPictureInPicture();
    else video.requestPictureInPicture().catch(() => {});
  });
  video.addEventListener("volumechange", showSound);
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "m") toggleSound();
    if (event.key === "f") fullscreen();
  });
}

function main() {
  openPage();
  document.body.classList.toggle("embed", options.embed);
  document.body.classList.toggle("bare", !options.controls);
  const title = () => { setText(byId("title"), stream); document.title = `${t("playFor", { name: stream })} · patchbay`; };
  title();
  video.muted = options.muted;
  showSound();
  bindControls();
  let info = null;
  showUrls(info);
  getJson("/v1/info").then((answer) => { info = answer; showUrls(info); }).catch(() => {});
  onLanguage(() => { title(); showUrls(info); showSound(); enter(page.state); clearKeyed(byId("verdict")); second(); });
  setInterval(second, 1000);
  // The browser may keep the page and bring it back whole; the link was closed when it was left.
  addEventListener("pageshow", (event) => { if (event.persisted) link.start(); });
  if (!stream) enter("failed", { problem: { text: t("noName") } });
  else if (options.autoplay) link.start();
  else enter("idle");
}

main();
