// Which way the play page takes to a stream: WebRTC, else FLV, else H5; and when it goes on to the next.
// Refuses: connecting, and drawing. It is told what went wrong and keeps why.

/** The ways, best first. `can`: whether this browser has what it needs; `load`: its module, fetched when it is taken. */
export const WAYS = {
  whep: { can: () => typeof RTCPeerConnection !== "undefined", lacks: "noRtc", load: () => import("./way-whep.js") },
  flv: {
    can: () => typeof MediaSource !== "undefined" || typeof ManagedMediaSource !== "undefined", lacks: "noMse",
    load: () => import("./way-flv.js"),
  },
  h5: { can: () => typeof WebSocket !== "undefined", lacks: "noSocket", load: () => import("./way-h5.js") },
};

// What the server would answer on every way: another one is not worth trying.
const SAME_EVERYWHERE = ["bad_stream_name", "unauthorized", "forbidden", "stream_not_found", "not_ready", "draining"];

/** Nothing came within the time a way is given: `silent` when it stood all the same, `unreachable` when it did not. */
export const SILENT = "silent";
export const UNREACHABLE = "unreachable";

export class Ladder {
  /** `wanted`: the name of the one way to take, or anything else for all of them. */
  constructor(wanted) {
    this.forced = wanted in WAYS;
    this.reset(this.forced ? [wanted] : Object.keys(WAYS));
  }

  reset(names) {
    /** Ways that were not taken or given up, with the reason: `{ via, why }`. */
    this.given = this.forced ? [] : names.filter((via) => !WAYS[via].can()).map((via) => ({ via, word: WAYS[via].lacks }));
    this.names = this.forced ? names : names.filter((via) => WAYS[via].can());
    this.place = 0;
    this.silent = [];
    this.played = false;
  }

  /** The way to take now; undefined in a browser that has none. */
  get via() { return this.names[this.place]; }

  /** Whether this way may take as long as it likes to bring something. */
  get patient() { return this.settled || this.names.length < 2; }

  /** Something came: from now on this way is kept, and a loss is met by trying it again. */
  heard() {
    this.played = true;
    this.settled = false;
    this.silent = [];
  }

  /** A new connection on the same way starts without credit. */
  begin() { this.played = false; }

  /** Told why the way was lost; true when another one is to be tried at once. */
  next(problem) {
    const everywhere = SAME_EVERYWHERE.includes(problem.code) || (problem.status === 0 && problem.code === "no_server");
    if (this.patient || this.played || everywhere) return false;
    if (problem.code === SILENT) this.silent.push(this.place);
    this.given.push({ via: this.via, problem });
    const last = this.place === this.names.length - 1;
    // Two ways that stand and bring nothing: the source is silent, not the way. The better one waits for it.
    if (this.silent.length > 1 || (last && this.silent.length)) {
      const kept = this.silent[0];
      this.given = this.given.filter(({ via }) => this.names.indexOf(via) < kept);
      this.place = kept;
      this.settled = true;
      return true;
    }
    if (!last) {
      this.place += 1;
      return true;
    }
    // All failed: from the top, after the pause that a failure costs.
    this.reset(Object.keys(WAYS));
    return false;
  }
}
