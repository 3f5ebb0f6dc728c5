#!/usr/bin/env bash
# Runs schemathesis over every operation of ops/openapi.json, against a gateway with a linked session and a simulated
# WhatsApp: no answer may be a server error, undocumented, or other than its schema.
set -euo pipefail
binary=$(realpath "${1:?usage: tests/contract/run.sh ROOKERY (a sandbox build)}")
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
"$binary" demo --json "$work/demo.json" >"$work/log" 2>&1 &
demo=$!
trap 'kill "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 600); do
    if [ -f "$work/demo.json" ] || ! kill -0 "$demo" 2>/dev/null; then break; fi
    sleep 0.1
done
[ -f "$work/demo.json" ] || { cat "$work/log" >&2; exit 1; }
value() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/demo.json" "$1"; }
ROOKERY_TOKEN=$(value token) ROOKERY_SESSION=$(value session_id)
export ROOKERY_TOKEN ROOKERY_SESSION

tools="${CARGO_TARGET_DIR:-target}/ci-tools"
if command -v schemathesis >/dev/null; then
    schemathesis=schemathesis
else
    schemathesis="$tools/bin/schemathesis"
    if [ ! -x "$schemathesis" ]; then
        [ -x "$tools/bin/pip" ] || python3 -m venv "$tools"
        "$tools/bin/pip" install --quiet schemathesis==4.32.5
    fi
fi
"$schemathesis" --config-file tests/contract/schemathesis.toml run ops/openapi.json --url "$(value base_url)"
kill -0 "$demo" || { echo "the gateway has ended" >&2; cat "$work/log" >&2; exit 1; }
