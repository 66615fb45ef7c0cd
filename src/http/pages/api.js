// The server as the pages see it: JSON requests, errors in the server's own words, names and addresses of streams.
// Refuses: drawing, and media.

import { t } from "./words.js";

/** An answer that was an error. `code` is the server's machine-readable word, e.g. `stream_not_found`. */
export class Problem extends Error {
  constructor(status, body, retryAfterS) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.code = String(body.code || "");
    this.title = String(body.title || `HTTP ${status}`);
    this.detail = String(body.detail || "");
    this.retryAfterS = retryAfterS;
  }

  /** One sentence for a person. */
  get text() {
    if (this.code === "stream_not_found") return t("notLive");
    return this.detail && this.detail !== this.title ? `${this.title}: ${this.detail}` : this.title;
  }
}

/** fetch with a time limit; anything but 2xx is thrown as a `Problem` (RFC 9457 body if there is one). */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(10_000), ...options });
  } catch (error) {
    throw new Problem(0, { title: t(error.name === "TimeoutError" ? "timeout" : "noServer") });
  }
  if (response.ok) return response;
  let body = {};
  try { body = await response.json(); } catch { /* a proxy's HTML page: the status alone must do */ }
  if (!body || typeof body !== "object") body = {};
  throw new Problem(response.status, body, Number(response.headers.get("retry-after")) || 0);
}

export async function getJson(path) {
  return (await request(path)).json();
}

/** The stream named by an address like `/play/live/demo`, or "" when it names none. */
export function streamFromPath(prefix) {
  try {
    return location.pathname.slice(prefix.length).split("/").filter(Boolean).map(decodeURIComponent).join("/");
  } catch {
    return "";
  }
}

/** A name as part of an address; its slashes stay. */
export function inPath(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

/** Whether the server would take this name (it decides; this only spares a round trip). */
export function goodName(name) {
  return name.length <= 128 && /^(?![.-])[\p{L}\p{N}\-_.~]+(\/(?![.-])[\p{L}\p{N}\-_.~]+){0,3}$/u.test(name);
}

/** All addresses of one stream. The host is the one this page came from: it is proven to be reachable. */
export function addresses(name, info) {
  const secure = location.protocol === "https:";
  const port = Number(info?.rtmp_port) || 1935;
  const server = `rtmp://${location.hostname}${port === 1935 ? "" : `:${port}`}`;
  const path = inPath(name);
  return {
    page: `${location.origin}/play/${path}`,
    publish: `${location.origin}/publish/${path}`,
    rtmp: `${server}/${path}`,
    rtmpServer: server,
    whip: `${location.origin}/whip/${path}`,
    whep: `${location.origin}/whep/${path}`,
    flv: `${location.origin}/flv/${path}.flv`,
    wsflv: `${secure ? "wss" : "ws"}://${location.host}/flv/${path}.flv`,
  };
}
