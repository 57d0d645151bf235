"""Validation picks the best checkpoint, keeps it when training gets worse, and remembers it."""

import sys
from argparse import Namespace

import numpy as np
import pytest
import torch

import train as train_command
from models.training import TrainingRun, Validator
from tests.training_child import SMALL, TinyModel, write_tiny_data
from util.metrics.pairs import score_pairs

SIZE = (16, 16)


class Pairs(list):
    """A data set without photographs."""

    annotation_size = SIZE

    def photograph(self, name):
        return None


def validator(metric: str, pairs=(), generate=None, metrics: str = "") -> Validator:
    opt = Namespace(
        val_metrics=metrics or metric, best_metric=metric, val_pairs=9, bn_batches=0, batchSize=2,
        bn_in_saves=False,
    )  # fmt: skip
    model = Namespace(prepare=lambda batch: batch, generate=generate, device="cpu")
    return Validator(opt, model, Pairs(pairs), [])


@pytest.mark.parametrize(
    ("metric", "values", "picked"),
    [
        ("psnr", [10.0, 12.0, 11.0, 12.0, 13.0], [True, True, False, False, True]),
        ("l1", [0.3, 0.2, 0.25, 0.2, 0.1], [True, True, False, False, True]),
        ("ssim", [float("nan"), 0.5, float("nan"), 0.6], [False, True, False, True]),
    ],
)
def test_only_a_better_value_is_the_best(metric, values, picked):
    judge, best, found = validator(metric), None, []
    for value in values:
        found.append(judge.is_better({metric: value}, best))
        best = value if found[-1] else best
    assert found == picked


def test_the_score_is_the_mean_over_the_fixed_pairs_at_the_frame_of_the_images():
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (3, 3, *SIZE), dtype=np.uint8)
    made = torch.from_numpy(random.uniform(-1, 1, (3, 3, *SIZE)))
    samples = [
        {"target_image": torch.from_numpy(image), "target_name": str(i)}
        for i, image in enumerate(truth)
    ]

    def generate(batch):
        return {"fake_target": made[[int(name) for name in batch["target_name"]]]}

    judge = validator("psnr", samples, generate, "psnr, ssim")
    pictures = ((made + 1) / 2 * 255).to(torch.uint8).numpy()
    pairs = [
        (t.transpose(1, 2, 0), p.transpose(1, 2, 0)) for t, p in zip(truth, pictures, strict=True)
    ]
    assert judge.score() == judge.score() == score_pairs(pairs, "standard", ("psnr", "ssim"))


@pytest.fixture
def train(tmp_path, monkeypatch):
    """A function (values, options) -> weights of G at each validation that gave these values."""
    data = write_tiny_data(tmp_path / "data", pairs=8, size=16)

    def run(values: list[float], *more: str) -> list[dict[str, torch.Tensor]]:
        planned, seen, validate = iter(values), [], TrainingRun.validate

        def watched(run: TrainingRun) -> None:
            weights = run.model.networks["G"].state_dict()
            seen.append({name: value.clone() for name, value in weights.items()})
            validate(run)

        with monkeypatch.context() as patch:
            patch.setattr(train_command, "create_model", TinyModel)
            patch.setattr(TrainingRun, "validate", watched)
            patch.setattr(Validator, "score", lambda self: {"psnr": next(planned), "ssim": 0.5})
            words = ["--dataroot", data, "--checkpoints_dir", tmp_path, "--name", "run", *SMALL]
            words += [
                "--loadSize",
                16,
                "--old_size",
                16,
                "--niter_decay",
                0,
                "--val_freq",
                2,
                "--bn_batches",
                0,
                *more,
            ]
            patch.setattr(sys, "argv", ["train.py", *map(str, words)])
            assert train_command.main() == 0
        return seen

    return run


def test_the_best_checkpoint_stays_while_training_gets_worse_and_after_a_resume(train, tmp_path):
    def best() -> dict[str, torch.Tensor]:
        return torch.load(tmp_path / "run" / "best_net_G.pth", weights_only=True)

    def same(a, b) -> bool:
        return all(torch.equal(a[name], b[name]) for name in a)

    seen = train([11.0, 14.0, 13.0, 12.0], "--niter", "1", "--batchSize", "2")
    assert len(seen) == 4
    assert same(best(), seen[1])
    assert not same(best(), seen[3])
    later = train([13.9, 13.0, 14.5, 14.4], "--niter", "2", "--batchSize", "2", "--continue_train")
    assert same(best(), later[2])
    train([14.4, 1.0, 2.0, 3.0], "--niter", "3", "--batchSize", "2", "--continue_train")
    assert same(best(), later[2])
