"""script/benchmark.py measures, reports and plots."""

from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from script import benchmark


def parsed(*words: str):
    return benchmark.build_parser().parse_args(
        ["--size", "64", "32", "--batch", "2", "--ngf", "4", "--ndf", "4", *words]
    )


def test_the_loader_and_the_metrics_are_measured_reported_and_plotted(
    tmp_path, monkeypatch, capsys
):
    words = "--size 64 32 --batch 2 --ngf 4 --samples 4 --workers 0 --parts loader metrics --out"
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words.split(), str(tmp_path)])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["loader"]["ratio"] > 0
    assert found["loader"]["samples_per_s"] > 0
    assert found["settings"]["size"] == [64, 32]
    assert set(found["peak TFLOP/s"]) == {"fp32 matmul", "fp32 convolution"}
    assert "samples_per_s" in capsys.readouterr().out
    assert Image.open(tmp_path / "benchmark.png").width > 100


@pytest.mark.slow
def test_every_part_is_measured(tmp_path, monkeypatch):
    words = "--size 64 32 --batch 2 --ngf 4 --ndf 4 --steps 1 --samples 4 --workers 0 --parts"
    words = [*words.split(), *benchmark.PARTS, "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words])
    benchmark.main()
    found = json.loads((tmp_path / "benchmark.json").read_text())
    assert found["training"]["GFLOP_per_sample"] > 1
    assert found["training"]["samples_per_s_from_jpegs"] > 0
    assert 0 < found["training"]["share_of_fp32 convolution"] < 2
    assert found["generation"]["share_of_bare"] > 0
    assert len(found["operators"]) == len(benchmark.OPERATORS)
    assert all(row["times_grid_sample"] > 0 for row in found["operators"].values())
    gains = found["switched on alone"]
    assert gains["as it is"]["times_faster"] == 1
    assert gains["--compile"]["times_faster"] > 0


def test_a_gpu_benchmark_tries_every_option_that_is_not_on():
    offered = benchmark.offers(parsed("--device", "cuda", "--precision", "bf16"))
    formats = {"--precision fp32", "--precision fp16"}
    assert set(offered) == {"--compile", "--cuda_graphs", "--tf32", *formats}
    assert set(benchmark.offers(parsed())) == {"--compile"}
