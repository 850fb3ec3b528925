#!/usr/bin/env bash
# Checks the chart, its alerts and dashboards, and the Dockerfile. Says what it skips where a tool is missing; with --all a missing
# tool is a failure. scripts/chart-tools.sh installs the tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
all=no
[[ ${1:-} == --all ]] && all=yes
PATH=$(../scripts/chart-tools.sh --print):$PATH
kubernetes=1.34
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
skipped=0

ok() { passed=$((passed + 1)); }
fail() {
  echo "chart: $*" >&2
  exit 1
}
# Whether a tool is there; says what is skipped without it.
has() {
  command -v "$1" >/dev/null 2>&1 && return 0
  [[ $all == no ]] || fail "$1 is missing; run scripts/chart-tools.sh"
  echo "chart: skipped, because $1 is missing: $2 (scripts/chart-tools.sh installs it)"
  skipped=$((skipped + 1))
  return 1
}
template() { helm template concordat concordat --namespace prod --kube-version "$kubernetes" "$@"; }

if has helm "lint, templates, refusals"; then
  for values in tests/good/*.yaml concordat/values-sites.yaml; do
    helm lint --quiet --strict --kube-version "$kubernetes" concordat -f "$values" >"$work/lint" || fail "lint with $values: $(<"$work/lint")"
    for when in install upgrade; do
      flags=(-f "$values")
      [[ $when == upgrade ]] && flags+=(--is-upgrade)
      template "${flags[@]}" >"$work/$(basename "$values" .yaml).$when.yaml" || fail "$values does not render ($when)"
    done
    ok
  done
  while IFS=$'\t' read -r set named; do
    [[ $set == \#* || -z $set ]] && continue
    if template -f tests/good/default.yaml --set "$set" >"$work/out" 2>&1; then fail "--set $set is not refused"; fi
    grep -q "$named" "$work/out" || fail "the refusal of --set $set does not name $named: $(<"$work/out")"
    ok
  done <tests/bad/cases.txt
  if has kubernetes-validate "objects against the schemas of Kubernetes $kubernetes"; then
    for objects in "$work"/*.install.yaml "$work"/*.upgrade.yaml; do
      # Kinds of operators (cert-manager, Prometheus) have no schema there; tests/objects.py looks at them.
      kubernetes-validate --strict --quiet --no-warn -k "$kubernetes" "$objects" >"$work/out" 2>&1 || fail "$(basename "$objects"): $(<"$work/out")"
      ok
    done
    python tests/objects.py "$work" || fail "the objects are not what they promise"
    ok
    # The settings that the chart writes are settings that the programs take.
    bin=${CARGO_TARGET_DIR:-../target}/release
    if [[ -x $bin/ordering-service && -x $bin/mls-gateway ]]; then
      for objects in "$work"/*.install.yaml; do
        python tests/settings.py "$objects" "$bin" || fail "$(basename "$objects"): a program refuses its settings"
      done
      ok
    elif [[ $all == yes ]]; then
      fail "the programs are not built, so their settings cannot be checked; run make build"
    else
      echo "chart: skipped, because the programs are not built: whether they take the chart's settings (make build builds them)"
      skipped=$((skipped + 1))
    fi
  fi
fi

if has promtool "alert rules and their tests"; then
  promtool check rules concordat/alerts/concordat.yaml >"$work/out" 2>&1 || fail "$(<"$work/out")"
  (cd tests && promtool test rules alerts.test.yaml) >"$work/out" 2>&1 || fail "$(<"$work/out")"
  for alert in $(sed -n 's/^ *- alert: //p' concordat/alerts/concordat.yaml); do
    grep -q "alertname: $alert" tests/alerts.test.yaml || fail "$alert has no test in helm/tests/alerts.test.yaml"
    grep -q "^### $alert" ../docs/operations.md || fail "$alert is not explained in docs/operations.md"
  done
  ok
fi

# One version everywhere.
said() { sed -n "s/$1/\\1/p" "$2" | head -1; }
version=$(said '^version = "\(.*\)"' ../Cargo.toml)
[[ $(said '^appVersion: "\(.*\)"' concordat/Chart.yaml) == "$version" ]] || fail "the chart's appVersion is not the workspace's $version"
[[ $(said '^ARG VERSION=\(.*\)' ../Dockerfile) == "$version" ]] || fail "the Dockerfile's VERSION is not the workspace's $version"
rust=$(said '^rust-version = "\(.*\)"' ../Cargo.toml)
[[ $(said '^FROM rust:\([0-9.]*\)-.*' ../Dockerfile) == "$rust" ]] || fail "the Dockerfile does not build with Rust $rust, the workspace's"
for program in $(sed -n 's/.*command: \[\([a-z-]*\),.*/\1/p' concordat/templates/*.yaml) mls-client; do
  grep -q "release/$program" ../Dockerfile || fail "the chart runs $program, which is not in the image"
done
ok

if has hadolint "the Dockerfile"; then
  hadolint --failure-threshold info ../Dockerfile || fail "the Dockerfile has findings"
  ok
fi
echo "chart: $passed passed, 0 failed, $skipped skipped"
