# shellcheck shell=bash
# Sourced by compose-test.sh and cluster-test.sh in the project's folder, with COMPOSE_PROJECT_NAME set: finds Compose 2 or 1.29
# (or takes the one that COMPOSE names), and takes down at the end what was started. COMPOSE_FLAGS go before each of its
# commands; a script that fails shows the last LOG_LINES of each service first; `scratch` lists files and folders to remove.

if [[ -n ${COMPOSE:-} ]]; then compose=("$COMPOSE")
elif docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
compose+=("${COMPOSE_FLAGS[@]}")
scratch=()

finish() {
  local code=$?
  ((code == 0)) || "${compose[@]}" logs --tail "$LOG_LINES" || true
  "${compose[@]}" down --volumes --timeout 15 >/dev/null 2>&1 || true
  rm -rf "${scratch[@]}"
  exit "$code"
}
trap finish EXIT
