"""Errors meant for the person at the keyboard, and how they become an exit status."""

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the input; one sentence: what was found, what was expected, what to do.

    ``lines`` are the files or rows it is about, where there can be many: shown above the sentence.
    """

    def __init__(self, message: str = "", lines: Sequence[str] = ()):
        # A loader process hands it over wrapped in its traceback; keep the sentence.
        if message.startswith("Caught UserError in "):
            message = message.rstrip().rpartition("UserError: ")[2]
        super().__init__("\n".join((message, *lines)))
        self.sentence, self.lines = message, tuple(lines)
