#!/usr/bin/env python3
"""A stamp in the picture that survives scaling and low bit rates: written by ffmpeg alone, read with numpy.

A strip along the top, 1/18 of the height, is cut into 32 equal cells: cell 0 white, 1 black, 2 to 25 a 24-bit value
(most significant first), 26 to 29 a checksum (sum of the value's six nibbles modulo 16), 30 black, 31 white.
The value is the frame number ("n") or the wall clock in milliseconds modulo 2^24 ("wall"): the receiver's clock minus
the stamp is then the glass-to-glass latency on one machine. The first 100 ms of each second also carry a white square
in the middle, and a 1 kHz beep in the sound.

  stamp.py filter n|wall [FPS]       an ffmpeg -vf value: the strip and the flashing square
  stamp.py beep [RATE]               an ffmpeg lavfi audio source: the beeps
  stamp.py read URL [--kind n|wall] [--fps 30] [--seconds 10] [-- FFMPEG INPUT OPTIONS]
        plays a file or a live URL with ffmpeg, for so long or until SIGUSR2 comes, and prints one JSON object; exits 1
        when no stamp could be read
"""
import argparse
import json
import signal
import subprocess
import sys
import threading
import time

CELLS, BITS, MODULUS = 32, 24, 1 << 24


def picture_filter(kind, fps=30):
    """The strip as drawbox filters: no per-pixel expression, so it costs next to nothing."""
    if kind == "wall":
        # The pts becomes the wall clock in microseconds, so that drawbox's t is wall-clock seconds; then it is put back.
        before, value, after = "settb=1/1000000,setpts=RTCTIME/(TB*1000000),", f"mod(floor(t*1000),{MODULUS})", f",setpts=N/({fps}*TB)"
    else:
        before, value, after = "", "n", ""
    box = lambda cell: f"drawbox=x={cell}*iw/{CELLS}:y=0:w=iw/{CELLS}:h=ih/18:color=white:t=fill"
    bit = lambda expr, k: f":enable='gte(mod(floor(({expr})/{1 << k}),2),1)'"
    nibbles = "+".join(f"mod(floor(({value})/{16 ** j}),16)" for j in range(6))
    filters = ["drawbox=x=0:y=0:w=iw:h=ih/18:color=black:t=fill", box(0), box(31)]
    filters += [box(2 + i) + bit(value, BITS - 1 - i) for i in range(BITS)]
    filters += [box(26 + i) + bit(f"mod({nibbles},16)", 3 - i) for i in range(4)]
    square = "drawbox=x=iw*3/8:y=ih*3/8:w=iw/4:h=ih/4:t=fill"
    # After the stamps the pts is stream time again, so the square flashes with the beeps of beep_source.
    flash = f"{square}:color=black,{square}:color=white:enable='lt(mod(t+0.0005,1),0.1)'"
    return before + ",".join(filters) + after + "," + flash


def beep_source(rate=48000):
    return f"aevalsrc='if(lt(mod(t,1),0.1),0.7*sin(2*PI*1000*t),0)':s={rate}:c=mono"


def write_strip(luma, value):
    """Draws the strip into a numpy luma plane (height, width)."""
    height, width = luma.shape
    bits = [1, 0] + [(value >> (BITS - 1 - i)) & 1 for i in range(BITS)]
    bits += [(checksum(value) >> (3 - i)) & 1 for i in range(4)] + [0, 1]
    for i, bit in enumerate(bits):
        luma[0 : height // 18, i * width // CELLS : (i + 1) * width // CELLS] = 235 if bit else 16


def checksum(value):
    return sum((value >> (4 * j)) & 15 for j in range(6)) & 15


def read_strip(luma):
    """The stamp in a numpy luma plane, or None."""
    height, width = luma.shape
    y = max(1, round(height / 36))
    row = luma[y - 1 : y + 1].mean(axis=0)
    cell = width / CELLS
    mean = [row[int(cell * (i + 0.3)) : max(int(cell * (i + 0.3)) + 1, int(cell * (i + 0.7)))].mean() for i in range(CELLS)]
    low, high = (mean[1] + mean[30]) / 2, (mean[0] + mean[31]) / 2
    if high - low < 60:
        return None
    bits = [int(m > (low + high) / 2) for m in mean]
    value = int("".join(map(str, bits[2:26])), 2)
    return value if checksum(value) == int("".join(map(str, bits[26:30])), 2) else None


def is_lit(luma):
    height, width = luma.shape
    return float(luma[height * 42 // 100 : height * 58 // 100, width * 42 // 100 : width * 58 // 100].mean()) > 128


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p))] if values else None


def summarise(samples, kind, fps):
    """[(wall clock ms, stamp)] to figures. Same rules and names as summariseStamps in browser/summary.mjs."""
    step = 1 if kind == "n" else 1000 / fps
    runs, repeated, out_of_order, gap = [], 0, 0, 0.0
    for _, stamp in samples:
        if not runs or runs[-1]["last"] - stamp > 2 * fps * step:
            runs.append({"first": stamp, "last": stamp, "seen": {stamp}})
            continue
        run = runs[-1]
        if stamp in run["seen"]:
            repeated += 1
        elif stamp < run["last"]:
            out_of_order += 1
        else:
            gap = max(gap, (stamp - run["last"]) / step - 1)
        run["seen"].add(stamp)
        run["last"] = max(run["last"], stamp)
    wait, after = max(((round(b[0] - a[0]), a[1]) for a, b in zip(samples, samples[1:])), default=(0, None))
    distinct = sum(len(r["seen"]) for r in runs)
    expected = sum(round((r["last"] - r["first"]) / step) + 1 for r in runs)
    out = {
        "read": len(samples),
        "distinct": distinct,
        "expected": expected,
        "shownPct": round(100 * distinct / expected, 2) if expected else None,
        "repeated": repeated,
        "outOfOrder": out_of_order,
        "longestGapFrames": round(gap),
        "longestGapMs": wait,
        "longestGapAfter": after,
        "runs": len(runs),
        "first": runs[0]["first"] if runs else None,
        "last": runs[-1]["last"] if runs else None,
    }
    if kind == "wall":
        late = [(int(wall) - stamp) % MODULUS for wall, stamp in samples]
        out["latencyMs"] = {"p50": percentile(late, 0.5), "p95": percentile(late, 0.95), "max": percentile(late, 1)}
    return out


def frames(url, seconds, options, width=640, height=360):
    """Decoded luma planes as they arrive. ffmpeg is ended after `seconds` of picture, or when none comes at all."""
    import numpy as np

    command = ["ffmpeg", "-nostdin", "-v", "error", *options, "-i", url, "-map", "0:v:0", "-vf", f"scale={width}:{height}"]
    player = subprocess.Popen([*command, "-pix_fmt", "gray", "-fps_mode", "passthrough", "-f", "rawvideo", "-"], stdout=subprocess.PIPE)
    # A player without a publisher waits for ever, and ffmpeg may survive one SIGTERM.
    killer = threading.Timer(seconds + 15, player.kill)
    killer.start()
    signal.signal(signal.SIGUSR2, lambda *_: player.kill())
    end = None
    try:
        while len(data := player.stdout.read(width * height)) == width * height:
            now = time.time()
            end = end or now + seconds
            if now > end:
                break
            yield now, np.frombuffer(data, np.uint8).reshape(height, width)
    finally:
        killer.cancel()
        player.kill()
        player.wait()


def read(args):
    started, first, samples, unreadable, total = time.time(), None, [], 0, 0
    low_delay = ["-fflags", "nobuffer", "-flags", "low_delay", "-probesize", "200000", "-analyzeduration", "500000"]
    options = args.options or (low_delay if "://" in args.url else [])
    for now, luma in frames(args.url, args.seconds, options):
        first, total = first or now, total + 1
        stamp = read_strip(luma)
        if stamp is None:
            unreadable += 1
        else:
            samples.append((now * 1000, stamp))
    out = {"ok": bool(samples), "frames": total, "unreadable": unreadable, "firstFrameMs": first and round((first - started) * 1000)}
    print(json.dumps({**out, "stamps": summarise(samples, args.kind, args.fps)}))
    return 0 if samples else 1


def main():
    argv, options = sys.argv[1:], []
    if "--" in argv:
        argv, options = argv[: argv.index("--")], argv[argv.index("--") + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("filter")
    p.add_argument("kind", choices=["n", "wall"])
    p.add_argument("fps", type=int, nargs="?", default=30)
    p = commands.add_parser("beep")
    p.add_argument("rate", type=int, nargs="?", default=48000)
    p = commands.add_parser("read")
    p.add_argument("url")
    p.add_argument("--kind", choices=["n", "wall"], default="n")
    p.add_argument("--fps", type=float, default=30)
    p.add_argument("--seconds", type=float, default=10)
    args = parser.parse_args(argv)
    if args.command == "filter":
        print(picture_filter(args.kind, args.fps))
    elif args.command == "beep":
        print(beep_source(args.rate))
    else:
        args.options = options
        return read(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
