"""Faults that training once had: each test has the right value and fails without the repair."""

import contextlib
import errno
import io
import itertools
import os
import time
from argparse import Namespace

import pytest
import torch
from torch import nn

from data.loader import EpochBatchSampler
from models import create_model
from models.losses.step import crop_faces
from models.networks.dptn_step import DPTNStepConfig, StepGenerator
from models.optim import fresh_statistics
from models.training import Progress, TrainingRun, Validator
from options.train_options import TrainOptions
from tests.helpers import random_batch, train_options
from tests.test_checkpoint_crashes import Recorder, Weights, new_run
from util.errors import UserError
from util.run import checkpoint, distributed
from util.run.folder import RunFolder, prune_states
from util.show.sinks import Losses
from util.show.visualizer import Console

SIZE = (64, 64)


def small_model(name, folder, *flags):
    words = ["--model", name, "--checkpoints_dir", str(folder), "--gpu_ids", "-1", "--ngf", "4"]
    words += ["--ndf", "4", "--load_size", "64", "--batchSize", "2", "--vgg_width", "0.1", *flags]
    return create_model(train_options("--vgg_weights", "random", *words))


# ---- position ----------------------------------------------------------------------------------


def test_going_on_with_larger_batches_shows_no_sample_twice_and_never_more_than_an_epoch():
    small = EpochBatchSampler(32, 2, seed=1)
    small.set_position(1)
    seen = [i for batch in itertools.islice(small, 5) for i in batch]  # 10 samples
    large = EpochBatchSampler(32, 8, seed=1)
    position = large.set_position(1, len(seen))
    assert position == 16
    rest = [i for batch in large for i in batch]
    assert len(rest) == 32 - position
    assert not set(rest) & set(seen)


def test_going_on_in_an_epoch_that_became_shorter_ends_it():
    sampler = EpochBatchSampler(32, 4, limit=8)
    assert sampler.set_position(3, 20) == 8
    assert len(sampler) == 0
    assert list(sampler) == []


def test_the_time_left_is_that_of_this_stage_alone(monkeypatch):
    console, lefts = Console(2, 10, io.StringIO()), []
    throughput = console.throughput
    monkeypatch.setattr(throughput, "seconds_left", lambda left: lefts.append(left) or 1.0)
    for samples in (1, 2, 3):
        throughput.count(1000 + samples)  # 1000 samples of stage 1 came before
        console.losses(Losses(1, samples, 1000 + samples, {}, {}, 1.0))
    assert lefts == [19, 18, 17]


# ---- how often ---------------------------------------------------------------------------------


def test_by_default_saves_have_a_floor_in_seconds(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    run = TrainingRun(Weights(tmp_path, 1.0), RunFolder(tmp_path, False, False), Recorder())

    def saves(seconds: float, frequency: int | None = None) -> list[int]:
        """Which of 40 steps of 100 samples are saved."""
        found = []
        for i in range(40):
            run.progress.advance(100)
            now[0] += seconds
            if run.save_due(frequency, 1000):
                found.append(i)
                run.save("latest")
        return found

    assert saves(10.0) == [9, 19, 29, 39]
    assert saves(1.0) == []  # 40 seconds since the last
    assert saves(3.0) == [9, 29]
    assert saves(0.1, 500) == list(range(4, 40, 5))  # a frequency that was asked for is kept


def test_magpt_saves_every_500_published_iterations(tmp_path):
    assert small_model("pose2pose", tmp_path).samples_per_save == 4000
    assert small_model("dptn", tmp_path).samples_per_save == 1000


# ---- saves -------------------------------------------------------------------------------------


def test_a_save_that_was_cut_off_before_the_networks_is_completed_on_resume(tmp_path):
    assert new_run(tmp_path, 1.0).save("latest", "3")
    run = new_run(tmp_path, 2.0)
    save_networks = run.model.save_networks
    run.model.save_networks = lambda which: None  # killed between the state and the networks
    run.save("latest", "4")
    for path in tmp_path.glob("4_*"):
        path.unlink()
    run.model.save_networks = save_networks
    again = new_run(tmp_path, 0.0)
    assert again.resume("latest")
    for name in ("latest_net_G", "latest_net_D", "4_net_G", "4_net_D"):
        state = checkpoint.load(tmp_path / f"{name}.pth")
        assert all((value == 2.0).all() for value in state.values()), name
    assert (tmp_path / "4_state.pth").is_file()


def test_resuming_an_older_number_leaves_latest_alone(tmp_path):
    assert new_run(tmp_path, 1.0).save("latest", "3")
    assert new_run(tmp_path, 2.0).save("latest", "4")
    assert new_run(tmp_path, 0.0).resume("3")
    assert (checkpoint.load(tmp_path / "latest_net_G.pth")["weight"] == 2.0).all()


def test_the_newest_states_are_those_of_the_most_samples_whatever_the_clock_says(tmp_path):
    for number in range(1, 5):
        run = TrainingRun(
            Weights(tmp_path, 1.0), RunFolder(tmp_path, False, False), Recorder(), None, 9
        )
        run.progress = Progress(epoch=number, total=10 * number)
        run.save(str(number))
        os.utime(tmp_path / f"{number}_state.pth", (10**9 - number, 10**9 - number))
    prune_states(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("*_state.pth")) == ["3_state.pth", "4_state.pth"]


def test_only_the_disk_itself_makes_a_save_say_that_the_disk_is_full(tmp_path, monkeypatch):
    message = "DataLoader worker (pid 7) is killed by signal: Killed."

    def killed(content, stream):
        stream.write(b"some bytes")
        raise RuntimeError(message)

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(RuntimeError, match="killed by signal"):
        checkpoint.save(tmp_path / "a.pth", {})
    assert not list(tmp_path.iterdir())

    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "open", lambda path, *_, **__: Refusing(path), raising=False)
    for size in (5, 50_000):  # what a buffer holds until the end, and what it does not
        with pytest.raises(OSError, match="quota"):
            checkpoint.save(tmp_path / "a.pth", {"a": torch.zeros(size)})


class Refusing(io.FileIO):
    """A file whose disk quota is used up."""

    def __init__(self, path):
        super().__init__(path, "w")

    def write(self, data):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def test_continuing_a_run_that_ended_before_its_first_save_starts_it_anew(tmp_path):
    with RunFolder(tmp_path / "run", resume=True, overwrite=False) as folder:
        assert folder.begins_anew
        assert not folder.resume
        (folder.path / "train_opt.json").write_text("{}")  # it was killed a moment later
        recorder = Recorder()
        said = []
        recorder.message = said.append
        run = TrainingRun(Weights(folder.path, 1.0), folder, recorder)
        run.start("latest", lambda: None)
        assert any("starts anew" in text for text in said)
        assert run.progress == Progress()
        assert run.save("latest")
    assert RunFolder(tmp_path / "run", resume=True, overwrite=False).resume
    assert RunFolder(tmp_path / "none", resume=True, overwrite=False, which="7").resume


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_missing_singular_vector_is_that_of_the_layers_own_matrix(kind):
    torch.manual_seed(0)
    layer = nn.utils.spectral_norm(kind(4, 4, 3))  # square: no shape tells the axes apart
    for _ in range(50):
        layer(torch.rand(1, 4, 8, 8))
    state = layer.state_dict()
    expected = state.pop("weight_v").clone()
    other = nn.utils.spectral_norm(kind(4, 4, 3))
    checkpoint.load_state(other, state, "file")
    torch.testing.assert_close(other.weight_v, expected, rtol=1e-3, atol=1e-4)


def test_face_crops_are_exact_under_autocast():
    torch.manual_seed(0)
    images, eyes = torch.rand(2, 3, 64, 64), torch.tensor([[[20.0, 25.0], [20.0, 38.0]]] * 2)
    has_face = torch.tensor([True, True])
    expected = crop_faces(images, eyes, has_face)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(crop_faces(images, eyes, has_face), expected)


def test_all_steps_of_the_step_model_share_one_compiled_graph():
    config = DPTNStepConfig(ngf=2, num_CABs=1, num_TTBs=1, pose_channels=1, load_size=(16, 16))
    network, graphs = StepGenerator(config), []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    network.compile(backend=count)
    image, pose = torch.rand(1, 3, 16, 16), torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        steps = [
            f for f, _ in network.rollout([(image, pose)] * 5, pose, torch.randn(1, 3, 16, 16))
        ]
    assert len(steps) == 5
    assert len(graphs) == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["dptn", "dptn_step", "pose", "pose2pose", "poseflownet"])
def test_a_training_step_makes_no_tensor_from_numbers_of_the_host(name, tmp_path, monkeypatch):
    model, made = small_model(name, tmp_path), []
    batch = random_batch(2, SIZE)

    def step():
        model.set_input(batch)
        model.optimize_parameters()

    step()  # constants are made once
    for owner, attribute in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        original = getattr(owner, attribute)

        def counted(*args, _original=original, _name=attribute, **kwargs):
            made.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, counted)
    step()
    assert made == []


def test_flow_pictures_are_made_only_when_they_are_shown(tmp_path, monkeypatch):
    model, made = small_model("poseflownet", tmp_path), []
    from models import flow_stages

    original = flow_stages.flow_pictures
    monkeypatch.setattr(flow_stages, "flow_pictures", lambda *a: made.append(1) or original(*a))
    model.set_input(random_batch(2, SIZE))
    model.optimize_parameters()
    assert made == []
    assert "flow_field_2" in model.visuals
    assert made == [1]


def test_validation_uses_fresh_statistics_of_batch_norms_and_training_its_own(tmp_path):
    model = small_model("pose2pose", tmp_path)
    batches = [random_batch(2, SIZE, seed) for seed in range(3)]
    for batch in batches:
        model.set_input(batch)
        model.optimize_parameters()
    model.eval_mode()
    before = {k: v.clone() for k, v in model.networks["G"].state_dict().items()}
    norm = model.networks["G"].in1_conv1[1]
    seen = []
    hook = norm.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    draws = torch.get_rng_state()
    with fresh_statistics(model, batches):
        means = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
        torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
        assert not norm.training
    hook.remove()
    assert torch.equal(torch.get_rng_state(), draws)
    for name, value in model.networks["G"].state_dict().items():
        assert torch.equal(value, before[name]), name


def test_networks_that_are_metrics_run_on_the_device_of_the_run(monkeypatch):
    asked = []

    def score(pairs, protocol, metrics, device="cpu"):
        asked.append(str(device))
        return {"psnr": 1.0}

    monkeypatch.setattr("models.training.score_pairs", score)
    opt = Namespace(
        val_metrics="psnr", best_metric="psnr", val_pairs=1, bn_batches=0, batchSize=1,
        bn_in_saves=False,
    )  # fmt: skip
    model = Namespace(device=torch.device("cuda:1"))
    Validator(opt, model, [random_batch(1, SIZE)], []).score()
    assert asked == ["cuda:1"]


def test_tf32_is_on_for_training_on_a_gpu_as_in_the_published_systems(monkeypatch):
    monkeypatch.setattr(distributed, "local_device", lambda ids: torch.device("cuda:0"))

    def tf32(*words):
        return TrainOptions().parse([*words]).tf32

    assert tf32() is True
    assert tf32("--deterministic") is False
    assert tf32("--no_tf32") is False
    assert tf32("--tf32", "--deterministic") is True
    monkeypatch.setattr(distributed, "local_device", lambda ids: torch.device("cpu"))
    assert tf32() is False


@pytest.mark.parametrize(("name", "side"), [("dptn", 8), ("dptn", 16), ("pose2pose", 16),
                                            ("dptn_step", 16)])  # fmt: skip
def test_a_small_image_trains_or_is_refused_in_a_sentence(name, side, tmp_path):
    with contextlib.suppress(UserError):  # anything else is a failure
        model = small_model(name, tmp_path, "--load_size", str(side))
        model.set_input(random_batch(2, (side, side)))
        model.optimize_parameters()
        model.eval_mode()
        assert torch.isfinite(model.infer(model.inputs)["fake_target"]).all()
        return
    assert (name, side) in (("dptn", 8), ("pose2pose", 16))


# ---- starting several processes ----------------------------------------------------------------


def test_an_empty_variable_of_a_launcher_counts_as_none(monkeypatch):
    monkeypatch.setenv("RANK", "")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not distributed.launched()


def test_a_variable_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "x")
    with pytest.raises(UserError, match="WORLD_SIZE is 'x'"):
        distributed.launched()


def test_three_plain_starts_in_one_slurm_job_are_told_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "3")
    assert "torchrun --nproc_per_node=3" in distributed.separate_starts()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert distributed.separate_starts() == ""
