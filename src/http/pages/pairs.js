// A pair (one sink fed by one stream) in words and as a row of the patch panel.
// Refuses: fetching; judging. The server decided and said why, this only shows it.

import { t, maybe, bytes, duration } from "./words.js";
import { h, setText, keyed } from "./ui.js";

const CODECS = {
  h264: "H.264", h265: "H.265", vp8: "VP8", vp9: "VP9", av1: "AV1", mpeg1: "MPEG-1", mpeg2: "MPEG-2",
  aac: "AAC", opus: "Opus", mp2: "MP2", mp3: "MP3", pcmu: "G.711 µ-law", pcma: "G.711 A-law", g722: "G.722",
};

/** "aac 44100 Hz 2 ch" → "AAC 44.1 kHz stereo"; "opus-48000-2ch-64k" → "Opus 48 kHz stereo 64 kbit/s". */
export function pretty(text) {
  return String(text ?? "")
    .replace(/-gop\d+ms$/, "")
    .replace(/^[a-z0-9]+/, (codec) => CODECS[codec] ?? codec)
    .replace(/-(\d{4,6})(?=-|$)/, " $1 Hz")
    .replace(/-(\d+k|\d+ch|\d+x\d+|\d+fps)(?=-|$)/g, " $1")
    .replace(/(\d{4,6}) ?Hz/, (_, hz) => `${Number(hz) / 1000} kHz`)
    .replace(/\b1 ?ch\b/, "mono").replace(/\b2 ?ch\b/, "stereo")
    .replace(/\b(\d+)k\b/, "$1 kbit/s").replace(/\b(\d+)fps\b/, "$1 fps");
}

/** One sentence: "Audio: AAC 44.1 kHz stereo → Opus 48 kHz stereo, because …". */
export function sentence(kind, verdict) {
  const label = t(kind);
  if (!verdict || verdict.action === "absent") return `${label}: ${t("noneTrack")}`;
  const what = verdict.action === "transcode"
    ? `${pretty(verdict.source)} → ${pretty(verdict.output)}`
    : `${verdict.source ? `${pretty(verdict.source)}, ` : ""}${t(verdict.action === "pass" ? "pass" : "drop")}`;
  return `${label}: ${what}`;
}

/** The server's reason, made to follow "because": its opening ("audio is transcoded …:") repeats what was just said. */
export function reason(verdict) {
  if (!verdict || verdict.action === "absent") return "";
  const text = maybe(`why_${verdict.code}`)
    ?? String(verdict.reason ?? "").trim().replace(/\.$/, "").replace(/^(video|audio) is [^:]*: /, "");
  return text ? `${t("because")} ${text}` : "";
}

/** Replaces the content of `box` by the verdicts of `pair` in words. */
export function showVerdict(box, pair) {
  const rows = ["video", "audio"].map((kind) => ({ kind, verdict: pair[kind] }));
  keyed(box, rows, (row) => row.kind, () => {
    const what = h("strong");
    const why = h("span", { class: "why" });
    const node = h("p", { class: "verdict" }, what, " ", why);
    return {
      node,
      update({ kind, verdict }) {
        node.dataset.action = verdict?.action ?? "none";
        setText(what, sentence(kind, verdict));
        setText(why, reason(verdict));
        node.title = verdict?.reason ?? "";
      },
    };
  });
}

// Pairs that differ only in who the sink is become one row: a hundred viewers with the same verdict are one line
// with ×100, not a hundred lines that hide the one that differs.
function grouped(pairs) {
  const groups = new Map();
  for (const pair of pairs) {
    const side = (v) => [v?.action, v?.code, v?.output, v?.rendition, v?.reason];
    const key = JSON.stringify([pair.to, pair.protocol, pair.rule?.id, side(pair.video), side(pair.audio)]);
    if (groups.has(key)) groups.get(key).pairs.push(pair);
    else groups.set(key, { key, pairs: [pair] });
  }
  return [...groups.values()];
}

function cable(kind) {
  const tag = h("span", { class: "tag" });
  const what = h("span", { class: "what" });
  const why = h("span", { class: "why" });
  const node = h("div", { class: "cable" }, h("div", { class: "wire", "aria-hidden": "true" }), h("div", {}, tag, " ", what), why);
  return {
    node,
    update(verdict) {
      const action = verdict?.action ?? "none";
      node.dataset.action = action;
      const present = action !== "none" && action !== "absent";
      setText(tag, present ? t(`${["pass", "transcode"].includes(action) ? action : "drop"}Short`) : "–");
      setText(what, sentence(kind, verdict));
      setText(why, verdict?.rendition ? `${reason(verdict)} · ${t("shared")} ${verdict.rendition}` : reason(verdict));
    },
  };
}

function leg() {
  const video = cable("video");
  const audio = cable("audio");
  const title = h("strong");
  const who = h("span", { class: "peer" });
  const figures = h("span", { class: "figures" });
  const node = h("li", { class: "leg" }, h("div", { class: "cables" }, video.node, audio.node),
    h("div", { class: "jack sink" }, title, who, figures));
  return {
    node,
    update({ pairs }) {
      const first = pairs[0];
      const sum = (field) => pairs.reduce((total, pair) => total + (Number(pair[field]) || 0), 0);
      const delay = Math.max(...pairs.map((pair) => Number(pair.added_delay_ms) || 0));
      video.update(first.video);
      audio.update(first.audio);
      setText(title, `${first.to === first.protocol ? first.to : `${first.to} · ${first.protocol}`}${pairs.length > 1 ? ` ×${pairs.length}` : ""}`);
      setText(who, pairs.length > 1 ? `${pairs.length} ${t("viewers")}` : `${first.peer} · ${duration(first.uptime_s)}`);
      const parts = [`${t("sent")} ${bytes(sum("bytes"))}`, `${t("delay")} ${delay.toFixed(1)} ms`];
      for (const [field, word] of [["lost", "lost"], ["retransmitted", "resent"], ["skipped", "skipped"]]) {
        if (sum(field) > 0) parts.push(`${t(word)} ${sum(field)}`);
      }
      if (pairs.length === 1 && first.rtt_ms > 0) parts.push(`${t("rtt")} ${Number(first.rtt_ms).toFixed(1)} ms`);
      parts.push(`${t("rule")}: ${first.rule?.id ?? "?"}`);
      setText(figures, parts.join(" · "));
      node.title = first.rule?.text ?? "";
    },
  };
}

/** The patch panel: one block per stream, its source on the left, a row per kind of verdict to the right. */
export function showPanel(box, pairs, streams) {
  const byStream = new Map();
  // Sorted, so that rows do not change places between two refreshes whatever order the server keeps.
  for (const pair of [...pairs].sort((a, b) => a.stream.localeCompare(b.stream) || a.id - b.id)) {
    if (!byStream.has(pair.stream)) byStream.set(pair.stream, []);
    byStream.get(pair.stream).push(pair);
  }
  const blocks = [...byStream].map(([name, members]) => ({ name, members, stream: streams.find((s) => s.name === name) }));
  keyed(box, blocks, (block) => block.name, ({ name }) => {
    const kind = h("span", { class: "peer" });
    const tracks = h("span", { class: "figures" });
    const legs = h("ol", { class: "legs" });
    const node = h("article", { class: "patch" },
      h("div", { class: "jack source" }, h("strong", {}, name), kind, tracks), legs);
    return {
      node,
      update({ members, stream }) {
        setText(kind, members[0].from);
        setText(tracks, (stream?.tracks ?? []).map((track) => pretty(track.description)).join(" · "));
        keyed(legs, grouped(members), (group) => group.key, leg);
      },
    };
  });
}
