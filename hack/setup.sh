#!/bin/sh
# Installs what a fresh machine lacks before any TypeScript can run: the Debian packages that tests and the
# local cluster use, and the npm packages of the lock file (Node 24 and bun among them). Quiet when all is there.
# Progress goes to stderr, so that scripts may read what comes after on stdout.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }

DEBIAN_PACKAGES="iproute2 iptables nftables conntrack runc buildah mmdebstrap busybox-static socat radvd ndisc6 openssl procps util-linux kmod strace tcpdump iputils-ping zstd zsh"

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
  for package in $DEBIAN_PACKAGES; do
    state=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$state" = "install ok installed" ] || missing="$missing $package"
  done
  if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
      say "these Debian packages are missing and installing them needs root:$missing"
      exit 1
    fi
    say "installing Debian packages:$missing"
    log=$(mktemp)
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; say "apt-get failed; the whole output is in $log"; exit 1; }
    rm -f "$log"
  fi
else
  for program in ip nft iptables conntrack runc buildah mmdebstrap busybox openssl; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
  done
  if [ -n "$missing" ]; then
    say "this is not Debian; please install these programs yourself:$missing"
    exit 1
  fi
fi

for program in node npm go; do
  command -v "$program" >/dev/null 2>&1 || { say "$program is not on PATH; Go 1.26, Node 20 and npm 10 or newer are needed"; exit 1; }
done

# The stamp is the lock file itself: another lock file means another installation.
stamp=node_modules/.weft-lock
if ! cmp -s package-lock.json "$stamp" 2>/dev/null; then
  say "installing npm packages"
  log=$(mktemp)
  # Install scripts stay off (.npmrc) but for the two packages that bring an executable by them.
  { npm ci --no-audit --no-fund && npm rebuild node bun --ignore-scripts=false; } >"$log" 2>&1 ||
    { tail -n 30 "$log" >&2; say "npm failed; the whole output is in $log"; exit 1; }
  rm -f "$log"
  cp package-lock.json "$stamp"
fi
