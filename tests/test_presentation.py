"""What a training tells people from its first line to its last words."""

import json
import re

import numpy as np
import pytest
import torch

from models.presentation import pictures_of
from tests import small_runs
from tests.helpers import make_visualizer
from tests.training_child import write_tiny_data
from util.run.main import EXIT_NOT_SAVED
from util.show.training_page import TrainingPage
from util.show.visualizer import one_colour, spread


@pytest.fixture(scope="module")
def dots(tmp_path_factory):
    """Eight training pairs of 8 x 8 pixels."""
    return write_tiny_data(tmp_path_factory.mktemp("dots"), pairs=8, size=8)


@pytest.fixture(scope="module")
def finished(dots, tmp_path_factory):
    """A run of 16 steps with a page, shorter than one print interval, and what it printed."""
    folder = tmp_path_factory.mktemp("runs")
    argv = [w for w in small_runs.small_argv(dots, folder) if w != "--no_html"]
    argv[argv.index("--print_freq") + 1] = 1000
    status, text = small_runs.train(argv, folder)
    assert status == 0, text
    return folder, argv, text


def test_a_run_shorter_than_one_interval_still_logs_its_last_step_and_shows_it(finished):
    folder, _, _ = finished
    lines = (folder / "run" / "loss_log.txt").read_text().splitlines()
    assert len(lines) == 1
    assert "(epoch: 2, iters: 8, total_iters: 16," in lines[0]
    page = (folder / "run" / "web" / "index.html").read_text()
    assert "Epoch 2, 16 samples" in page
    assert page.count("(test)") >= 3  # the pairs that stay the same
    assert "niter_decay" in page  # settings of the run
    assert 'http-equiv="refresh"' not in page


def test_the_first_line_names_device_precision_parameters_pairs_steps_and_page(finished):
    folder, _, text = finished
    (line,) = [line for line in text.splitlines() if line.startswith("cpu, fp32 | ")]
    for part in ("parameters", "8 pairs, 2 epochs of 8 steps", "1 sample a step",
                 f"page: {folder / 'run' / 'web' / 'index.html'}"):  # fmt: skip
        assert part in line


def test_the_last_words_say_what_was_reached_where_it_is_and_what_to_type_next(finished):
    folder, argv, text = finished
    ending = text[text.index("finished: 2 epochs, 16 samples") :]
    for path in ("latest_net_G.pth", "loss_log.txt", "web/index.html"):
        assert str(folder / "run" / path) in ending
    data = argv[argv.index("--dataroot") + 1]
    assert f"python test.py --name run --dataroot {data} --checkpoints_dir {folder}" in ending


def test_after_a_last_save_that_the_disk_refused_the_last_words_claim_no_checkpoint(dots, tmp_path):
    for full_from, older in ((1, "no step was ever saved"), (5, "may be of an earlier step")):
        folder = tmp_path / str(full_from)
        folder.mkdir()
        status, text = small_runs.train(
            small_runs.small_argv(dots, folder), folder, full_from=full_from
        )
        assert status == EXIT_NOT_SAVED, text
        ending = text[text.index("finished: 2 epochs, 16 samples") :]
        assert "NOT SAVED, the disk refused it" in ending
        assert older in ending
        assert "the same command with --continue_train" in ending
        assert "test.py" not in ending


def test_a_shorter_epoch_is_in_the_first_line(dots, tmp_path):
    argv = [*small_runs.small_argv(dots, tmp_path), "--max_dataset_size", 3, "--niter_decay", 0]
    status, text = small_runs.train(argv, tmp_path)
    assert status == 0, text
    assert "3 of 8 pairs an epoch, 1 epoch of 3 steps" in text


def test_continuing_a_finished_run_says_so(finished):
    folder, argv, _ = finished
    status, text = small_runs.train([*argv, "--continue_train"], folder)
    assert status == 0, text
    assert "this run is finished: all 2 epochs are done; raise --niter" in text


def test_a_run_that_died_before_its_first_save_starts_its_log_anew(dots, tmp_path):
    (tmp_path / "run" / "web").mkdir(parents=True)
    (tmp_path / "run" / "loss_log.txt").write_text("(epoch: 1, iters: 1, total_iters: 1, ...\n")
    status, text = small_runs.train(small_runs.small_argv(dots, tmp_path), tmp_path)
    assert status == 0, text
    lines = (tmp_path / "run" / "loss_log.txt").read_text().splitlines()
    assert [int(re.search(r"total_iters: (\d+)", line)[1]) for line in lines] == [*range(1, 17)]


def test_pictures_have_the_captions_and_the_order_of_the_result_page_and_skeletons():
    class Options:
        annotation_size = (64, 32)

    points = torch.full((2, 18, 2), -1.0)
    points[1, 2], points[1, 3] = torch.tensor([16.0, 8.0]), torch.tensor([48.0, 8.0])
    inputs = {"target_keypoints": points}
    image = torch.zeros(1, 3, 128, 128)
    visuals = {"fake_target": image, "flow": image, "target_pose": torch.zeros(1, 18, 128, 128),
               "target_image": image, "source_image": image}  # fmt: skip
    shown = pictures_of(visuals, inputs, Options)
    assert list(shown) == ["source", "target pose", "generated", "ground truth", "flow"]
    drawn = (shown["target pose"] != shown["target pose"][0, 0]).any(axis=-1)
    rows, columns = np.nonzero(drawn)
    assert rows.min() in range(26, 33)  # from a quarter of the height ...
    assert rows.max() in range(96, 102)  # ... to three quarters
    assert columns.mean() == pytest.approx(32, abs=2)


def test_pictures_are_not_wanted_faster_than_asked_for_but_the_last_ones_are(tmp_path):
    visualizer = make_visualizer(tmp_path, display_seconds=1000.0)
    assert visualizer.wants_pictures()
    visualizer.show({"generated": np.zeros((8, 8, 3), np.uint8)}, 1, 1)
    assert not visualizer.wants_pictures()
    assert visualizer.wants_pictures(last=True)


def test_an_epoch_of_pictures_of_one_colour_is_one_warning(tmp_path, capsys):
    visualizer = make_visualizer(tmp_path)
    grey = np.full((8, 8, 3), 127, np.uint8)
    for epoch in range(1, 5):
        for half in (1, 2):
            visualizer.show({"generated": grey}, epoch, 5000 * epoch - 2500 * (2 - half))
    visualizer.close()
    (warning,) = capsys.readouterr().err.splitlines()
    assert "all 2 generated pictures of epoch 1 are (nearly) one colour" in warning
    assert "learning rate" in warning


def test_one_picture_with_a_person_is_enough_to_be_quiet():
    assert not one_colour([], "images")  # nothing was seen
    spreads = [spread(np.full((8, 8, 3), 127, np.uint8))]
    assert one_colour(spreads, "images").startswith("the images are (nearly) one colour")
    picture = np.full((8, 8, 3), 235, np.uint8)
    picture[2:6, 2:6] = 40
    assert not one_colour([*spreads, spread(picture)], "images")


def test_a_page_written_before_pairs_stayed_the_same_is_read(tmp_path):
    from util.show.sinks import LossHistory

    old = {"epoch": 1, "total_samples": 9,
           "pictures": [["fake target", "0000000009_1_fake_target.jpg", 16, 11]]}  # fmt: skip
    (tmp_path / "history.json").write_text(json.dumps({"entries": [old]}))
    told = []
    page = TrainingPage(tmp_path, "run", LossHistory(), 3, {}, {}, told.append)
    assert told == []
    assert [entry.files for entry in page.entries] == [{"0000000009_1_fake_target.jpg"}]
