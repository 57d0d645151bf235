#!/usr/bin/env bash
# Install everything the test suite needs and run it. Arguments go to pytest:
#   ./script/run_tests.sh            the default suite
#   ./script/run_tests.sh -m slow    the checks that take minutes
#   FUZZ_CASES=5000 ./script/run_tests.sh -k fuzz    so many random cases of every kind of input
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRA_REQUIREMENTS="$PWD/tests/requirements.txt"
source script/setup_environment.sh

# The pages are checked in a real browser; without one those tests are skipped and say so.
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null \
    && ! command -v google-chrome >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing Chromium for the page tests"
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends chromium fonts-dejavu-core) >/dev/null \
            || echo "Chromium could not be installed: the page tests will be skipped" >&2
    fi
fi

ruff check .
ruff format --check .
# One test process a core, one thread each; a test file stays in one process.
processes="$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)"
export OMP_NUM_THREADS=1
python -m pytest -n "$processes" --dist loadfile "$@"
