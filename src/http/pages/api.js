// The server as the pages see it: JSON requests, errors in the server's own words, names and addresses of streams, and
// the two secrets a page may carry. Refuses: drawing, and media.
//
// `?key=` or `?token=` in a page's address is the key of its stream and goes on to the media addresses. `#token=` is the
// token of the API: behind the #, because that part is never sent to a server nor written to a log.

import { t } from "./words.js";

/** An answer that was an error. `code` is the server's machine-readable word, e.g. `stream_not_found`. */
export class Problem extends Error {
  /** `final`: asking again is of no use (this browser cannot do it). */
  constructor(status, body, { retryAfterS = 0, final = false } = {}) {
    super(body.detail || body.title || `HTTP ${status}`);
    this.status = status;
    this.code = String(body.code || "");
    this.title = String(body.title || `HTTP ${status}`);
    this.detail = String(body.detail || "");
    this.retryAfterS = retryAfterS;
    this.final = final;
  }

  /** One sentence for a person. */
  get text() {
    if (this.code === "stream_not_found") return t("notLive");
    return this.detail && this.detail !== this.title ? `${this.title.replace(/\.$/, "")}: ${this.detail}` : this.title;
  }
}

const TOKEN = "patchbay.api-token";

// Taken out of the address bar, where it would be read over a shoulder and copied along with the address. It lasts as
// long as the tab; where storage is refused, as long as the page.
let apiToken = new URLSearchParams(location.hash.slice(1)).get("token");
if (apiToken) {
  keepApiToken(apiToken);
  history.replaceState(history.state, "", location.pathname + location.search);
} else {
  try { apiToken = sessionStorage.getItem(TOKEN); } catch { /* none then */ }
}

/** From now on calls of the API carry this token. */
export function keepApiToken(token) {
  apiToken = token;
  try { sessionStorage.setItem(TOKEN, token); } catch { /* see above */ }
}

/** The stream's key out of this page's address, as a query for a media address: "?key=…" or "". */
export function keyQuery() {
  const query = new URLSearchParams(location.search);
  const key = query.get("key") || query.get("token");
  return key ? `?key=${encodeURIComponent(key)}` : "";
}

/** fetch with a time limit; anything but 2xx is thrown as a `Problem` (RFC 9457 body if there is one). */
export async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout?.(10_000), ...options });
  } catch (error) {
    throw new Problem(0, { title: t(error.name === "TimeoutError" ? "timeout" : "noServer"), code: "no_server" });
  }
  if (response.ok) return response;
  let body = {};
  try { body = await response.json(); } catch { /* a proxy's HTML page: the status alone must do */ }
  if (!body || typeof body !== "object") body = {};
  throw new Problem(response.status, body, { retryAfterS: Number(response.headers.get("retry-after")) || 0 });
}

/** A call of the API, with the token if there is one. */
export function callApi(path, options = {}) {
  return request(path, apiToken ? { ...options, headers: { authorization: `Bearer ${apiToken}` } } : options);
}

export async function getJson(path) {
  return (await callApi(path)).json();
}

/** Why the server would not play this stream now, as a `Problem`; null when it would. */
export async function refusal(stream) {
  const enough = new AbortController();
  const late = setTimeout(() => enough.abort(), 10_000);
  try {
    await request(addresses(stream, null, keyQuery()).flv, { signal: enough.signal });
    return null;
  } catch (problem) {
    return problem;
  } finally {
    // The answer is known by its head; a body would never end.
    clearTimeout(late);
    enough.abort();
  }
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

/**
 * All addresses of one stream, with `query` behind each. The host is the one this page came from: it is proven to be
 * reachable.
 */
export function addresses(name, info, query = "") {
  const secure = location.protocol === "https:";
  const port = Number(info?.rtmp_port) || 1935;
  const server = `rtmp://${location.hostname}${port === 1935 ? "" : `:${port}`}`;
  const path = inPath(name);
  const socket = `${secure ? "wss" : "ws"}://${location.host}`;
  return {
    page: `${location.origin}/play/${path}${query}`,
    h5page: `${location.origin}/h5-play/${path}${query}`,
    publish: `${location.origin}/publish/${path}${query}`,
    rtmp: `${server}/${path}${query}`,
    rtmpServer: server,
    whip: `${location.origin}/whip/${path}${query}`,
    whep: `${location.origin}/whep/${path}${query}`,
    flv: `${location.origin}/flv/${path}.flv${query}`,
    wsflv: `${socket}/flv/${path}.flv${query}`,
    h5: `${socket}/h5/${path}${query}`,
  };
}
