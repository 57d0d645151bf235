"""Pairs and keypoint tables: every problem is one sentence that names file and row."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np

from util.errors import UserError
from util.files import make_folder, write_file
from util.names import check_relative_name
from util.skeleton import JOINTS

NUM_JOINTS = len(JOINTS)
MAX_COORDINATE = 1_000_000  # pixels; anything beyond is a damaged number, not a place in a picture
KEYPOINT_COLUMNS = ("name", "keypoints_y", "keypoints_x")

_SEPARATOR_NAMES = {",": "','", ":": "':'", ";": "';'", "\t": "a tab", "|": "'|'"}


def read_pairs(
    path: str | os.PathLike,
    columns: tuple[str, str] = ("from", "to"),
    allow_duplicates: bool = False,
) -> list[tuple[str, str]]:
    """Pairs (source name, target name) of a comma separated table with a header, in row order.

    Other columns are ignored. Raises UserError for a missing, empty or malformed file, an unsafe
    name or, unless ``allow_duplicates``, two equal rows.
    """
    pairs: list[tuple[str, str]] = []
    rows: dict[tuple[str, str], int] = {}
    safe: set[str] = set()
    for row, pair in read_table(path, ",", columns):
        if not safe.issuperset(pair):
            safe.update(check_relative_name(name, f"{path}, row {row}") for name in pair)
        first = rows.setdefault(pair, row)
        if first != row and not allow_duplicates:
            raise UserError(
                f"{path}, row {row}: the pair {pair[0]!r} to {pair[1]!r} is already in row "
                f"{first}; expected every pair once: remove one of the two rows."
            )
        pairs.append(pair)
    return pairs


def names_in(pairs: Iterable[tuple[str, ...]]) -> list[str]:
    """The images of pairs or of longer rows, each once, in order of appearance."""
    return list(dict.fromkeys(chain.from_iterable(pairs)))


def find_row(
    path: str | os.PathLike, columns: tuple[str, ...], wanted: Callable[[tuple[str, ...]], bool]
) -> int | None:
    """The first row, as a text editor counts, whose ``columns`` are ``wanted``."""
    try:
        return next((row for row, fields in read_table(path, ",", columns) if wanted(fields)), None)
    except UserError:  # another table
        return None


def read_keypoints(path: str | os.PathLike, any_separator: bool = False) -> dict[str, np.ndarray]:
    """Keypoints of a ``name:keypoints_y:keypoints_x`` table: name -> (18, 2) float64, (y, x).

    Unit: pixels. A joint is missing when either coordinate is -1; all joints may be missing. Joints
    outside the frame are kept. UserError for a malformed file or row, an unsafe or repeated name.
    ``any_separator``: a table that a spreadsheet has separated otherwise is read too.
    """
    separator = ":"
    if any_separator:
        separator = _header_of(read_text(path), KEYPOINT_COLUMNS)[1] or ":"
    rows: dict[str, int] = {}
    values: list[list[float]] = []
    for row, (name, ys, xs) in read_table(path, separator, KEYPOINT_COLUMNS):
        where = f"{path}, row {row}"
        check_new_name(rows, name, row, path)
        values.append(_parse_numbers(ys, "keypoints_y", where))
        values.append(_parse_numbers(xs, "keypoints_x", where))
    table = finite_table(values, list(rows.values()), path, rows_each=2)
    keypoints = np.ascontiguousarray(table.reshape(-1, 2, NUM_JOINTS).transpose(0, 2, 1))
    return dict(zip(rows, keypoints, strict=True))


def write_pairs(
    path: str | os.PathLike,
    pairs: Iterable[tuple[str, str]],
    columns: tuple[str, str] = ("from", "to"),
) -> None:
    """Write pairs as a comma separated table with a header."""
    write_table(path, ",", columns, (list(map(check_relative_name, pair)) for pair in pairs))


def write_keypoints(path: str | os.PathLike, keypoints: Mapping[str, np.ndarray]) -> None:
    """Write name -> (18, 2) (y, x) as PATN's ``name:keypoints_y:keypoints_x`` table."""
    rows = []
    for name, points in keypoints.items():
        lists = [f"[{', '.join(map(number_text, axis))}]" for axis in points.T.tolist()]
        rows.append([check_relative_name(name), *lists])
    write_table(path, ":", KEYPOINT_COLUMNS, rows)


def number_text(value: float) -> str:
    """The shortest text that reads back as the same number; whole numbers without a point."""
    return str(int(value)) if value == int(value) else repr(value)


def read_list(path: str | os.PathLike) -> list[str]:
    """Names of a ``.lst`` file, one a line; blank lines are skipped, repeated names an error."""
    rows: dict[str, int] = {}
    for row, name in read_lines(path):
        check_new_name(rows, name, row, path)
    if not rows:
        raise UserError(f"{path} is empty; expected one file name a line: get or make it again.")
    return list(rows)


def read_lines(path: str | os.PathLike) -> list[tuple[int, str]]:
    """(row as a text editor counts, text) of every line that is not blank."""
    lines = enumerate(io.StringIO(read_text(path)), start=1)
    return [(row, line.strip()) for row, line in lines if line.strip()]


def read_text(path: str | os.PathLike) -> str:
    """Text of a UTF-8 file (a byte order mark is dropped); UserError when there is none to read."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; expected a text file there: check --dataroot, or run "
            "'python script/check_dataset.py DATAROOT' to see every file that is needed."
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); expected a text file.") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: the file is not UTF-8 text; expected plain CSV: save it again as "
            "'CSV UTF-8'."
        ) from None
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(
            f"{path}, row {row}: holds a zero byte, so it is damaged or not a text file; "
            "expected plain CSV: copy or export it again."
        )
    return text


def read_table(
    path: str | os.PathLike, separator: str, columns: Sequence[str]
) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield (row as a text editor counts, the fields of ``columns``) of a CSV with a header."""
    text = read_text(path)
    if not text.strip():
        raise UserError(
            f"{path} is empty; expected a header '{separator.join(columns)}' and one row an entry: "
            "get or make it again."
        )
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, any_row = filter(None, reader), False
    try:
        header = [field.strip() for field in next(rows)]
        places = _find_columns(path, header, separator, columns, text)
        one = slice(places[0], places[0] + 1)  # a single field, as a sequence
        pick = itemgetter(*(places if len(places) > 1 else [one]))
        for fields in rows:
            if len(fields) != len(header):
                hint = " (put a name that holds the separator in quotation marks)"
                raise UserError(
                    f"{path}, row {reader.line_num}: has {len(fields)} fields separated by "
                    f"{_SEPARATOR_NAMES[separator]}, the header has {len(header)}; expected the "
                    f"same number: correct the row{hint if len(fields) > 1 else ''}."
                )
            any_row = True
            yield reader.line_num, pick(fields)
    except csv.Error as error:
        raise UserError(
            f"{path}, row {reader.line_num}: is not valid CSV ({error}); expected {len(columns)} "
            f"fields separated by {_SEPARATOR_NAMES[separator]}: look for a stray quotation mark."
        ) from None
    if not any_row:
        raise UserError(f"{path} has a header but no rows; expected one row an entry: fill it.")


def _header_of(text: str, columns: Sequence[str]) -> tuple[str, str | None]:
    """The first line that is not blank, and the separator that gives ``columns`` in it."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    fields = {other: {f.strip(' "') for f in line.split(other)} for other in _SEPARATOR_NAMES}
    return line, next((other for other in fields if fields[other].issuperset(columns)), None)


def _find_columns(
    path: str | os.PathLike, header: list[str], separator: str, columns: Sequence[str], text: str
) -> list[int]:
    """Where each wanted column is; UserError that tells a wrong separator from a missing column."""
    wanted = separator.join(columns)
    repeated = [c for c in columns if header.count(c) > 1]
    if repeated:
        raise UserError(
            f"{path}, row 1: the column {repeated[0]!r} occurs twice; expected '{wanted}'."
        )
    missing = [c for c in columns if c not in header]
    if not missing:
        return [header.index(c) for c in columns]
    line, other = _header_of(text, columns)
    if other not in (None, separator):  # it fits where quotation marks are wrong
        raise UserError(
            f"{path}, row 1: the columns are separated by {_SEPARATOR_NAMES[other]}; expected "
            f"{_SEPARATOR_NAMES[separator]}: replace the separator; for a keypoint table "
            "script/convert_annotations.py --from patn --to patn does it."
        )
    raise UserError(
        f"{path}, row 1: the column {missing[0]!r} is missing, found the header {line[:80]!r}; "
        f"expected '{wanted}': add the header or the column."
    )


def check_new_name(
    rows: dict[str, int], name: str, row: int, path: str | os.PathLike, kind: str = "the name"
) -> None:
    """Enter ``name`` in ``rows``; UserError when it is unsafe or already there."""
    check_relative_name(name, f"{path}, row {row}")
    first = rows.setdefault(name, row)
    if first != row:
        raise UserError(
            f"{path}, row {row}: {kind} {name!r} is already in row {first}; "
            "expected every name once: remove one of the two rows."
        )


def _parse_numbers(text: str, what: str, where: str) -> list[float]:
    """A JSON list of one number a joint; UserError naming ``where`` and ``what`` otherwise."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list):
        problem = f"is {text[:40]!r}"
    elif len(values) != NUM_JOINTS:
        problem = f"holds {len(values)} values"
    elif not set(map(type, values)) <= {int, float}:
        bad = next(v for v in values if type(v) not in (int, float))
        found = "a nested list" if isinstance(bad, list | dict) else repr(bad)[:40]
        problem = f"holds {found}"
    else:
        return values
    raise UserError(
        f"{where}: {what} {problem}; expected {NUM_JOINTS} numbers such as [45, 60, -1, …], in the "
        "order of the OpenPose-COCO joints, -1 for a missing one: correct the row."
    )


def finite_table(
    values: list[list[float]], rows: list[int], path: str | os.PathLike, rows_each: int = 1
) -> np.ndarray:
    """One float64 array of all lists; UserError naming the row of a NaN or absurd number."""
    try:
        table = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer of hundreds of digits; read as text it is infinite
        table = np.array([[float(str(value)) for value in line] for line in values])
    bad = ~(np.abs(table) <= MAX_COORDINATE)  # also true for NaN
    if bad.any():
        line, column = (int(i) for i in np.argwhere(bad)[0])
        found = str(values[line][column])[:40]
        raise UserError(
            f"{path}, row {rows[line // rows_each]}: a coordinate is {found}; expected a finite "
            "number of pixels, -1 for a missing joint: correct the row."
        )
    return table


def write_table(
    path: str | os.PathLike, separator: str, header: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV with a header: never half a file, never a lost old one."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_lines(path, [text.getvalue()])


def write_lines(path: str | os.PathLike, lines: Iterable[str]) -> None:
    """Write lines that end in ``\\n`` as UTF-8, whole or not at all; the folder is made."""
    text = "".join(lines)
    make_folder(Path(path).parent)
    write_file(path, text.encode("utf-8"))
