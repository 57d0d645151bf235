"""Two processes train MAGPT exactly as one process with the joined batch does."""

import copy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from models import create_model
from models.networks.layers import SynchronizedBatchNorm2d, synchronize_batch_norms
from tests.helpers import train_options
from util.run.distributed import min_max_over_processes, sum_over_processes

PROCESSES = 2
STEPS = 2
SHARES = (3, 1)  # samples of the layer test's batch in each process: not equal on purpose


def double(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def part(tensor: torch.Tensor, rank: int, shares: tuple[int, ...] = SHARES) -> torch.Tensor:
    return tensor.split(shares)[rank]


# ---- what every process computes ---------------------------------------------------------------


def layer_results(x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs, gradients of sum(weights * y^2) and buffers of a batch norm after two batches."""
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).double()
    nn.init.normal_(layers[1].weight)
    nn.init.normal_(layers[1].bias)
    synchronize_batch_norms(layers)
    layers(x.flip(-1))  # moves the running statistics once more
    x = x.clone().requires_grad_(True)
    y = layers(x)
    (weights * y**2).sum().backward()
    grads = {f"grad {name}": p.grad for name, p in layers.named_parameters()}
    return {"y": y.detach(), "grad x": x.grad, **grads, **layers.state_dict()}


def second_order(x: torch.Tensor) -> torch.Tensor:
    """Gradient of |d sum(y^3) / dx|^2: what a gradient penalty needs from a batch norm."""
    layer = synchronize_batch_norms(nn.Sequential(nn.BatchNorm2d(3))).double()
    x = x.clone().requires_grad_(True)
    (first,) = torch.autograd.grad((layer(x) ** 3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first**2).sum(), x)
    return second


def extremes(x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_(True)
    low, high = min_max_over_processes(x)
    (high - 3 * low).backward()
    return {"low": low.detach(), "high": high.detach(), "grad": x.grad}


def trained_model(folder: Path, rank: int, processes: int) -> dict[str, object]:
    """Weights and losses of a small model after two steps on this process' half of the batch."""
    torch.manual_seed(0)
    opt = train_options(
        model="pose2pose", load_size=(32, 32), ngf=2, ndf=2, batchSize=2 // processes, gpu_ids=-1,
        checkpoints_dir=folder,
    )  # fmt: skip
    model = create_model(opt)
    for network in (*model.networks.values(), model.vgg):
        network.double()
    whole = {
        "source_image": double(2, 3, 32, 32, seed=5).tanh(),
        "target_image": double(2, 3, 32, 32, seed=6).tanh(),
        "source_pose": double(2, 18, 32, 32, seed=7).abs(),
        "target_pose": double(2, 18, 32, 32, seed=8).abs(),
    }
    own = slice(rank * 2 // processes, (rank + 1) * 2 // processes)
    model.inputs = {key: value[own] for key, value in whole.items()}
    losses = []
    for _ in range(STEPS):
        model.optimize_parameters()
        losses.append(torch.stack(list(model.losses.values())))
    states = {label: network.state_dict() for label, network in model.networks.items()}
    return {"losses": torch.stack(losses), "states": states}


def layer_inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return double(4, 3, 5, 6, seed=3), double(4, 4, 5, 6, seed=4)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES,
        timeout=timedelta(minutes=5),
    )  # fmt: skip
    x, weights = layer_inputs()
    results = {
        "layer": layer_results(part(x, rank), part(weights, rank)),
        "second order": second_order(part(x, rank)),
        "extremes": extremes(part(x, rank)),
        "sum": sum_over_processes(torch.tensor([1.0, rank])),
        "model": trained_model(Path(folder), rank, PROCESSES),
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Results of both processes."""
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(worker, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


# ---- tests -------------------------------------------------------------------------------------


def test_batch_norm_over_two_processes_equals_the_joined_batch(processes):
    expected = layer_results(*layer_inputs())
    results = [p["layer"] for p in processes]
    for key, value in expected.items():
        if key in ("y", "grad x"):
            ours = torch.cat([r[key] for r in results])
        elif key.startswith("grad"):
            ours = sum(r[key] for r in results)
        else:
            assert torch.equal(results[0][key], results[1][key])
            ours = results[0][key]
        torch.testing.assert_close(ours, value, rtol=1e-10, atol=1e-12, msg=key)
    assert int(results[0]["1.num_batches_tracked"]) == 2


def test_batch_norm_over_two_processes_can_be_differentiated_twice(processes):
    ours = torch.cat([p["second order"] for p in processes])
    torch.testing.assert_close(ours, second_order(layer_inputs()[0]), rtol=1e-8, atol=1e-10)


def test_extremes_over_processes_and_their_gradient_equal_the_joined_batch(processes):
    expected = extremes(layer_inputs()[0])
    for p in processes:
        assert p["extremes"]["low"] == expected["low"]
        assert p["extremes"]["high"] == expected["high"]
        assert p["sum"].tolist() == [2.0, 1.0]
    ours = torch.cat([p["extremes"]["grad"] for p in processes])
    # Each process' loss holds the extremes once, so the summed loss holds them twice.
    torch.testing.assert_close(ours, PROCESSES * expected["grad"])


def test_two_processes_train_the_same_weights_and_buffers_as_one(processes, tmp_path):
    expected = trained_model(tmp_path, 0, 1)
    results = [p["model"] for p in processes]
    mean_losses = (results[0]["losses"] + results[1]["losses"]) / 2
    torch.testing.assert_close(mean_losses, expected["losses"], rtol=1e-9, atol=1e-11)
    for label, state in expected["states"].items():
        assert list(state) == list(results[0]["states"][label])
        for key, value in state.items():
            ours, theirs = (r["states"][label][key] for r in results)
            assert torch.equal(ours, theirs), key
            torch.testing.assert_close(ours, value, rtol=1e-6, atol=1e-9, msg=f"{label}.{key}")


def test_the_converter_keeps_keys_and_parameters_and_a_single_process_is_plain_batch_norm():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))
    parameters = list(plain.parameters())
    converted = synchronize_batch_norms(copy.deepcopy(plain))
    x = double(2, 3, 6, 6, seed=9).float()
    assert isinstance(converted[1][0], SynchronizedBatchNorm2d)
    assert torch.equal(converted(x), plain(x))
    for ours, expected in zip(
        converted.state_dict().items(), plain.state_dict().items(), strict=True
    ):
        assert ours[0] == expected[0]
        assert torch.equal(ours[1], expected[1])
    synchronize_batch_norms(plain)
    assert all(a is b for a, b in zip(plain.parameters(), parameters, strict=True))
    with pytest.raises(ValueError, match="running statistics"):
        synchronize_batch_norms(nn.Sequential(nn.BatchNorm2d(4, affine=False)))
