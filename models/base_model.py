"""What every model shares: device, networks, inputs, optimizer steps, checkpoints."""

import contextlib
from abc import ABC, abstractmethod
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.losses import Tensors
from models.losses.perceptual import CENTRE_IMAGES, CENTRE_PIXELS, RANDOM_NOTE, VGG19Features
from models.networks.layers import check_sides, synchronize_batch_norms
from models.optim import Stepper, update_average
from util.errors import UserError
from util.person.maps import keypoints_to_heatmaps, view_maps
from util.run import checkpoint, distributed
from util.run.device import (
    Precision,
    compile_in_place,
    rng_state,
    set_rng_state,
    to_float32,
    use_tf32,
    without_graphs,
)
from util.run.folder import check_architecture, save_architecture
from util.skeleton import JOINTS
from util.tensors import normalise_uint8

Batch = dict[str, Any]


@dataclass(frozen=True)
class Explanation:
    """Where a generated image took its content from; a model fills what it has."""

    fake_target: torch.Tensor  # (B, 3, H, W) in [-1, 1]
    # of each block (B, heads, h, w, h, w): target position, then source position; sums to 1
    attention: list[torch.Tensor] = field(default_factory=list)
    # coarse to fine (B, 2, h, w): offsets (x, y) in own pixels from target to source
    flows: list[torch.Tensor] = field(default_factory=list)
    gates: list[torch.Tensor] = field(default_factory=list)  # coarse to fine (B, C, h, w) in [0, 1]


class BaseModel(ABC):
    """Networks, optimizers and the contract between a model and the training and test loops.

    A subclass builds its networks in ``__init__`` with :meth:`add_network` and implements
    :meth:`infer`, :meth:`forward` and :meth:`optimize_parameters`.
    """

    loss_meanings: Mapping[str, str] = {}  # of names in ``losses`` that are not published
    needed: tuple[str, ...] = ("G",)  # networks of training; of them generation needs the first
    size_multiple = 8  # the image height and width must be multiples of this
    smallest_side = 8  # of an image, in pixels
    samples_per_save = 1000  # by default; published for PATN's descendants
    needs_people = False  # whether the pose maps are made of a person's joints only
    vgg_losses: tuple[str, ...] = ()  # options of the weights of losses on VGG-19 features

    def __init__(self, opt: Namespace):
        self.opt = opt
        self.is_train: bool = opt.is_train
        self.device = torch.device(opt.device)
        self.run_dir = Path(opt.checkpoints_dir) / opt.name
        self.networks: dict[str, nn.Module] = {}
        self.configs: dict[str, Any] = {}
        self.ema: dict[str, Tensors] = {}  # moving averages of state dicts, by label
        self.precision = Precision(opt.precision, self.device)
        self.graphs: bool = self.is_train and opt.cuda_graphs
        use_tf32(opt.tf32)
        if self.is_train:
            self.stepper = Stepper(
                self.precision, opt.lr_policy, opt.niter, opt.niter_decay, opt.clip_grad
            )
        self.vgg: VGG19Features | None = None
        self.losses: Tensors = {}  # detached scalars, in log order
        self.inputs: Batch = {}
        self.seen: Batch = {}  # the inputs of the last forward pass, for the pictures
        self.notes: list[str] = []  # for the person at the console; shown once when training starts
        if opt.view_counts and self.needs_people:
            raise UserError(
                f"--model {opt.model} draws the limbs of people, which --dataset_mode "
                f"{opt.dataset_mode} does not have: use DPTN, poseflownet, pose or pose2pose"
            )
        check_sides(opt.load_size, self.size_multiple, f"--load_size: the {opt.model} model")
        side = self.smallest_side
        self.need_size(min(opt.load_size) >= side, f"{side} pixels or more in both dimensions")
        if self.is_train and any(getattr(opt, name) for name in self.vgg_losses):
            if opt.vgg_weights == "random":
                self.notes.append(RANDOM_NOTE)
            vgg = VGG19Features(opt.vgg_weights, self.precision, opt.vgg_width).to(self.device)
            self.vgg = compile_in_place(vgg, opt.compile, self.graphs)

    @staticmethod
    def modify_options(parser: ArgumentParser, is_train: bool) -> None:
        """Add the model's own options to ``parser``, change defaults."""
        return None

    @property
    def result_size(self) -> tuple[int, int]:
        """(h, w) at which test.py saves the generated images, as the published system does."""
        return self.opt.annotation_size

    # ---- building --------------------------------------------------------------------------

    def add_network(
        self,
        label: str,  # "G", "D": the letter in the checkpoint's file name
        network: nn.Module,
        config: Any,  # frozen dataclass, saved with the checkpoint
        lr: float | None = None,  # None: no optimizer (or testing)
        betas: tuple[float, float] | None = None,  # of Adam; None: --beta1 and 0.999
    ) -> nn.Module:
        """Register a network; while training it also gets an Adam optimizer and a schedule."""
        if not is_dataclass(config):
            raise UserError(
                f"the settings of network {label} of {type(self).__name__} are a "
                f"{type(config).__name__}; expected a frozen dataclass, see docs/extending.md"
            )
        if distributed.world_size() > 1:
            network = synchronize_batch_norms(network)
        network = network.to(self.device)
        distributed.broadcast_network(network)
        self.networks[label] = network
        self.configs[label] = asdict(config)
        network.train(self.is_train)
        if self.is_train and lr is not None:
            self.stepper.add(label, network, lr, betas or (self.opt.beta1, 0.999))
            if label == "G" and self.opt.ema:
                self.ema[label] = {k: v.clone() for k, v in network.state_dict().items()}
        return compile_in_place(network, self.opt.compile, self.graphs)

    def need_size(self, fits: bool, needed: str) -> None:
        """Refuse the image size, in words that say what is ``needed``, unless it ``fits``."""
        if not fits:
            height, width = self.opt.load_size
            raise UserError(
                f"--load_size {height} {width}: the {self.opt.model} model needs {needed}"
            )

    def features(self, images: torch.Tensor, layers: Collection[str]) -> Tensors:
        """VGG-19 features of ``images`` (B, 3, H, W) by layer; no layers, no pass."""
        return self.vgg(images, layers) if layers else {}

    def centre_vgg(self, dataset: Sequence[Mapping[str, Any]]) -> None:
        """Centre a random VGG-19 on target images spread evenly over the training pairs, unless
        ``--no_vgg_centre``; nothing is drawn or saved, a resumed run makes the same one again."""
        if self.vgg is None or self.opt.vgg_weights != "random" or not self.opt.vgg_centre:
            return
        height, width = self.opt.load_size
        count = min(CENTRE_IMAGES, max(1, CENTRE_PIXELS // (height * width)), len(dataset))
        rows = [k * len(dataset) // count for k in range(count)]
        images = torch.stack([dataset[row]["target_image"] for row in rows])
        self.vgg.centre(normalise_uint8(images.to(self.device)))
        distributed.broadcast_network(self.vgg)  # other machines round differently

    # ---- data ------------------------------------------------------------------------------

    def pose_maps(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, 18, 2) in the annotation frame -> pose maps (B, P, H, W) on the device."""
        sizes = self.opt.annotation_size, self.opt.load_size
        return keypoints_to_heatmaps(keypoints, *sizes, self.opt.heatmap_sigma)

    @property
    def pose_channels(self) -> int:
        """Channels of one pose map: the joints, or the labels of all axes of the views."""
        return sum(self.opt.view_counts) or len(JOINTS)

    def prepare(self, batch: Batch) -> Batch:
        """Move a batch of the data set to the device; images become float, keypoints pose maps.

        Pure: may be called from several threads. Keys: ``source_image``, ``target_image`` (B, 3, H,
        W) in [-1, 1], ``source_pose``, ``target_pose`` (B, P, H, W), keypoints, and lists of names.
        The target image may be absent (inference).
        """
        inputs = dict(batch)
        for key, value in batch.items():
            if not torch.is_tensor(value):
                continue
            inputs[key] = value = value.to(self.device, non_blocking=True)
            role, _, kind = key.rpartition("_")
            if kind == "image":
                inputs[key] = normalise_uint8(value)
            elif kind == "keypoints":
                inputs[f"{role}_pose"] = self.pose_maps(value)
            elif kind == "view":
                counts, size = self.opt.view_counts, self.opt.load_size
                inputs[f"{role}_pose"] = view_maps(value, counts, size)
        return inputs

    def set_input(self, batch: Batch) -> None:
        """Prepare a batch for the next training step."""
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
        self.stepper.begin()
        self.inputs = self.prepare(batch)

    # ---- the model itself ------------------------------------------------------------------

    def run_generator(self, inputs: Batch, **options: Any) -> Any:
        """What G gives for prepared inputs, computed in this run's number format, as float32."""
        x = inputs["source_image"], inputs["source_pose"], inputs["target_pose"]
        with self.precision.networks():
            return in_float32(self.networks["G"](*x, **options))

    @abstractmethod
    def infer(self, inputs: Batch) -> Tensors:
        """Pictures for prepared inputs, without gradient and without touching the model's state.

        Must contain ``fake_target`` (B, 3, H, W) in [-1, 1]; the result page shows the rest, too.
        """

    def explain(self, inputs: Batch) -> Explanation:
        """The generated image and where it comes from, for script/attention.py."""
        raise UserError(
            f"--model {self.opt.model} has nothing that says where the result comes from; expected "
            "a checkpoint of DPTN, poseflownet, pose or pose2pose"
        )

    def generate(self, inputs: Batch) -> Tensors:
        """:meth:`infer` for a batch of any size, with results that do not depend on the batch size.

        On a CPU (and with ``--deterministic``) samples are computed one by one: convolution
        libraries choose other kernels, with other rounding, for other batch sizes.
        """
        count = len(inputs["source_image"])
        if count == 1 or not (self.device.type == "cpu" or self.opt.deterministic):
            return self.infer(inputs)
        parts = [self.infer(part) for part in split(inputs, count)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    @abstractmethod
    def forward(self) -> None:
        """Run the generator on ``self.inputs`` and keep what the losses need."""

    @abstractmethod
    def optimize_parameters(self) -> None:
        """One training step on ``self.inputs``; fills ``self.losses``."""

    def step(self, label: str, loss: torch.Tensor) -> None:
        """One optimizer step of network ``label`` on ``loss``."""
        self.stepper.zero_grad(label)
        self.stepper.backward(label, loss)
        self.update(label)

    def accumulate(
        self, label: str, total: Callable[[], torch.Tensor], recorded: Callable[[], Tensors]
    ) -> Tensors:
        """Step network ``label`` on the mean gradient of ``--accumulate`` parts of the batch, which
        go through ``forward`` and ``total``; returns the mean of what is ``recorded``."""
        whole, parts, losses = self.inputs, self.opt.accumulate, {}
        self.stepper.zero_grad(label)
        for self.inputs in split(whole, parts):
            with self.precision.networks():
                with torch.set_grad_enabled(label == "G"):
                    self.forward()
                loss = total() / parts
            self.stepper.backward(label, loss)
            for name, value in recorded().items():
                losses[name] = losses.get(name, 0) + value / parts
        self.inputs = whole
        self.update(label)
        return losses

    def update(self, label: str) -> None:
        """One optimizer step of network ``label`` on the gradients it has; moves its average."""
        self.stepper.update(label)
        if label in self.ema:
            steps = self.stepper.steps_done(label)
            update_average(self.ema[label], self.networks[label], self.opt.ema, steps)

    def restart_averages(self) -> None:
        """Start the moving averages at the networks as they are; call it after loading weights."""
        for label, average in self.ema.items():
            for key, value in self.networks[label].state_dict().items():
                average[key].copy_(value)

    @property
    def visuals(self) -> Tensors:
        """Pictures (B, 3 or P, H, W) of the last step by name, made when they are asked for; a
        model adds what it generated."""
        shown = ("source_image", "source_pose", "target_image", "target_pose")
        return {name: self.seen[name] for name in shown}

    def train_mode(self, training: bool = True) -> None:
        """Put every network into training mode."""
        for network in self.networks.values():
            network.train(training)

    def eval_mode(self) -> None:
        """Put every network into evaluation mode."""
        self.train_mode(False)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside the block, training mode after it."""
        self.eval_mode()
        try:
            with without_graphs(self.graphs):  # others keep what is generated here
                yield
        finally:
            self.train_mode()

    def update_learning_rate(self) -> None:
        """Call once at the end of every epoch."""
        self.stepper.epoch_done()

    def logged(self) -> Tensors:
        """Losses of the last step and the gradient norms behind them."""
        if not self.losses:
            raise UserError(
                f"{type(self).__name__} has no losses after a step; fill self.losses with detached "
                "scalars by name, see docs/extending.md"
            )
        norms = {f"grad_{k}": v for k, v in self.stepper.grad_norms.items()}
        return {**self.losses, **norms}

    def learning_rates(self) -> dict[str, float]:
        """Current learning rate by network label."""
        return {k: o.param_groups[0]["lr"] for k, o in self.stepper.optimizers.items()}

    # ---- checkpoints -----------------------------------------------------------------------

    def network_path(self, label: str, which: str) -> Path:
        """File of network ``label`` ("G") at checkpoint ``which`` ("latest", an epoch, ...)."""
        return self.run_dir / f"{which}_net_{label}.pth"

    def save_networks(self, which: str) -> None:
        """Write ``<which>_net_<label>.pth`` for every network, in the published format."""
        for label, network in self.networks.items():
            checkpoint.save_state(network.state_dict(), self.network_path(label, which))
        for label, state in self.ema.items():
            checkpoint.save_state(state, self.network_path(f"{label}_ema", which))
        save_architecture(self.run_dir, self.configs)

    def read_network(self, label: str, path: Path) -> Any:
        """What a file holds of network ``label``; a model with files of its own overrides this."""
        return checkpoint.load(path)

    def load_networks(self, which: str, labels: tuple[str, ...] | None = None) -> None:
        """Load networks strictly from the run folder."""
        check_architecture(self.run_dir, self.configs)
        for label in labels or tuple(self.networks):
            averaged = label == "G" and not self.is_train and self.opt.ema
            path = self.network_path("G_ema" if averaged else label, which)
            checkpoint.load_state(self.networks[label], self.read_network(label, path), str(path))
        self.restart_averages()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors and plain values only."""
        return {
            "networks": {k: n.state_dict() for k, n in self.networks.items()},
            "ema": self.ema,
            "stepper": self.stepper.state_dict(),
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any], origin: str) -> bool:
        """Restore what :meth:`state_dict` returned; False when a model took weights from another
        stage's state instead: training then starts at epoch 1."""
        check_architecture(self.run_dir, self.configs)
        if set(state["networks"]) != set(self.networks):
            raise UserError(
                f"{origin} holds the networks {', '.join(state['networks'])}, but {self.opt.model} "
                f"trains {', '.join(self.networks)}; check --model"
            )
        for label, network in self.networks.items():
            checkpoint.load_state(network, state["networks"][label], f"{origin}, network {label}")
        self.restart_averages()
        for label in set(self.ema) & set(state["ema"]):
            average = checkpoint.state_dict_of(state["ema"][label], f"{origin}, average of {label}")
            for key, value in self.ema[label].items():
                value.copy_(average[key])
        self.stepper.load_state_dict(state["stepper"])
        set_rng_state(state["rng"])
        return True


def split(batch: Batch, parts: int) -> list[Batch]:
    """A batch in equal parts; samples that are left over are left out."""
    size = len(batch["source_image"]) // parts
    return [{k: v[i * size : (i + 1) * size] for k, v in batch.items()} for i in range(parts)]


def in_float32(results: Any) -> Any:
    """Tensors of a network, also in tuples and lists, as float32."""
    if torch.is_tensor(results):
        return to_float32(results)
    return None if results is None else type(results)(map(in_float32, results))
