"""Random files and names: each is read correctly or refused in one sentence."""

import csv
import io
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.fuzz import cases
from util.errors import UserError
from util.names import (
    check_relative_name,
    flatten_deepfashion_path,
    parse_result_name,
    result_name,
    result_splits,
    stem,
    unflatten_deepfashion_name,
)
from util.tables.manifest import read_manifest
from util.tables.patn import read_keypoints, read_list, read_pairs, write_keypoints, write_pairs
from util.tables.uncropped import read_items, read_magpt_keypoints, read_pose, write_magpt_keypoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def parsed_or_refused(read, path: Path):
    """The result of ``read(path)``, or None after a UserError of one line that names the file."""
    try:
        return read(path)
    except UserError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return None


HOSTILE = [
    "../x",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "=1+1",
    "<script>",
    '"',
    "'",
    "",
    " ",
    "..",
    "ä ö",
]
names = st.one_of(
    st.text(string.ascii_letters + string.digits + "_-./ \\:,;\"'=", max_size=40),
    st.text(max_size=20),
    st.sampled_from(HOSTILE),
)
safe_names = st.one_of(
    st.text("ab01_2-. ,;:=\"'<&äß人", max_size=12).map("xx{}y".format),
    st.sampled_from(["=1+1", "<script>", '"', "a_2_b.jpg", "b_2.jpg", "c_vis.png", "ä ö", "d/e.f"]),
    st.text(min_size=1, max_size=6).filter(lambda name: _accepted(name)),
)
fields = st.one_of(
    names,
    st.sampled_from(["[]", "[1]", "NaN", str([1] * 18), str([-1] * 18), "1e999", "[[1]]", "null"]),
    st.lists(
        st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=2)), max_size=19
    ).map(repr),
)
headers = st.sampled_from(
    ["from,to", "to,from", "from;to", "name:keypoints_y:keypoints_x", "imgA,imgB", "name", ""]
)
coordinates = st.one_of(
    st.integers(-1_000_000, 1_000_000).map(float),
    st.floats(-1_000_000, 1_000_000, allow_nan=False),
    st.just(-1.0),
)
keypoints = st.lists(st.tuples(coordinates, coordinates), min_size=18, max_size=18).map(np.array)


def _accepted(name: str) -> bool:
    try:
        return check_relative_name(name) == name
    except UserError:
        return False


@st.composite
def tables(draw, header: str, row) -> bytes:
    """A file that is a table, or nearly one: at times with a wrong header, row or separator."""
    separator = ":" if ":" in header else ","
    rows = draw(st.lists(row.map(lambda r: _csv_line(r, separator)), max_size=4))
    if draw(st.integers(0, 2)) == 0:
        separator = draw(st.sampled_from([",", ":", ";", "\t"]))
        rows += draw(st.lists(st.lists(fields, max_size=4).map(separator.join), max_size=3))
        header = draw(st.one_of(st.just(header), headers))
    line_end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    return line_end.join([header, *rows]).encode("utf-8", errors="surrogatepass")


def _csv_line(row, separator: str) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="").writerow(row)
    return text.getvalue()


pair_tables = tables("from,to", st.tuples(st.one_of(safe_names, safe_names, names), safe_names))
keypoint_lists = st.one_of(
    st.lists(st.integers(-1, 300), min_size=18, max_size=18).map(str),
    st.lists(coordinates, min_size=18, max_size=18).map(str),
)
keypoint_tables = tables(
    "name:keypoints_y:keypoints_x",
    st.tuples(safe_names, keypoint_lists, st.one_of(keypoint_lists, keypoint_lists, fields)),
)


@cases(1000)
@given(names)
def test_an_accepted_name_stays_below_the_folder(name):
    if _accepted(name):
        assert Path("/data/root").joinpath(name).as_posix().startswith("/data/root/")
        assert ".." not in Path(name).parts
        assert "\0" not in name


@cases(600)
@given(safe_names, safe_names)
def test_result_names_are_read_back_by_rule_or_are_among_the_readings(source, target):
    try:
        name = result_name(source, target)
    except UserError:
        return  # too long for a file
    assert "/" not in name
    expected = (stem(source), stem(target))
    plain = f"_2_{stem(target)}_vis".rfind("_2_") == 0 and "_vis" not in stem(target)
    if plain:
        assert parse_result_name(name) == expected
    assert expected in result_splits(name)


@cases(400)
@given(st.one_of(names, st.from_regex(r"(WOMEN|MEN)/[A-Z_]{1,9}/id_\d{8}/\d\d_\d_[a-z]{1,9}\.jpg")))
def test_a_path_flattens_reversibly_or_is_refused(path):
    try:
        flat = flatten_deepfashion_path(path)
    except UserError:
        return
    assert path.endswith(unflatten_deepfashion_name(flat))
    assert flatten_deepfashion_path(unflatten_deepfashion_name(flat)) == flat


@cases(400)
@given(
    st.one_of(names, st.from_regex(r"fashion(WOMEN|MEN)[A-Za-z_]{1,9}id\d{10}_\d[a-z]{1,9}\.jpg"))
)
def test_a_flat_name_unflattens_reversibly_or_is_refused(name):
    try:
        path = unflatten_deepfashion_name(name)
    except UserError:
        return
    assert flatten_deepfashion_path(path) == name


@cases(800)
@given(pair_tables)
def test_any_table_is_read_as_pairs_or_refused(folder, content):
    path = folder / "pairs.csv"
    path.write_bytes(content)
    pairs = parsed_or_refused(read_pairs, path)
    event("read" if pairs else "refused")
    if pairs is not None:
        assert all(_accepted(name) for pair in pairs for name in pair)
        write_pairs(path, pairs)
        assert read_pairs(path) == pairs


@cases(800)
@given(keypoint_tables)
def test_any_table_is_read_as_keypoints_or_refused(folder, content):
    path = folder / "keypoints.csv"
    path.write_bytes(content)
    table = parsed_or_refused(read_keypoints, path)
    event("read" if table else "refused")
    if table is not None:
        assert all(
            points.shape == (18, 2) and np.isfinite(points).all() for points in table.values()
        )
        write_keypoints(path, table)
        again = read_keypoints(path)
        assert list(again) == list(table)
        assert all(np.array_equal(again[name], table[name]) for name in table)


@cases(600)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_every_reader(folder, content):
    path = folder / "bytes.txt"
    path.write_bytes(content)
    for read in (
        read_pairs,
        read_keypoints,
        read_list,
        read_magpt_keypoints,
        read_items,
        read_pose,
    ):
        parsed_or_refused(read, path)


@cases(200)
@given(
    st.one_of(
        st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace"))
    )
)
def test_any_manifest_is_read_or_refused(folder, content):
    (folder / "dataset_manifest.json").write_bytes(content)
    parsed_or_refused(lambda path: read_manifest(path.parent), folder / "dataset_manifest.json")


@cases(500)
@given(st.lists(st.tuples(safe_names, safe_names), min_size=1, max_size=8, unique=True))
def test_every_list_of_pairs_survives_writing_and_reading(folder, pairs):
    write_pairs(folder / "round.csv", pairs)
    assert read_pairs(folder / "round.csv") == pairs


@cases(500)
@given(st.dictionaries(safe_names, keypoints, min_size=1, max_size=3))
def test_every_keypoint_table_survives_writing_and_reading(folder, table):
    write_keypoints(folder / "round_k.csv", table)
    again = read_keypoints(folder / "round_k.csv")
    assert list(again) == list(table)
    assert all(np.array_equal(again[name], table[name]) for name in table)


@cases(200)
@given(
    st.lists(st.tuples(st.integers(-1, 255), st.integers(-1, 255)), min_size=18, max_size=18),
    st.sampled_from(["a", "imgWOMENx", "Ü b"]),
)
def test_every_magpt_table_survives_writing_and_reading(folder, points, key):
    points = np.array(points, dtype=np.float64)
    write_magpt_keypoints(folder / "magpt.csv", {key: points}, (256, 256))
    points[(points == -1).any(axis=1)] = -1
    assert np.array_equal(read_magpt_keypoints(folder / "magpt.csv")[key].points, points)


@cases(400)
@given(
    st.integers(0, 3),
    st.integers(0, 400),
    st.one_of(st.sampled_from([b"", b"\0", b"\xff", b":", b",", b'"', b"[", b"]", b"nan", b"\n"])),
)
def test_one_damaged_byte_gives_a_sentence_or_a_valid_table(folder, start, position, damage):
    path = folder / "damaged.csv"
    rows = {f"person {i}.jpg": np.full((18, 2), 10.0 * i + start) for i in range(3)}
    write_keypoints(path, rows)
    content = path.read_bytes()
    position %= len(content)
    path.write_bytes(content[:position] + damage + content[position + 1 :])
    table = parsed_or_refused(read_keypoints, path)
    if table is not None:
        assert all(points.shape == (18, 2) for points in table.values())
