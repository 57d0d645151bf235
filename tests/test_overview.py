"""Which pairs an overview shows, and in which order."""

from pathlib import Path

import numpy as np
import pytest
import torch

from script.overview import SPACE, overview
from util.errors import UserError
from util.image import save_image
from util.show.grid import GAP, HEADER
from util.show.results import ResultWriter

SIZE = (32, 16)


@pytest.fixture
def results(tmp_path) -> Path:
    """Ten results, the i-th of which is of shade 20 i."""
    for i in range(10):
        save_image(tmp_path / f"s{i}_2_t{i}_vis.png", np.full((*SIZE, 3), 20 * i, np.uint8))
        for name in (f"s{i}", f"t{i}", f"t{i}_pose"):
            save_image(tmp_path / "page_images" / f"{name}.jpg", np.full((*SIZE, 3), 255, np.uint8))
    return tmp_path


def test_the_pairs_are_spread_evenly_from_the_first_to_the_last_row_by_row(results):
    picture = overview(results, rows=2, columns=2, height=SIZE[0])
    width = 4 * SIZE[1] + 3 * GAP
    assert picture.shape == (2 * (HEADER + SIZE[0]) + SPACE, 2 * width + SPACE, 3)
    left = 2 * (SIZE[1] + GAP) + 2  # inside the third picture of a pair: the generated one
    shades = [
        picture[HEADER + 8 + r * (HEADER + SIZE[0] + SPACE), left + c * (width + SPACE), 0]
        for r in range(2)
        for c in range(2)
    ]
    assert shades == [20 * i for i in (0, 3, 6, 9)]


def test_too_few_results_are_refused(results):
    with pytest.raises(UserError, match=r"holds 10 results.*at least 12"):
        overview(results, rows=6, columns=2, height=32)


@pytest.mark.parametrize(("spread", "said"), [(0.0, True), (0.5, False)])
def test_a_test_run_whose_images_are_all_one_colour_says_so(tmp_path, capsys, spread, said):
    torch.manual_seed(0)
    with ResultWriter(tmp_path, (8, 8), page=False) as writer:
        for i in range(3):
            batch = {"source_name": [f"{i}.jpg"], "target_name": ["t.jpg"]}
            writer.add(batch, {"fake_target": spread * torch.randn(1, 3, 8, 8)})
    text = capsys.readouterr().err
    assert ("warning: all 3 generated images are (nearly) one colour" in text) == said
    assert ("--which_epoch" in text) == said
