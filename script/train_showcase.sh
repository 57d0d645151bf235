#!/usr/bin/env bash
# Make checkpoints/synthetic_people: the weights that this repository ships. Renders people, measures the speed of this
# machine, lays the training into the budget, trains, generates, measures and draws the pictures.
#   ./script/train_showcase.sh --minutes 150        any device; run it again to continue after an interruption
#   ./script/train_showcase.sh --minutes 3 --name trial     a rehearsal of all steps
set -euo pipefail
cd "$(dirname "$0")/.."
source script/setup_environment.sh
exec python -m script.showcase "$@"
