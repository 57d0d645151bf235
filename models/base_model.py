"""What every model shares: devices, optimizers, inputs, checkpoints (BaseModel) and the GAN step (GANModel)."""

from __future__ import annotations

import contextlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.losses.adversarial import GANLoss
from models.losses.perceptual import VGG19Features
from models.schedules import LR_POLICIES
from util import checkpoint, distributed
from util.errors import UserError
from util.image import normalise_uint8
from util.pose import keypoints_to_heatmaps

Batch = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class BaseModel(ABC):
    """Networks, optimizers and the contract between a model and the training and test loops.

    A subclass builds its networks in ``__init__`` with :meth:`add_network` and implements
    :meth:`infer` and :meth:`optimize_parameters`.
    """

    size_multiple = 8  # the image height and width must be multiples of this

    def __init__(self, opt):
        self.opt = opt
        self.is_train: bool = opt.is_train
        self.device = torch.device(opt.device)
        self.run_dir = Path(opt.checkpoints_dir) / opt.name
        self.networks: dict[str, nn.Module] = {}
        self.configs: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LambdaLR] = {}
        self.losses: Tensors = {}  # detached scalars, in log order
        self.visuals: Tensors = {}  # pictures (B, 3 or J, H, W) of the last step
        self.inputs: Batch = {}
        self.notes: list[str] = []  # for the person at the console; shown once when training starts
        if any(side % self.size_multiple for side in opt.load_size):
            raise UserError(
                f"--load_size {opt.load_size[0]} {opt.load_size[1]}: the {opt.model} model needs a "
                f"height and width that are multiples of {self.size_multiple}"
            )

    # ---- options ---------------------------------------------------------------------------

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        """Add the model's own options to ``parser`` and change defaults."""

    # ---- building --------------------------------------------------------------------------

    def add_network(
        self,
        label: str,  # "G", "D": the letter in the checkpoint's file name
        network: nn.Module,
        config: Any,  # frozen dataclass, saved with the checkpoint
        lr: float | None = None,  # None: no optimizer (or testing)
        betas: tuple[float, float] = (0.5, 0.999),
    ) -> nn.Module:
        """Register a network; while training it also gets an Adam optimizer and a schedule."""
        network = network.to(self.device)
        distributed.broadcast_network(network)
        self.networks[label] = network
        self.configs[label] = asdict(config)
        if self.is_train and lr is not None:
            optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas)
            factor = LR_POLICIES[self.opt.lr_policy](self.opt.niter, self.opt.niter_decay)
            self.optimizers[label] = optimizer
            self.schedulers[label] = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda e, factor=factor: factor(e + 1)
            )
        network.train(self.is_train)
        return network

    # ---- data ------------------------------------------------------------------------------

    def pose_maps(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, 18, 2) in the annotation frame -> pose maps (B, P, H, W) on the device."""
        return keypoints_to_heatmaps(keypoints, self.opt.annotation_size, self.opt.load_size)

    def prepare(self, batch: Batch) -> Batch:
        """Move a batch of the data set to the device; images become float, keypoints pose maps.

        Pure: may be called from several threads. Keys: ``source_image``, ``target_image`` (B, 3, H, W) in
        [-1, 1], ``source_pose``, ``target_pose`` (B, P, H, W), keypoints, and lists of names.
        The target image may be absent (inference).
        """
        inputs: Batch = {}
        for key, value in batch.items():
            if not torch.is_tensor(value):
                inputs[key] = value
                continue
            value = value.to(self.device, non_blocking=True)
            if key.endswith("_image"):
                inputs[key] = normalise_uint8(value)
                continue
            inputs[key] = value
            if key.endswith("_keypoints"):
                inputs[key.replace("_keypoints", "_pose")] = self.pose_maps(value)
        return inputs

    def set_input(self, batch: Batch) -> None:
        """Prepare a batch for the next training step."""
        self.inputs = self.prepare(batch)

    # ---- the model itself ------------------------------------------------------------------

    @abstractmethod
    def infer(self, inputs: Batch) -> Tensors:
        """Pictures for prepared inputs, without gradient and without touching the model's state.

        Must contain ``fake_target`` (B, 3, H, W) in [-1, 1]; other entries appear on the result page.
        """

    def generate(self, inputs: Batch) -> Tensors:
        """:meth:`infer` for a batch of any size, with results that do not depend on the batch size.

        On a CPU (and with ``--deterministic``) samples are computed one by one: convolution libraries choose
        other kernels, with other rounding, for other batch sizes.
        """
        count = len(inputs["source_image"])
        if count == 1 or not (self.device.type == "cpu" or self.opt.deterministic):
            return self.infer(inputs)
        parts = [self.infer({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    @abstractmethod
    def optimize_parameters(self) -> None:
        """One training step on ``self.inputs``; fills ``self.losses`` and ``self.visuals``."""

    def step(self, label: str, loss: torch.Tensor) -> None:
        """One optimizer step of network ``label`` on ``loss``."""
        optimizer = self.optimizers[label]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.networks[label].parameters())
        optimizer.step()

    def eval_mode(self) -> None:
        """Put every network into evaluation mode."""
        for network in self.networks.values():
            network.eval()

    def train_mode(self) -> None:
        """Put every network into training mode."""
        for network in self.networks.values():
            network.train()

    def update_learning_rate(self) -> None:
        """Call once at the end of every epoch."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def learning_rates(self) -> dict[str, float]:
        """Current learning rate by network label."""
        return {k: o.param_groups[0]["lr"] for k, o in self.optimizers.items()}

    # ---- checkpoints -----------------------------------------------------------------------

    def network_path(self, label: str, which: str) -> Path:
        """File of network ``label`` ("G") at checkpoint ``which`` ("latest", an epoch, ...)."""
        return self.run_dir / f"{which}_net_{label}.pth"

    def save_networks(self, which: str) -> None:
        """Write ``<which>_net_<label>.pth`` for every network, in the published format."""
        for label, network in self.networks.items():
            checkpoint.save_network(network, self.network_path(label, which))
        architecture = json.dumps(self.configs, indent=1).encode()
        checkpoint.write_atomically(self.run_dir / "architecture.json", architecture)

    def load_networks(self, which: str, labels: tuple[str, ...] | None = None) -> None:
        """Load networks strictly from the run folder."""
        self.check_architecture()
        for label in labels or tuple(self.networks):
            checkpoint.load_network(self.networks[label], self.network_path(label, which))

    def check_architecture(self) -> None:
        """Refuse options that contradict the architecture saved beside the checkpoint."""
        path = self.run_dir / "architecture.json"
        if not path.is_file():
            return
        saved = json.loads(path.read_text())
        for label, config in self.configs.items():
            for key, value in saved.get(label, {}).items():
                if key in config and json.loads(json.dumps(config[key])) != value:
                    raise UserError(
                        f"{key} is {config[key]} by the options, but the checkpoint in "
                        f"{self.run_dir} was trained with {value}: leave the option out or set it to that"
                    )

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs: tensors and plain values only."""
        return {
            "networks": {k: n.state_dict() for k, n in self.networks.items()},
            "optimizers": {k: o.state_dict() for k, o in self.optimizers.items()},
            "schedulers": {
                k: {"last_epoch": s.last_epoch, "base_lrs": list(s.base_lrs)}
                for k, s in self.schedulers.items()
            },
            "rng": rng_state(),
        }

    def load_state_dict(self, state: dict[str, Any], origin: str) -> bool:
        """Restore what :meth:`state_dict` returned.

        False when a model took weights from another stage's state instead: training then starts at
        epoch 1.
        """
        self.check_architecture()
        if set(state["networks"]) != set(self.networks):
            raise UserError(
                f"{origin} holds the networks {', '.join(state['networks'])}, but {self.opt.model} "
                f"trains {', '.join(self.networks)}; check --model"
            )
        for label, network in self.networks.items():
            checkpoint.load_state(network, state["networks"][label], f"{origin}, network {label}")
        for label, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][label])
        for label, scheduler in self.schedulers.items():
            scheduler.last_epoch = state["schedulers"][label]["last_epoch"]
            for group, base in zip(
                scheduler.optimizer.param_groups, scheduler.base_lrs, strict=True
            ):
                group["lr"] = base * scheduler.lr_lambdas[0](scheduler.last_epoch)
        set_rng_state(state["rng"])
        return True


def rng_state() -> dict[str, Any]:
    """State of the python, numpy, torch and cuda generators as tensors and plain values."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what :func:`rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class GANModel(BaseModel):
    """A generator trained against a discriminator; a subclass spells out its two total losses."""

    def __init__(self, opt):
        super().__init__(opt)
        if self.is_train:
            self.gan = GANLoss(opt.gan_mode)
            self.vgg = VGG19Features(opt.vgg_weights).to(self.device)

    @abstractmethod
    def forward(self) -> None:
        """Run the generator on ``self.inputs`` and keep what the losses need."""

    @abstractmethod
    def discriminator_loss(self) -> torch.Tensor:
        """Total loss of D; fills ``self.losses``."""

    @abstractmethod
    def generator_loss(self) -> torch.Tensor:
        """Total loss of G, with D frozen; fills ``self.losses``."""

    def optimize_parameters(self) -> None:
        """forward, D step (on real and detached fake), G step (against the updated D)."""
        self.forward()
        self.step("D", self.discriminator_loss())
        with self.frozen("D"):
            self.step("G", self.generator_loss())

    @contextlib.contextmanager
    def frozen(self, label: str) -> Iterator[None]:
        """Switch off gradients of a network's parameters inside the block."""
        network = self.networks[label]
        network.requires_grad_(False)
        try:
            yield
        finally:
            network.requires_grad_(True)
