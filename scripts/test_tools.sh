#!/bin/sh
# Install the Debian packages that tests need and that are missing: scripts/test_tools.sh PACKAGE...
# Only root can, with apt-get; elsewhere the tests that need them are skipped, with the reason.
set -eu
missing=
for package in "$@"; do
    case $(dpkg-query --show --showformat='${db:Status-Abbrev}' "$package" 2> /dev/null || :) in
        ii*) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
    echo "Not installed:$missing; tests that need it are skipped" >&2
    exit 0
fi
echo "Installing$missing..." >&2
export DEBIAN_FRONTEND=noninteractive
# The names are words of our own: shellcheck disable=SC2086
if ! { apt-get update && apt-get install --yes --no-install-recommends $missing; } > /dev/null; then
    echo "Cannot install$missing; tests that need it are skipped" >&2
fi
