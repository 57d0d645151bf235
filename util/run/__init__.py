"""What a run stands on: its folder, checkpoints, devices, processes and signals.

Imported before torch by every command, so that threads of torch that wait give their core away.
Waiting actively, as OpenMP does by default, keeps the core that the late thread needs: on a machine
that is busy with other work a step takes several times as long. The user's own value stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # libgomp reads it once, when it is loaded
