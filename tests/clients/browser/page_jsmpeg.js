//! In the page: plays a WebSocket with stock jsmpeg and records the stamp of every decoded picture and the level of
//! its sound. Judges nothing: summary.mjs does.
(() => {
  const canvas = document.querySelector('canvas');
  const copy = document.createElement('canvas');
  const context = copy.getContext('2d', { willReadFrequently: true });
  const seen = (window.patchbaySeen = {
    samples: [], unreadable: 0, pictures: 0, sizes: [], openAt: null, firstAt: null, sound: 0, energy: 0, rate: null, sockets: 0, wasm: null,
  });

  const Native = window.WebSocket;
  window.WebSocket = class extends Native {
    constructor(...args) {
      super(...args);
      seen.sockets++;
      this.addEventListener('open', () => (seen.openAt ??= performance.now()));
    }
  };

  /** One row of luma through the middle of the stamp strip (the top 1/18 of the picture). */
  function stripRow(width, height) {
    const { data } = context.getImageData(0, Math.floor(height / 36), width, 1);
    return Uint8Array.from({ length: width }, (_, x) => data[4 * x + 1]);
  }

  function onVideoDecode() {
    seen.pictures++;
    seen.firstAt ??= performance.now();
    const width = (copy.width = canvas.width);
    const height = (copy.height = canvas.height);
    const size = `${width}x${height}`;
    if (!seen.sizes.includes(size)) seen.sizes.push(size);
    context.drawImage(canvas, 0, 0);
    const stamp = window.patchbayStrip(stripRow(width, height));
    if (stamp === null) seen.unreadable++;
    else seen.samples.push([performance.timeOrigin + performance.now(), stamp]);
  }

  /** `options`: more for the player. */
  window.patchbayJsmpeg = (url, options) => {
    const ours = { canvas, disableGl: true, preserveDrawingBuffer: true, pauseWhenHidden: false, videoBufferSize: 512 * 1024, audioBufferSize: 128 * 1024 };
    const player = new JSMpeg.Player(url, { ...ours, ...options, onVideoDecode });
    const out = player.audioOut;
    const play = out.play.bind(out);
    out.play = (rate, left, right) => {
      seen.wasm = !!player.video.instance;
      seen.rate = rate;
      seen.sound += left.length;
      for (const sample of left) seen.energy += sample * sample;
      play(rate, left, right);
    };
  };
})();
