// The test pattern: a picture that shows at a glance whether frames, colours, time and sound come through.
// Refuses: connections. It gives a MediaStream and is told when to stop.
//
// Picture: colour bars that drift (a freeze is visible), the wall clock to the millisecond, a frame counter, a white
// box that flashes for 100 ms each second while the beep sounds (lip-sync by eye), and along the top a strip that a
// program can read: 32 cells, white black, 24 bits of wall-clock milliseconds, 4 bits of checksum, black white.

const BARS = ["#c0c0c0", "#c0c000", "#00c0c0", "#00c000", "#c000c0", "#c00000", "#0000c0"];
const BEEP_S = 0.1;
const BEEP_HZ = 1000;

function drawStrip(ctx, width, height, value) {
  let nibbles = 0;
  for (let i = 0; i < 6; i += 1) nibbles += (value >> (4 * i)) & 15;
  const bits = (number, count) => Array.from({ length: count }, (_, i) => (number >> (count - 1 - i)) & 1);
  const cells = [1, 0, ...bits(value, 24), ...bits(nibbles & 15, 4), 0, 1];
  const cell = width / 32;
  ctx.fillStyle = "#000";
  ctx.fillRect(0, 0, width, height / 18);
  ctx.fillStyle = "#fff";
  cells.forEach((on, i) => { if (on) ctx.fillRect(i * cell, 0, cell, height / 18); });
}

function draw(ctx, frame, wallMs) {
  const { width, height } = ctx.canvas;
  const bar = width / BARS.length;
  // One bar's width in four seconds: slow enough to encode cheaply, quick enough to see.
  const shift = (wallMs / 4000 * bar) % width;
  for (let i = -BARS.length; i < BARS.length; i += 1) {
    ctx.fillStyle = BARS[(i + BARS.length) % BARS.length];
    ctx.fillRect(Math.floor(i * bar + shift), 0, Math.ceil(bar) + 1, height);
  }
  ctx.fillStyle = "#101418";
  ctx.fillRect(width * 0.14, height * 0.3, width * 0.72, height * 0.5);
  ctx.fillStyle = "#fff";
  ctx.textAlign = "center";
  ctx.font = `600 ${Math.round(height / 8)}px monospace`;
  ctx.fillText(new Date(wallMs).toISOString().slice(11, 23), width / 2, height * 0.47);
  ctx.font = `${Math.round(height / 16)}px monospace`;
  ctx.fillText(`frame ${frame}  ${width}×${height}`, width / 2, height * 0.57);
  const flash = wallMs % 1000 < BEEP_S * 1000;
  ctx.fillStyle = flash ? "#fff" : "#333";
  ctx.fillRect(width * 0.44, height * 0.62, width * 0.12, height * 0.12);
  // A hand that goes round once a second: uneven frame times show as uneven steps.
  const angle = (wallMs % 1000) / 1000 * 2 * Math.PI - Math.PI / 2;
  for (const side of [0.27, 0.73]) {
    ctx.strokeStyle = "#4da3ff";
    ctx.lineWidth = height / 90;
    ctx.beginPath();
    ctx.arc(width * side, height * 0.68, height / 14, 0, 2 * Math.PI);
    ctx.moveTo(width * side, height * 0.68);
    ctx.lineTo(width * side + Math.cos(angle) * height / 14, height * 0.68 + Math.sin(angle) * height / 14);
    ctx.stroke();
  }
  drawStrip(ctx, width, height, wallMs % 0x1000000);
}

// Beeps are put on the audio clock seconds ahead, so that a late timer delays a picture but never a beep.
function beeper(audio) {
  const tone = new OscillatorNode(audio, { frequency: BEEP_HZ });
  const gain = new GainNode(audio, { gain: 0 });
  const out = new MediaStreamAudioDestinationNode(audio, { channelCount: 2 });
  tone.connect(gain).connect(out);
  tone.start();
  let planned = 0;
  return {
    track: out.stream.getAudioTracks()[0],
    plan(wallMs) {
      if (audio.state !== "running") return;
      for (let second = Math.max(planned + 1, Math.ceil(wallMs / 1000)); second * 1000 < wallMs + 3000; second += 1) {
        const at = audio.currentTime + (second * 1000 - wallMs) / 1000;
        gain.gain.setValueAtTime(0.5, at);
        gain.gain.setValueAtTime(0, at + BEEP_S);
        planned = second;
      }
    },
  };
}

/** Starts the pattern. Gives `{ stream, audio, stop() }`; `audio.state` is "suspended" until the browser allows sound. */
export function startPattern({ width, height, fps }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const ctx = canvas.getContext("2d", { alpha: false });
  const audio = new AudioContext({ sampleRate: 48_000 });
  const beep = beeper(audio);
  const resume = () => audio.resume();
  addEventListener("pointerdown", resume);
  addEventListener("keydown", resume);

  let frame = 0;
  let due = performance.now();
  let timer = 0;
  // A timer and not requestAnimationFrame: the frame rate must not be the display's.
  const tick = () => {
    const wallMs = Date.now();
    draw(ctx, frame, wallMs);
    beep.plan(wallMs);
    frame += 1;
    const now = performance.now();
    due = Math.max(due + 1000 / fps, now - 100);
    timer = setTimeout(tick, Math.max(0, due - now));
  };
  tick();

  // No rate is given: the browser then takes every drawn frame, where a rate would beat against the timer.
  const stream = new MediaStream([...canvas.captureStream().getVideoTracks(), beep.track]);
  const stop = () => {
    clearTimeout(timer);
    removeEventListener("pointerdown", resume);
    removeEventListener("keydown", resume);
    for (const track of stream.getTracks()) track.stop();
    audio.close();
  };
  return { stream, audio, stop };
}
