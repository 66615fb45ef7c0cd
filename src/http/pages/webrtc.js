// WHIP and WHEP (RFC 9725, draft-ietf-wish-whep) for the pages: one connection, codec choice, and figures.
// Refuses: drawing, trying again (link.js does), and knowing whether it publishes or plays; the caller prepares it.

import { request, Problem } from "./api.js";
import { t } from "./words.js";

// A connection that says "disconnected" often heals by itself (a phone changes cells); after this long it will not.
const HEAL_MS = 4000;

/**
 * One POST and the connection it made; see `Link` for what it owes.
 *   endpoint               where to POST the offer
 *   prepare(pc)            adds transceivers and handlers before the offer
 *   tweak(sdp)             may change the offer (optional)
 */
export class RtcConnection {
  constructor({ endpoint, prepare, tweak = (sdp) => sdp }) {
    Object.assign(this, { endpoint, prepare, tweak });
    this.resource = null;
    this.session = null;
    this.closed = false;
    this.onUp = () => {};
    this.onLost = () => {};
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.watch();
  }

  /** Whether media could flow: ICE and DTLS stand. */
  get isUp() { return this.pc.connectionState === "connected"; }

  // The offer leaves without candidates: the server is ICE-lite on a public port and learns this side's address
  // from its checks, so waiting for gathering would only cost time.
  async open() {
    await this.prepare(this.pc);
    const offer = await this.pc.createOffer();
    await this.pc.setLocalDescription({ type: "offer", sdp: this.tweak(offer.sdp) });
    this.postedAt = performance.now();
    const response = await request(this.endpoint, {
      method: "POST",
      headers: { "content-type": "application/sdp" },
      body: this.pc.localDescription.sdp,
    });
    const place = response.headers.get("location");
    this.resource = place ? new URL(place, response.url).href : null;
    this.session = response.headers.get("patchbay-session");
    const sdp = await response.text();
    // close() may have come while the POST was under way: the resource was not known then, it is now.
    if (this.closed) return this.forget();
    await this.pc.setRemoteDescription({ type: "answer", sdp });
  }

  watch() {
    let healing = 0;
    const unplugged = () => this.onLost(new Problem(0, { title: t("unplugged") }));
    this.pc.addEventListener("connectionstatechange", () => {
      clearTimeout(healing);
      const state = this.pc.connectionState;
      if (state === "connected") {
        this.onUp();
        // The server's goodbye is a DTLS close_notify; not every browser turns it into a connection state.
        for (const { transport } of [...this.pc.getSenders(), ...this.pc.getReceivers()]) {
          if (transport) transport.onstatechange = () => { if (transport.state === "closed") unplugged(); };
        }
      } else if (state === "failed") {
        this.onLost(new Problem(0, { title: t("failed") }));
      } else if (state === "disconnected") {
        healing = setTimeout(unplugged, HEAL_MS);
      }
    });
  }

  // keepalive lets the request outlive the page. A DELETE that fails costs nothing: the server times the session out.
  forget() {
    if (this.resource) fetch(this.resource, { method: "DELETE", keepalive: true }).catch(() => {});
    this.resource = null;
  }

  close() {
    this.closed = true;
    this.forget();
    this.pc.close();
  }
}

/** Asks for stereo in a player's offer: without it Chromium decodes Opus to one channel (RFC 7587 section 6.1). */
export function askStereo(sdp) {
  const opus = /a=rtpmap:(\d+) opus\/48000\/2/i.exec(sdp);
  return opus ? sdp.replace(new RegExp(`(a=fmtp:${opus[1]} )(?!.*stereo=1)`), "$1stereo=1;") : sdp;
}

/**
 * The sender's codecs, `wanted` first. For H.264 the order is what RTMP and every phone take best: constrained
 * baseline with packetisation mode 1, then the rest; other codecs stay as a fallback. Any other choice is exclusive.
 */
export function orderCodecs(wanted) {
  const all = globalThis.RTCRtpSender?.getCapabilities?.("video")?.codecs ?? [];
  const is = (codec, name) => codec.mimeType.toLowerCase() === `video/${name}`;
  const repair = all.filter((codec) => ["rtx", "red", "ulpfec", "flexfec-03"].some((name) => is(codec, name)));
  const chosen = all.filter((codec) => is(codec, wanted));
  if (wanted !== "h264") return chosen.length ? [...chosen, ...repair] : [];
  const score = ({ sdpFmtpLine = "" }) =>
    (/profile-level-id=42e0/i.test(sdpFmtpLine) ? 2 : 0) + (/packetization-mode=1/.test(sdpFmtpLine) ? 1 : 0);
  chosen.sort((a, b) => score(b) - score(a));
  return [...chosen, ...all.filter((codec) => !is(codec, "h264"))];
}

const perSecond = (now, before, field, seconds) => (before && seconds > 0 ? Math.max(0, (now[field] - before[field]) / seconds) : 0);

function inbound(report, before, codec) {
  const seconds = before ? (report.timestamp - before.timestamp) / 1000 : 0;
  const emitted = before ? report.jitterBufferEmittedCount - before.jitterBufferEmittedCount : report.jitterBufferEmittedCount;
  const held = before ? report.jitterBufferDelay - before.jitterBufferDelay : report.jitterBufferDelay;
  const expected = report.packetsReceived + Math.max(0, report.packetsLost);
  return {
    codec,
    bytes: report.bytesReceived,
    kbps: perSecond(report, before, "bytesReceived", seconds) * 8 / 1000,
    jitterBufferMs: emitted > 0 ? held / emitted * 1000 : 0,
    packets: report.packetsReceived,
    lost: report.packetsLost,
    lossPercent: expected > 0 ? Math.max(0, report.packetsLost) / expected * 100 : 0,
    width: report.frameWidth ?? 0,
    height: report.frameHeight ?? 0,
    fps: report.framesPerSecond ?? 0,
    framesDecoded: report.framesDecoded ?? 0,
    framesDropped: report.framesDropped ?? 0,
    freezes: report.freezeCount ?? 0,
    freezeMs: (report.totalFreezesDuration ?? 0) * 1000,
    concealed: report.concealedSamples ?? 0,
    samples: report.totalSamplesReceived ?? 0,
  };
}

function outbound(report, before, codec, remote) {
  const seconds = before ? (report.timestamp - before.timestamp) / 1000 : 0;
  return {
    codec,
    bytes: report.bytesSent,
    kbps: perSecond(report, before, "bytesSent", seconds) * 8 / 1000,
    width: report.frameWidth ?? 0,
    height: report.frameHeight ?? 0,
    fps: report.framesPerSecond ?? 0,
    framesEncoded: report.framesEncoded ?? 0,
    encoder: report.encoderImplementation ?? "",
    limited: report.qualityLimitationReason ?? "none",
    resent: report.retransmittedPacketsSent ?? 0,
    lost: remote?.packetsLost ?? 0,
    lossPercent: (remote?.fractionLost ?? 0) * 100,
  };
}

/**
 * One reading of the connection: `{ video, audio, rttMs, availableKbps, transport }`, each track with totals and with rates since
 * the previous reading. `memory` is an object the caller keeps; it holds the previous reports.
 */
export async function readStats(pc, memory) {
  const reports = [...(await pc.getStats()).values()];
  const find = (id) => reports.find((report) => report.id === id);
  const result = { video: null, audio: null, rttMs: 0, availableKbps: 0, transport: null };
  for (const report of reports) {
    const codec = (find(report.codecId)?.mimeType ?? "").split("/")[1] ?? "";
    if (report.type === "inbound-rtp") {
      result[report.kind] = inbound(report, memory[report.id], codec);
      memory[report.id] = report;
    } else if (report.type === "outbound-rtp") {
      result[report.kind] = outbound(report, memory[report.id], codec, find(report.remoteId));
      memory[report.id] = report;
    } else if (report.type === "candidate-pair" && report.nominated) {
      result.rttMs = (report.currentRoundTripTime ?? 0) * 1000;
      result.transport = find(report.localCandidateId)?.protocol ?? null;
      result.availableKbps = (report.availableOutgoingBitrate ?? 0) / 1000;
    }
  }
  return result;
}
