"""Ways to damage the data set of tests/tiny_dataset.py, and what is said about each."""

from pathlib import Path

import numpy as np

from tests import tiny_dataset
from util.tables.patn import read_keypoints, write_keypoints, write_pairs

PAIRS, KEYPOINTS = "fasion-resize-pairs-train.csv", "fasion-resize-annotation-train.csv"
FIRST, SECOND = tiny_dataset.names("train")[:2]


def edit(path: Path, old: str, new: str, count: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def remove_pairs(root):
    (root / PAIRS).unlink()


def empty_keypoints(root):
    (root / KEYPOINTS).write_text("")


def comma_keypoints(root):
    (root / KEYPOINTS).write_text('name,keypoints_y,keypoints_x\na.jpg,"[1]","[1]"\n')


def semicolon_pairs(root):
    edit(root / PAIRS, ",", ";")


def missing_column(root):
    edit(root / PAIRS, "from,to", "from,target")


def short_list(root):
    edit(root / KEYPOINTS, "]:[", ", 4]:[", 1)


def not_a_number(root):
    edit(root / KEYPOINTS, "[-1,", "[NaN,", 1)


def repeated_keypoints(root):
    lines = (root / KEYPOINTS).read_text().splitlines(keepends=True)
    (root / KEYPOINTS).write_text("".join([*lines, lines[2]]))


def repeated_pair(root):
    lines = (root / PAIRS).read_text().splitlines(keepends=True)
    (root / PAIRS).write_text("".join([*lines, lines[1]]))


def truncated_image(root):
    path = root / "train" / SECOND
    path.write_bytes(path.read_bytes()[:1500])


def missing_image(root):
    (root / "train" / SECOND).unlink()


def missing_keypoints(root):
    table = read_keypoints(root / KEYPOINTS)
    del table[SECOND]
    write_keypoints(root / KEYPOINTS, table)


def climbing_name(root):
    edit(root / PAIRS, SECOND, "../test/" + SECOND, 1)


def text_as_image(root):
    (root / "train" / FIRST).write_text("this is no picture")


def missing_folder(root):
    (root / "train").rename(root / "elsewhere")


def binary_table(root):
    (root / PAIRS).write_bytes((root / PAIRS).read_text().encode("utf-16"))


def uncropped_image(root):
    tiny_dataset.picture(1, (256, 256)).save(root / "train" / FIRST)


def same_image_in_both(root):
    test = root / PAIRS.replace("train", "test")
    write_pairs(test, tiny_dataset.pairs("train"))
    write_keypoints(root / KEYPOINTS.replace("train", "test"), read_keypoints(root / KEYPOINTS))
    for name in tiny_dataset.names("train"):
        (root / "test" / name).write_bytes((root / "train" / name).read_bytes())


def same_person_in_both(root):
    for path in (root / PAIRS, root / KEYPOINTS):
        edit(path, "id00000002", "id00000003")
    for view in ("011front", "017additional"):
        old = next(n for n in tiny_dataset.names("train")[2:] if view in n.replace("_", ""))
        (root / "train" / old).rename(root / "train" / old.replace("id00000002", "id00000003"))
    for name in tiny_dataset.names("test"):  # other photographs of that person
        (root / "test" / name).rename(root / "test" / name.replace("01_", "09_"))
        for kind in (PAIRS, KEYPOINTS):
            edit(root / kind.replace("train", "test"), name, name.replace("01_", "09_"))


def far_joint(root):
    table = read_keypoints(root / KEYPOINTS)
    table[SECOND][4] = (900, 20)
    write_keypoints(root / KEYPOINTS, table)


def other_frame(root):
    enlarge_keypoints(root / KEYPOINTS)


def enlarge_keypoints(path: Path) -> None:
    """Coordinates four times as large; missing joints stay missing."""
    table = read_keypoints(path)
    write_keypoints(path, {n: np.where(p == -1, -1, p * 4) for n, p in table.items()})


def two_people(root):
    write_pairs(root / PAIRS, [(FIRST, tiny_dataset.names("train")[2])])


def same_image_twice(root):
    write_pairs(root / PAIRS, [(FIRST, FIRST)])


# damage -> level, part of its sentence, whether a training must refuse it
DAMAGES = {
    remove_pairs: ("error", f"the pairs table {PAIRS} or ", True),
    empty_keypoints: ("error", f"{KEYPOINTS} is empty", True),
    comma_keypoints: ("error", "separated by ','; expected ':'", True),
    semicolon_pairs: ("error", "separated by ';'; expected ','", True),
    missing_column: ("error", "row 1: the column 'to' is missing", True),
    short_list: ("error", "row 2: keypoints_y holds 19 values; expected 18", True),
    not_a_number: ("error", "row 2: a coordinate is nan", True),
    repeated_keypoints: ("error", f"row 6: the name '{SECOND}' is already in row 3", True),
    repeated_pair: ("error", f"row 6: the pair '{FIRST}' to '{SECOND}' is already in row 2", True),
    truncated_image: ("error", f"{SECOND} is damaged (", True),
    missing_image: ("error", f"the first is '{SECOND}' (row 2): prepare the images again", True),
    missing_keypoints: ("error", f"the first is '{SECOND}' (row 2): add their rows", True),
    climbing_name: ("error", "row 2: the name '../test/", True),
    text_as_image: ("error", f"{FIRST} is not a readable image", True),
    missing_folder: ("error", "the image folder", True),
    binary_table: ("error", "is not UTF-8 text", True),
    uncropped_image: ("error", "1 images in", False),
    same_image_in_both: ("error", "4 images are in the pairs of train and of test", False),
    same_person_in_both: ("warning", "1 people are in train and in test", False),
    far_joint: ("warning", "joint 4 at y 900, x 20: correct the row", False),
    other_frame: ("warning", "the table seems to be of images of another size", False),
    two_people: ("warning", "1 pairs of", False),
    same_image_twice: ("warning", "have one image as source and target, the first in row 2", False),
}
