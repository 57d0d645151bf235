#!/usr/bin/env bash
# Everything worth knowing about a GPU in ten minutes: one JSON, one table. Any option of
# script/gpu_check.py may follow, such as --minutes 5 or --device cpu --small.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python}" -m script.gpu_check "$@"
