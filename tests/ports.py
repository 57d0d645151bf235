"""Ports for the processes that a test starts."""

import itertools
import os
import socket

_FIRST, _COUNT = 20_000, 12_000  # below those that a system gives to whoever asks for any port
_numbers = itertools.count(os.getpid() * 101)


def free_port() -> int:
    """A port on which nobody listens, and that no other test is given before it is used."""
    for number in itertools.islice(_numbers, _COUNT):
        port = _FIRST + number % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")
