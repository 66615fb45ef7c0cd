#!/usr/bin/env python3
"""FFmpeg 8 (in PyAV) as publisher over enhanced RTMP: codecs that legacy FLV has no number for, and several tracks.

  enhanced_rtmp.py FILE URL [--video hevc|av1|vp9|h264] [--audio aac|opus|flac|ac3] [--seconds 30] [--tracks 1]
Encodes FILE anew, in real time, and publishes it; with --tracks 2 the same picture, upside down, is a second video track.
Prints one JSON object when it is done and exits 1 when it failed. Run it with the project's .venv.
"""
import argparse
import json
import sys
import time

import av

VIDEO = {
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=2:keyint=30:min-keyint=30:scenecut=0:pools=1"}),
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:keyint=30:lp=1:rc=2"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "g": "30"}),
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "g": "30"}),
}
AUDIO = {"aac": ("aac", 44100), "opus": ("libopus", 48000), "flac": ("flac", 44100), "ac3": ("ac3", 44100)}


class Publisher:
    def __init__(self, args):
        self.args, self.start = args, None
        self.out = av.open(args.url, "w", format="flv", options={"flvflags": "no_duration_filesize"})
        encoder, options = VIDEO[args.video]
        self.video = [self.out.add_stream(encoder, rate=args.fps, options=options) for _ in range(args.tracks)]
        for stream in self.video:
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = args.width, args.height, "yuv420p", 800_000
        encoder, rate = AUDIO[args.audio]
        self.audio = self.out.add_stream(encoder, rate=rate, layout="stereo")
        self.audio.codec_context.open()
        context = self.audio.codec_context
        self.resampler = av.AudioResampler(context.format, "stereo", rate, frame_size=context.frame_size)

    def send(self, packets):
        for packet in packets:
            if packet.dts is not None:
                at = float(packet.dts * packet.time_base)
                self.start = self.start or time.time() - at
                time.sleep(max(0.0, self.start + at - time.time()))
            self.out.mux(packet)

    def picture(self, frame):
        frame.pict_type = av.video.frame.PictureType.NONE
        self.send(self.video[0].encode(frame))
        if len(self.video) > 1:
            upside_down = av.VideoFrame.from_ndarray(frame.to_ndarray()[::-1].copy(), "yuv420p")
            upside_down.pts, upside_down.time_base = frame.pts, frame.time_base
            for stream in self.video[1:]:
                self.send(stream.encode(upside_down))

    def run(self):
        pictures = 0
        with av.open(self.args.file) as source:
            for frame in source.decode():
                if frame.time > self.args.seconds:
                    break
                if isinstance(frame, av.VideoFrame):
                    pictures += 1
                    self.picture(frame)
                else:
                    for piece in self.resampler.resample(frame):
                        self.send(self.audio.encode(piece))
        self.out.close()
        return pictures


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file")
    p.add_argument("url")
    p.add_argument("--video", choices=VIDEO, default="hevc")
    p.add_argument("--audio", choices=AUDIO, default="aac")
    p.add_argument("--seconds", type=float, default=30)
    p.add_argument("--tracks", type=int, default=1, help="of video")
    p.add_argument("--width", type=int, default=640)
    p.add_argument("--height", type=int, default=360)
    p.add_argument("--fps", type=int, default=30)
    args = p.parse_args()
    out = {"ok": False}
    try:
        out.update(ok=True, pictures=Publisher(args).run())
    except Exception as error:
        out["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(out))
    return 0 if out["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
