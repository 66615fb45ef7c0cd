#!/usr/bin/env bash
# A live source to measure: wall-clock stamps (stamp.py), a flash and a beep in the first 100 ms of each second.
#   live_source.sh SECONDS WxH KBPS FFMPEG-OUTPUT...
#   live_source.sh 20 1280x720 1500 -f flv rtmp://127.0.0.1:1935/live/a
# Environment: FPS (30); VENC and AENC replace the encoders (H.264 Baseline without B-frames, GOP 1 s; AAC 44.1 kHz stereo).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 4 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
seconds=$1 size=$2 kbps=$3
shift 3
fps=${FPS:-30}
venc=${VENC:--c:v libx264 -preset ultrafast -tune zerolatency -profile:v baseline -g $fps -bf 0 -b:v ${kbps}k -maxrate ${kbps}k -bufsize ${kbps}k}
aenc=${AENC:--c:a aac -b:a 96k -ar 44100 -ac 2}
# Both inputs are paced by -re and start together, so flash and beep agree: both are in stream time.
# shellcheck disable=SC2086
exec timeout -k 2 $((seconds + 10)) ffmpeg -nostdin -v "${LOGLEVEL:-error}" -y \
  -re -f lavfi -i "testsrc2=s=$size:r=$fps" -re -f lavfi -i "$(python3 "$here/stamp.py" beep 44100)" -t "$seconds" \
  -vf "$(python3 "$here/stamp.py" filter wall "$fps")" -fps_mode passthrough -pix_fmt yuv420p $venc $aenc "$@"
