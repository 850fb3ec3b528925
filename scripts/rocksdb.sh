#!/usr/bin/env bash
# Makes sure that one static librocksdb.a exists for the locked version, and prints the directory that holds it.
# Compiling RocksDB takes 10 to 30 minutes on two cores. Demo, tests, lints, benchmarks, fuzzing and every clone share this one build.
#
#   scripts/rocksdb.sh            builds it if it is not there
#   scripts/rocksdb.sh --print    only prints the directory
#
# Everything but the directory goes to stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(awk -F'"' '/^name = "librocksdb-sys"$/ { found = 1 } found && /^version = / { print $2; exit }' Cargo.lock)
if [[ -z $version ]]; then
  echo "rocksdb.sh: Cargo.lock names no librocksdb-sys; restore Cargo.lock from the repository" >&2
  exit 1
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/concordat
dir=$cache/rocksdb-$version
if [[ ${1:-} == --print ]]; then
  echo "$dir"
  exit 0
fi

# The compiler flags belong to the build: another set of flags is another library.
flags=$(grep '^CXXFLAGS' .cargo/config.toml || true)
is_current() {
  [[ -f $dir/librocksdb.a ]] && { [[ ! -f $dir/flags ]] || [[ $(<"$dir/flags") == "$flags" ]]; }
}
if is_current; then
  echo "$dir"
  exit 0
fi

mkdir -p "$dir"
# One build at a time, also when several clones start together.
if command -v flock >/dev/null; then
  exec 9>"$cache/rocksdb.lock"
  flock -n 9 || { echo "Waiting for another build of RocksDB on this machine ..." >&2; flock 9; }
  if is_current; then
    echo "$dir"
    exit 0
  fi
fi

cargo fetch --locked >&2
sources=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 3 -path "*/librocksdb-sys-$version/rocksdb_lib_sources.txt" -print -quit)
total=$(wc -w <"$sources")
target=$cache/rocksdb-build-target
log=$dir/build.log
echo "Compiling RocksDB $version: $total files, once for this machine. The log is $log." >&2
started=$SECONDS
env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC CARGO_TARGET_DIR="$target" \
  cargo build --release --locked -p librocksdb-sys >"$log" 2>&1 9>&- </dev/null &
build=$!
trap 'kill "$build" 2>/dev/null || true' EXIT

# Only objects of this attempt count: an interrupted one may have left some.
touch "$dir/started"
progress() {
  local done seconds percent eta
  done=$(find "$target/release/build" -path '*librocksdb-sys*' -name '*.o' -newer "$dir/started" 2>/dev/null | wc -l)
  seconds=$((SECONDS - started))
  percent=$((done * 100 / total))
  if ((done > 3)); then
    eta=$(((total - done) * seconds / done))
    printf 'RocksDB: %d of %d files, %d %%, %dm%02ds so far, about %dm%02ds to go' \
      "$done" "$total" "$percent" $((seconds / 60)) $((seconds % 60)) $((eta / 60)) $((eta % 60)) >&2
  else
    printf 'RocksDB: %d of %d files, %ds so far' "$done" "$total" "$seconds" >&2
  fi
}
while kill -0 "$build" 2>/dev/null; do
  if [[ -t 2 ]]; then
    progress
    printf '   \r' >&2
    sleep 2
  else
    # A log wants a line now and then, and the end of the build at once.
    for _ in {1..15}; do
      kill -0 "$build" 2>/dev/null && sleep 2
    done
    progress
    echo >&2
  fi
done
if ! wait "$build"; then
  trap - EXIT
  tail -n 40 "$log" >&2
  echo "rocksdb.sh: RocksDB did not compile (see above and $log); scripts/doctor.sh names what may be missing" >&2
  exit 1
fi
trap - EXIT

library=$(find "$target/release/build" -path '*librocksdb-sys*/out/librocksdb.a' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-)
if [[ -z $library ]]; then
  echo "rocksdb.sh: the build ended without a librocksdb.a under $target; remove that folder and try again" >&2
  exit 1
fi
# Renamed into place, so that nobody ever links half a file.
cp "$library" "$dir/librocksdb.a.$$"
printf '%s\n' "$flags" >"$dir/flags"
mv "$dir/librocksdb.a.$$" "$dir/librocksdb.a"
rm -rf "$target" "$dir/started"
printf '\nRocksDB is ready after %dm%02ds.\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) >&2
echo "$dir"
