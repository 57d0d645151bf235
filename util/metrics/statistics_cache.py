"""Statistics of real image sets, kept between runs - never in the folder they describe.

An entry is found by everything it depends on: names, sizes and times of the files, the network, its
weights' hash, resize and scaling. Change one image and the entry is not found any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.metrics.set_metrics import Collector

FORMAT = 1  # raise it when the meaning of an entry changes


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME`` or ``~/.cache``, in a folder of this project."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "pose-guided-person-image-generation" / "statistics"


class StatisticsCache:
    """Entries for one list of image files under one definition; ``folder`` None keeps nothing."""

    def __init__(
        self, folder: Path | None, paths: Sequence[Path], definition: Mapping[str, object]
    ):
        self.folder = None if folder is None else Path(folder)
        digest = hashlib.sha256()
        description = {key: repr(value) for key, value in sorted(definition.items())}
        digest.update(json.dumps([FORMAT, description]).encode())
        for path in paths:
            status = path.stat()
            digest.update(f"{path.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        self.key = digest.hexdigest()

    def _path(self, collector: Collector) -> Path:
        return self.folder / f"{self.key[:32]}_{collector.identity}.npz"

    def restore(self, collector: Collector) -> bool:
        """Fill a collector from its entry; False when there is none (or it is damaged)."""
        if self.folder is None or not self._path(collector).is_file():
            return False
        try:
            with np.load(self._path(collector), allow_pickle=False) as arrays:
                state = dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return False  # half a file, from a full disk perhaps: compute and replace it
        if str(state.pop("key", "")) != self.key:
            return False
        collector.restore(state)
        return True

    def keep(self, collector: Collector) -> None:
        """Write the entry of a collector, complete or not at all."""
        state = collector.state()
        if self.folder is None or not state:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    np.savez(stream, key=np.array(self.key), **state)
                os.replace(temporary, self._path(collector))
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write the statistics of the real set to {self.folder} ({error}); choose "
                "another folder with --cache_dir, or --no_cache."
            ) from error
