//! In the page: watches a media element as a viewer would. Records the stamp of every presented frame (layout:
//! stamp.py), the flashes, and the beeps of its sound. Sends nothing, judges nothing: summary.mjs does.
(() => {
  const CELLS = 32;
  const VALUE_BITS = 24;
  const FRAMES_IN_FLIGHT = 8; // a copy that takes longer than this many frames means an overloaded machine: skip, count
  const BEEP_LEVEL = 0.08;

  const worklet = `
    class Listener extends AudioWorkletProcessor {
      constructor() { super(); this.quiet = 0; this.energy = 0; this.count = 0; }
      process(inputs) {
        const samples = inputs[0][0];
        if (!samples) return true;
        let loud = -1;
        for (let i = 0; i < samples.length; i++) {
          this.energy += samples[i] * samples[i];
          if (loud < 0 && Math.abs(samples[i]) > ${BEEP_LEVEL}) loud = i;
        }
        this.count += samples.length;
        if (loud < 0) this.quiet += samples.length;
        else {
          if (this.quiet > sampleRate / 20) this.port.postMessage({ beep: currentTime + loud / sampleRate });
          this.quiet = 0;
        }
        if (this.count >= sampleRate) {
          this.port.postMessage({ rms: Math.sqrt(this.energy / this.count) });
          this.energy = this.count = 0;
        }
        return true;
      }
    }
    registerProcessor('listener', Listener);`;

  /** Row of luma bytes → stamp, or null when the strip is not there or its checksum is wrong. */
  function decodeStrip(row) {
    const cell = row.length / CELLS;
    const mean = [];
    for (let i = 0; i < CELLS; i++) {
      const from = Math.floor(cell * (i + 0.3));
      const to = Math.max(from + 1, Math.floor(cell * (i + 0.7)));
      let sum = 0;
      for (let x = from; x < to; x++) sum += row[x];
      mean.push(sum / (to - from));
    }
    const low = (mean[1] + mean[30]) / 2;
    const high = (mean[0] + mean[31]) / 2;
    if (high - low < 60) return null;
    const bit = (i) => (mean[i] > (low + high) / 2 ? 1 : 0);
    let value = 0;
    for (let i = 0; i < VALUE_BITS; i++) value = value * 2 + bit(2 + i);
    let sum = 0;
    for (let i = 26; i < 30; i++) sum = sum * 2 + bit(i);
    let nibbles = 0;
    for (let rest = value; rest; rest >>= 4) nibbles += rest & 15;
    return (nibbles & 15) === sum ? value : null;
  }

  window.patchbayStrip = decodeStrip; // page_jsmpeg.js reads the same strip off a canvas

  const even = (x) => Math.floor(x) & ~1;

  class Watch {
    constructor(video) {
      this.video = video;
      this.samples = []; // [wall clock ms, stamp] of each readable frame
      this.unreadable = 0;
      this.skipped = 0;
      this.unread = []; // performance.now() of each frame that was presented and not read: this script was too slow
      this.presented = 0; // frames the compositor was given, from the callback's metadata
      this.callbacks = 0;
      this.flashes = []; // performance.now() milliseconds
      this.beeps = [];
      this.rms = []; // of each second of sound
      this.looks = new Set();
      this.lit = false;
      this.inFlight = 0;
      this.order = Promise.resolve();
      this.firstFrameAt = null;
      this.size = null;
    }

    start() {
      const onFrame = (_, meta) => {
        const now = performance.now();
        this.firstFrameAt ??= now;
        this.callbacks++;
        this.firstPresented ??= meta.presentedFrames;
        const presented = meta.presentedFrames - this.firstPresented + 1;
        for (let missed = presented - this.presented - 1; missed > 0; missed--) this.unread.push(now);
        this.presented = presented;
        this.size = meta.width + 'x' + meta.height;
        this.video.requestVideoFrameCallback(onFrame);
        const frame = this.grab();
        if (!frame) {
          this.unread.push(now);
          return void this.skipped++;
        }
        this.inFlight++;
        this.order = this.order.then(() => this.read(frame, performance.timeOrigin + now, meta.expectedDisplayTime));
      };
      this.video.requestVideoFrameCallback(onFrame);
    }

    /** The frame on screen, or null: too many are being read, or the element has not yet got data for its first one. */
    grab() {
      if (this.inFlight >= FRAMES_IN_FLIGHT || this.video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return null;
      return new VideoFrame(this.video);
    }

    async read(frame, wall, shownAt) {
      try {
        const { x, y, width, height } = frame.visibleRect;
        // Two rows of the strip and a small square of the middle, out of the Y plane: no conversion, no whole copy.
        const strip = await this.luma(frame, { x, y: even(y + height / 36), width: even(width), height: 2 });
        const middle = await this.luma(frame, { x: even(x + width / 2), y: even(y + height / 2), width: 8, height: 2 });
        const stamp = decodeStrip(strip);
        if (stamp === null) this.unreadable++;
        else this.samples.push([wall, stamp]);
        const light = middle.reduce((a, b) => a + b, 0) / middle.length;
        const lit = light > 128;
        if (lit && !this.lit) this.flashes.push(shownAt);
        this.lit = lit;
        if (this.callbacks % 10 === 0 && this.looks.size < 1000) this.looks.add(strip.join() + middle.join());
      } catch (error) {
        this.unreadable++;
        this.error ??= String(error);
      } finally {
        frame.close();
        this.inFlight--;
      }
    }

    /** One row of brightness: the Y plane where the frame has one, else the green channel. */
    async luma(frame, rect) {
      const bytes = new Uint8Array(frame.allocationSize({ rect }));
      const [plane] = await frame.copyTo(bytes, { rect });
      const row = bytes.subarray(plane.offset);
      if (/^(I4|NV)/.test(frame.format)) return row.slice(0, rect.width);
      return Uint8Array.from({ length: rect.width }, (_, i) => row[i * 4 + 1]);
    }

    /** Listens to `node(context)`: an AudioNode that carries the sound. */
    async listen(node) {
      const context = (this.context = new AudioContext({ sampleRate: 48000 }));
      await context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: 'text/javascript' })));
      const listener = new AudioWorkletNode(context, 'listener');
      const mute = new GainNode(context, { gain: 0 });
      node(context).connect(listener).connect(mute).connect(context.destination);
      listener.port.onmessage = ({ data }) => {
        if (data.rms !== undefined) return this.rms.push(+data.rms.toFixed(5));
        const clock = context.getOutputTimestamp();
        this.beeps.push(clock.performanceTime + (data.beep - clock.contextTime) * 1000);
      };
    }

    /** Like `listen`, levels only, twice a second: on a page whose policy allows no scripts but its own, so no worklet. */
    meter(analyser) {
      this.analyser = analyser;
      analyser.fftSize = 32768;
      const samples = new Float32Array(analyser.fftSize);
      setInterval(() => {
        analyser.getFloatTimeDomainData(samples);
        const energy = samples.reduce((sum, x) => sum + x * x, 0);
        this.rms.push(+Math.sqrt(energy / samples.length).toFixed(5));
      }, 500);
    }

    async result() {
      await this.order;
      const quality = this.video.getVideoPlaybackQuality();
      return {
        samples: this.samples,
        unreadable: this.unreadable,
        skipped: this.skipped,
        unread: this.unread,
        callbacks: this.callbacks,
        presented: this.presented,
        looks: this.looks.size,
        flashes: this.flashes,
        beeps: this.beeps,
        rms: this.rms,
        size: this.size,
        error: this.error,
        firstFrameAt: this.firstFrameAt,
        timeOrigin: performance.timeOrigin,
        currentTime: this.video.currentTime,
        dropped: quality.droppedVideoFrames,
        total: quality.totalVideoFrames,
      };
    }
  }

  window.patchbayWatch = (video) => {
    const watch = new Watch(video);
    watch.start();
    return watch;
  };
})();
