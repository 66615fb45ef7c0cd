// The first page: what is live, how to reach it, who is patched to what and why.
// Refuses: media; it only reads the API (and ends a session when asked twice).

import { t, onLanguage, duration, bytes } from "./words.js";
import { h, byId, setText, keyed, clearKeyed, copyRow, poll, openPage } from "./ui.js";
import { getJson, callApi, addresses, inPath, goodName, Problem } from "./api.js";
import { askForToken, isLocked } from "./token.js";
import { pretty, showPanel } from "./pairs.js";

const REFRESH_MS = 2000;
// A page of thousands of lines helps nobody; what lies beyond is counted.
const MOST_SESSIONS = 200;

// What shows nothing without the API.
const OF_THE_API = ["live-section", "panel-section", "sessions-section"];

let info = null;
let locked = null;

function urlRows(box, name) {
  const all = addresses(name, info);
  for (const kind of ["page", "h5page", "whep", "whip", "rtmp", "flv", "wsflv", "h5"]) box.append(copyRow(t(kind), all[kind]).node);
}

function trackLine(track) {
  const text = h("span");
  const node = h("li", {}, h("b", {}, t(track.kind)), " ", text);
  return {
    node,
    update: (now) => setText(text, `${pretty(now.description || now.codec)} · ${bytes(now.bytes)}`
      + (now.lost > 0 ? ` · ${t("lost")} ${now.lost}` : "")),
  };
}

function streamCard({ name }) {
  const state = h("span", { class: "muted" });
  const tracks = h("ul", { class: "tracks" });
  const encoders = h("p", { class: "muted" });
  const urls = h("details", {}, h("summary", {}, t("urls")));
  urls.addEventListener("toggle", () => { if (urls.open && urls.childElementCount === 1) urlRows(urls, name); });
  const node = h("article", { class: "card stream" },
    h("div", { class: "row spread" }, h("h3", {}, name), h("a", { class: "button primary", href: `/play/${inPath(name)}` }, t("play"))),
    state, tracks, encoders, urls);
  return {
    node,
    update(stream) {
      const watching = Number(stream.viewers) || 0;
      setText(state, `${stream.kind} · ${t("up")} ${duration(stream.uptime_s)} · ${watching} ${t(watching === 1 ? "viewer" : "viewers")}`);
      keyed(tracks, stream.tracks ?? [], (track) => `${track.kind} ${track.codec}`, trackLine);
      const running = (stream.renditions ?? []).map((r) => `${pretty(r.target)} (${r.readers} ${t(r.readers === 1 ? "reader" : "readers")})`);
      encoders.hidden = running.length === 0;
      setText(encoders, `${t("encoders")}: ${running.join(", ")}`);
    },
  };
}

function pushLine({ name }) {
  const text = h("span");
  const node = h("li", {}, h("strong", {}, name), " ", text);
  return {
    node,
    update(push) {
      node.dataset.state = push.state;
      setText(text, `${push.stream} → ${push.url} · ${push.state} ${t("since")} ${duration(push.since_s)}${[push.detail, ...push.advice].filter(Boolean).map((said) => ` · ${said}`).join("")}`);
    },
  };
}

function sessionLine({ id }) {
  const text = h("span");
  // Two presses, because one ends somebody's picture and a list that refreshes may move under the pointer.
  const end = h("button", { type: "button", class: "small" }, t("disconnect"));
  end.addEventListener("click", async () => {
    if (end.dataset.armed) {
      end.disabled = true;
      await callApi(`/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE" }).catch(alarm);
      return;
    }
    end.dataset.armed = "yes";
    end.textContent = t("sure");
    setTimeout(() => { delete end.dataset.armed; end.disabled = false; end.textContent = t("disconnect"); }, 3000);
  });
  return {
    node: h("li", { class: "row spread" }, text, end),
    update: (s) => setText(text, `#${s.id} ${s.role} ${s.stream} · ${s.protocol} · ${s.peer}${s.agent ? ` · ${s.agent}` : ""} · ${duration(s.uptime_s)} · ${bytes(s.bytes)}`),
  };
}

function alarm(error) {
  const box = byId("alert");
  box.hidden = !error;
  if (error) setText(box, error instanceof Problem && error.status ? error.text : t("unreachable"));
}

const byName = (a, b) => a.name.localeCompare(b.name);

// The API is closed to this page: what can be done without it stays.
function lock(problem) {
  locked = problem;
  alarm(null);
  for (const id of OF_THE_API) byId(id).hidden = true;
  byId("token").hidden = false;
  askForToken(byId("token"), problem, () => { locked = null; again(); });
  if (!begun) showBegin();
  document.body.dataset.state = "locked";
}

async function refresh() {
  if (locked) return;
  try {
    info ??= await getJson("/v1/info");
    const [streams, pairs, sessions, pushes] = await Promise.all(["streams", "pairs", "sessions", "pushes"]
      .map(async (what) => (await getJson(`/v1/${what}`))[what] ?? []));
    alarm(null);
    byId("token").hidden = true;
    for (const id of OF_THE_API) byId(id).hidden = false;
    setText(byId("version"), `v${info.version}`);
    byId("no-streams").hidden = streams.length > 0;
    keyed(byId("streams"), streams.sort(byName), (s) => s.name, streamCard);
    byId("no-pairs").hidden = pairs.length > 0;
    showPanel(byId("panel"), pairs, streams);
    byId("pushes-section").hidden = pushes.length === 0;
    keyed(byId("pushes"), pushes.sort(byName), (p) => p.name, pushLine);
    byId("no-sessions").hidden = sessions.length > 0;
    setText(byId("sessions-count"), String(sessions.length));
    keyed(byId("sessions"), sessions.sort((a, b) => a.id - b.id).slice(0, MOST_SESSIONS), (s) => String(s.id), sessionLine);
    if (!begun) showBegin();
    document.body.dataset.state = "ready";
  } catch (error) {
    if (isLocked(error)) return lock(error);
    alarm(error);
    document.body.dataset.state = "error";
  }
}

let begun = null;

// The commands follow the name as it is typed. zerolatency keeps B-frames out, which is what lets video pass untouched.
function showBegin() {
  const rows = { ffmpeg: copyRow(t("withFfmpeg"), ""), server: copyRow(t("obsServer"), ""), key: copyRow(t("obsKey"), "") };
  byId("begin-urls").replaceChildren(...Object.values(rows).map((row) => row.node));
  begun = () => {
    const name = byId("name").value.trim();
    const good = goodName(name);
    byId("name").setAttribute("aria-invalid", String(!good));
    byId("name-hint").classList.toggle("bad", !good);
    byId("begin-urls").hidden = !good;
    if (!good) return;
    const all = addresses(name, info);
    // OBS joins server and key with a slash, so the last part of the name is its key.
    const cut = all.rtmp.lastIndexOf("/");
    rows.server.set(all.rtmp.slice(0, cut));
    rows.key.set(all.rtmp.slice(cut + 1));
    rows.ffmpeg.set("ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -f lavfi -i sine=frequency=1000:sample_rate=44100 "
      + `-c:v libx264 -preset veryfast -tune zerolatency -pix_fmt yuv420p -g 60 -c:a aac -ar 44100 -f flv ${all.rtmp}`);
  };
  begun();
}

openPage();
byId("name").addEventListener("input", () => begun?.());
byId("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("name").value.trim();
  if (goodName(name)) location.assign(`/${event.submitter?.value === "play" ? "play" : "publish"}/${inPath(name)}`);
  else byId("name").focus();
});
const again = poll(REFRESH_MS, refresh);
onLanguage(() => {
  for (const id of ["streams", "panel", "pushes", "sessions"]) clearKeyed(byId(id));
  begun = null;
  byId("token").replaceChildren();
  if (locked) lock(locked);
  again();
});
