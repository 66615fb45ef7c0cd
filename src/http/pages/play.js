// The play page: one stream, over the best way that works, with its statistics and what patchbay decided for it.
// Refuses: deciding anything about media; it asks for video and audio and shows what comes.
//
// Address: /play/{stream}?via=whep|flv|h5&key=…&muted=1&autoplay=1&controls=1&embed=0&lang=en, and /h5-play/{stream},
// which takes no other way than H5. For programs: window.patchbay, body[data-via] and body[data-state]:
// idle | connecting | waiting | playing | stalled | retrying | failed | stopped.

import { t, onLanguage } from "./words.js";
import { byId, h, setText, copyRow, facts, openPage, overlay, clearKeyed } from "./ui.js";
import { getJson, streamFromPath, addresses, keyQuery, Problem } from "./api.js";
import { showVerdict } from "./pairs.js";
import { Link } from "./link.js";
import { Ladder, WAYS, SILENT, UNREACHABLE } from "./ladder.js";
import { Screen } from "./screen.js";
import { askForToken, isLocked } from "./token.js";

const STALL_S = 3;
// How long a way may take from having asked to the first byte of media, while there is another one.
const PATIENCE_S = 6;

const query = new URLSearchParams(location.search);
const flag = (name, fallback) => (query.has(name) ? !["0", "false", "no"].includes(query.get(name)) : fallback);
const options = { muted: flag("muted", true), autoplay: flag("autoplay", true), controls: flag("controls", true), embed: flag("embed", false) };
const h5Only = location.pathname.startsWith("/h5-play/");
const stream = streamFromPath(h5Only ? "/h5-play/" : "/play/");

const page = {
  state: "idle", via: null, fallbacks: [], stream, firstFrameMs: null, stats: null, session: null, pair: null, error: null, reconnects: 0,
};
window.patchbay = page;

const screen = new Screen({ muted: options.muted, onSound: showSound });
const say = overlay(() => link.start());
let ladder = new Ladder(h5Only ? "h5" : query.get("via"));
// The module of the way that is taken now.
let way = null;
let sayAgain = () => {};
let lastArrival = { at: 0, received: 0 };
let retryAt = 0;
let deadline = 0;
let locked = null;

const viaName = (via) => t(`via_${via}`);
const why = ({ word, problem }) => (word ? t(word) : problem.text);

function enter(state, more = {}) {
  page.state = state;
  document.body.dataset.state = state;
  sayAgain = () => {
    const problem = more.problem?.text ?? "";
    const waitS = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    const last = ladder.given.at(-1);
    const before = last ? `${viaName(last.via)}: ${why(last)}` : "";
    switch (state) {
      case "idle": return say({ again: `▶ ${t("play")}` });
      case "connecting": return say({ text: t("connectingOver", { via: viaName(page.via) }), more: before, busy: true });
      case "waiting": return say({ text: t("waiting"), more: before, busy: true });
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

/** Which way it plays, and what became of the better ones. */
function showWay() {
  page.via = ladder.via ?? null;
  page.fallbacks = ladder.given.map((given) => ({ via: given.via, why: why(given) }));
  document.body.dataset.via = page.via ?? "";
  const parts = page.via ? [t("playsOver", { via: viaName(page.via) })] : [];
  setText(byId("way"), [...parts, ...page.fallbacks.map((given) => `${viaName(given.via)}: ${given.why}`)].join(" · "));
}

const link = new Link({
  async connect() {
    ladder.begin();
    showWay();
    page.firstFrameMs = null;
    page.stats = null;
    page.pair = null;
    page.session = null;
    const via = ladder.via;
    if (!via || !WAYS[via].can()) throw new Problem(0, { title: t(via ? WAYS[via].lacks : "noWay") }, { final: true });
    enter("connecting");
    way = await WAYS[via].load();
    const connection = new way.Connection({
      stream, screen, onRefused: () => enter("idle"),
      // From the request to the moment the first picture is given to the compositor.
      onFrame(at) {
        if (link.connection !== connection) return;
        page.firstFrameMs = Math.round(at - connection.postedAt);
        ladder.heard();
        enter("playing");
      },
    });
    return connection;
  },
  elsewhere: (problem) => ladder.next(problem),
  onState(state, more) {
    clearTimeout(deadline);
    page.error = more.problem ? { code: more.problem.code, status: more.problem.status, text: more.problem.text } : null;
    retryAt = performance.now() + (more.waitS ?? 0) * 1000;
    if (state === "connected") {
      page.session = link.session;
      page.reconnects = Math.max(0, link.reconnects);
      lastArrival = { at: performance.now(), received: 0 };
      if (page.state !== "playing") enter("waiting");
    } else if (state !== "opened") {
      enter(state, more);
    }
    if (["opened", "connected"].includes(state) && page.state !== "playing") awaitMedia(link.connection);
  },
});

// A way that brings nothing is given up while there is another one to try.
function awaitMedia(connection) {
  clearTimeout(deadline);
  if (ladder.patient) return;
  deadline = setTimeout(async () => {
    const stats = await connection.read();
    if (link.connection !== connection || stats.received > 0) return;
    link.lost(new Problem(0, { title: t("nothing", { s: PATIENCE_S }), code: connection.isUp ? SILENT : UNREACHABLE }));
  }, PATIENCE_S * 1000);
}

function showSound() {
  setText(byId("mute"), t(screen.silent ? "unmute" : "mute"));
  byId("unmute-big").hidden = !screen.silent || !options.controls;
  byId("volume").value = String(screen.volume);
}

function toggleSound() {
  screen.toggleSound();
  if (!screen.video.hidden) screen.startVideo(() => enter("idle"));
}

function showStats() {
  facts(byId("stats"), [
    [t("firstFrame"), page.firstFrameMs === null ? null : `${page.firstFrameMs} ms`],
    ...way.rows(page.stats, page.pair),
    [t("reconnects"), page.reconnects > 0 ? String(page.reconnects) : null],
  ]);
}

function watchArrival(now) {
  const { received, unseen } = page.stats;
  if (received !== lastArrival.received) {
    lastArrival = { at: now, received };
    ladder.heard();
    // Without a picture to show (sound only, or a hidden tab) no first frame will be told.
    if (page.state === "stalled" || (page.state === "waiting" && unseen)) enter("playing");
  } else if (page.state === "playing" || page.state === "stalled") {
    const seconds = Math.round((now - lastArrival.at) / 1000);
    if (seconds >= STALL_S) enter("stalled", { seconds });
  }
}

// WHEP tells its row of the ledger. A WebSocket cannot: of the rows that are like it, the one as old as the connection is
// taken, and `alike` says how many there are.
async function findPair(connection) {
  if (link.session) return { pair: await getJson(`/v1/pairs/${encodeURIComponent(link.session)}`), alike: 1 };
  const age = (performance.now() - connection.postedAt) / 1000;
  const distance = (pair) => Math.abs(pair.uptime_s - age);
  const rows = (await getJson("/v1/pairs")).pairs.filter((pair) => pair.stream === stream && way.protocols.includes(pair.protocol));
  rows.sort((a, b) => distance(a) - distance(b));
  return { pair: rows[0] ?? null, alike: rows.length };
}

async function showPair(connection) {
  if (locked) return;
  try {
    const { pair, alike } = await findPair(connection);
    if (link.connection !== connection || !pair) return;
    page.pair = pair;
    if (alike === 1) page.session = String(pair.id);
    showVerdict(byId("verdict"), pair);
    setText(byId("verdict-more"), [
      ...(alike > 1 ? [t("alike", { n: alike })] : []),
      `${pair.from} → ${pair.to}`, `${t("rule")}: ${pair.rule?.text || pair.rule?.id || "?"}`,
      `${t("delay")}: ${Number(pair.added_delay_ms ?? 0).toFixed(1)} ms`,
    ].join(" · "));
  } catch (problem) {
    if (isLocked(problem)) return lock(problem);
    // A session the server forgot while nothing arrives is dead, whatever the browser still hopes.
    const silentMs = performance.now() - lastArrival.at;
    if (problem.status === 404 && silentMs > STALL_S * 1000 && link.connection === connection) link.lost(problem);
  }
}

// The API is closed to this page; the stream is not.
function lock(problem) {
  locked = problem;
  clearKeyed(byId("verdict"));
  askForToken(byId("verdict"), problem, () => { locked = null; second(); readInfo(); });
}

async function second() {
  if (["retrying", "stalled"].includes(page.state)) sayAgain();
  const { connection } = link;
  if (!connection?.isUp) return;
  const stats = await connection.read();
  if (link.connection !== connection) return;
  page.stats = stats;
  watchArrival(performance.now());
  await showPair(connection);
  if (link.connection === connection) showStats();
}

function showUrls(info) {
  const all = addresses(stream, info, keyQuery());
  byId("urls").replaceChildren(...["page", "h5page", "whep", "rtmp", "flv", "wsflv", "h5"].map((kind) => copyRow(t(kind), all[kind]).node));
}

// Without it the addresses have the usual port of RTMP.
let info = null;
const readInfo = () => getJson("/v1/info").then((answer) => { info = answer; showUrls(info); }).catch(() => {});

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (byId("stage").requestFullscreen) byId("stage").requestFullscreen().catch(() => {});
  else screen.video.webkitEnterFullscreen?.();
}

/** Another way by hand; the address says so too, so that it can be passed on. */
function takeWay(via) {
  if (via) query.set("via", via);
  else query.delete("via");
  const text = query.toString();
  history.replaceState(history.state, "", location.pathname + (text ? `?${text}` : ""));
  ladder = new Ladder(via);
  clearKeyed(byId("stats"));
  link.start();
}

function fillWays() {
  const choice = byId("via");
  choice.replaceChildren(h("option", { value: "" }, t("viaAny")), ...Object.keys(WAYS).map((via) => h("option", { value: via }, viaName(via))));
  choice.value = ladder.forced ? ladder.via : "";
  choice.parentElement.hidden = h5Only;
}

function bindControls() {
  const toggle = () => (["idle", "failed", "stopped"].includes(page.state) ? link.start() : link.stop());
  byId("mute").addEventListener("click", toggleSound);
  byId("unmute-big").addEventListener("click", toggleSound);
  byId("volume").addEventListener("input", (event) => screen.set({ volume: Number(event.target.value), muted: Number(event.target.value) === 0 }));
  byId("fullscreen").addEventListener("click", fullscreen);
  byId("toggle").addEventListener("click", toggle);
  byId("via").addEventListener("change", (event) => takeWay(event.target.value));
  byId("pip").addEventListener("click", () => {
    if (document.pictureInPictureElement) document.exitPictureInPicture();
    else screen.video.requestPictureInPicture().catch(() => {});
  });
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
  showSound();
  fillWays();
  bindControls();
  showUrls(info);
  showWay();
  readInfo();
  onLanguage(() => {
    title(); showUrls(info); showSound(); fillWays(); showWay(); sayAgain();
    for (const id of ["verdict", "stats"]) clearKeyed(byId(id));
    if (locked) lock(locked);
    second();
  });
  setInterval(second, 1000);
  // The browser may keep the page and bring it back whole; the link was closed when it was left.
  addEventListener("pageshow", (event) => { if (event.persisted) link.start(); });
  if (!stream) enter("failed", { problem: { text: t("noName") } });
  else if (options.autoplay) link.start();
  else enter("idle");
}

main();
