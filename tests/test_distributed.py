"""Two processes train every model exactly as one with the joined batch; checkpoints are shared."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models import create_model, list_models
from tests.helpers import random_batch, train_options
from util.errors import UserError
from util.run import distributed

PROCESSES, STEPS, SIZE = 2, 2, (64, 32)
# What is trained: every model of the registry, and the discriminator with spectral norm.
CASES = {name: {"model": name} for name in list_models()}
CASES["dptn_step"]["step_size"] = 2  # steps of the rollout; the published 5 only take longer
CASES["dptn with batch norm"] = {"model": "DPTN", "norm": "batch", "lambda_affi": 0}
CASES["dptn with spectral norm"] = {"model": "DPTN", "netD": "res", "lambda_affi": 0}


def share(value, rank: int, processes: int):
    """The part of a batch's tensor or list that one process sees."""
    size = len(value) // processes
    return value[rank * size : (rank + 1) * size]


def new_model(case: str, folder: Path, processes: int):
    """A small model in float64, so that rounding hides nothing."""
    torch.manual_seed(0)
    opt = train_options(
        **CASES[case], load_size=SIZE, ngf=4, ndf=4, batchSize=PROCESSES // processes, gpu_ids=-1,
        checkpoints_dir=folder,
    )  # fmt: skip
    model = create_model(opt)
    for network in (*model.networks.values(), model.vgg):
        network.double()
    return model


def step(model, number: int, rank: int, processes: int) -> dict[str, torch.Tensor]:
    """Train on this process' share of batch ``number``; all losses and averaged gradients."""
    batch = random_batch(PROCESSES, SIZE, seed=number)
    model.set_input({key: share(value, rank, processes) for key, value in batch.items()})
    model.inputs = {
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in model.inputs.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn_like", lambda x: noise_like(x, number, rank, processes))
        model.optimize_parameters()
    assert model.stepper.not_finite() is None
    losses = distributed.average_values(model.losses)
    found = {f"loss {name}": value.double() for name, value in losses.items()}
    for label, network in model.networks.items():
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                found[f"gradient {label} {name}"] = parameter.grad.clone()
    return found


def noise_like(x: torch.Tensor, number: int, rank: int, processes: int) -> torch.Tensor:
    """Noise that belongs to the sample, not to the process (each process draws its own noise)."""
    generator = torch.Generator().manual_seed(number)
    whole = torch.randn((PROCESSES, *x.shape[1:]), generator=generator, dtype=x.dtype)
    return share(whole, rank, processes)


def train(case: str, folder: Path, rank: int, processes: int, state: Path | None = None) -> dict:
    """Two steps on batches 0 and 1, or, continuing from ``state``, on batches 2 and 3."""
    model = new_model(case, folder, processes)
    first = 0
    if state is not None:
        model.load_state_dict(torch.load(state, weights_only=True), str(state))
        first = STEPS
    found = [step(model, first + i, rank, processes) for i in range(STEPS)]
    return {"found": found, "state": model.state_dict()}


def uneven(rank: int) -> dict[str, torch.Tensor | None]:
    """Averaged gradients of three layers: the second has one on rank 0 only, the third nowhere."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 1, bias=False).double() for _ in range(3)]
    used = layers[:2] if rank == 0 else layers[:1]
    x = torch.full((1, 2), float(rank + 1), dtype=torch.double)
    sum(layer(x).sum() for layer in used).backward()
    distributed.average_gradients([layer.weight for layer in layers])
    return {str(i): layer.weight.grad for i, layer in enumerate(layers)}


def replicas(rank: int) -> list[str]:
    """What the check says of equal weights, and of some that differ in one process."""
    network, said = torch.nn.Linear(2, 2), []
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    for spoil in (0.0, 1.0):
        with torch.no_grad():
            network.weight += spoil * rank
        try:
            distributed.check_replicas({"G": network})
            said.append("")
        except UserError as error:
            said.append(str(error))
    return said


def worker(rank: int, folder: str, states: str | None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES,
        timeout=timedelta(minutes=10),
    )  # fmt: skip
    for case in CASES:
        state = Path(states, f"{case}.pt") if states else None
        torch.save(train(case, Path(folder), rank, PROCESSES, state), f"{folder}/{case} {rank}.pt")
    torch.save(uneven(rank), f"{folder}/uneven {rank}.pt")
    Path(folder, f"replicas {rank}.txt").write_text("\n".join(replicas(rank)))
    dist.destroy_process_group()


def by_two_processes(folder: Path, states: Path | None = None) -> dict[str, list[dict]]:
    """What both processes found, by case; ``states`` holds checkpoints to continue from."""
    mp.spawn(worker, args=(str(folder), str(states) if states else None), nprocs=PROCESSES)
    return {
        case: [
            torch.load(folder / f"{case} {rank}.pt", weights_only=True) for rank in range(PROCESSES)
        ]
        for case in CASES
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Results of one process by case, and their checkpoints as ``<folder>/<case>.pt``."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("alone")
    results = {}
    for case in CASES:
        results[case] = train(case, folder, 0, 1)
        torch.save(results[case]["state"], folder / f"{case}.pt")
    return folder, results


@pytest.fixture(scope="module")
def meeting(tmp_path_factory):
    """The folder of two processes that work together."""
    return tmp_path_factory.mktemp("together")


@pytest.fixture(scope="module")
def together(meeting):
    """Results of two processes by case."""
    return by_two_processes(meeting)


def test_a_process_without_a_gradient_gets_the_mean_of_the_others(together, meeting):
    results = [torch.load(meeting / f"uneven {rank}.pt", weights_only=True) for rank in range(2)]
    for result in results:
        assert result["0"].tolist() == [[1.5, 1.5]]  # inputs 1 and 2
        assert result["1"].tolist() == [[0.5, 0.5]]  # 1 and nothing
        assert result["2"] is None


def test_replicas_that_differ_are_refused_before_a_save(together, meeting):
    for rank in range(2):
        fine, _, refused = (meeting / f"replicas {rank}.txt").read_text().partition("\n")
        assert fine == ""
        assert "no longer have the same weights (network G, weight)" in refused


def assert_equal(ours: list[dict], expected: list[dict]) -> None:
    """Losses and gradients of every step agree to 1e-6 of the largest of their kind."""
    for of_step, wanted in zip(ours, expected, strict=True):
        assert list(of_step) == list(wanted)
        assert any(key.startswith("gradient") for key in wanted)
        scale: dict[str, torch.Tensor] = {}
        for key, value in wanted.items():
            kind = key if key.startswith("loss") else " ".join(key.split()[:2])
            scale[kind] = max(scale.get(kind, torch.tensor(1e-12)), value.abs().max())
            assert torch.isfinite(value).all()
        for key, value in wanted.items():
            kind = key if key.startswith("loss") else " ".join(key.split()[:2])
            error = (of_step[key] - value).abs().max()
            assert error <= 1e-6 * scale[kind], f"{key}: {error} of {scale[kind]}"


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_of_two_processes_equal_those_of_the_joined_batch(
    case, alone, together
):
    for of_process in together[case]:
        assert_equal(of_process["found"], alone[1][case]["found"])


@pytest.mark.parametrize("case", CASES)
def test_both_processes_keep_the_same_weights(case, together):
    first, second = (of_process["state"]["networks"] for of_process in together[case])
    for label, network in first.items():
        for key, value in network.items():
            assert torch.equal(value, second[label][key]), f"{label} {key}"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_process_continues_from_a_checkpoint_of_two(case, alone, together, tmp_path):
    torch.save(together[case][0]["state"], tmp_path / "of_two.pt")
    ours = train(case, tmp_path, 0, 1, tmp_path / "of_two.pt")
    expected = train(case, tmp_path, 0, 1, alone[0] / f"{case}.pt")
    assert_equal(ours["found"], expected["found"])


@pytest.mark.slow
def test_two_processes_continue_from_checkpoints_of_one(alone, tmp_path):
    results = by_two_processes(tmp_path, alone[0])
    for case, both in results.items():
        expected = train(case, tmp_path, 0, 1, alone[0] / f"{case}.pt")
        for of_process in both:
            assert_equal(of_process["found"], expected["found"])


# ---- devices -----------------------------------------------------------------------------------


def test_several_gpus_in_one_process_are_answered_by_the_command_to_type(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match=r"torchrun --nproc_per_node=3 train\.py") as caught:
        distributed.local_device("0,1,2")
    assert "CUDA_VISIBLE_DEVICES=0,1,2" in str(caught.value)


def test_a_launched_process_takes_the_gpu_of_its_local_rank(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for key, value in {"WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(key, value)
    assert distributed.local_device("0") == torch.device("cuda", 1)
    assert distributed.local_device("2,3") == torch.device("cuda", 3)
    assert chosen == [1, 3]


def test_a_gpu_that_the_machine_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="GPU 5 was asked for"):
        distributed.local_device("5")
