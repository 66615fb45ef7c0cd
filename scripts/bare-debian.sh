#!/usr/bin/env bash
# Proves that a bare Debian 12 with only Rust added can set up, run and test patchbay. Needs root and debootstrap.
#
#   scripts/bare-debian.sh setup        fresh root, then scripts/setup.sh build
#   scripts/bare-debian.sh demo         the same, then `make run` until the demo answers; DEMO_PROBE is then run outside
#   scripts/bare-debian.sh demo test    and then `make test`
#   scripts/bare-debian.sh test         a fresh root and `make test` alone
#   scripts/bare-debian.sh shell CMD    run CMD in the root as the last call left it
#   scripts/bare-debian.sh clean        remove everything this script made
#
# The root shares this machine's network (so the demo's ports must be free here), /proc, /sys and /dev, and nothing
# else. What counts as "Rust added": the toolchain in RUSTUP_HOME is bind-mounted read-only, the cargo binaries copied.
# The Debian mirror, the CA certificates and cargo's configuration are this machine's, read when the script runs.
#
#   BARE_DIR=/var/tmp/patchbay-bare   where the pristine root (base) and the used one (root) lie
#   BARE_KEEP=1                       go on in the root of the last call (keeps its packages and its build)
#   BARE_REV=HEAD                     what to clone
#   BARE_TIMEOUT=3600                 seconds for each step inside
#   DEMO_URL=http://127.0.0.1:8080/   what must answer
#   DEMO_PROBE='COMMAND'              run on this machine while the demo runs, e.g. the browser client on its play page
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
dir=$(realpath -m "${BARE_DIR:-/var/tmp/patchbay-bare}")
root=$dir/root
limit=${BARE_TIMEOUT:-3600}
url=${DEMO_URL:-http://127.0.0.1:8080/}

say() { printf 'bare: %s\n' "$*"; }
die() { printf 'bare: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "needs root (chroot and mounts)"

host_sources() { # this machine's Debian sources, in whichever of the two formats
  cat /etc/apt/sources.list.d/debian.sources 2>/dev/null || grep -hE '^deb .*(bookworm)' /etc/apt/sources.list 2>/dev/null || true
}

mirror() { host_sources | awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}'; }

make_base() {
  [ -e "$dir/base/.complete" ] && return
  command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"
  say "debootstrap (minbase, bookworm) into $dir/base"
  rm -rf "$dir/base"
  mkdir -p "$dir"
  # shellcheck disable=SC2046  # no mirror found means: debootstrap's own default
  debootstrap --variant=minbase bookworm "$dir/base" $(mirror) >"$dir/debootstrap.log" 2>&1 || { tail "$dir/debootstrap.log" >&2; die "debootstrap failed"; }
  touch "$dir/base/.complete"
}

end_inside() { # NAME SIGNAL: to the processes in the root of that name, or with "" to all of them
  local p
  for p in /proc/[0-9]*; do
    [ "$(readlink "$p/root" 2>/dev/null)" = "$root" ] || continue
    [ -z "$1" ] || [ "$(cat "$p/comm" 2>/dev/null)" = "$1" ] || continue
    kill -s "$2" "${p#/proc/}" 2>/dev/null || true
  done
}

unmount() {
  local m
  end_inside "" KILL # what is left of an earlier call
  for m in root/.rustup sys dev/shm dev/pts dev proc; do
    mountpoint -q "$root/$m" && umount -l "$root/$m"
  done
  return 0
}

mount_all() {
  mkdir -p "$root"/{proc,sys,dev,root/.rustup}
  mount -t proc proc "$root/proc"
  mount --rbind --make-rslave /sys "$root/sys"
  mount --bind /dev "$root/dev"
  mkdir -p "$root/dev/shm" "$root/dev/pts"
  mount --bind /dev/pts "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount --bind "${RUSTUP_HOME:-$HOME/.rustup}" "$root/root/.rustup"
  mount -o remount,bind,ro "$root/root/.rustup"
}

add_host_settings() { # the network of this machine as a program sees it, and cargo
  local cargo=${CARGO_HOME:-$HOME/.cargo} f
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  if [ -n "$(host_sources)" ]; then
    if [ -e /etc/apt/sources.list.d/debian.sources ]; then
      cp /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/" && : > "$root/etc/apt/sources.list"
    else
      host_sources > "$root/etc/apt/sources.list"
    fi
  fi
  mkdir -p "$root/usr/local/share/ca-certificates" "$root/etc/ssl" "$root/root/.cargo/bin" "$root/root/.cargo/registry"
  for f in /usr/local/share/ca-certificates/*.crt; do [ -e "$f" ] && cp "$f" "$root/usr/local/share/ca-certificates/"; done
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/host-ca.pem"
  for f in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver rustup; do
    [ -e "$cargo/bin/$f" ] && cp -a "$cargo/bin/$f" "$root/root/.cargo/bin/"
  done
  for f in config.toml config; do [ -e "$cargo/$f" ] && cp "$cargo/$f" "$root/root/.cargo/"; done
  # Crates already fetched need not be fetched again; that is the network's part, not the build's.
  for f in index cache; do [ -d "$cargo/registry/$f" ] && cp -a "$cargo/registry/$f" "$root/root/.cargo/registry/"; done
  return 0
}

inside() { # CMD in the root, with the environment of a fresh login
  local home=/root
  timeout -k 10 "$limit" chroot "$root" /usr/bin/env -i HOME=$home USER=root LANG=C.UTF-8 TERM=dumb \
    PATH=$home/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin RUSTUP_AUTO_INSTALL=0 \
    SSL_CERT_FILE=/etc/ssl/host-ca.pem CARGO_HTTP_CAINFO=/etc/ssl/host-ca.pem PIP_CERT=/etc/ssl/host-ca.pem \
    NODE_EXTRA_CA_CERTS=/etc/ssl/host-ca.pem npm_config_cafile=/etc/ssl/host-ca.pem \
    /bin/sh -c "cd $home/patchbay 2>/dev/null || cd $home; $1"
}

fresh_root() {
  make_base
  unmount
  if [ -z "${BARE_KEEP:-}" ] || [ ! -d "$root/root/patchbay" ]; then
    say "fresh root in $root"
    rm -rf --one-file-system "$root"
    cp -a --reflink=auto "$dir/base" "$root"
    add_host_settings
  fi
  mount_all
  trap unmount EXIT
  # A clone, not a copy: what is not committed must not help.
  if [ -d "$root/root/patchbay/.git" ]; then
    git -C "$root/root/patchbay" fetch -q "$repo" "${BARE_REV:-HEAD}" && git -C "$root/root/patchbay" checkout -q --detach FETCH_HEAD
  else
    git clone -q --no-hardlinks "$repo" "$root/root/patchbay"
    git -C "$root/root/patchbay" checkout -q --detach "$(git rev-parse "${BARE_REV:-HEAD}")"
  fi
  say "commit $(git -C "$root/root/patchbay" rev-parse --short HEAD), $(chroot "$root" dpkg-query -W | wc -l) packages, make: $(chroot "$root" sh -c 'command -v make || echo none')"
}

step() { local start=$SECONDS; say "$1"; inside "$2"; say "$1: ok, $((SECONDS - start)) s"; }

# Debian's base has no make; setup.sh installs it with the rest, as the README says.
step_setup() { step "scripts/setup.sh build" "scripts/setup.sh build"; }

demo() {
  local start=$SECONDS pid i log=$dir/demo.log rc=0
  curl -s -o /dev/null --max-time 2 "$url" && die "something else already answers on $url"
  say "make run"
  inside "exec make run" >"$log" 2>&1 &
  pid=$!
  for ((i = 0; i < limit; i++)); do
    kill -0 $pid 2>/dev/null || { tail -n 30 "$log" >&2; die "make run ended"; }
    curl -s -o /dev/null --max-time 2 "$url" && break
    sleep 1
  done
  curl -sf -o /dev/null --max-time 5 "$url" || { tail -n 30 "$log" >&2; die "the demo does not answer on $url"; }
  say "demo answers on $url, $((SECONDS - start)) s after make run"
  tail -n 20 "$log"
  if [ -n "${DEMO_PROBE:-}" ]; then bash -c "$DEMO_PROBE" || rc=$?; say "probe: exit $rc"; fi
  end_inside patchbay INT
  for ((i = 0; i < 100; i++)); do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
  kill -0 $pid 2>/dev/null && say "the demo did not end within 10 s of SIGINT"
  end_inside "" KILL
  wait $pid 2>/dev/null || true
  return $rc
}

[ $# -gt 0 ] || set -- demo
case $1 in
  setup) fresh_root; step_setup ;;
  demo)
    fresh_root; step_setup; demo
    if [ "${2:-}" = test ]; then step "make test" "make test"; fi ;;
  test) fresh_root; step_setup; step "make test" "make test" ;;
  shell) shift; BARE_KEEP=1; [ -d "$root/root" ] || die "no root yet"; unmount; mount_all; trap unmount EXIT; inside "$*" ;;
  clean) unmount; rm -rf --one-file-system "$dir" ;;
  *) die "unknown command '$1'" ;;
esac
