#!/usr/bin/env bash
# Runs the conformance suite against a server: run.sh [--reference | PATH] [--only node|python|rust]
# What is started is FANFARE_FIXTURE (a command) if set, else PATH, else the engine's example `conformance` in the target folder.
# SKIP_RUST=1 leaves out the part that has to be compiled. Installs what is missing; see README.md.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2
here=$PWD

only=
while [ $# -gt 0 ]; do
  case "$1" in
    --reference) FANFARE_FIXTURE="node $here/reference-server.js" ;;
    --only) shift; only=${1:?--only needs node, python or rust} ;;
    -*) echo "unknown option: $1" >&2; exit 2 ;;
    *) FANFARE_FIXTURE=${FANFARE_FIXTURE:-$(cd "$OLDPWD" && realpath "$1")} ;;
  esac
  shift
done
export FANFARE_FIXTURE=${FANFARE_FIXTURE:-${CARGO_TARGET_DIR:-$here/../target}/debug/examples/conformance}
program=${FANFARE_FIXTURE%% *}
command -v "$program" >/dev/null || { echo "no such server: $program (build it, or give --reference)" >&2; exit 2; }
echo "server under test: $FANFARE_FIXTURE"

wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0 broken=0

# Registries are far away: what fails is tried again, twice.
patiently() {
  "$@" || { sleep 5; "$@"; } || { sleep 30; "$@"; }
}

# The Node packages hold the reference server too, so every part may need them.
if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
  patiently npm ci --no-audit --no-fund --loglevel=error || exit 2
fi
if wanted python && [ ! .venv/installed -nt requirements.txt ]; then
  python3 -m venv .venv && patiently .venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt && touch .venv/installed || exit 2
fi

run_node() {
  node --test --test-force-exit --test-concurrency=2 --test-reporter=spec node/ >"$logs/node" 2>&1
}
run_python() {
  .venv/bin/python -m pytest python --tb=short >"$logs/python" 2>&1
}
run_rust() {
  local skips
  mapfile -t skips < <(node -p 'require("./skips.json").filter((one) => one.suite === "rust").map((one) => "--skip\n" + one.test).join("\n")' | grep .)
  (cd rust && patiently "${CARGO:-cargo}" fetch --locked && "${CARGO:-cargo}" test --locked -- --test-threads 4 "${skips[@]}") >"$logs/rust" 2>&1
}
# The sum of all numbers that the pattern's group catches in a part's log.
sum() { grep -oP "$2" "$logs/$1" | awk '{ total += $1 } END { print total + 0 }'; }
# Adds a part's numbers; a part that ended badly without a failed test counts as broken.
count() { # part, exit code, passed, failed, skipped
  if [ "$2" -ne 0 ] || [ "$3" -eq 0 ]; then cat "$logs/$1"; [ "$4" -gt 0 ] || broken=1; fi
  echo "$1: $3 passed, $4 failed, $5 skipped"
  passed=$((passed + $3)) failed=$((failed + $4)) skipped=$((skipped + $5))
}

if wanted node; then
  run_node
  code=$?
  count node "$code" "$(sum node '^ℹ pass \K\d+')" "$(sum node '^ℹ (fail|cancelled) \K\d+')" "$(sum node '^ℹ skipped \K\d+')"
fi
rust_pid=
if wanted rust && [ "${SKIP_RUST:-0}" != 1 ]; then
  run_rust &
  rust_pid=$!
fi
if wanted python; then
  run_python
  code=$?
  count python "$code" "$(sum python '\d+(?= passed)')" "$(tail -n 1 "$logs/python" >"$logs/last"; sum last '\d+(?= (failed|error))')" "$(sum last '\d+(?= skipped)')"
fi
if [ -n "$rust_pid" ]; then
  wait "$rust_pid"
  code=$?
  count rust "$code" "$(sum rust '^test result:.*?\K\d+(?= passed)')" "$(sum rust '^test result:.*?\K\d+(?= failed)')" "$(sum rust '^test result:.*?\K\d+(?= (ignored|filtered))')"
fi

[ "$broken" -eq 0 ] || echo "a part ended without telling of a failed test; its output is above"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$broken" -eq 0 ]
