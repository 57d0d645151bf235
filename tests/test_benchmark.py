"""script/benchmark.py measures, reports and plots; its switches change the time, not the result."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
import torch
from PIL import Image

from models import create_model
from script import benchmark, benchmark_parts
from tests.helpers import fill_by_rule, random_batch


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
    worth = found["switched off alone"]
    assert worth["all on"]["times_slower"] == 1
    assert len(worth) == 1 + len(benchmark_parts.switches(parsed()))
    gains = found["switched on alone"]
    assert gains["as it is"]["times_faster"] == 1
    assert gains["--compile"]["times_faster"] > 0


def test_a_gpu_benchmark_tries_every_option_that_is_not_on():
    offered = benchmark_parts.offers(parsed("--device", "cuda", "--precision", "bf16"))
    assert set(offered) == {"--compile", "--tf32", "--precision fp32", "--precision fp16"}
    assert set(benchmark_parts.offers(parsed())) == {"--compile"}


@pytest.mark.parametrize("index", range(5))
def test_a_step_computes_the_same_with_an_optimization_switched_off(index, tmp_path):
    opt, batch = parsed(), random_batch(2, (64, 32))
    switch = benchmark_parts.switches(opt)[index]
    gradients = []
    for off in (False, True):
        with switch.without() if off else contextlib.nullcontext():
            model = create_model(
                benchmark_parts.options(opt, tmp_path, **(switch.changes if off else {}))
            )
            for network in model.networks.values():
                fill_by_rule(network, 0)
            for network in (*model.networks.values(), model.vgg):
                network.double()
            if off:
                switch.change_model(model)
            model.set_input(batch)
            model.inputs = {
                k: v.double() if torch.is_tensor(v) else v for k, v in model.inputs.items()
            }
            model.optimize_parameters()
        gradients.append([p.grad for p in model.networks["G"].parameters()])
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-9)


def test_half_precision_adds_its_own_switches():
    names = [s.name for s in benchmark_parts.switches(parsed("--precision", "bf16"))]
    assert "precision bf16" in names
    assert "channels last in VGG" in names
