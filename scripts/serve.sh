#!/bin/sh
# Start the service on schedules/ of this checkout; options are passed on. The first start installs what it needs.
set -eu
lock=requirements.lock
. "$(dirname "$0")/venv.sh"
exec "$PYTHON" -m scheduler --dir schedules --serve "$@"
