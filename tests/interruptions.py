"""Ctrl-C at moments when it hurts: changes of files by a save, the clean-up, the very end."""

import atexit
import os
import signal

import train
from tests.faulty_disk import FaultyDisk


def interrupt() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_every_change_of_a_file(first: int) -> None:
    """From now on: by a save, from the ``first`` change on."""
    FaultyDisk(first, interrupt).install()


def interrupt_the_end() -> None:
    """At the clean-up of train.py, and while Python shuts down: at first and at last."""
    shutdown = train.distributed.shutdown
    process, number, kill = os.getpid(), signal.SIGINT, os.kill

    class Last:
        def __del__(self) -> None:  # Python's own handlers are gone, and its modules may be
            kill(process, number)

    def interrupted_shutdown() -> None:
        interrupt()
        shutdown()
        interrupt()

    train.distributed.shutdown = interrupted_shutdown
    train.kept_until_the_end = Last()
    atexit.register(interrupt)


def lose_the_reader() -> None:
    """Standard output and error lead into a pipe without a reader, as after ``| head``."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
