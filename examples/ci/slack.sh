#!/usr/bin/env bash
# slack.sh CONFIG INVENTORY: one night, told to Slack by farm itself; then the page of all nights.
# FARM_WEBHOOK is the address of an incoming webhook. It is a secret: keep it in a file that only this
# user may read. A night that ends without a report (exit 2, 70) is told too, with the reason.
set -uo pipefail
config=${1:?usage: slack.sh CONFIG INVENTORY}
inventory=${2:?usage: slack.sh CONFIG INVENTORY}
farm=${FARM:-.venv/bin/farm}
runs=${FARM_RUNS:-/var/lib/farm/runs}
webhook=${FARM_WEBHOOK_FILE:-/etc/farm/webhook}
if [ -r "$webhook" ]; then FARM_WEBHOOK=$(cat "$webhook"); export FARM_WEBHOOK; fi

"$farm" nightly "$config" --inventory "$inventory" --out "$runs" --live off
code=$?
"$farm" history --html "${FARM_PAGES:-/var/www/farm}" || echo "the page of all nights was not written" >&2
exit "$code"
