// Every word the pages say, in English and Chinese, and which of the two is in use.
// Refuses: words that come from the server (reasons, error details); those are shown as they arrive.

const EN = {
  tagline: "Media gateway: push RTMP, watch in a browser; publish from a browser, play RTMP.",
  apiToken: "API token", use: "Use", locked: "This server shows what it decided only to those who have its API token. Playing and publishing do not need it.",
  via_whep: "WebRTC", via_flv: "FLV", via_h5: "H5 (MPEG-1)", viaLabel: "Way", viaAny: "Best that works",
  connectingOver: "Connecting over {via}…", playsOver: "Way: {via}", nothing: "Nothing came within {s} s.",
  noMse: "This browser has no Media Source Extensions.", noSocket: "This browser has no WebSocket.", noWay: "This browser can play nothing: no WebRTC, no Media Source Extensions, no WebSocket.",
  alike: "{n} viewers like you", buffered: "Buffered in the player", bitrateAll: "Bit rate", h5page: "Play page, H5 only", h5: "H5 (jsmpeg)",
  home: "Streams", language: "中文", languageTitle: "以中文显示", unreachable: "The server does not answer; trying again.",
  live: "Live streams", none: "Nobody publishes yet. Push one with the command below, or publish from this browser.",
  play: "Play", publish: "Publish", viewers: "viewers", viewer: "viewer", up: "live for", urls: "Addresses",
  copy: "Copy", copied: "Copied", copyFailed: "Select and copy by hand",
  rtmp: "RTMP (publish and play)", whip: "WHIP (publish)", whep: "WHEP (play)", flv: "HTTP-FLV", wsflv: "WebSocket-FLV", page: "Play page",
  encoders: "Encoders", readers: "readers", reader: "reader",
  begin: "Start a stream", name: "Stream name", badName: "One to four parts of letters, digits, - _ . ~ joined by /",
  fromBrowser: "Publish from this browser", watchName: "Watch this name", withFfmpeg: "FFmpeg", obsServer: "OBS server", obsKey: "OBS stream key",
  panel: "Patch panel", panelHint: "Who gets what, and why. A solid line passes media untouched, a dashed one is transcoded, a dotted one is dropped.",
  noPairs: "Nobody is watching: no connection is patched.",
  pushes: "Pushes", sessions: "Sessions", noSessions: "No sessions.", disconnect: "Disconnect", sure: "Sure?", since: "for",
  video: "Video", audio: "Audio", pass: "passed through untouched", passShort: "pass", drop: "not sent", dropShort: "dropped",
  transcodeShort: "transcode", because: "because", rule: "Rule", delay: "added delay", sent: "sent", lost: "lost", resent: "resent",
  skipped: "skipped", rtt: "round trip", transport: "transport", shared: "rendition", noneTrack: "the stream has none", frames: "frames",
  connecting: "Connecting…", waiting: "Connected, waiting for the first picture…", stalled: "Nothing has arrived for {s} s.",
  retry: "Trying again in {s} s.", stopped: "Stopped.", notLive: "Nobody publishes under this name yet.",
  failed: "The connection failed.", unplugged: "The connection was lost.", noServer: "The server cannot be reached.",
  timeout: "The server did not answer in time.", again: "Try again", start: "Start", stop: "Stop", retryNow: "Retry now",
  noRtc: "This browser has no WebRTC.", blocked: "The browser waits for a click before it plays.",
  unmute: "Unmute", mute: "Mute", volume: "Volume", fullscreen: "Full screen", pip: "Picture in picture",
  stats: "Live statistics", verdict: "What patchbay does for you", noVerdict: "Known once the connection stands.",
  resolution: "Picture", fps: "Frames per second", bitrate: "Bit rate, video + audio", jitter: "Jitter buffer, video + audio", loss: "Packets lost, video + audio",
  freezes: "Freezes", firstFrame: "First frame", codecs: "Codecs", dropped: "Frames dropped", reconnects: "Reconnects", received: "Received",
  source: "Source", camera: "Camera and microphone", rear: "Rear camera and microphone", screen: "Screen", pattern: "Test pattern",
  size: "Size", codec: "Video codec", preferred: "preferred", onlyThis: "only", publishing: "On air.", idle: "Not publishing.", publishHint: "Choose a source and press Start.",
  noH264: "This browser cannot encode H.264: RTMP viewers will cost a transcode.",
  insecure: "Browsers give the camera and screen only to https or localhost pages. The test pattern works here.",
  denied: "The browser was not allowed to use the camera, microphone or screen.",
  noDevice: "No camera or microphone was found.", busy: "The camera or microphone is in use by another program.",
  soundClick: "Click anywhere on the page to let the test tone sound.", limit: "Limited by", encoder: "Encoder", target: "Available",
  seen: "What patchbay receives", notSeen: "Nothing yet.", watchAt: "Watch it at", keepVisible: "Keep this tab visible: browsers stop drawing hidden pages.",
  publishFor: "Publish {name}", playFor: "Play {name}", nameTaken: "Somebody else publishes under this name.", noName: "The address names no stream.",
};

const ZH = {
  tagline: "媒体网关：推 RTMP，用浏览器看；用浏览器推流，用 RTMP 播放。",
  apiToken: "API 令牌", use: "使用", locked: "此服务器只向持有 API 令牌的人显示它的决定。播放和推流不需要令牌。",
  via_whep: "WebRTC", via_flv: "FLV", via_h5: "H5（MPEG-1）", viaLabel: "方式", viaAny: "自动选择",
  connectingOver: "正在通过 {via} 连接…", playsOver: "方式：{via}", nothing: "{s} 秒内没有收到数据。",
  noMse: "此浏览器没有 Media Source Extensions。", noSocket: "此浏览器没有 WebSocket。", noWay: "此浏览器无法播放：没有 WebRTC、Media Source Extensions 和 WebSocket。",
  alike: "{n} 位与你相同的观众", buffered: "播放器缓冲", bitrateAll: "码率", h5page: "播放页（仅 H5）", h5: "H5（jsmpeg）",
  home: "流列表", language: "English", languageTitle: "Show in English", unreachable: "服务器没有响应，正在重试。",
  live: "正在直播的流", none: "目前没有人推流。用下面的命令推一路，或直接用这个浏览器推流。",
  play: "播放", publish: "推流", viewers: "位观众", viewer: "位观众", up: "已直播", urls: "地址",
  copy: "复制", copied: "已复制", copyFailed: "请手动选择并复制",
  rtmp: "RTMP（推流与播放）", whip: "WHIP（推流）", whep: "WHEP（播放）", flv: "HTTP-FLV", wsflv: "WebSocket-FLV", page: "播放页",
  encoders: "编码器", readers: "个读者", reader: "个读者",
  begin: "开始一路流", name: "流名", badName: "一到四段，由字母、数字、- _ . ~ 组成，用 / 连接",
  fromBrowser: "用这个浏览器推流", watchName: "观看这个流名", withFfmpeg: "FFmpeg", obsServer: "OBS 服务器", obsKey: "OBS 推流码",
  panel: "配线盘", panelHint: "谁得到什么，为什么。实线为原样直通，虚线为转码，点线为不发送。",
  noPairs: "没有人在看：没有接通的线路。",
  pushes: "转推", sessions: "会话", noSessions: "没有会话。", disconnect: "断开", sure: "确定？", since: "已持续",
  video: "视频", audio: "音频", pass: "原样直通", passShort: "直通", drop: "不发送", dropShort: "不发送",
  transcodeShort: "转码", because: "原因：", rule: "规则", delay: "增加延迟", sent: "已发送", lost: "丢失", resent: "重传",
  skipped: "跳过", rtt: "往返", transport: "传输", shared: "转码流", noneTrack: "此流没有", frames: "帧",
  connecting: "正在连接…", waiting: "已连接，等待第一帧…", stalled: "已有 {s} 秒没有收到数据。",
  retry: "{s} 秒后重试。", stopped: "已停止。", notLive: "还没有人以这个名字推流。",
  failed: "连接失败。", unplugged: "连接已断开。", noServer: "无法连接服务器。",
  timeout: "服务器未及时响应。", again: "重试", start: "开始", stop: "停止", retryNow: "立即重试",
  noRtc: "此浏览器不支持 WebRTC。", blocked: "浏览器需要点击后才能播放。",
  unmute: "打开声音", mute: "静音", volume: "音量", fullscreen: "全屏", pip: "画中画",
  stats: "实时统计", verdict: "patchbay 为你做了什么", noVerdict: "连接建立后显示。",
  resolution: "画面", fps: "帧率", bitrate: "码率（视频 + 音频）", jitter: "抖动缓冲（视频 + 音频）", loss: "丢包（视频 + 音频）",
  freezes: "卡顿", firstFrame: "首帧", codecs: "编码", dropped: "丢帧", reconnects: "重连次数", received: "已接收",
  source: "来源", camera: "摄像头和麦克风", rear: "后置摄像头和麦克风", screen: "屏幕", pattern: "测试图",
  size: "尺寸", codec: "视频编码", preferred: "优先", onlyThis: "仅此", publishing: "推流中。", idle: "未推流。", publishHint: "选择来源，然后点“开始”。",
  noH264: "此浏览器不能编码 H.264：RTMP 观众需要转码。",
  insecure: "浏览器只在 https 或 localhost 页面开放摄像头和屏幕。测试图在此可用。",
  denied: "浏览器未获准使用摄像头、麦克风或屏幕。",
  noDevice: "没有找到摄像头或麦克风。", busy: "摄像头或麦克风正被其他程序占用。",
  soundClick: "点击页面任意处以播放测试音。", limit: "受限于", encoder: "编码器", target: "可用带宽",
  seen: "patchbay 收到的内容", notSeen: "尚无。", watchAt: "观看地址", keepVisible: "请保持此标签页可见：浏览器不绘制隐藏的页面。",
  publishFor: "推流 {name}", playFor: "播放 {name}", nameTaken: "已有人以这个名字推流。", noName: "地址中没有流名。",
  // Verdicts by their code. English has none: there the server's own sentence, which knows more, is shown.
  why_pass_accepted: "接收方可直接接收", why_rule_pass: "规则要求直通，接收方可接收", why_already_target: "源已经是目标格式",
  why_codec_not_accepted: "接收方不支持此编码", why_b_frames: "源含 B 帧，接收方无法重排", why_profile_not_accepted: "接收方不能解码此 H.264 档次",
  why_size_too_large: "画面超过接收方上限", why_odd_size: "宽或高为奇数，接收方无法正确显示", why_size_change: "接收方不能跟随画面尺寸变化", why_sample_rate: "接收方不支持此采样率", why_channels: "声道数超过接收方上限",
  why_rule_transcode: "规则要求转码", why_rule_codec_refused: "接收方不支持规则要求的编码", why_rule_drop: "规则不发送",
  why_no_track: "源中没有", why_sink_takes_none: "接收方不接收此类轨道", why_no_decoder: "没有可用的解码器", why_no_encoder: "没有可用的编码器",
};

const KEY = "patchbay.language";

// Storage may be refused (private windows, embedded frames); the choice then lasts as long as the page.
function stored() {
  try { return localStorage.getItem(KEY); } catch { return null; }
}

function initial() {
  const wanted = new URLSearchParams(location.search).get("lang") || stored() || navigator.language || "en";
  return wanted.toLowerCase().startsWith("zh") ? "zh" : "en";
}

let language = initial();
const listeners = new Set();

/** The text of `key` with each `{name}` replaced. An unknown key shows itself, so that a slip is seen. */
export function t(key, values = {}) {
  const text = (language === "zh" ? ZH : EN)[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** The text of `key`, or null where the language in use has none. */
export function maybe(key) {
  return (language === "zh" ? ZH : EN)[key] ?? null;
}

/** Fills every element marked `data-t` (its text) or `data-t-label` (its accessible name). */
export function fillWords(root = document) {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
    node.title = t(node.dataset.tLabel);
  }
}

/** Calls `listener` after the language changed, for text that was built and not marked. */
export function onLanguage(listener) {
  listeners.add(listener);
}

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  try { localStorage.setItem(KEY, language); } catch { /* see stored() */ }
  fillWords();
  for (const listener of listeners) listener();
}

/** 12.3 → "12 s", 3700 → "1 h 1 min". */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(Number(seconds) || 0));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** Bytes as kB, MB, GB (powers of 1000, as bit rates are). */
export function bytes(count) {
  let value = Number(count) || 0;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

/** Kilobits a second as kbit/s or Mbit/s. */
export function rate(kbps) {
  return kbps >= 1000 ? `${(kbps / 1000).toFixed(2)} Mbit/s` : `${Math.round(kbps)} kbit/s`;
}
