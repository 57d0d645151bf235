#!/usr/bin/env bash
# From an empty machine to generated people: installs, shows a first person from the weights that come with the code,
# renders a synthetic data set, trains DPTN-TA with all its losses on it, generates people it has never seen, measures,
# and writes the pages. Run it again to continue, or to see that it is all there.
#   ./script/quickstart.sh           about ten minutes on two CPU cores after the installation
#   ./script/quickstart.sh --long    a longer, better run; uses the GPU if there is one
set -euo pipefail
cd "$(dirname "$0")/.."
source script/setup_environment.sh
exec python -m script.quickstart "$@"
