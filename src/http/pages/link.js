// One link that opens, reports, retries and says goodbye, whatever carries the media.
// Refuses: drawing, and every protocol; `connect` knows one.

import { Problem } from "./api.js";

const LONGEST_WAIT_S = 8;
const ABSENT_STREAM_WAIT_S = 2;

/**
 * Keeps one stream going to or from the server until `stop()`.
 *   connect()              gives (or promises) a connection: `open()` (a promise; it may throw a Problem), `close()`
 *                          (final), `session` (its row of the ledger or null), and calls of its own `onUp()` and
 *                          `onLost(problem)`
 *   elsewhere(problem)     true when another connection is worth trying at once (optional)
 *   onState(state, more)   "connecting" | "opened" (all is asked for) | "connected" (media may flow) |
 *                          "retrying" {problem, waitS} | "failed" {problem} | "stopped"
 * "failed" is an answer that the same question would get again (a refusal); everything else is tried again after
 * 1, 2, 4, 8, 8 … seconds, and a name that nobody publishes under every 2 seconds.
 */
export class Link {
  constructor({ connect, elsewhere = () => false, onState }) {
    Object.assign(this, { connect, elsewhere, onState });
    this.connection = null;
    this.timer = 0;
    this.turn = 0;
    this.running = false;
    this.attempts = 0;
    this.reconnects = -1;
    addEventListener("pagehide", () => this.stop());
  }

  get session() { return this.connection?.session ?? null; }

  async start() {
    this.drop();
    this.running = true;
    const turn = this.turn;
    const current = () => this.turn === turn;
    this.onState("connecting", {});
    let mine = null;
    try {
      mine = await this.connect();
      if (!current()) return mine.close();
      this.connection = mine;
      mine.onUp = () => { if (current()) this.up(); };
      mine.onLost = (problem) => { if (current()) this.lost(problem); };
      await mine.open();
      if (current()) this.onState("opened", {});
    } catch (error) {
      if (current()) this.lost(error instanceof Problem ? error : new Problem(0, { title: String(error.message) }));
      else mine?.close();
    }
  }

  up() {
    this.attempts = 0;
    this.reconnects += 1;
    this.onState("connected", {});
  }

  /** The link is of no use any more (also called by the page when nothing comes through it). */
  lost(problem) {
    this.drop();
    if (this.elsewhere(problem)) {
      this.start();
      return;
    }
    const refused = problem.final || (problem.status >= 400 && problem.status < 500 && ![404, 408, 409, 425, 429].includes(problem.status));
    if (refused) {
      this.running = false;
      this.onState("failed", { problem });
      return;
    }
    const absent = problem.code === "stream_not_found";
    const backoff = Math.min(2 ** this.attempts, LONGEST_WAIT_S);
    const waitS = absent ? ABSENT_STREAM_WAIT_S : Math.max(backoff, Math.min(problem.retryAfterS || 0, 60));
    this.attempts += 1;
    this.onState("retrying", { problem, waitS });
    this.timer = setTimeout(() => this.start(), waitS * 1000);
  }

  drop() {
    // What was begun and not finished sees that its turn is over.
    this.turn += 1;
    clearTimeout(this.timer);
    this.connection?.close();
    this.connection = null;
  }

  stop() {
    const was = this.running;
    this.drop();
    this.running = false;
    this.attempts = 0;
    if (was) this.onState("stopped", {});
  }
}
