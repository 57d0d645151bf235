"""Pairs and keypoint tables: what is read, and the sentence for everything that cannot be."""

import numpy as np
import pytest

from util.errors import UserError
from util.tables.patn import read_keypoints, read_list, read_pairs, write_keypoints, write_pairs

GOOD_LIST = "[" + ", ".join(["10"] * 18) + "]"
HEADER = "name:keypoints_y:keypoints_x\n"


def refusal(read, path, content) -> str:
    """The text of the UserError that reading ``content`` raises; it names the file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pairs_come_back_in_row_order(tmp_path):
    pairs = [("b.jpg", "a.jpg"), ("a.jpg", "b.jpg"), ("Ü ber.jpg", 'say "hi", you.jpg')]
    write_pairs(tmp_path / "pairs.csv", pairs)
    assert read_pairs(tmp_path / "pairs.csv") == pairs


def test_pairs_allow_other_columns_order_byte_order_mark_and_line_ends(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbfid, to ,from\r\n1,t.jpg,s.jpg\r\n\r\n2,=1+1,s.jpg\r\n")
    assert read_pairs(path) == [("s.jpg", "t.jpg"), ("s.jpg", "=1+1")]
    path.write_bytes(b"imgA,imgB\nimg/a.jpg,img/b.jpg\n")
    assert read_pairs(path, ("imgA", "imgB")) == [("img/a.jpg", "img/b.jpg")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("from,to\n", "has a header but no rows"),
        ("from;to\na;b\n", "row 1: the columns are separated by ';'; expected ','"),
        ("from:to\na:b\n", "row 1: the columns are separated by ':'"),
        ("from\tto\na\tb\n", "row 1: the columns are separated by a tab"),
        ("from\na\n", "row 1: the column 'to' is missing"),
        ("a.jpg,b.jpg\nc.jpg,d.jpg\n", "row 1: the column 'from' is missing"),
        ("from,to,from\na,b,c\n", "row 1: the column 'from' occurs twice"),
        ("from,to\na,b\na\n", "row 3: has 1 fields"),
        ("from,to\na,b,c\n", "row 2: has 3 fields"),
        ("from,to\na,\n", "row 2: the name '' is empty"),
        ("from,to\na,../../x\n", "row 2: the name '../../x' climbs out"),
        ("from,to\na,/etc/passwd\n", "row 2: the name '/etc/passwd' is an absolute path"),
        ("from,to\na,..\\x\n", "holds a backslash"),
        ("from,to\na,b\nc,d\na,b\n", "row 4: the pair 'a' to 'b' is already in row 2"),
        ('from,to\n"a,b\n', "is not valid CSV"),
        (b"from,to\na,\xff\xfe\n", "row 2: the file is not UTF-8 text"),
        ("from,to\na,b\n".encode("utf-16"), "is not UTF-8 text"),
        (b"from,to\na,\0b\n", "row 2: holds a zero byte"),
    ],
)
def test_malformed_pairs_are_refused_in_one_sentence(tmp_path, content, message):
    assert message in refusal(read_pairs, tmp_path / "pairs.csv", content)


def test_repeated_pairs_can_be_allowed(tmp_path):
    (tmp_path / "pairs.csv").write_text("from,to\na,b\na,b\n")
    assert read_pairs(tmp_path / "pairs.csv", allow_duplicates=True) == [("a", "b")] * 2


def test_keypoints_are_y_before_x_and_keep_joints_outside_the_frame(tmp_path):
    path = tmp_path / "k.csv"
    ys, xs = list(range(18)), [-5.5, *range(181, 198)]
    path.write_text(f"{HEADER}a.jpg: {ys}: {xs}\nb.jpg:{[-1] * 18}:{[-1] * 18}\n")
    table = read_keypoints(path)
    assert list(table) == ["a.jpg", "b.jpg"]
    assert table["a.jpg"].dtype == np.float64
    assert table["a.jpg"][:, 0].tolist() == ys
    assert table["a.jpg"][:, 1].tolist() == xs
    assert (table["b.jpg"] == -1).all()


def test_keypoints_are_written_as_in_the_published_files(tmp_path):
    points = np.full((18, 2), -1.0)
    points[0], points[1] = (3, 4), (0.1, -7)
    write_keypoints(tmp_path / "k.csv", {"a.jpg": points, "bb:c.jpg": points})
    lines = (tmp_path / "k.csv").read_text().splitlines()
    assert lines[0] == HEADER.strip()
    assert lines[1].startswith("a.jpg:[3, 0.1, -1, -1,")
    table = read_keypoints(tmp_path / "k.csv")
    assert list(table) == ["a.jpg", "bb:c.jpg"]
    assert np.array_equal(table["bb:c.jpg"], points)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"a.jpg:{GOOD_LIST}", "row 2: has 2 fields"),
        (f"a.jpg:{GOOD_LIST}:[1, 2]", "row 2: keypoints_x holds 2 values; expected 18"),
        (f"a.jpg:{GOOD_LIST[:-1]}:{GOOD_LIST}", "row 2: keypoints_y is '[10"),
        (f"a.jpg::{GOOD_LIST}", "row 2: keypoints_y is ''"),
        (f"a.jpg:12:{GOOD_LIST}", "row 2: keypoints_y is '12'"),
        (f"a.jpg:{{}}:{GOOD_LIST}", "row 2: keypoints_y is '{}'"),
        (f"a.jpg:{'[' * 100_000}:{GOOD_LIST}", "row 2: keypoints_y is '[[["),
        (f"a.jpg:{GOOD_LIST.replace('10', 'NaN', 1)}:{GOOD_LIST}", "row 2: a coordinate is nan"),
        (f"a.jpg:{GOOD_LIST}:{GOOD_LIST.replace('10', 'Infinity', 1)}", "a coordinate is inf"),
        (f"a.jpg:{GOOD_LIST.replace('10', '9' * 400, 1)}:{GOOD_LIST}", "a coordinate is 999"),
        (f"a.jpg:{GOOD_LIST.replace('10', '1e7', 1)}:{GOOD_LIST}", "a coordinate is 10000000.0"),
        (f"a.jpg:{GOOD_LIST.replace('10', 'null', 1)}:{GOOD_LIST}", "keypoints_y holds None"),
        (f"a.jpg:{GOOD_LIST.replace('10', 'true', 1)}:{GOOD_LIST}", "keypoints_y holds True"),
        (f"a.jpg:{GOOD_LIST.replace('10', '[1]', 1)}:{GOOD_LIST}", "holds a nested list"),
        (f"../a.jpg:{GOOD_LIST}:{GOOD_LIST}", "row 2: the name '../a.jpg' climbs out"),
        (f"a:{GOOD_LIST}:{GOOD_LIST}\na:{GOOD_LIST}:{GOOD_LIST}", "row 3: the name 'a' is already"),
    ],
)
def test_malformed_keypoints_are_refused_in_one_sentence(tmp_path, row, message):
    assert message in refusal(read_keypoints, tmp_path / "k.csv", HEADER + row + "\n")


def test_a_keypoint_table_with_commas_is_told_from_one_with_a_missing_column(tmp_path):
    path = tmp_path / "k.csv"
    comma = f'name,keypoints_y,keypoints_x\na.jpg,"{GOOD_LIST}","{GOOD_LIST}"\n'
    assert "separated by ','; expected ':'" in refusal(read_keypoints, path, comma)
    assert "'keypoints_x' is missing" in refusal(read_keypoints, path, "name:keypoints_y\na:[]\n")
    quoted = 'from, "to"\na.jpg,b.jpg\n'  # the space makes the quotation marks part of the name
    assert "the column 'to' is missing" in refusal(read_pairs, path, quoted)


def test_the_row_of_a_bad_number_is_found_among_many(tmp_path):
    rows = [f"{i}.jpg:{GOOD_LIST}:{GOOD_LIST}\n" for i in range(500)]
    rows[321] = rows[321].replace("10]", "NaN]")
    message = refusal(read_keypoints, tmp_path / "k.csv", HEADER + "".join(rows))
    assert "row 323: a coordinate is nan" in message


def test_missing_and_unreadable_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_pairs(tmp_path / "nothing.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_keypoints(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        read_pairs("a\0b")


def test_lists_skip_blank_lines_and_refuse_repeated_names(tmp_path):
    path = tmp_path / "train.lst"
    path.write_text("a.jpg\r\n\n b.jpg \n")
    assert read_list(path) == ["a.jpg", "b.jpg"]
    assert "row 2: the name 'a.jpg' is already in row 1" in refusal(
        read_list, path, "a.jpg\na.jpg\n"
    )
    assert "is empty" in refusal(read_list, path, "\n")


def test_a_failed_write_leaves_the_old_table_and_no_rest(tmp_path):
    path = tmp_path / "pairs.csv"
    write_pairs(path, [("a", "b")])
    with pytest.raises(UserError, match="climbs out"):
        write_pairs(path, [("a", "b"), ("..", "b")])
    assert read_pairs(path) == [("a", "b")]
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]


def test_a_table_cannot_be_written_where_a_file_is_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another place"):
        write_pairs(tmp_path / "file" / "pairs.csv", [("a", "b")])
