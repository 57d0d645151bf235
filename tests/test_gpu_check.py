"""script/gpu_check.py keeps what it found, bounds its time, and its table reads its JSON."""

import json
import sys
import time
from argparse import Namespace

import pytest

from script import gpu_check
from util.errors import UserError


def new_check(folder, minutes=1.0):
    parts = list(gpu_check.PARTS)
    opt = Namespace(device="cpu", small=True, minutes=minutes, out=folder, parts=parts)
    return gpu_check.Check(opt, folder)


def test_every_result_is_kept_at_once_and_a_failure_is_one(tmp_path):
    check = new_check(tmp_path)
    check.run("speed", "fine", lambda check: {"samples_per_s": 3.5})
    kept = json.loads((tmp_path / "gpu_check.json").read_text())
    assert [row["samples_per_s"] for row in kept["rows"]] == [3.5]

    def fail(check):
        raise RuntimeError("no kernel image")

    check.run("right", "broken", fail)
    kept = json.loads((tmp_path / "gpu_check.json").read_text())
    assert kept["rows"][1]["ok"] is False
    text = gpu_check.table(kept)
    assert "| speed | fine |  | samples per s 3.5 |" in text
    assert "| right | broken | **no** | error RuntimeError: no kernel image |" in text


def test_nothing_begins_after_the_time_is_over(tmp_path):
    check = new_check(tmp_path, minutes=0.0)
    check.run("speed", "late", lambda check: pytest.fail("too late"))
    assert check.results["rows"] == []
    kept = json.loads((tmp_path / "gpu_check.json").read_text())
    assert "Not reached in time: speed: late" in gpu_check.table(kept)


def test_a_check_that_takes_longer_than_its_part_fails_and_the_next_part_has_its_time(tmp_path):
    check = new_check(tmp_path, minutes=1 / 60)
    check.run("right", "endless", lambda check: time.sleep(60))
    check.run("right", "late", lambda check: pytest.fail("too late"))
    check.run("speed", "quick", lambda check: {"ok": True})
    assert [row["ok"] for row in check.results["rows"]] == [False, True]
    assert "TimeoutError: not done after" in check.results["rows"][0]["error"]
    assert check.results["not_reached"] == ["right: late"]


def test_a_command_and_what_it_started_end_with_the_time_of_the_part(tmp_path):
    check, mark = new_check(tmp_path, minutes=1 / 60), tmp_path / "alive"
    shell = f"(sleep 3; touch {mark}) & wait"
    check.run("showcase", "endless", gpu_check.outside, ["bash", "-c", shell])
    assert check.results["rows"][0]["ok"] is False
    time.sleep(3)
    assert not mark.exists()


def test_a_table_that_is_not_there_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--table", str(tmp_path / "none.json")])
    with pytest.raises(UserError, match=r"none\.json"):
        gpu_check.main()


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(tmp_path, monkeypatch, capsys):
    words = ["--device", "cpu", "--small", "--minutes", "20", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words])
    assert gpu_check.main() == 0
    results = json.loads((tmp_path / "gpu_check.json").read_text())
    parts = {row["part"] for row in results["rows"]}
    assert parts == {"right", "speed", "generation", "models", "resume"}
    assert all(row.get("ok") is not False for row in results["rows"])
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--table", str(tmp_path / "gpu_check.json")])
    assert gpu_check.main() == 0
    assert capsys.readouterr().out.strip() == gpu_check.table(results)
