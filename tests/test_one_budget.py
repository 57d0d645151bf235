"""Five systems on one budget: commands that parse, records that go on, tables from records."""

import json
import shlex

import pytest

from options.train_options import TrainOptions
from script import one_budget
from script.one_budget import SHARED, SYSTEMS, folders, load, save, table, table_of, train
from tests.conftest import ROOT
from util.errors import UserError

RECORDS = ROOT / "docs" / "records" / "one_budget.json"


@pytest.fixture
def commands(monkeypatch):
    """The commands that would run, ten CPU seconds each."""
    given = []
    monkeypatch.setattr(one_budget, "timed", lambda title, command: given.append(command) or 10.0)
    return given


def new(out, name="GFLA", samples=800):
    return load(name, "a budget", samples, out)


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_options_of_every_system_are_options_of_train(name, tmp_path, commands):
    train(new(tmp_path, name), tmp_path / "data", tmp_path)
    for command, share in zip(commands, SYSTEMS[name].stages.values(), strict=True):
        opt = TrainOptions().parse(shlex.split(command)[1:])
        assert (opt.niter + opt.niter_decay) * opt.max_dataset_size == 800 * share
        assert opt.vgg_width == 0.25


def test_stage_two_of_gfla_takes_the_flow_of_stage_one_and_an_interrupted_one_goes_on(
    tmp_path, commands
):
    record = new(tmp_path)
    first, second = folders(record, tmp_path)
    train(record, tmp_path, tmp_path)
    assert "--continue_train" not in commands[0]
    assert f"--flow_checkpoint {first}/latest_net_G.pth" in commands[1]
    record["stages"].pop()
    second.mkdir(parents=True)
    (second / "latest_state.pth").touch()
    (second / "iter.txt").write_text("6\n0\n")  # half of its ten epochs
    train(record, tmp_path, tmp_path)
    assert "--continue_train" in commands[2]
    assert "--flow_checkpoint" not in commands[2]
    assert len(commands) == 3
    assert [stage["cpu_seconds"] for stage in record["stages"]] == [10.0, 20.0]
    assert json.loads((tmp_path / "GFLA.json").read_text()) == record
    assert new(tmp_path) == record
    train(new(tmp_path), tmp_path, tmp_path)
    assert len(commands) == 3


def test_a_record_of_another_run_is_refused(tmp_path):
    save(new(tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"another options.*another folder as -o"):
        new(tmp_path, samples=8000)


def test_what_is_no_records_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('[{"system": "mine"}]')
    with pytest.raises(UserError, match=r"holds no records.*BENCHMARKS.md"):
        table_of(path)


def test_the_tables_of_the_benchmarks_are_those_of_the_records():
    assert table(json.loads(RECORDS.read_text())) in (ROOT / "BENCHMARKS.md").read_text()
    assert str(ROOT) not in RECORDS.read_text()


def test_equal_cpu_time_counts_the_samples_by_the_finished_record(tmp_path):
    record = new(tmp_path, "DPTN") | {"stages": [{"samples": 800, "cpu_seconds": 80.0}]}
    save(record, tmp_path)
    with pytest.raises(UserError, match="run without --cpu_minutes first"):
        one_budget.samples_for(2, tmp_path, "DPTN")
    save(record | {"cpu_seconds_an_image": 0.1}, tmp_path)
    assert one_budget.samples_for(2, tmp_path, "DPTN") == 1200
    assert SHARED in record["settings"]
