#!/bin/sh
# Ask the devices of a home with curl and nothing else.
#   examples/household/ask.sh [GATEWAY [QUESTION]]
# The gateway is the argument, else FEDATTN_GATEWAY, else port 8000 of this machine.
set -eu
gateway=${1:-${FEDATTN_GATEWAY:-http://127.0.0.1:8000}}
question=${2:-What is the cheapest time for electricity, and how many minutes does the washing machine need?}

in_json() { printf %s "$1" | sed 's/[\\"]/\\&/g'; }

# The value of a field that is a string; line breaks are shown as such, quotes as they were.
text_of() { sed -En "s/.*\"$1\":\"(([^\"\\\\]|\\\\.)*)\".*/\\1/p" | sed 's/\\n/\n/g; s/\\"/"/g'; }

body=$(printf '{"question": "%s", "sampling": {"max_new_tokens": 26}}' "$(in_json "$question")")
answer=$(curl -sS --fail-with-body "$gateway/v1/queries" -H 'content-type: application/json' -d "$body") || {
  printf '%s\n' "$answer" | text_of detail >&2
  exit 1
}
printf '%s\n' "$question"
printf '%s\n' "$answer" | text_of answer
