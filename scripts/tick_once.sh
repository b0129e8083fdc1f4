#!/bin/sh
# One tick, for CI: judge this minute, run what is due, end. Exit 0: all runs succeeded; 1: one did not; 2: bad input.
set -eu
lock=requirements.lock
. "$(dirname "$0")/venv.sh"
exec "$PYTHON" -m scheduler --dir schedules --once "$@"
