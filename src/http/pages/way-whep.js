// A stream over WHEP, as the play page takes it: WebRTC media into the video element.
// Refuses: WebRTC itself (webrtc.js).

import { t, bytes, rate, duration } from "./words.js";
import { inPath, keyQuery } from "./api.js";
import { pretty } from "./pairs.js";
import { RtcConnection, askStereo, readStats } from "./webrtc.js";

/** What the ledger calls it. */
export const protocols = ["whep"];

export class Connection extends RtcConnection {
  constructor({ stream, screen, onFrame, onRefused }) {
    const prepare = (pc) => {
      const media = new MediaStream();
      pc.addTransceiver("video", { direction: "recvonly" });
      pc.addTransceiver("audio", { direction: "recvonly" });
      const video = screen.showVideo();
      // One MediaStream for both: that is what makes the browser keep lips and sound together.
      pc.ontrack = ({ track }) => {
        media.addTrack(track);
        if (video.srcObject !== media) video.srcObject = media;
        screen.startVideo(onRefused);
      };
      if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_now, frame) => onFrame(frame.presentationTime));
      else video.addEventListener("loadeddata", () => onFrame(performance.now()), { once: true });
      this.video = video;
    };
    super({ endpoint: `/whep/${inPath(stream)}${keyQuery()}`, prepare, tweak: askStereo });
    this.memory = {};
  }

  close() {
    super.close();
    if (this.video) this.video.srcObject = null;
  }

  /** Figures; `received` grows while anything arrives, `unseen` says that it plays without a picture being shown. */
  async read() {
    const stats = await readStats(this.pc, this.memory);
    const { video, audio } = stats;
    const unseen = video?.framesDecoded > 0 ? document.hidden : audio?.samples > 0;
    return { ...stats, received: (video?.bytes ?? 0) + (audio?.bytes ?? 0), unseen };
  }
}

/** The figures that make sense for this way, as rows of a list. */
export function rows({ video: v, audio: a, rttMs, transport, received }) {
  const both = (of) => [v, a].filter(Boolean).map(of).join(" + ") || null;
  return [
    [t("resolution"), v?.width ? `${v.width} × ${v.height}` : null],
    [t("fps"), v ? v.fps.toFixed(0) : null],
    [t("bitrate"), `${rate(v?.kbps ?? 0)} + ${rate(a?.kbps ?? 0)}`],
    [t("jitter"), both((track) => `${track.jitterBufferMs.toFixed(0)} ms`)],
    [t("loss"), both((track) => `${track.lost} (${track.lossPercent.toFixed(1)} %)`)],
    [t("freezes"), v ? `${v.freezes} (${duration(v.freezeMs / 1000)})` : null],
    [t("dropped"), v ? String(v.framesDropped) : null],
    [t("rtt"), `${rttMs.toFixed(1)} ms`],
    [t("transport"), transport?.toUpperCase() ?? null],
    [t("codecs"), both((track) => pretty(track.codec.toLowerCase()))],
    [t("received"), bytes(received)],
  ];
}
