#!/bin/sh
# Start the service on schedules/ of this checkout, and its dashboard; options are passed on to the service. The first
# start installs what it needs.
set -eu
lock=requirements.lock
. "$(dirname "$0")/venv.sh"
# Not a child of the service, which takes those that it does not know for what dead workers have left.
("$PYTHON" -m scheduler.cli dashboard --dir schedules --with $$ &)
exec "$PYTHON" -m scheduler --dir schedules --serve "$@"
