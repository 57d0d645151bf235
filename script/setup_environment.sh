#!/usr/bin/env bash
# Make .venv in the repository root and install what is missing; does nothing when all is there.
# Usage: source script/setup_environment.sh; EXTRA_REQUIREMENTS may name one more requirements file.
# (A sourced file without arguments sees those of its caller, so it takes none.)
# Run it again after a broken download: finished packages are kept.

_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
_files=("$_root/requirements.txt" ${EXTRA_REQUIREMENTS:+"$EXTRA_REQUIREMENTS"})

_install() {
    local attempt
    for attempt in 1 2 3; do
        "$_root/.venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" && return 0
        echo "installation attempt $attempt failed; trying again" >&2
        sleep $((attempt * 5))
    done
    echo "error: could not install: $*; check the network and run this script again" >&2
    return 1
}

_setup() {
    local python="${PYTHON:-python3}" want stamp
    want="$(cat "${_files[@]}" "${BASH_SOURCE[0]}" | cksum | tr ' ' '-')"
    stamp="$_root/.venv/.installed-$want"
    [ -f "$stamp" ] && return 0
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "error: $python is older than Python 3.10; set PYTHON to a newer one" >&2
        return 1
    fi
    if [ ! -x "$_root/.venv/bin/python" ]; then
        echo "Making a virtual environment in .venv"
        "$python" -m venv "$_root/.venv" || return 1
    fi
    echo "Installing dependencies into .venv (PyTorch is several gigabytes the first time)"
    local arguments=() file
    for file in "${_files[@]}"; do arguments+=(-r "$file"); done
    _install "${arguments[@]}" || return 1
    _install "setuptools<81" wheel || return 1
    if ! _install --no-build-isolation visdom; then
        echo "visdom is not installed: everything but --display_id works without it" >&2
    fi
    touch "$stamp"
}

_setup || exit 1
# shellcheck disable=SC1091
source "$_root/.venv/bin/activate"
