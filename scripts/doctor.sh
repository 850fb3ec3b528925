#!/usr/bin/env bash
# Looks whether this machine can build Concordat. What is missing and comes from Debian or Ubuntu is installed when this runs as root
# or sudo asks for no password; everything else is named with the exact command.
#
#   scripts/doctor.sh            installs what it can
#   scripts/doctor.sh --check    only names what is missing
set -euo pipefail

rust_wanted=1.91
only_check=no
[[ ${1:-} == --check ]] && only_check=yes
packages=()
failed=no

have() { command -v "$1" >/dev/null 2>&1; }

have_libclang() {
  [[ -n ${LIBCLANG_PATH:-} ]] && return 0
  local found
  # libclang-cpp is another library: the one that bindgen loads has the C interface.
  found=$(find /usr/lib /usr/lib64 /usr/local/lib /opt/homebrew/opt/llvm/lib \( -name 'libclang*.so*' -o -name 'libclang*.dylib' \) \
    ! -name 'libclang-cpp*' -print -quit 2>/dev/null || true)
  [[ -n $found ]]
}

have c++ || packages+=(build-essential)
have cc || packages+=(build-essential)
have make || packages+=(make)
have_libclang || packages+=(libclang-dev)

if ((${#packages[@]} > 0)); then
  mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
  install=(apt-get install -y --no-install-recommends "${packages[@]}")
  if [[ $only_check == no ]] && have apt-get && { [[ $EUID == 0 ]] || { have sudo && sudo -n true 2>/dev/null; }; }; then
    echo "Installing ${packages[*]} ..." >&2
    as_root=(env DEBIAN_FRONTEND=noninteractive)
    [[ $EUID == 0 ]] || as_root=(sudo -n "${as_root[@]}")
    "${as_root[@]}" apt-get update -qq </dev/null >&2
    "${as_root[@]}" "${install[@]}" </dev/null >&2
  else
    echo "Missing: ${packages[*]}. On Debian or Ubuntu:" >&2
    echo "    sudo apt-get update && sudo ${install[*]}" >&2
    failed=yes
  fi
fi

at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }
if ! have cargo || ! have rustc; then
  echo "Missing: Rust $rust_wanted or newer. To install it:" >&2
  echo "    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\"" >&2
  failed=yes
else
  rust=$(rustc --version | awk '{ print $2 }')
  if ! at_least "$rust_wanted" "$rust"; then
    echo "Rust $rust is too old: $rust_wanted or newer is needed. To update it:" >&2
    echo "    rustup update stable && rustup default stable" >&2
    failed=yes
  fi
fi

[[ $failed == no ]]
