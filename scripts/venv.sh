# Sourced by the other scripts: makes .venv if there is none, installs from a lock file when that has changed.
# Usage: lock=requirements.lock; . scripts/venv.sh    (afterwards: $PYTHON, and the checkout is the working directory)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
PYTHON="$root/.venv/bin/python"

if [ ! -x "$PYTHON" ]; then
    for candidate in "${TICKPOOL_PYTHON:-}" python3 python3.13 python3.12 python3.11; do
        if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            found=$candidate
            break
        fi
    done
    if [ -z "${found:-}" ]; then
        echo "tickpool needs Python 3.11 or newer; set TICKPOOL_PYTHON to one" >&2
        exit 2
    fi
    echo "Making .venv with $("$found" --version)..." >&2
    "$found" -m venv .venv || {
        echo "python3 -m venv failed; on Debian: apt-get install python3-venv" >&2
        exit 2
    }
fi

# The stamp holds what was installed last, in a form that can be compared.
stamp=".venv/.installed-$(basename "$lock" .lock)"
if ! cat "$lock" pyproject.toml scripts/venv.sh | cmp -s - "$stamp"; then
    echo "Installing from $lock..." >&2
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock"
    # The checkout itself: a path file does what an editable install would, without a build step.
    "$PYTHON" - "$root" <<'PY'
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_path("purelib"), "tickpool-checkout.pth").write_text(sys.argv[1] + "\n")
PY
    printf '#!/bin/sh\nexec "%s" -m scheduler.cli "$@"\n' "$PYTHON" > .venv/bin/tickpool
    chmod +x .venv/bin/tickpool
    cat "$lock" pyproject.toml scripts/venv.sh > "$stamp"
fi
