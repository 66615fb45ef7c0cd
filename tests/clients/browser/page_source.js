//! In the page: a camera and a microphone that a receiver can measure. Each frame carries the wall clock as a stamp
//! (layout: stamp.py), and the first 100 ms of each second carry a white square and a 1 kHz beep.
(() => {
  function drawStrip(ctx, width, height, value) {
    const bits = [1, 0];
    for (let i = 23; i >= 0; i--) bits.push((value >> i) & 1);
    let nibbles = 0;
    for (let rest = value; rest; rest >>= 4) nibbles += rest & 15;
    for (let i = 3; i >= 0; i--) bits.push((nibbles >> i) & 1);
    bits.push(0, 1);
    bits.forEach((bit, i) => {
      ctx.fillStyle = bit ? '#fff' : '#000';
      ctx.fillRect((i * width) / 32, 0, width / 32 + 1, height / 18);
    });
  }

  function picture(width, height, fps) {
    const canvas = document.createElement('canvas');
    canvas.width = width;
    canvas.height = height;
    const ctx = canvas.getContext('2d', { alpha: false });
    let n = 0;
    const draw = () => {
      const now = performance.timeOrigin + performance.now();
      n++;
      ctx.fillStyle = '#456';
      ctx.fillRect(0, 0, width, height);
      for (let i = 0; i < 24; i++) {
        ctx.fillStyle = `hsl(${(i * 15 + n) % 360} 70% 50%)`;
        ctx.fillRect((i * 53 + n * 4) % width, height * 0.3 + ((i * 37) % (height * 0.6)), width / 20, height / 12);
      }
      drawStrip(ctx, width, height, Math.floor(now) % 2 ** 24);
      ctx.fillStyle = now % 1000 < 100 ? '#fff' : '#000';
      ctx.fillRect((width * 3) / 8, (height * 3) / 8, width / 4, height / 4);
    };
    draw();
    setInterval(draw, 1000 / fps);
    return canvas.captureStream(fps).getVideoTracks()[0];
  }

  function beeps() {
    const context = new AudioContext({ sampleRate: 48000 });
    const tone = new OscillatorNode(context, { frequency: 1000 });
    const gain = new GainNode(context, { gain: 0 });
    const out = new MediaStreamAudioDestinationNode(context);
    tone.connect(gain).connect(out);
    tone.start();
    let last = 0;
    setInterval(() => {
      const wall = performance.timeOrigin + performance.now();
      const at = context.currentTime + (1000 - (wall % 1000)) / 1000;
      if (at < last + 0.5) return;
      last = at;
      gain.gain.setValueAtTime(0.7, at);
      gain.gain.setValueAtTime(0, at + 0.1);
    }, 200);
    return out.stream.getAudioTracks()[0];
  }

  window.patchbaySource = ({ width, height, fps, audio, video }) =>
    new MediaStream([...(video ? [picture(width, height, fps)] : []), ...(audio ? [beeps()] : [])]);
})();
