#!/usr/bin/env bash
# Installs what patchbay needs on Debian 12 beyond Rust. Does nothing, quickly, when all of it is there.
#
#   scripts/setup.sh build   compiler, CMake, libclang and the FFmpeg headers
#   scripts/setup.sh run     the same: a source build links the libraries that the headers came with
#   scripts/setup.sh test    the real peers of the end-to-end tests, a Python environment (.venv), node modules
#
# Asks for root only when a package is missing: as root it installs, otherwise through sudo, and without sudo it
# prints the command. Starts no service, writes outside this folder only through apt.
set -euo pipefail
cd "$(dirname "$0")/.."

# Why each is here: ffmpeg-sys generates bindings (clang, libclang) against the -dev packages and asks pkg-config for
# them; opus and aws-lc build with cmake; fdk-aac builds C++.
build_packages=(ca-certificates make gcc g++ libc6-dev cmake pkg-config clang libclang-dev
  libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libswresample-dev)

# nginx carries the RTMP module (a CDN origin to push to); rtmpdump is librtmp; gstreamer1.0-nice and the gir package
# make webrtcbin usable from Python; iproute2 gives network namespaces; procps and util-linux are assumed by test scripts.
test_packages=(ffmpeg chromium nginx libnginx-mod-rtmp rtmpdump
  gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-libav gstreamer1.0-nice gir1.2-gst-plugins-bad-1.0 python3-gi
  python3 python3-venv iproute2 procps)

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@"; else sudo env DEBIAN_FRONTEND=noninteractive "$@"; fi
}

missing_of() { # those of the arguments that are not installed
  # dpkg-query fails when it knows nothing of one of them; that one is then simply not in its list.
  { dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^installed //p' | sort -u > "$have"
  printf '%s\n' "$@" | sort -u | comm -23 - "$have"
}

policy=/usr/sbin/policy-rc.d
install_packages() {
  local want
  mapfile -t want < <(missing_of "$@")
  [ ${#want[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    die "packages are missing and there is neither root nor sudo; run: apt-get install --no-install-recommends ${want[*]}"
  fi
  say "installing ${want[*]}"
  # Packages such as nginx start their service when installed, on port 80 of every address. Not here.
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod +x $policy
    trap 'as_root rm -f $policy; rm -f "$have" "$log"' EXIT
  fi
  local apt=(apt-get -q -y -o DPkg::Lock::Timeout=900 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
  as_root "${apt[@]}" update >/dev/null
  as_root "${apt[@]}" install --no-install-recommends "${want[@]}" >"$log" 2>&1 || { tail -n 30 "$log" >&2; die "apt-get install failed"; }
}

# A folder is current when its stamp holds the hash of what it was made from.
hash_of() { cat "$@" | sha256sum | cut -d' ' -f1; }
current() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }

python_environment() {
  local want
  want=$( { /usr/bin/python3 --version; pwd; cat tests/clients/requirements.txt; } | sha256sum | cut -d' ' -f1)
  if current .venv/patchbay.stamp "$want" && [ -x .venv/bin/python ]; then return 0; fi
  say "Python environment .venv"
  rm -rf .venv
  # Debian's own Python, so that the environment does not change with whatever python3 comes first in PATH.
  /usr/bin/python3 -m venv .venv
  .venv/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: -r tests/clients/requirements.txt
  printf '%s\n' "$want" > .venv/patchbay.stamp
}

node_modules() {
  local want dir=tests/clients
  want=$(hash_of $dir/package-lock.json)
  if current $dir/node_modules/patchbay.stamp "$want"; then return 0; fi
  say "node modules in $dir"
  (cd $dir && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
  printf '%s\n' "$want" > $dir/node_modules/patchbay.stamp
}

setup_build() {
  install_packages "${build_packages[@]}"
  command -v cargo >/dev/null || die "cargo is missing: install Rust (rustup, stable, $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer) and run this again"
}

setup_test() {
  local packages=("${test_packages[@]}")
  # A node from elsewhere is used as it is; Debian's (18) is enough.
  command -v node >/dev/null || packages+=(nodejs)
  command -v npm >/dev/null || packages+=(npm)
  install_packages "${packages[@]}"
  [ "$(node -p 'Number(process.versions.node.split(".")[0])')" -ge 18 ] || die "node 18 or newer is needed, found $(node --version)"
  python_environment
  node_modules
}

command -v dpkg-query >/dev/null || die "this script knows Debian 12 only; what it would install is listed at its top"
have=$(mktemp); log=$(mktemp)
trap 'rm -f "$have" "$log"' EXIT
[ $# -gt 0 ] || set -- build
for step in "$@"; do
  case $step in
    build | run) setup_build ;;
    test) setup_test ;;
    *) die "unknown step '$step': build, run or test" ;;
  esac
done
