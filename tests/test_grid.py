"""Pictures side by side."""

import numpy as np

from util.show.grid import GAP, HEADER, grid, in_rows


def _shade(height: int, width: int, value: int) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_columns_are_aligned_and_what_is_empty_is_white():
    sheet = grid([[_shade(4, 6, 10), _shade(2, 3, 20)], [_shade(5, 2, 30)]])
    assert sheet.shape == (4 + GAP + 5, 6 + GAP + 3, 3)
    assert (sheet[:4, :6] == 10).all()
    assert (sheet[:2, 6 + GAP :] == 20).all()
    assert (sheet[4 + GAP :, :2] == 30).all()
    rest = sheet.copy()
    rest[:4, :6] = rest[:2, 6 + GAP :] = rest[4 + GAP :, :2] = 255
    assert (rest == 255).all()


def test_captions_stand_above_their_columns():
    plain = grid([[_shade(4, 60, 10), _shade(4, 60, 20)]])
    sheet = grid([[_shade(4, 60, 10), _shade(4, 60, 20)]], ["left", "right"])
    assert np.array_equal(sheet[HEADER:], plain)
    assert (sheet[:HEADER, :60] < 128).any()
    assert (sheet[:HEADER, 60 + GAP :] < 128).any()


def test_the_last_row_may_be_shorter():
    assert in_rows("abcde", 2) == ["ab", "cd", "e"]
