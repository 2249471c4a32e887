#!/usr/bin/env bash
# Starts docker-compose.yml with three aggregators, three servers of NATS and two gateways, and keeps asking through both
# gateways while an aggregator and a server of NATS are killed and come back. Needs the images of `make compose-test` and
# nats:2.12-alpine. It prints what each question got, and fails if one got neither an answer nor a problem, or if both gateways
# are not right again two minutes after each loss.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=fedattn-cluster FEDATTN_PORT=${FEDATTN_PORT:-18000} FEDATTN_PORT_2=${FEDATTN_PORT_2:-18001}
gateways=("http://127.0.0.1:$FEDATTN_PORT" "http://127.0.0.1:$FEDATTN_PORT_2")
question='What does the ship Aurora carry, and at which pier does it lie?'

COMPOSE_FLAGS=(--env-file docker/cluster.env --profile cluster) LOG_LINES=15
# shellcheck source=docker/compose.sh
source docker/compose.sh

fail() { say "FAILED: $*"; exit 1; }

right=$(mktemp -d) # a file for each gateway whose last answer was right
scratch+=("$right")
begun=${EPOCHREALTIME/[.,]/}
say() { # with the time since the begin, in tenths of a second
  local tenths=$(((${EPOCHREALTIME/[.,]/} - begun) / 100000))
  printf '%4d.%d s  %s\n' $((tenths / 10)) $((tenths % 10)) "$*"
}

ask() { # asks one gateway and says what came: right, partial, or a problem with a code; fails if it is none of them
  local said
  said=$(curl -sS --max-time 120 "${gateways[$1]}/v1/queries" -H 'content-type: application/json' \
    -d "{\"question\": \"$question\", \"sampling\": {\"max_new_tokens\": 32}}" |
    python3 -c 'import json, re, sys
got = json.load(sys.stdin)
if "answer" in got:
    answer = got["answer"].strip().replace("\n", " ")
    members = sorted(member["node_id"] + ":" + member["state"] for member in got["participants"])
    whole = "300 boxes of tea" in answer and re.search(r"pier (of )?4", answer)
    print("right:" if whole else "partial:", answer, "|", *members)
else:
    print("problem:", got["status"], got["code"], "|", got["detail"])') || said=nothing
  say "gateway $1: $said"
  [[ $said != nothing ]] || fail "expected an answer or a problem"
  [[ $said == right:* ]] && touch "$right/$1"
  return 0
}

until_right() { # asks both gateways until each was right; fails after two minutes
  local end=$((SECONDS + 120)) gateway
  for gateway in 0 1; do
    rm -f "$right/$gateway"
    until ask "$gateway" && [[ -f $right/$gateway ]]; do
      ((SECONDS < end)) || fail "no right answer within 120 s"
      sleep 0.5
    done
  done
}

"${compose[@]}" up -d --no-build >/dev/null 2>&1
until curl -sf "${gateways[0]}/readyz" >/dev/null && curl -sf "${gateways[1]}/readyz" >/dev/null; do
  ((SECONDS < 600)) || fail "the gateways were not ready within 600 s"
  sleep 1
done
say "both gateways are ready"
until_right

container() { docker ps -aq --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
  --filter "label=com.docker.compose.service=$1"; }

keep_asking() { while [[ ! -e $right/stop ]]; do ask "$1"; done; }

for victim in aggregator-1 aggregator nats-1; do
  id=$(container "$victim")
  rm -f "$right/stop"
  keep_asking 0 & first=$!
  keep_asking 1 & second=$!
  sleep 2
  docker kill "$id" >/dev/null
  say "killed $victim while both are asked"
  sleep 10
  touch "$right/stop"
  wait "$first"
  wait "$second"
  until_right
  docker start "$id" >/dev/null
  say "started $victim again"
  until_right
done
echo "passed"
