"""Small promises: links at a destination, allotted processors, words of launchers and scripts."""

import os

import pytest

from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.errors import UserError
from util.files import write_file
from util.parallel import allotted_cpus


def test_a_link_at_the_destination_is_replaced_and_its_target_untouched(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "page.html"
    victim.write_text("mine")
    for link in (path, tmp_path / ".page.html.tmp"):
        link.symlink_to(victim)
    write_file(path, b"ours")
    assert victim.read_text() == "mine"
    assert path.read_text() == "ours"
    assert not path.is_symlink()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_process_on_one_cpu_counts_one_cpu():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allotted_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("spelling", ["--local_rank", "--local-rank"])
def test_the_rank_that_an_old_launcher_adds_is_accepted(spelling):
    options = TrainOptions()
    opt = options.parse([spelling, "0", "--gpu_ids", "-1", "--niter", "3"])
    assert not hasattr(opt, "local_rank")
    assert options.chosen(opt) == {"device": "cpu", "niter": 3}  # what the training page shows


def test_an_empty_save_id_is_refused():
    with pytest.raises(UserError, match="save_id"):
        TestOptions().parse(["--save_id", ""])


def test_the_exit_statuses_are_the_documented_numbers():
    from util.run import main

    statuses = (
        main.EXIT_USER_ERROR,
        main.EXIT_NOT_FINITE,
        main.EXIT_NOT_SAVED,
        main.EXIT_INTERRUPTED,
        main.EXIT_AT_ONCE,
    )
    assert statuses == (2, 3, 4, 75, 130)
