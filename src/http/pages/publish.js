// The publish page: camera, screen or test pattern into patchbay over WHIP.
// Refuses: deciding what becomes of the stream; it shows what the server says it receives.
//
// Address: /publish/{stream}?key=…&source=camera|rear|screen|pattern&size=1280x720&codec=h264&fps=30&autostart=1&lang=en.
// For programs: window.patchbay and body[data-state]: idle | connecting | publishing | retrying | failed | stopped.

import { t, onLanguage, bytes, rate } from "./words.js";
import { h, byId, setText, copyRow, facts, openPage, overlay, keyed, clearKeyed } from "./ui.js";
import { getJson, streamFromPath, addresses, inPath, keyQuery, Problem } from "./api.js";
import { pretty } from "./pairs.js";
import { Link } from "./link.js";
import { RtcConnection, orderCodecs, readStats } from "./webrtc.js";
import { askForToken, isLocked } from "./token.js";
import { startPattern } from "./pattern.js";

const CODECS = ["h264", "vp8", "vp9", "av1"];
// Enough for a clean picture at 30 frames a second; the browser goes below it when the path is narrower.
const KBPS = { 360: 1200, 720: 3000, 1080: 5000 };

const query = new URLSearchParams(location.search);
const stream = streamFromPath("/publish/");
const video = byId("video");
const page = { state: "idle", stream, stats: null, session: null, error: null, reconnects: 0 };
window.patchbay = page;

// A source that is still open is used again: a retry must not ask for the screen a second time.
const say = overlay(() => (media ? link.start() : start()));
let sayAgain = () => {};
let media = null;
let memory = {};
let retryAt = 0;
let info = null;
let locked = null;

const fps = () => Math.min(60, Math.max(1, Number(query.get("fps")) || 30));

function enter(state, more = {}) {
  page.state = state;
  document.body.dataset.state = state;
  sayAgain = () => {
    const problem = more.problem ? problemText(more.problem) : "";
    const waitS = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    switch (state) {
      case "idle": return say({ text: t("idle"), more: t("publishHint") });
      case "connecting": return say({ text: t("connecting"), busy: true });
      case "retrying": return say({ text: problem, more: t("retry", { s: waitS }), again: t("retryNow"), busy: true });
      case "failed": return say({ text: problem, again: t("again") });
      case "stopped": return say({ text: t("stopped"), more: t("publishHint") });
      default: return say({});
    }
  };
  sayAgain();
  const on = ["connecting", "publishing", "retrying"].includes(state);
  byId("start").hidden = on;
  byId("stop").hidden = !on;
  for (const id of ["source", "size", "codec"]) byId(id).disabled = on;
  hint();
}

function problemText(problem) {
  return problem.code === "stream_busy" ? t("nameTaken") : problem.text;
}

// Standing advice below the form: only what this page, this browser and this choice make true.
function hint() {
  const source = byId("source").value;
  const lines = [];
  if (source !== "pattern" && !navigator.mediaDevices) lines.push(t("insecure"));
  if (source === "pattern") lines.push(t("keepVisible"));
  if (media?.audio?.state === "suspended") lines.push(t("soundClick"));
  if (!orderCodecs("h264").some((codec) => codec.mimeType.toLowerCase() === "video/h264")) lines.push(t("noH264"));
  byId("hint").hidden = lines.length === 0;
  setText(byId("hint"), lines.join(" "));
}

// Everything that can go wrong with a device, in words a person can act on.
function deviceProblem(error) {
  const key = { NotAllowedError: "denied", SecurityError: "denied", NotFoundError: "noDevice", OverconstrainedError: "noDevice",
    NotReadableError: "busy", AbortError: "busy" }[error.name];
  return { text: key ? t(key) : `${error.name}: ${error.message}` };
}

async function openSource() {
  const [width, height] = byId("size").value.split("x").map(Number);
  const source = byId("source").value;
  if (source === "pattern") return startPattern({ width, height, fps: fps() });
  const devices = navigator.mediaDevices;
  if (!devices) throw Object.assign(new Error(t("insecure")), { name: "patchbay" });
  const picture = { width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps() } };
  const got = source === "screen"
    ? await devices.getDisplayMedia({ video: picture, audio: true })
    : await devices.getUserMedia({ video: { ...picture, facingMode: source === "rear" ? "environment" : "user" }, audio: true });
  // Unplugged, or ended with the browser's own "stop sharing" button.
  got.getVideoTracks()[0]?.addEventListener("ended", stop);
  return { stream: got, stop: () => got.getTracks().forEach((track) => track.stop()) };
}

function addTracks(pc) {
  memory = {};
  page.stats = null;
  const wanted = byId("codec").value;
  const height = Number(byId("size").value.split("x")[1]);
  for (const track of media.stream.getTracks()) {
    const isVideo = track.kind === "video";
    const transceiver = pc.addTransceiver(track, {
      direction: "sendonly", streams: [media.stream],
      sendEncodings: isVideo ? [{ maxBitrate: (KBPS[height] ?? 3000) * 1000 }] : undefined,
    });
    if (!isVideo) continue;
    const order = orderCodecs(wanted);
    if (order.length) transceiver.setCodecPreferences?.(order);
    // A changed size is a new codec configuration for every RTMP and FLV viewer; fewer frames is the lesser evil.
    const parameters = transceiver.sender.getParameters();
    transceiver.sender.setParameters({ ...parameters, degradationPreference: "maintain-resolution" }).catch(() => {});
  }
}

const link = new Link({
  connect() {
    if (typeof RTCPeerConnection === "undefined") throw new Problem(0, { title: t("noRtc") }, { final: true });
    return new RtcConnection({ endpoint: `/whip/${inPath(stream)}${keyQuery()}`, prepare: addTracks });
  },
  onState(state, more) {
    if (state === "opened") return;
    page.error = more.problem ? { code: more.problem.code, status: more.problem.status, text: problemText(more.problem) } : null;
    retryAt = performance.now() + (more.waitS ?? 0) * 1000;
    page.session = link.session;
    page.reconnects = Math.max(0, link.reconnects);
    if (state === "failed") release();
    enter(state === "connected" ? "publishing" : state, more);
  },
});

async function start() {
  if (!stream) return enter("failed", { problem: { text: t("noName") } });
  release();
  enter("connecting");
  try {
    media = await openSource();
  } catch (error) {
    const problem = error.name === "patchbay" ? { text: error.message } : deviceProblem(error);
    page.error = problem;
    return enter("failed", { problem });
  }
  // Stop may have been pressed while the browser asked for permission.
  if (page.state !== "connecting") return release();
  video.srcObject = media.stream;
  video.play().catch(() => {});
  media.audio?.addEventListener("statechange", hint);
  return link.start();
}

function release() {
  media?.stop();
  media = null;
  video.srcObject = null;
}

function stop() {
  link.stop();
  release();
  enter("stopped");
}

function showStats() {
  const { video: v, audio: a, rttMs, availableKbps } = page.stats;
  facts(byId("stats"), [
    [t("resolution"), v?.width ? `${v.width} × ${v.height}` : null],
    [t("fps"), v ? v.fps.toFixed(0) : null],
    [t("bitrate"), `${rate(v?.kbps ?? 0)} + ${rate(a?.kbps ?? 0)}`],
    [t("target"), availableKbps > 0 ? rate(availableKbps) : null],
    [t("limit"), v && v.limited !== "none" ? v.limited : null],
    [t("loss"), [v, a].filter(Boolean).map((track) => `${track.lost} (${track.lossPercent.toFixed(1)} %)`).join(" + ") || null],
    [t("resent"), v ? String(v.resent) : null],
    [t("rtt"), `${rttMs.toFixed(1)} ms`],
    [t("codecs"), [v?.codec, a?.codec].filter(Boolean).join(" + ")],
    [t("encoder"), v?.encoder || null],
    [t("sent"), bytes((v?.bytes ?? 0) + (a?.bytes ?? 0))],
    [t("reconnects"), page.reconnects > 0 ? String(page.reconnects) : null],
  ]);
}

function seenLine() {
  const text = h("span");
  const node = h("p", { class: "verdict", "data-action": "pass" }, text);
  return { node, update: (line) => setText(text, line.text) };
}

// Proof from the other side: the browser's counters say what left, this says what arrived and who watches.
async function showSeen() {
  if (locked) return;
  const all = await getJson("/v1/streams").catch((problem) => { if (isLocked(problem)) lock(problem); });
  const mine = all?.streams?.find((s) => s.name === stream);
  if (!mine) return;
  const lines = (mine.tracks ?? []).map((track) => ({
    key: track.kind,
    text: `${t(track.kind)}: ${pretty(track.description || track.codec)} · ${track.frames} ${t("frames")} · ${t("lost")} ${track.lost}`,
  }));
  lines.push({ key: "viewers", text: `${mine.viewers} ${t(mine.viewers === 1 ? "viewer" : "viewers")}` });
  keyed(byId("seen"), lines, (line) => line.key, seenLine);
}

// The API is closed to this page; publishing is not.
function lock(problem) {
  locked = problem;
  clearKeyed(byId("seen"));
  askForToken(byId("seen"), problem, () => { locked = null; second(); readInfo(); });
}

async function second() {
  if (page.state === "retrying") sayAgain();
  const { connection } = link;
  if (!connection?.isUp) return;
  const stats = await readStats(connection.pc, memory);
  if (link.connection !== connection) return;
  page.stats = stats;
  showStats();
  await showSeen();
}

function showUrls() {
  const all = addresses(stream, info);
  byId("watch").href = all.page;
  byId("urls").replaceChildren(...["page", "h5page", "rtmp", "flv", "wsflv", "whep", "h5"].map((kind) => copyRow(t(kind), all[kind]).node));
}

const readInfo = () => getJson("/v1/info").then((answer) => { info = answer; showUrls(); }).catch(() => {});

// Only what this browser can encode is offered; the first is the default.
function fillCodecs() {
  const can = CODECS.filter((name) => orderCodecs(name).some((codec) => codec.mimeType.toLowerCase() === `video/${name}`));
  const chosen = byId("codec").value || query.get("codec");
  byId("codec").replaceChildren(...can.map((name) =>
    h("option", { value: name }, `${pretty(name)} (${t(name === "h264" ? "preferred" : "onlyThis")})`)));
  if (can.includes(chosen)) byId("codec").value = chosen;
}

function main() {
  openPage();
  const title = () => { setText(byId("title"), stream); document.title = `${t("publishFor", { name: stream })} · patchbay`; };
  for (const id of ["source", "size"]) {
    const wanted = query.get(id);
    if ([...byId(id).options].some((option) => option.value === wanted)) byId(id).value = wanted;
  }
  // Where the browser will not give a camera, the pattern is the choice that works.
  if (!query.has("source") && !navigator.mediaDevices) byId("source").value = "pattern";
  title();
  fillCodecs();
  showUrls();
  readInfo();
  byId("setup").addEventListener("submit", (event) => { event.preventDefault(); start(); });
  byId("stop").addEventListener("click", stop);
  byId("source").addEventListener("change", hint);
  onLanguage(() => {
    title(); fillCodecs(); showUrls(); sayAgain(); hint();
    clearKeyed(byId("seen"));
    if (locked) lock(locked);
    second();
  });
  setInterval(second, 1000);
  enter("idle");
  if (query.get("autostart") === "1") start();
}

main();
