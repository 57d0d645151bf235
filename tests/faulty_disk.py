"""A file system that fails at a chosen operation of a save: full, or gone with the process."""

from __future__ import annotations

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path

from util.run import checkpoint


class Killed(BaseException):
    """The simulated end of the process: nothing on the disk changes from here on."""


class FaultyDisk:
    """Counts every change of a file by ``util.run.checkpoint`` and calls ``fail`` from one of them
    on.

    A write that fails leaves half of its bytes. Use as a context manager inside a test process, or
    :meth:`install` for good in a process of its own.
    """

    def __init__(self, fail_at: int, fail: Callable[[], None], only_writes: bool = False):
        self.fail_at, self.fail, self.only_writes = fail_at, fail, only_writes
        self.count = 0
        self._undo: list[Callable[[], None]] = []

    @property
    def failed(self) -> bool:
        return self.count >= self.fail_at

    def _operation(self, write: bool = False) -> None:
        if self.only_writes and not write:
            return
        self.count += 1
        if self.failed:
            self.fail()

    def install(self) -> None:
        """Replace the operations."""
        disk = self

        class Stream(io.FileIO):
            def write(self, data) -> int:
                try:
                    disk._operation(write=True)
                except BaseException:
                    super().write(memoryview(data)[: len(data) // 2])
                    raise
                return super().write(data)

        def opened(path, mode="r", *arguments, **options):
            if mode != "r+b":
                return builtins.open(path, mode, *arguments, **options)
            disk._operation(write=True)
            return Stream(path, mode)

        def counted(function):
            def call(*arguments, **options):
                disk._operation()
                return function(*arguments, **options)

            return call

        checkpoint.open = opened
        self._undo.append(lambda: delattr(checkpoint, "open"))
        for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink")):
            original = getattr(owner, name)
            setattr(owner, name, counted(original))
            self._undo.append(lambda o=owner, n=name, f=original: setattr(o, n, f))

    def __enter__(self) -> FaultyDisk:
        self.install()
        return self

    def __exit__(self, *exception: object) -> None:
        while self._undo:
            self._undo.pop()()


def end_the_process() -> None:
    """For ``FaultyDisk(n, end_the_process)``: what a kill at that operation leaves behind."""
    raise Killed
