"""script/benchmark.py measures, reports and plots."""

import json
import sys
import tempfile

import pytest
from PIL import Image

from script import benchmark


def test_the_loader_and_the_metrics_are_measured_reported_and_plotted(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "of two words"))
    (tmp_path / "of two words").mkdir()
    words = "--size 64 32 --batch 2 --ngf 4 --samples 4 --workers 0 --parts loader metrics --out"
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words.split(), str(tmp_path)])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["loader"]["ratio"] > 0
    assert found["loader"]["samples_per_s"] > 0
    assert found["settings"]["size"] == [64, 32]
    assert set(found["peak TFLOP/s"]) == {"fp32 matmul", "fp32 convolution"}
    assert "samples_per_s" in capsys.readouterr().out
    assert Image.open(tmp_path / "benchmark.png").width > 500


@pytest.mark.slow
def test_every_part_is_measured(tmp_path, monkeypatch):
    words = "--size 64 32 --batch 2 --ngf 4 --steps 1 --samples 4 --workers 0 --parts"
    words = [*words.split(), *benchmark.PARTS, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["training"]["GFLOP_per_sample"] > 1
    assert found["training"]["samples_per_s_from_jpegs"] > 0
    assert 0 < found["training"]["share_of_fp32 convolution"] < 2
    assert found["generation"]["share_of_bare"] > 0
    assert len(found["operators"]) == 2 * len(benchmark.OPERATORS)
    assert all(value > 0 for value in found["operators"].values())
