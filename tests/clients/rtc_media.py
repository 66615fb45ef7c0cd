"""Sources and sinks of the Python WebRTC client: a stamped picture with beeps, and what measures them on arrival."""
import asyncio
import fractions
import time
import wave

import numpy as np
from aiortc import MediaStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame

import stamp

BEEP_LEVEL = 2600  # of 32767: well above what a codec makes of silence


async def until(due):
    delay = due - time.time()
    if delay > 0:
        await asyncio.sleep(delay)


class StampedPicture(VideoStreamTrack):
    """Moving bars with the wall clock as a stamp and a white square in the first 100 ms of each second."""

    def __init__(self, width, height, fps):
        super().__init__()
        self.width, self.height, self.fps, self.count, self.start = width, height, fps, 0, None
        y, x = np.mgrid[0:height, 0:width]
        self.bars = ((x // 4 + y // 3) % 160 + 40).astype(np.uint8)

    async def recv(self):
        self.start = self.start or time.time()
        await until(self.start + self.count / self.fps)
        now = time.time()
        luma = np.roll(self.bars, self.count * 4, axis=1)
        stamp.write_strip(luma, int(now * 1000) % stamp.MODULUS)
        h, w = self.height, self.width
        luma[h * 3 // 8 : h * 5 // 8, w * 3 // 8 : w * 5 // 8] = 235 if now % 1 < 0.1 else 16
        frame = VideoFrame(w, h, "yuv420p")
        frame.planes[0].update(np.pad(luma, ((0, 0), (0, frame.planes[0].line_size - w))).tobytes())
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = int(self.count * 90000 / self.fps), fractions.Fraction(1, 90000)
        self.count += 1
        return frame


class Beeps(MediaStreamTrack):
    """48 kHz stereo: 100 ms of 1 kHz at the start of each second of the wall clock."""

    kind = "audio"
    SAMPLES = 960

    def __init__(self):
        super().__init__()
        self.count, self.start = 0, None

    async def recv(self):
        self.start = self.start or time.time()
        await until(self.start + self.count * self.SAMPLES / 48000)
        t = self.start + (np.arange(self.SAMPLES) + self.count * self.SAMPLES) / 48000
        pcm = (np.where(t % 1 < 0.1, 0.7 * np.sin(2 * np.pi * 1000 * t), 0) * 32767).astype(np.int16)
        frame = AudioFrame(format="s16", layout="stereo", samples=self.SAMPLES)
        frame.planes[0].update(np.repeat(pcm, 2).tobytes())
        frame.sample_rate, frame.pts, frame.time_base = 48000, self.count * self.SAMPLES, fractions.Fraction(1, 48000)
        self.count += 1
        return frame


class Meter:
    """Reads tracks to their end and keeps what was seen and heard."""

    def __init__(self, kind, fps, settle, wav=None):
        self.kind, self.fps, self.settle, self.wav_path, self.wav = kind, fps, settle, wav, None
        self.frames = self.unreadable = self.samples = 0
        self.stamps, self.flashes, self.beeps = [], [], []
        self.lit, self.quiet, self.energy = False, 1 << 30, 0.0
        self.size = self.rate = self.first_frame_at = None

    async def watch(self, track):
        while True:
            try:
                frame = await track.recv()
            except Exception:  # aiortc ends a track with an exception
                return
            now = time.time()
            self.first_frame_at = self.first_frame_at or now
            self.frames, self.size = self.frames + 1, f"{frame.width}x{frame.height}"
            # The Y plane as it is: no conversion.
            plane = frame.planes[0]
            luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
            value = stamp.read_strip(luma)
            if value is None:
                self.unreadable += 1
            else:
                self.stamps.append((now * 1000, value))
            lit = stamp.is_lit(luma)
            if lit and not self.lit:
                self.flashes.append(now)
            self.lit = lit

    async def listen(self, track):
        while True:
            try:
                frame = await track.recv()
            except Exception:
                return
            now = time.time()
            pcm, channels = frame.to_ndarray().reshape(-1).astype(np.int16), frame.layout.nb_channels
            self.rate = frame.sample_rate
            self.record(pcm, channels)
            mono = pcm[::channels].astype(float)
            level = np.abs(mono)
            self.samples, self.energy = self.samples + len(mono), self.energy + float((mono**2).sum())
            loud = np.nonzero(level > BEEP_LEVEL)[0]
            if not len(loud):
                self.quiet += len(mono)
                continue
            if self.quiet > self.rate // 20:
                self.beeps.append(now - (len(mono) - loud[0]) / self.rate)
            self.quiet = len(mono) - loud[-1]

    def record(self, pcm, channels):
        if not self.wav_path:
            return
        if not self.wav:
            self.wav = wave.open(self.wav_path, "wb")
            self.wav.setnchannels(channels)
            self.wav.setsampwidth(2)
            self.wav.setframerate(self.rate)
        self.wav.writeframes(pcm.tobytes())

    def report(self, since):
        if self.wav:
            self.wav.close()
        # A player that joins late may be given the whole group so far and hurry through it: not judged.
        settled = (self.first_frame_at or 0) + self.settle
        beeps = [b for b in self.beeps if b >= settled]
        offsets = [min((b - f for b in beeps), key=abs) * 1000 for f in self.flashes if beeps and f >= settled]
        offsets = [round(o) for o in offsets if abs(o) < 450]
        p = stamp.percentile
        return {
            "size": self.size,
            "firstFrameMs": self.first_frame_at and round((self.first_frame_at - since) * 1000),
            "frames": {"presented": self.frames, "unreadable": self.unreadable},
            "stamps": stamp.summarise([s for s in self.stamps if s[0] >= settled * 1000], self.kind, self.fps),
            "lipSyncMs": {"flashes": len(self.flashes), "beeps": len(self.beeps), "pairs": len(offsets), "p50": p(offsets, 0.5), "min": p(offsets, 0), "max": p(offsets, 1)},
            "audio": {"samples": self.samples, "rate": self.rate, "rms": round((self.energy / self.samples) ** 0.5 / 32768, 5) if self.samples else 0},
        }
