#!/usr/bin/env bash
# Holds 100,000 idle connections, each with a joined room, spread over six servers: a process may be bound to 20,000
# descriptors. Servers on one core, load generators on the other.
#
#   bench/idle-100000.sh [HOLD_SECONDS]     prints one line of JSON for each pair, and the sum that held
set -eu
cd "$(dirname "$0")/.."
hold=${1:-30}
target=${CARGO_TARGET_DIR:-target}/release
[ -x "$target/examples/fixture" ] && [ -x "$target/loadgen" ] ||
  cargo build --release -p loadgen -p engine --example fixture --bin loadgen
servers=() loads=()
trap 'kill "${servers[@]}" "${loads[@]}" 2>/dev/null || true' EXIT
out=$(mktemp -d)
for i in 0 1 2 3 4 5; do
  taskset -c 0 "$target/examples/fixture" $((17700 + i)) 1 >/dev/null &
  servers+=($!)
done
sleep 1
for i in 0 1 2 3 4 5; do
  taskset -c 1 "$target/loadgen" idle --url "http://127.0.0.1:$((17700 + i))" --conns 16667 --hold "$hold" \
    --join "room-%CONN%" --auth '{"userId":"user-%CONN%"}' --pid "${servers[$i]}" --timeout 120 --src-ips 2 --json \
    >"$out/$i.json" 2>/dev/null &
  loads+=($!)
done
failed=0
for load in "${loads[@]}"; do wait "$load" || failed=1; done
cat "$out"/*.json
python3 - "$out" <<'PY'
import glob, json, sys
rows = [json.load(open(name)) for name in sorted(glob.glob(sys.argv[1] + "/*.json"))]
held = sum(row["conns"] - row["dropped"] - row["failed"] for row in rows)
kib = sum(row["rss_kib_per_conn"] for row in rows) / len(rows)
cpu = sum(row["hold_cpu_pct"] for row in rows)
print(f"held {held:,} connections, {kib:.2f} KiB each, {cpu:.2f} % of a core while holding")
PY
exit $failed
