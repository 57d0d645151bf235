"""Errors that are meant for the person at the keyboard, and the one place that turns them into an exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

EXIT_USER_ERROR = 2


class UserError(Exception):
    """A mistake in the input: its text is one sentence - what was found, what was expected, what to do."""

    def __init__(self, message: str = ""):
        # A loader worker hands its exception over wrapped in the worker's traceback; keep the sentence.
        if message.startswith("Caught UserError in "):
            message = message.rstrip().rpartition("UserError: ")[2]
        super().__init__(message)


def run_main(
    main: Callable[[], int | None],
    debug: bool | None = None,
    cleanup: Callable[[], None] | None = None,  # called on every way out
) -> None:
    """Run an entry point and exit with its status.

    A :class:`UserError` becomes one line on stderr and exit status 2; ``--debug`` anywhere on the
    command line shows the full traceback instead. Other exceptions keep their traceback: they are bugs.
    """
    if debug is None:
        debug = "--debug" in sys.argv
    try:
        status = main()
    except UserError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    finally:
        if cleanup is not None:
            cleanup()
    sys.exit(status or 0)
