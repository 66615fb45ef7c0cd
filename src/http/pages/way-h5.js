// A stream as MPEG-1 and MP2 over a WebSocket, decoded in the page by jsmpeg: for browsers that have nothing else.
// Refuses: decoding; the library does.

import { t, bytes, rate } from "./words.js";
import { addresses, keyQuery, refusal, Problem } from "./api.js";
import { loadScript } from "./ui.js";
import { pretty } from "./pairs.js";

/** What the ledger calls it. */
export const protocols = ["h5"];

const LIBRARY = "/assets/vendor/jsmpeg-player-6.1.2.min.js";
// What may wait undecoded inside the library, bytes; it throws the oldest away when it is full.
const BUFFERS = { videoBufferSize: 512 * 1024, audioBufferSize: 128 * 1024 };
// Pictures that are given to the library ahead of their decoding.
const AHEAD_MAX = 2;
// How long a browser may take to start its sound before it is taken for a refusal.
const SOUND_WAIT_MS = 2000;
// A picture that waits for longer shows a device that is too slow: on to the newest picture that needs no other.
const LATE_MS = 800;

// A browser may know WebAssembly and forbid it to this page; the library would then wait for ever.
function canCompile() {
  try {
    return Boolean(new WebAssembly.Module(Uint8Array.of(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0)));
  } catch {
    return false;
  }
}

// Drawing on a graphics card that is only simulated costs far more than drawing without one: a third of the pictures.
function hasGraphicsCard() {
  const gl = document.createElement("canvas").getContext("webgl");
  if (!gl) return false;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const name = String(gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER));
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}

// A group begins with a sequence header (ISO 11172-2, 00 00 01 B3) in what this server sends.
const beginsGroup = ([first]) => first?.[0] === 0 && first[1] === 0 && first[2] === 1 && first[3] === 0xb3;

export class Connection {
  constructor({ stream, screen, onFrame }) {
    Object.assign(this, { stream, screen, onFrame });
    this.session = null;
    this.onUp = () => {};
    this.onLost = () => {};
    this.isUp = false;
    this.closed = false;
    this.received = 0;
    this.pictures = 0;
    this.sounds = 0;
    this.dropped = 0;
    // Pictures that wait outside of the library, and when those inside arrived.
    this.waiting = [];
    this.inside = [];
    this.lagMs = 0;
    this.before = null;
  }

  async open() {
    await loadScript(LIBRARY);
    if (this.closed) return;
    this.postedAt = performance.now();
    this.canvas = this.screen.showCanvas((volume) => this.setVolume(volume));
    const disableGl = !hasGraphicsCard();
    // Without the card the library leaves black at 16 and white at 235.
    this.canvas.classList.toggle("studio-range", disableGl);
    const connection = this;
    this.player = new JSMpeg.Player("", {
      ...BUFFERS, canvas: this.canvas, source: function Source() { return connection.source(); }, pauseWhenHidden: false,
      disableWebAssembly: !canCompile(), disableGl, onVideoDecode: () => this.picture(), onAudioDecode: () => { this.sounds += 1; },
    });
    this.queuePictures(this.player.video);
    // Sound is only queued while it can be heard: a browser that waits for a click would play all of it at once then.
    if (this.player.audioOut) this.player.audioOut.unlocked = false;
    this.setVolume(this.screen.silent ? 0 : this.screen.volume);
  }

  // The library's own source opens the socket again by itself and tells nobody; this one tells `Link`.
  source() {
    const source = { streaming: true, established: false, completed: false, progress: 0 };
    source.connect = (demuxer) => { source.demuxer = demuxer; };
    source.resume = () => {};
    source.destroy = () => { this.socket?.close(); };
    source.start = () => {
      if (this.closed) return;
      this.socket = new WebSocket(addresses(this.stream, null, keyQuery()).h5);
      this.socket.binaryType = "arraybuffer";
      this.socket.onopen = () => { this.isUp = true; this.onUp(); };
      this.socket.onclose = () => this.over();
      this.socket.onmessage = ({ data }) => {
        source.established = true;
        this.received += data.byteLength;
        source.demuxer.write(data);
      };
    };
    return source;
  }

  // A WebSocket does not say why it was refused; HTTP does.
  async over() {
    if (this.closed) return;
    const problem = this.isUp ? null : await refusal(this.stream);
    if (!this.closed) this.onLost(problem ?? new Problem(0, { title: t(this.isUp ? "unplugged" : "failed") }));
  }

  // The library decodes all that it is given, however late. So pictures wait out here, whole as the demuxer hands them
  // over, where some can be left out.
  queuePictures(video) {
    const write = video.write;
    this.feed = () => {
      while (this.inside.length < AHEAD_MAX && this.waiting.length) {
        const { at, picture } = this.waiting.shift();
        this.inside.push(at);
        write.apply(video, picture);
      }
    };
    video.write = (...picture) => {
      this.waiting.push({ at: performance.now(), picture });
      this.catchUp();
      this.feed();
    };
  }

  catchUp() {
    if (performance.now() - this.waiting[0].at < LATE_MS) return;
    let newest = this.waiting.length - 1;
    while (newest > 0 && !beginsGroup(this.waiting[newest].picture[1])) newest -= 1;
    this.dropped += newest;
    this.waiting.splice(0, newest);
  }

  picture() {
    const now = performance.now();
    this.lagMs = now - (this.inside.shift() ?? now);
    this.pictures += 1;
    if (this.pictures === 1) this.onFrame(now);
    this.feed();
  }

  async setVolume(volume) {
    const out = this.player?.audioOut;
    if (!out) return;
    out.volume = volume;
    out.gain.gain.value = volume;
    if (volume === 0 || out.unlocked) return;
    // Allowed at once, or by the click that brought us here, or not before the next one: then the page says so.
    const refused = setTimeout(() => { if (!this.closed) this.screen.set({ muted: true }); }, SOUND_WAIT_MS);
    await out.context.resume();
    clearTimeout(refused);
    out.unlock();
  }

  close() {
    this.closed = true;
    if (!this.player) return;
    this.player.destroy();
    // Its decoder may still be compiling, and it would begin to play then.
    this.player.play = () => {};
    this.player = null;
  }

  async read() {
    const now = performance.now();
    const since = this.before ? (now - this.before.at) / 1000 : 0;
    const perSecond = (value, before) => (since > 0 ? (value - before) / since : 0);
    const stats = {
      video: this.pictures ? {
        width: this.canvas.width, height: this.canvas.height, fps: perSecond(this.pictures, this.before?.pictures),
        codec: "mpeg1", framesDecoded: this.pictures, framesDropped: this.dropped,
      } : null,
      audio: this.sounds ? { codec: "mp2" } : null,
      kbps: perSecond(this.received, this.before?.received) * 8 / 1000,
      bufferMs: this.lagMs,
      received: this.received,
      unseen: this.received > 0 && (document.hidden || (this.sounds > 0 && this.pictures === 0)),
    };
    this.before = { at: now, pictures: this.pictures, received: this.received };
    return stats;
  }
}

/** The figures that make sense for this way, as rows of a list. Pictures are left out here, or by the server before. */
export function rows({ video: v, audio: a, kbps, bufferMs, received }, pair) {
  return [
    [t("resolution"), v ? `${v.width} × ${v.height}` : null],
    [t("fps"), v ? v.fps.toFixed(0) : null],
    [t("bitrateAll"), rate(kbps)],
    [t("buffered"), `${bufferMs.toFixed(0)} ms`],
    [t("dropped"), v ? String(v.framesDropped + (pair?.skipped ?? 0)) : null],
    [t("rtt"), pair?.rtt_ms ? `${pair.rtt_ms.toFixed(1)} ms` : null],
    [t("codecs"), [v, a].filter(Boolean).map((track) => pretty(track.codec)).join(" + ") || null],
    [t("received"), bytes(received)],
  ];
}
