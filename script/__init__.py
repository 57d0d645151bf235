"""One command a file; run them as ``python -m script.NAME`` or ``python script/NAME.py``."""

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parent.parent)
if sys.path[0] != _ROOT:  # a folder that the command is started in may hold a util/ of its own
    sys.path.insert(0, _ROOT)

import util.run  # noqa: E402, F401
