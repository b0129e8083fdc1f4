#!/bin/sh
# The whole test suite, on a fresh clone too. Options go to pytest; `--full` runs the slow tests at full count,
# `--coverage` measures which branches are taken, in every process, and takes twice the time.
set -eu
lock=requirements-dev.lock
. "$(dirname "$0")/venv.sh"
scripts/test_tools.sh systemd zsh fish openssl chromium

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy

full=no coverage=no
while :; do
    case "${1:-}" in
    --full) full=yes ;;
    --coverage) coverage=yes ;;
    *) break ;;
    esac
    shift
done
if [ $full = yes ]; then
    export TICKPOOL_TEST_FULL=1
    set -- --timeout=3600 "$@"
fi
if [ $coverage = no ]; then
    exec "$PYTHON" -m pytest -n 2 "$@"
fi
rm -f .coverage .coverage.*
"$PYTHON" -m coverage run -m pytest -n 2 "$@"
# A process that a test killed may leave half a data file, which coverage names and passes over.
"$PYTHON" -m coverage combine --quiet
rm -f .coverage.*
"$PYTHON" -m coverage report --fail-under=90
