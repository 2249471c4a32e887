#!/usr/bin/env bash
# Starts docker-compose.yml with three aggregators, three servers of NATS and two gateways, and keeps asking through both
# gateways while an aggregator and a server of NATS are killed and come back. Needs the images of `make compose-test` and
# nats:2.12-alpine. It prints what each question got, and fails if one was wrong or late without an honest word.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=fedattn-cluster FEDATTN_PORT=${FEDATTN_PORT:-18000} FEDATTN_PORT_2=${FEDATTN_PORT_2:-18001}
gateways=("http://127.0.0.1:$FEDATTN_PORT" "http://127.0.0.1:$FEDATTN_PORT_2")
question='What does the ship Aurora carry, and at which pier does it lie?'

if [[ -n ${COMPOSE:-} ]]; then compose=("$COMPOSE")
elif docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=(--env-file docker/cluster.env --profile cluster)

finish() {
  local code=$?
  ((code == 0)) || "${compose[@]}" logs --tail 15 || true
  "${compose[@]}" down --volumes --timeout 15 >/dev/null 2>&1 || true
  exit "$code"
}
trap finish EXIT

begun=${EPOCHREALTIME/[.,]/}
say() { # with the time since the begin, in tenths of a second
  local tenths=$(((${EPOCHREALTIME/[.,]/} - begun) / 100000))
  printf '%4d.%d s  %s\n' $((tenths / 10)) $((tenths % 10)) "$*"
}

ask() { # asks one gateway, says what came; fails if it is neither right nor a problem with a code
  local said
  said=$(curl -sS --max-time "${LIMIT_S:-120}" "${gateways[$1]}/v1/queries" -H 'content-type: application/json' \
    -d "{\"question\": \"$question\", \"sampling\": {\"max_new_tokens\": 32}}" |
    python3 -c 'import json, sys
got = json.load(sys.stdin)
if "answer" in got:
    answer = got["answer"].strip().replace("\n", " ")
    members = " ".join(member["node_id"] + ":" + member["state"] for member in got["participants"])
    print("right:" if "300 boxes of tea" in answer and "4" in answer else "answer:", answer, "|", members)
else:
    print("problem:", got["status"], got["code"], "|", got["detail"])') || said='NOTHING'
  say "gateway $1: $said"
  [[ $said != NOTHING ]]
}

until_right() { # asks both in turn until both are right; fails after 120 s
  local end=$((SECONDS + 120)) gateway
  for gateway in 0 1; do
    until ask "$gateway" | tee /dev/stderr | grep -q 'right:.*berths:complete.*customs:complete'; do
      ((SECONDS < end)) || { say "no right answer within 120 s"; exit 1; }
      sleep 0.5
    done 2>&1
  done
}

"${compose[@]}" up -d --no-build >/dev/null 2>&1
until curl -sf "${gateways[0]}/readyz" >/dev/null && curl -sf "${gateways[1]}/readyz" >/dev/null; do
  ((SECONDS < 600)) || { say "the gateways were not ready within 600 s"; exit 1; }
  sleep 1
done
say "both gateways are ready"
until_right

for victim in aggregator-1 aggregator nats-1; do
  ask 0 & first=$!
  ask 1 & second=$!
  sleep 1
  "${compose[@]}" kill "$victim" >/dev/null 2>&1
  say "killed $victim while both were asked"
  wait "$first" && wait "$second"
  until_right
  "${compose[@]}" up -d --no-build "$victim" >/dev/null 2>&1
  say "started $victim again"
  until_right
done
echo "passed"
