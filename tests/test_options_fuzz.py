"""Options read from files: whatever they hold, they are right or one sentence says why not."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import list_models
from options.test_options import TestOptions, inference_options
from options.train_options import TrainOptions
from tests.fuzz import cases
from util.errors import UserError
from util.kinds import Kind
from util.run.folder import check_architecture

SAVED = json.loads(json.dumps(vars(TrainOptions().parse(["--gpu_ids", "-1"]))))
HUGE = 10**400
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from([HUGE, -HUGE, 1e308, "64", "", "../x", "\0", "\udcff", "nan", 2**31, 0, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(sorted(SAVED)) | st.text(max_size=12)
FUZZ = cases(100)


def check(opt, kinds: dict[str, Kind]) -> None:
    """Every value is one that its option can have."""
    for key, kind in kinds.items():
        value = getattr(opt, key, None)
        if value is not None and isinstance(kind, Kind):
            assert kind.whole(value) == value


@FUZZ
@given(st.dictionaries(KEYS, VALUES, max_size=4), st.sampled_from(list_models()))
def test_saved_options_are_right_or_refused(changes, model):
    saved = SAVED | {"model": model} | changes
    try:
        opt = inference_options(saved, Path("/tmp/run"), "cpu")
    except UserError:
        return
    check(opt, TestOptions().build_parser(opt.model, opt.dataset_mode, {}).kinds())


@FUZZ
@given(st.dictionaries(KEYS, VALUES, max_size=3))
def test_options_of_a_program_are_right_or_refused(changes):
    try:
        opt = inference_options(SAVED, Path("/tmp/run"), "cpu", changes)
    except UserError:
        return
    check(opt, TestOptions().build_parser(opt.model, opt.dataset_mode, {}).kinds())


@FUZZ
@given(st.binary(max_size=60) | VALUES.map(lambda v: json.dumps(v).encode()))
def test_a_file_of_saved_options_is_right_or_refused(tmp_path, content):
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "train_opt.json").write_bytes(content)
    words = ["--name", "run", "--checkpoints_dir", str(tmp_path), "--gpu_ids", "-1"]
    with contextlib.suppress(UserError):
        assert TestOptions().parse(words).name == "run"


@FUZZ
@given(st.dictionaries(st.sampled_from(["G", "D", "x"]), VALUES, max_size=3))
def test_a_file_of_architecture_is_right_or_refused(tmp_path, content):
    (tmp_path / "architecture.json").write_text(json.dumps(content))
    config = {"G": {"ngf": 64, "layers": 3}}
    try:
        check_architecture(tmp_path, config)
    except UserError:
        return
    saved = content.get("G", {})
    assert all(saved.get(key, value) == value for key, value in config["G"].items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10_000, "nested too deeply"),
        ('{"ngf": 1' + "0" * 5000 + "}", "not valid JSON"),
        ('{"ngf": "64"}', "ngf: found 64, expected a whole number, 1 or more"),
        ('{"ngf": null}', "ngf: found None, expected a whole number"),
        ('{"ngf": 1e400}', "ngf: found inf, expected a whole number"),
        ('{"ngf": true}', "ngf: found True, expected a whole number"),
        ('{"load_size": [64, 64, 64]}', "load_size: found 64 64 64, expected one number"),
        ('{"load_size": 64}', "load_size: found 64, expected one number"),
        ('{"load_size": [100000, 100000]}', "1 to 4096"),
        ('{"norm": "batch\\u0000"}', "norm: found .*, expected one of batch, instance"),
        ('{"model": 3}', r"train_opt\.json: model: expected a name, found 3"),
        ('{"model": null}', "model: expected a name, found None"),
        ("[]", "does not hold options"),
        ('{"model": "dptm"}', "did you mean dptn"),
    ],
)
def test_wrong_saved_options_are_named(text, words, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train_opt.json").write_text(text)
    with pytest.raises(UserError, match=words):
        TestOptions().parse(["--name", "run", "--checkpoints_dir", str(tmp_path)])
