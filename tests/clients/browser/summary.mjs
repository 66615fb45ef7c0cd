//! Turns what the page recorded into the figures a test asserts on. Pure: no browser, no I/O.

const MODULUS = 2 ** 24;

export function percentile(values, p) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))]);
}

/**
 * `samples`: [wall clock ms, stamp] of each shown frame. `kind`: 'n' (stamps count frames) or 'wall' (stamps are
 * milliseconds, so the expected number of frames follows from `fps` and latency can be told).
 * A stamp more than two seconds behind the newest begins a new run (a looped source); a smaller step back is a frame
 * shown out of order.
 */
export function summariseStamps(samples, { kind, fps }) {
  const perFrame = kind === 'n' ? 1 : 1000 / fps;
  const runs = [];
  let outOfOrder = 0;
  let repeated = 0;
  let longestGap = 0;
  let longestWait = { ms: 0, after: null };
  for (const [i, [wall, stamp]] of samples.entries()) {
    const [shown, after] = samples[i - 1] ?? [wall, null];
    if (wall - shown > longestWait.ms) longestWait = { ms: Math.round(wall - shown), after };
    let run = runs.at(-1);
    if (!run || run.last - stamp > 2 * fps * perFrame) {
      run = { first: stamp, last: stamp, seen: new Set([stamp]) };
      runs.push(run);
      continue;
    }
    if (run.seen.has(stamp)) repeated++;
    else if (stamp < run.last) outOfOrder++;
    else longestGap = Math.max(longestGap, (stamp - run.last) / perFrame - 1);
    run.seen.add(stamp);
    run.last = Math.max(run.last, stamp);
  }
  const distinct = runs.reduce((sum, r) => sum + r.seen.size, 0);
  const expected = runs.reduce((sum, r) => sum + Math.round((r.last - r.first) / perFrame) + 1, 0);
  const late = kind === 'wall' ? samples.map(([wall, stamp]) => (((Math.floor(wall) - stamp) % MODULUS) + MODULUS) % MODULUS) : [];
  return {
    read: samples.length,
    distinct,
    expected,
    shownPct: expected ? +((100 * distinct) / expected).toFixed(2) : null,
    repeated,
    outOfOrder,
    longestGapFrames: Math.round(longestGap),
    longestGapMs: longestWait.ms,
    longestGapAfter: longestWait.after,
    runs: runs.length,
    first: runs[0]?.first ?? null,
    last: runs.at(-1)?.last ?? null,
    ...(kind === 'wall' ? { latencyMs: { p50: percentile(late, 0.5), p95: percentile(late, 0.95), max: percentile(late, 1) } } : {}),
  };
}

/** Pairs each flash with its nearest beep. Positive: the sound came later than the picture. */
export function summariseLipSync(flashes, beeps) {
  const offsets = flashes
    .map((flash) => beeps.reduce((best, beep) => (Math.abs(beep - flash) < Math.abs(best) ? beep - flash : best), Infinity))
    .filter((offset) => Math.abs(offset) < 450);
  return { flashes: flashes.length, beeps: beeps.length, pairs: offsets.length, p50: percentile(offsets, 0.5), min: percentile(offsets, 0), max: percentile(offsets, 1) };
}

/**
 * Everything the watcher recorded, as figures. `since`: performance.now() from which the first frame is timed.
 * `options.settle`: seconds after the first frame that are not judged, because a player that joins late may be given the
 * whole group so far and hurry through it.
 */
export function summariseWatch(raw, since, options) {
  const settled = raw.firstFrameAt + options.settle * 1000;
  const later = (times) => times.filter((t) => t >= settled);
  const samples = raw.samples.filter(([wall]) => wall - raw.timeOrigin >= settled);
  return {
    size: raw.size,
    firstFrameMs: raw.firstFrameAt === null ? null : Math.max(0, Math.round(raw.firstFrameAt - since)),
    frames: { presented: raw.presented, callbacks: raw.callbacks, skipped: raw.skipped, unread: later(raw.unread).length, unreadable: raw.unreadable, looks: raw.looks, dropped: raw.dropped },
    stamps: summariseStamps(samples, options),
    lipSyncMs: summariseLipSync(later(raw.flashes), later(raw.beeps)),
    audio: { seconds: raw.rms.length, rms: percentile(raw.rms.map((x) => x * 1e5), 0.5) / 1e5, loudest: Math.max(0, ...raw.rms) },
    ...(raw.error ? { readerError: raw.error } : {}),
  };
}
