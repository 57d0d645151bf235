"""Wrong inputs of train.py and test.py: what is done to a good setting, and what must be said.
Those around a run are in tests/bad_runs.py.

A case changes copies of a data set (``data``), of a folder of runs (``runs``, with the finished run
``good``) and of the command line; the sentence must hold all the given words.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

PAIRS, KEYPOINTS = "fasion-resize-pairs-train.csv", "fasion-resize-annotation-train.csv"
FIRST = "train/person 0.png"


@dataclass
class Setting:
    """Where a case may do damage; ``argv`` goes behind the usual arguments."""

    data: Path
    runs: Path
    argv: list[str] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.runs / "good"


@dataclass(frozen=True)
class Case:
    """One mistake: the command, what it does, words that the sentence must hold."""

    name: str
    command: str  # "train", "resume" (--name good --continue_train) or "test"
    change: Callable[[Setting], None]
    words: tuple[str, ...]


def table(file: str, old: str, new: str) -> Callable[[Setting], None]:
    """Replace the first ``old`` in a table of the data set."""

    def change(setting: Setting) -> None:
        path = setting.data / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def content(file: str, data: bytes) -> Callable[[Setting], None]:
    return lambda setting: (setting.data / file).write_bytes(data) and None


def removed(file: str) -> Callable[[Setting], None]:
    return lambda setting: (setting.data / file).unlink()


def options(text: str) -> Callable[[Setting], None]:
    """More arguments; ``{runs}`` and ``{data}`` are filled in."""

    def change(setting: Setting) -> None:
        words = text.split(" ") if text else []
        setting.argv += [w.format(runs=setting.runs, data=setting.data) for w in words]

    return change


def repeat_line(file: str, number: int) -> Callable[[Setting], None]:
    def change(setting: Setting) -> None:
        lines = (setting.data / file).read_text().splitlines(keepends=True)
        (setting.data / file).write_text("".join([*lines, lines[number]]))

    return change


def as_folder(file: str) -> Callable[[Setting], None]:
    def change(setting: Setting) -> None:
        (setting.data / file).unlink()
        (setting.data / file).mkdir()

    return change


def image_folder_is_a_file(setting: Setting) -> None:
    (setting.data / "train").rename(setting.data / "elsewhere")
    (setting.data / "train").write_text("")


def no_image_folder(setting: Setting) -> None:
    (setting.data / "train").rename(setting.data / "elsewhere")


def cut_image(kind: str) -> Callable[[Setting], None]:
    def change(setting: Setting) -> None:
        path = setting.data / FIRST
        with Image.open(path) as image:
            image.convert("RGB").resize((64, 64)).save(path, kind)
        path.write_bytes(path.read_bytes()[:-500])

    return change


def huge_image(setting: Setting) -> None:
    """A PNG of a few bytes that says it has ten billion pixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    data += struct.pack(">I", zlib.crc32(chunk))
    (setting.data / FIRST).write_bytes(data)


def large_image(setting: Setting) -> None:
    Image.new("1", (8000, 8000)).save(setting.data / FIRST)


IN_PAIRS, IN_KEYPOINTS = f"{PAIRS}, row ", f"{KEYPOINTS}, row "
ROW_2, ROW_3 = "person 0.png,person 1.png", "person 1.png,person 2.png"

DATA = [
    Case("data root absent", "train", options("--dataroot {data}/no"), ("no: no such folder",)),
    Case("data root is a file", "train", options("--dataroot {data}/" + PAIRS),
         ("--dataroot", "is a file, not a folder")),
    Case("pairs absent", "train", removed(PAIRS), ("has no pairs table", PAIRS, "--phase")),
    Case("pairs are a folder", "train", as_folder(PAIRS), (PAIRS, "Is a directory")),
    Case("pairs empty", "train", content(PAIRS, b""), (f"{PAIRS} is empty", "from,to")),
    Case("pairs without rows", "train", content(PAIRS, b"from,to\n"), (PAIRS, "no rows")),
    Case("pairs with semicolons", "train", content(PAIRS, b"from;to\na;b\n"),
         (f"{IN_PAIRS}1", "separated by ';'", "expected ','")),
    Case("pairs without a column", "train", table(PAIRS, "from,to", "from,target"),
         (f"{IN_PAIRS}1", "the column 'to' is missing")),
    Case("pairs with a third field", "train", table(PAIRS, ROW_3, ROW_3 + ",x"),
         (f"{IN_PAIRS}3", "has 3 fields", "the header has 2")),
    Case("pairs with a stray quote", "train", table(PAIRS, ROW_3, '"' + ROW_3),
         (PAIRS, "row ", "not valid CSV", "quotation mark")),
    Case("pairs in Latin-1", "train", content(PAIRS, b"from,to\n\xe4.png,b.png\n"),
         (f"{IN_PAIRS}2", "not UTF-8")),
    Case("pairs with a zero byte", "train", content(PAIRS, b"from,to\na\0.png,b.png\n"),
         (f"{IN_PAIRS}2", "zero byte")),
    Case("pair twice", "train", repeat_line(PAIRS, 2), (f"{IN_PAIRS}10", "already in row 3")),
    Case("name climbs out", "train", table(PAIRS, ROW_3, "../../x,person 2.png"),
         (f"{IN_PAIRS}3", "'../../x'", "climbs out of its folder")),
    Case("name climbs out inside", "train", table(PAIRS, ROW_3, "a/../../x,person 2.png"),
         (f"{IN_PAIRS}3", "climbs out of its folder")),
    Case("name is absolute", "train", table(PAIRS, ROW_3, "/etc/passwd,person 2.png"),
         (f"{IN_PAIRS}3", "'/etc/passwd' is an absolute path")),
    Case("name with a drive", "train", table(PAIRS, ROW_3, "C:x.png,person 2.png"),
         (f"{IN_PAIRS}3", "is an absolute path")),
    Case("name with a backslash", "train", table(PAIRS, ROW_3, "a\\b.png,person 2.png"),
         (f"{IN_PAIRS}3", "holds a backslash")),
    Case("name with a control character", "train", table(PAIRS, ROW_3, "a\x1b[2J.png,b.png"),
         (f"{IN_PAIRS}3", "control character", "\\x1b")),
    Case("name empty", "train", table(PAIRS, ROW_3, ",person 2.png"), (f"{IN_PAIRS}3", "is empty")),
    Case("name too long", "train", table(PAIRS, ROW_3, "a" * 300 + ",person 2.png"),
         (f"{IN_PAIRS}3", "longer than 255 bytes")),
    Case("name without keypoints", "train", table(KEYPOINTS, "person 0.png", "person x.png"),
         (f"{IN_PAIRS}2", "person 0.png has no keypoints in", KEYPOINTS)),
    Case("keypoints absent", "train", removed(KEYPOINTS), ("has no keypoint table", KEYPOINTS)),
    Case("keypoints empty", "train", content(KEYPOINTS, b"\n"), (f"{KEYPOINTS} is empty",)),
    Case("keypoints with commas", "train", table(KEYPOINTS, "name:keypoints_y:keypoints_x",
         "name,keypoints_y,keypoints_x"), (f"{IN_KEYPOINTS}1", "separated by ','", "':'")),
    Case("keypoints too few", "train", table(KEYPOINTS, "person 1.png:[", "person 1.png:[1, "),
         (f"{IN_KEYPOINTS}3", "keypoints_y holds 19 values", "expected 18")),
    Case("keypoints no list", "train", table(KEYPOINTS, "person 1.png:[", "person 1.png:("),
         (f"{IN_KEYPOINTS}3", "keypoints_y is '(", "expected 18 numbers such as")),
    Case("keypoint NaN", "train", table(KEYPOINTS, "person 1.png:[", "person 1.png:[NaN]#"),
         (f"{IN_KEYPOINTS}3",)),
    Case("keypoint infinite", "train", table(KEYPOINTS, "-1,", "1e999,"),
         (IN_KEYPOINTS, "a coordinate is inf", "finite number of pixels")),
    Case("keypoint not a number", "train", table(KEYPOINTS, "-1,", '"x",'),
         (IN_KEYPOINTS, "holds 'x'")),
    Case("keypoint null", "train", table(KEYPOINTS, "-1,", "null,"), (IN_KEYPOINTS, "holds None")),
    Case("keypoint nested", "train", table(KEYPOINTS, "-1,", "[1],"),
         (IN_KEYPOINTS, "a nested list")),
    Case("keypoint true NaN", "train", table(KEYPOINTS, "-1,", "NaN,"),
         (IN_KEYPOINTS, "a coordinate is nan")),
    Case("keypoints twice", "train", repeat_line(KEYPOINTS, 1),
         (f"{IN_KEYPOINTS}11", "'person 0.png' is already in row 2")),
    Case("keypoints of an unsafe name", "train", table(KEYPOINTS, "person 8.png", "../8.png"),
         (f"{IN_KEYPOINTS}10", "climbs out")),
    Case("image absent", "train", removed("train/person 3.png"),
         (f"{IN_PAIRS}4", "there is no image", "person 3.png")),
    Case("image is a folder", "train", as_folder(FIRST), (FIRST, "is no file")),
    Case("image folder absent", "train", no_image_folder, ("has no image folder", "train")),
    Case("image folder is a file", "train", image_folder_is_a_file, ("train is not a folder",)),
    Case("image empty", "train", content(FIRST, b""), (FIRST, "is not a readable image")),
    Case("image is text", "train", content(FIRST, b"<html>"), (FIRST, "is not a readable image")),
    Case("image is PostScript", "train", content(FIRST, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: "
         b"0 0 8 8\n(executed) (w) file\n"), (FIRST, "is not a readable image")),
    Case("JPEG cut", "train", cut_image("JPEG"), (FIRST, "is damaged", "replace the file")),
    Case("PNG cut", "train", cut_image("PNG"), (FIRST, "is damaged", "replace the file")),
    Case("image of ten billion pixels", "train", huge_image, (FIRST, "replace the file")),
    Case("image of 64 million pixels", "train", large_image,
         (FIRST, "8000 x 8000 pixels", "shrink it first")),
    Case("other phase", "train", options("--phase valid"),
         ("has no pairs table", "fasion-resize-pairs-valid.csv", "--phase")),
    Case("MAGPT tables absent", "train", options("--dataset_mode magpt --loadSize 64"),
         ("has no pairs table", "train_img_pairs.csv", "--dataset_mode")),
    Case("LMDB absent", "train", options("--dataset_mode fashion_lmdb --loadSize 64"),
         ("train_pairs.txt",)),
]  # fmt: skip

OPTIONS = [
    Case(f"option {text!r}", "train", options(text), words)
    for text, words in [
        ("--lambda_stile 3", ("unknown option --lambda_stile", "did you mean --lambda_style?")),
        ("--batches 3", ("unknown option --batches",)),
        ("stray", ("unknown option stray",)),
        ("--niter", ("--niter: expected one argument",)),
        ("--niter many", ("--niter: found many", "expected a whole number, 1 or more")),
        ("--loadSize 0", ("--loadSize: found 0", "1 to 4096")),
        ("--loadSize -64", ("--loadSize: found -64", "1 to 4096")),
        ("--loadSize 63", ("--load_size", "63", "8")),
        ("--loadSize 64 60", ("--load_size", "60", "8")),
        ("--loadSize 5000", ("--loadSize: found 5000", "1 to 4096")),
        ("--loadSize 64 64 64", ("--loadSize: found 64 64 64", "height and width")),
        ("--old_size 0 8", ("--old_size: found 0", "1 to 4096")),
        ("--batchSize 0", ("--batchSize: found 0", "1 or more")),
        ("--batchSize -2", ("--batchSize: found -2", "1 or more")),
        ("--batchSize 9", ("8 pairs, fewer than one batch of 9", "reduce --batchSize")),
        ("--nThreads -1", ("--nThreads: found -1", "0 or more")),
        ("--lr -0.1", ("--lr: found -0.1", "more than 0")),
        ("--lr 0", ("--lr: found 0.0", "more than 0")),
        ("--lr nan", ("--lr: found nan", "a finite number")),
        ("--lr inf", ("--lr: found inf", "finite")),
        ("--lr fast", ("--lr: found fast", "expected a finite number")),
        ("--beta1 1", ("--beta1: found 1.0", "0 to 0.9999")),
        ("--ema 1.5", ("--ema: found 1.5", "0 to 0.999999")),
        ("--t_s_ratio 2", ("--t_s_ratio: found 2.0", "0 to 1")),
        ("--lambda_rec -1", ("--lambda_rec: found -1.0", "0 or more")),
        ("--clip_grad 0", ("--clip_grad: found 0.0", "more than 0")),
        ("--accumulate 0", ("--accumulate: found 0", "1 or more")),
        ("--niter 0", ("--niter: found 0", "1 or more")),
        ("--niter_decay -1", ("--niter_decay: found -1", "0 or more")),
        ("--save_latest_freq 0", ("--save_latest_freq: found 0", "1 or more")),
        ("--save_epoch_freq 0", ("--save_epoch_freq: found 0", "1 or more")),
        ("--keep_last -1", ("--keep_last: found -1", "0 or more")),
        ("--max_minutes -1", ("--max_minutes: found -1.0", "more than 0")),
        ("--display_port 70000", ("--display_port: found 70000", "1 to 65535")),
        ("--display_server gpu:70000", ("--display_server: found gpu:70000", "1 to 65535")),
        ("--display_server http://[::1", ("--display_server: found http://[::1", "host name")),
        ("--seed -1", ("--seed: found -1", "0 to 4294967295")),
        ("--ngf 0", ("--ngf: found 0", "1 or more")),
        ("--nhead 0", ("--nhead: found 0", "1 or more")),
        ("--nhead 3", ("--nhead 3", "16 channels", "multiple of the number of heads")),
        ("--dis_layers 0", ("--dis_layers: found 0", "1 or more")),
        ("--gan_mode best", ("--gan_mode: found best", "expected one of", "lsgan")),
        ("--norm none?", ("--norm: found none?", "expected one of")),
        ("--gpu_ids a", ("--gpu_ids a", "separated by commas")),
        ("--model dpnt", ("--model dpnt is unknown", "did you mean dptn?")),
        ("--dataset_mode fasion", ("--dataset_mode fasion is unknown", "did you mean fashion?")),
        ("--name a/b", ("--name: found a/b", "without slashes")),
        ("--name ..", ("--name: found ..", "without slashes")),
        ("--phase ../train", ("--phase: found ../train", "without slashes")),
        ("--which_epoch ../../x", ("--which_epoch: found ../../x", "without slashes")),
        ("--val_freq 1 --val_metrics beauty --best_metric beauty", ("beauty",)),
        ("--val_freq 1 --best_metric lpips", ("--best_metric lpips", "--val_metrics")),
        ("--val_freq 1 --val_phase valid", ("has no pairs table", "valid")),
    ]
]
