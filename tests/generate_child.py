"""test.py as one of several processes; every image that it writes is noted in ``$JOURNAL``."""

import os
from pathlib import Path

import torch

import test as test_command
from util.run import distributed
from util.run.main import run_main
from util.show.results import ResultWriter


def main() -> None:
    """Generate, noting ``<rank> <file>`` of every image."""
    save = ResultWriter._save

    def noted(writer: ResultWriter, path: Path, *picture) -> None:
        save(writer, path, *picture)
        with open(os.environ["JOURNAL"], "a") as stream:
            stream.write(f"{distributed.rank()} {path.name}\n")

    ResultWriter._save = noted
    torch.set_num_threads(1)
    test_command.main()


if __name__ == "__main__":
    run_main(main, cleanup=distributed.shutdown)
