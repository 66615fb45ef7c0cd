#!/usr/bin/env bash
# Fetches the two player libraries that the pages carry, as npm publishes them, into src/http/pages/vendor. They are
# never edited. After a change of version: the names in src/http/pages.rs, way-flv.js and way-h5.js follow by hand, and
# the table in docs/licences.md gets the hashes that this prints (a test compares them).
set -euo pipefail
cd "$(dirname "$0")/.."

jsmpeg=6.1.2 mpegts=1.8.2
# mpegts.js has these two inside its one file; their licences ask to be named.
es6_promise=4.2.8 events=3.3.0

vendor=$PWD/src/http/pages/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

unpack() { # NAME VERSION: the package's files in ./NAME
  mkdir -p "$1"
  tar -xzf "$(npm pack --silent "$1@$2")" -C "$1" --strip-components=1
}
unpack @cycjimmy/jsmpeg-player $jsmpeg
unpack mpegts.js $mpegts
unpack es6-promise $es6_promise
unpack events $events

rm -rf "$vendor"
mkdir -p "$vendor"
cp @cycjimmy/jsmpeg-player/dist/jsmpeg-player.umd.min.js "$vendor/jsmpeg-player-$jsmpeg.min.js"
cp @cycjimmy/jsmpeg-player/LICENSE "$vendor/jsmpeg-player.LICENSE.txt"
cp mpegts.js/dist/mpegts.js "$vendor/mpegts-$mpegts.js"
cp mpegts.js/LICENSE "$vendor/mpegts.LICENSE.txt"
cp es6-promise/LICENSE "$vendor/es6-promise.LICENSE.txt"
cp events/LICENSE "$vendor/events.LICENSE.txt"
cd "$vendor"
sha256sum -- *
