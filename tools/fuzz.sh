#!/usr/bin/env bash
# Runs every fuzz target of the module, or those that match a pattern, for a bounded time each, and fails when one of them
# found something: tools/fuzz.sh 30s [FuzzLabels]
# What a target learns stays in Go's build cache, which the next run begins with; an input that failed goes into the
# package's testdata/fuzz, to be committed with its mend.
set -uo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s} only=${2:-.}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

fuzz() {
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" 2>&1 | tee "$out" && return
	# When the time ends within an input, Go sometimes takes that for a failure.
	grep -q '^ *context deadline exceeded$' "$out" && ! grep -qE 'Failing input|^ *--- FAIL.*/|panic' "$out"
}

failed=() count=0
for pkg in $(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do
	for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$pkg"/*_test.go | awk '{print $2}' | grep -E "$only"); do
		echo "== $pkg $target"
		count=$((count + 1))
		fuzz "$pkg" "$target" || failed+=("$pkg $target")
	done
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}"
	exit 1
fi
echo "$count targets, none failed"
[ "$count" -gt 0 ]
