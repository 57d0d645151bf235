#!/usr/bin/env bash
# All five systems on the same people, at the same size, for the same number of training samples:
#   ./script/one_budget.sh                        the records of BENCHMARKS.md
#   ./script/one_budget.sh --cpu_minutes 20       the same CPU time for each instead of the same samples
#   ./script/one_budget.sh --systems DPTN-TA --samples 800    a rehearsal
set -euo pipefail
cd "$(dirname "$0")/.."
source script/setup_environment.sh
exec python -m script.one_budget "$@"
