#!/usr/bin/env bash
# nginx with the RTMP module as a CDN's origin. Runs in the foreground until it is killed or its time is over.
#   nginx_rtmp.sh RTMP_PORT HTTP_PORT [SECONDS [RELAY_URL]]   prints "listening" when both ports accept
# rtmp://127.0.0.1:RTMP_PORT/live/NAME         publish and play
# rtmp://127.0.0.1:RTMP_PORT/auth/NAME?key=good   publishing needs the key; another is refused
# rtmp://127.0.0.1:RTMP_PORT/push/NAME         is relayed to live/NAME
# rtmp://127.0.0.1:RTMP_PORT/relay/NAME        is relayed to NAME of the application RELAY_URL, on another server
# http://127.0.0.1:HTTP_PORT/stat              counters, as XML
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
rtmp=$1 http=$2 seconds=${3:-600} relay=${4:-rtmp://127.0.0.1:$1/live}
dir=$(mktemp -d)
mkdir "$dir/logs"
cat > "$dir/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
worker_processes 1;
daemon off;
pid nginx.pid;
error_log logs/error.log info;
$([ "$(id -u)" = 0 ] && echo 'user root;')
events { worker_connections 256; }
rtmp {
  server {
    listen 127.0.0.1:$rtmp;
    chunk_size 4096;
    notify_method get;
    application live { live on; record off; wait_video on; }
    application auth { live on; on_publish http://127.0.0.1:$http/on_publish; }
    application push { live on; push rtmp://127.0.0.1:$rtmp/live; }
    application relay { live on; push "$relay"; }
  }
}
http {
  access_log logs/access.log;
  server {
    listen 127.0.0.1:$http;
    location /stat { rtmp_stat all; }
    location = /on_publish { if (\$arg_key = "good") { return 200; } return 403; }
  }
}
CONF
nginx=$(command -v nginx || echo /usr/sbin/nginx)
# Ends with this script even where that is killed.
setpriv --pdeathsig TERM timeout -k 2 "$seconds" "$nginx" -p "$dir" -c "$dir/nginx.conf" &
pid=$!
trap 'kill $pid 2>/dev/null; wait $pid 2>/dev/null; rm -rf "$dir"' EXIT
trap 'exit 0' TERM INT
for _ in $(seq 100); do
  kill -0 $pid 2>/dev/null || { cat "$dir/logs/error.log" >&2; exit 1; }
  if (exec 3<>"/dev/tcp/127.0.0.1/$rtmp" 4<>"/dev/tcp/127.0.0.1/$http") 2>/dev/null; then echo listening; break; fi
  sleep 0.1
done
wait $pid
