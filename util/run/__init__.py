"""What a run stands on: its folder, checkpoints, devices, processes and signals."""
