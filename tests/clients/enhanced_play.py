#!/usr/bin/env python3
"""FFmpeg 8 (in PyAV) as player that says by enhanced RTMP which codecs it takes beside H.264 and AAC.

  enhanced_play.py URL [--announce hvc1,av01,vp09,Opus,fLaC] [--seconds 3]
Decodes so many seconds of the stream. Prints one JSON object: codec, count and longest step in time of what was decoded, for
video and audio, and how loud it was. Exits 1 when it failed. Run it with the project's .venv.
"""
import argparse
import json
import sys

import av
import numpy


class Heard:
    def __init__(self, stream):
        self.stream, self.count, self.step_ms, self.last, self.power, self.samples = stream, 0, 0.0, None, 0.0, 0

    def take(self, frame):
        if self.last is not None:
            self.step_ms = max(self.step_ms, (frame.time - self.last) * 1000)
        self.last = frame.time
        self.count += 1
        if isinstance(frame, av.AudioFrame):
            samples = frame.to_ndarray().astype(numpy.float64)
            scale = {"s16": 2.0**15, "s32": 2.0**31}.get(frame.format.name.rstrip("p"), 1.0)
            self.power += float(numpy.square(samples / scale).sum())
            self.samples += samples.size

    def report(self):
        out = {"codec": self.stream.codec_context.name, "frames": self.count, "longestStepMs": round(self.step_ms)}
        if self.samples:
            out["rms"] = round((self.power / self.samples) ** 0.5, 4)
        return out


def play(args):
    options = {"rw_timeout": "8000000", "analyzeduration": "1000000"}
    if args.announce:
        options["rtmp_enhanced_codecs"] = args.announce
    with av.open(args.url, options=options, timeout=15.0) as source:
        heard = {stream.type: Heard(stream) for stream in source.streams}
        begin, waited_for = None, set(heard)
        for frame in source.decode():
            begin = frame.time if begin is None else begin
            kind = "video" if isinstance(frame, av.VideoFrame) else "audio"
            if frame.time - begin <= args.seconds:
                heard[kind].take(frame)
                continue
            # One may be ahead of the other.
            waited_for.discard(kind)
            if not waited_for:
                break
        return {kind: one.report() for kind, one in heard.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("--announce", default="")
    p.add_argument("--seconds", type=float, default=3)
    args = p.parse_args()
    out = {"ok": False}
    try:
        out.update(play(args), ok=True)
    except Exception as error:
        out["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(out))
    return 0 if out["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
