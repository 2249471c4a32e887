#!/usr/bin/env bash
# Builds the images, starts docker-compose.yml, asks, kills a contributor, asks again, stops, and looks for private
# text in the logs. Needs Docker with Compose 2 or 1.29 (COMPOSE=docker-compose). BUILD_FLAGS go to `docker build`.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=fedattn-test FEDATTN_PORT=${FEDATTN_PORT:-18000}
url=http://127.0.0.1:$FEDATTN_PORT
question='What does the ship Aurora carry, and at which pier does it lie?'

COMPOSE_FLAGS=() LOG_LINES=20
# shellcheck source=docker/compose.sh
source docker/compose.sh
logs=$(mktemp)
scratch+=("$logs")

fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

ask() { # prints answer, finish reason and who took part
  curl -sS --fail-with-body --max-time 120 "$url/v1/queries" -H 'content-type: application/json' \
    -d "{\"question\": \"$question\", \"sampling\": {\"max_new_tokens\": 32}}" |
    python3 -c 'import json, sys
report = json.load(sys.stdin)
print(report["answer"].strip().replace("\n", " "))
print(*(member["node_id"] + ":" + member["state"] for member in report["participants"]))'
}

echo "== build"
for target in aggregator gateway participant; do
  # shellcheck disable=SC2086  # flags are words
  docker build ${BUILD_FLAGS:-} --quiet -f docker/Dockerfile --target "$target" -t "fedattn-$target" . >/dev/null
done
docker images --format 'table {{.Repository}}\t{{.Size}}' | grep -E 'REPOSITORY|^fedattn-|^python'

echo "== no shell"
for target in aggregator gateway participant; do
  for program in sh bash busybox apt dpkg pip; do
    docker run --rm --entrypoint "$program" "fedattn-$target" --help >/dev/null 2>&1 && fail "fedattn-$target has $program"
  done
done

echo "== start"
SECONDS=0
"${compose[@]}" up -d --no-build
until curl -sf "$url/readyz" >/dev/null; do
  ((SECONDS < 300)) || fail "the gateway was not ready within 300 s"
  sleep 1
done
echo "ready after $SECONDS s"

echo "== four participants"
answer=$(ask)
echo "$answer"
grep -q '300 boxes of tea' <<<"$answer" || fail "expected the cargo in the answer"
grep -Eq 'pier (of )?4' <<<"$answer" || fail "expected the pier in the answer"
for member in berths:complete customs:complete publisher:complete cranes:empty; do # cranes know nothing of the ship
  grep -q "$member" <<<"$answer" || fail "expected $member"
done

echo "== memory"
docker stats --no-stream --format 'table {{.Name}}\t{{.MemUsage}}' | grep -E 'NAME|fedattn'

echo "== without customs"
"${compose[@]}" kill customs >/dev/null 2>&1
until [[ $(curl -sf "$url/v1/participants") == *'"departed"'* ]]; do sleep 1; done
answer=$(ask)
echo "$answer"
for member in berths:complete publisher:complete cranes:empty customs:departed; do
  grep -q "$member" <<<"$answer" || fail "expected $member"
done
grep -q '300 boxes' <<<"$answer" && fail "the cargo is known to customs alone"

echo "== numbers for Prometheus"
"${compose[@]}" exec -T gateway python -c "
import urllib.request
for host in ('aggregator', 'gateway'):
    text = urllib.request.urlopen(f'http://{host}:9100/metrics', timeout=5).read().decode()
    print(*(line for line in text.splitlines() if line.startswith(('fedattn_aggregator_nodes_joined', 'fedattn_gateway_queries_total'))))"

echo "== nodes reach the aggregator only"
for peer in cranes gateway publisher; do # nodes listen nowhere: that there is no way, only names can tell
  "${compose[@]}" exec -T berths python -c "import socket; socket.gethostbyname('$peer')" >/dev/null 2>&1 &&
    fail "berths finds $peer"
done
"${compose[@]}" exec -T berths python -c "import socket; socket.create_connection(('aggregator', 50051), 3)" ||
  fail "berths does not reach the aggregator"

echo "== stop"
"${compose[@]}" stop --timeout 15 >/dev/null 2>&1
"${compose[@]}" logs --no-color >"$logs" 2>&1
for text in Aurora 'boxes of tea' 'pier' 'PRIVATE KEY'; do
  grep -qi "$text" "$logs" && fail "the logs contain '$text'"
done
for service in aggregator gateway berths cranes publisher; do
  code=$(docker inspect -f '{{.State.ExitCode}}' "$("${compose[@]}" ps -aq "$service")")
  [[ $code == 0 ]] || fail "$service ended with code $code"
done
echo "passed: $(wc -l <"$logs") lines of log hold no private text, all services ended with code 0"
