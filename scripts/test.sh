#!/bin/sh
# The whole test suite, on a fresh clone too. Options go to pytest; `--full` runs the fault tests at full count.
set -eu
lock=requirements-dev.lock
. "$(dirname "$0")/venv.sh"
scripts/test_tools.sh systemd zsh fish openssl chromium

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy

rm -f .coverage .coverage.*
if [ "${1:-}" = "--full" ]; then
    shift
    export TICKPOOL_TEST_FULL=1
    set -- --timeout=3600 "$@"
fi
"$PYTHON" -m coverage run -m pytest -n 2 "$@"
# A process that a test killed may leave half a data file, which coverage names and passes over.
"$PYTHON" -m coverage combine --quiet
rm -f .coverage.*
"$PYTHON" -m coverage report --fail-under=90
