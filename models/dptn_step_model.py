"""DPTN step generation: the image is painted in J steps, coarse to fine (``--model DPTN_step``)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from models.base_model import Batch, Tensors
from models.gan_model import GANModel
from models.losses.adversarial import gradient_penalty
from models.losses.perceptual import content_loss, layers_of, style_loss
from models.losses.step import chroma_loss, face_loss, step_loss
from models.losses.terms import detached, halves, weighted
from models.networks.dptn_step import (
    DPTNStepConfig,
    StepDiscriminator,
    StepDiscriminatorConfig,
    StepGenerator,
    check_divisors,
    coarse_image,
    seeded_noise,
    step_divisors,
)
from models.networks.layers import initialize
from models.step_checkpoint import container_path, load_container, read_network, start_from
from models.step_options import add_network_options, add_training_options, optimizer_settings
from util.person.maps import LIMB_SIGMA, SIGMA, eye_pixels, step_pose_maps
from util.run.device import to_float32
from util.tensors import constant


@dataclass
class Chunk:
    """Results and truths of one step (N = B) or of several, step after step (N = steps * B)."""

    steps: tuple[int, ...]  # which steps, counted from 1
    fake_target: torch.Tensor  # (N, 3, H, W)
    fake_source: torch.Tensor | None  # (N, 3, H, W)
    real_target: torch.Tensor  # (N, 3, H, W) coarse images of the steps
    real_source: torch.Tensor  # (N, 3, H, W)

    @property
    def labels(self) -> torch.Tensor:
        """Classes of the step head (N,): the step, counted from 0."""
        count = len(self.fake_target) // len(self.steps)
        labels = tuple(step - 1 for step in self.steps for _ in range(count))
        return constant(labels, torch.long, self.fake_target.device)

    def detach(self) -> Chunk:
        """The same without gradient history."""
        source = None if self.fake_source is None else self.fake_source.detach()
        return replace(self, fake_target=self.fake_target.detach(), fake_source=source)


def join(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of several, in their order."""
    steps = sum((c.steps for c in chunks), ())
    images = [[getattr(c, f.name) for c in chunks] for f in fields(Chunk)[1:]]
    return Chunk(steps, *(None if x[0] is None else torch.cat(x) for x in images))


GENERATORS = {"dptn": StepGenerator}
DISCRIMINATORS = {"res": StepDiscriminator}
Style = tuple[torch.Tensor, torch.Tensor]  # source image, its pose maps
SIGMA_WITHOUT_STEP_LOSS = 2.0  # of keypoints and limbs, in the published run without step loss


class DPTNStepModel(GANModel):
    """Unrolled coarse-to-fine generation; the discriminator also tells which step made an image."""

    vgg_losses = ("lambda_content", "lambda_style", "lambda_face")
    size_multiple = 16

    needs_people = True

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        add_network_options(parser, sorted(GENERATORS))
        if is_train:
            add_training_options(parser, sorted(DISCRIMINATORS))

    def __init__(self, opt):
        super().__init__(opt)
        divisors = check_divisors(opt.d_schedule) if opt.d_schedule else None
        config = DPTNStepConfig(
            ngf=opt.ngf, nhead=opt.nhead, num_CABs=opt.num_CABs, num_TTBs=opt.num_TTBs,
            use_spectral=opt.use_spect_g, divisors=divisors or step_divisors(opt.step_size),
            load_size=tuple(opt.load_size), raw_texture=opt.no_step_loss,
        )  # fmt: skip
        self.divisors = config.divisors
        net_G = initialize(GENERATORS[opt.netG](config), opt.init_type, opt.init_gain)
        if not self.is_train:
            self.add_network("G", net_G, config)
            return
        lr_G, lr_D, betas = optimizer_settings(opt)
        self.add_network("G", net_G, config, lr_G, betas)
        config_D = StepDiscriminatorConfig(
            opt.ndf, opt.dis_layers, 0 if opt.no_step_loss else config.step_size,
            config.load_size, opt.use_spect_d,
        )  # fmt: skip
        net_D = initialize(DISCRIMINATORS[opt.netD](config_D), opt.init_type, opt.init_gain)
        self.add_network("D", net_D, config_D, lr_D, betas)
        if opt.init_from and not opt.continue_train:
            self.warm_start(Path(opt.init_from))

    @property
    def result_size(self) -> tuple[int, int]:
        """As published: the size that the networks work at."""
        return self.opt.load_size

    # ---- data and inference ----------------------------------------------------------------

    def pose_maps(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, 18, 2) -> pose maps (B, 41, H, W): 18 keypoints and 23 limbs."""
        opt = self.opt
        usual = (SIGMA_WITHOUT_STEP_LOSS,) * 2 if opt.no_step_loss else (SIGMA, LIMB_SIGMA)
        sigmas = opt.kp_sigma or usual[0], opt.limb_sigma or usual[1]
        return step_pose_maps(keypoints, opt.annotation_size, opt.load_size, *sigmas)

    def noise(self, inputs: Batch) -> torch.Tensor:
        """Initial estimate (B, 3, H, W) of inference, drawn for each pair from --seed and names."""
        image = inputs["source_image"]
        roles = [inputs.get(f"{role}_name") or [""] * len(image) for role in ("source", "target")]
        keys = [(self.opt.seed, *names) for names in zip(*roles, strict=True)]
        return seeded_noise(keys, image.shape[1:]).to(image)

    def infer(self, inputs: Batch) -> Tensors:
        """``fake_target`` and every step as ``step_1`` ... ``step_J``, each (B, 3, H, W)."""
        styles = [(inputs["source_image"], inputs["source_pose"])] * len(self.divisors)
        noise = inputs["noise"] if "noise" in inputs else self.noise(inputs)
        return self.mix_styles(styles, inputs["target_pose"], noise)

    @torch.no_grad()
    def mix_styles(
        self,
        styles: Sequence[Style],  # J x (source image, source pose maps)
        target_pose: torch.Tensor,  # (B, 41, H, W)
        noise: torch.Tensor,  # (B, 3, H, W)
    ) -> Tensors:
        """Like ``infer`` with a source for every step; different sources mix their styles."""
        steps = [fake_target for fake_target, _ in self._steps(styles, target_pose, noise)]
        return {"fake_target": steps[-1]} | {f"step_{j}": x for j, x in enumerate(steps, 1)}

    def _steps(
        self, styles: Sequence[Style], target_pose: torch.Tensor, noise: torch.Tensor, **options
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """The generator's rollout in this run's precision; images are float32."""
        rollout = self.networks["G"].rollout(styles, target_pose, noise, **options)
        for _ in styles:
            with self.precision.networks():  # not across the yield: the caller has its own
                fake_target, fake_source = next(rollout)
            yield to_float32(fake_target), None if fake_source is None else to_float32(fake_source)

    # ---- training --------------------------------------------------------------------------

    def rollout(self, with_source: bool) -> Iterator[Chunk]:
        """All steps on ``self.inputs`` from fresh noise, one chunk a step."""
        x = self.inputs
        target, source = x["target_image"], x["source_image"]
        styles = [(source, x["source_pose"])] * len(self.divisors)
        noise = torch.randn_like(target)
        fakes = self._steps(styles, x["target_pose"], noise, with_source=with_source)
        for step, (fake_target, fake_source) in enumerate(fakes, start=1):
            divisor = self.divisors[step - 1]
            truths = coarse_image(target, divisor), coarse_image(source, divisor)
            yield Chunk((step,), fake_target, fake_source, *truths)

    def forward(self) -> None:
        """One rollout with the whole graph: the chunk of the joint losses."""
        self.chunk = join(list(self.rollout(with_source=True)))

    def optimize_parameters(self) -> None:
        """G step on one rollout, then D step on a second, independent one without gradient."""
        whole, count = self.inputs, self.opt.accumulate
        size = len(whole["target_image"]) // count
        parts = [{k: v[i * size : (i + 1) * size] for k, v in whole.items()} for i in range(count)]
        self.losses, rollouts = {}, []
        self.stepper.zero_grad("G")
        with self.frozen("D"):
            for self.inputs in parts:
                chunks = self.rollout(with_source=True)
                rollouts.append(self.learn("G", self.generator_loss, chunks))
        self.update("G")
        self.seen, self.rolled_out = self.inputs, rollouts[-1]

        self.stepper.zero_grad("D")
        for self.inputs, chunks in zip(parts, rollouts, strict=True):
            if not self.opt.d_reuse_fakes:
                with torch.no_grad():
                    chunks = list(self.rollout(with_source=False))
            judged = chunks[-1:] if self.opt.no_step_loss else chunks
            self.learn("D", self.discriminator_loss, judged)
        self.update("D")
        self.inputs = whole

    @property
    def visuals(self) -> Tensors:
        """Inputs and, for both branches, strips (B, 3, H, J*W) of all steps side by side."""
        steps = self.rolled_out
        strips = {
            "coarse_target": [c.real_target for c in steps],
            "fake_target_steps": [c.fake_target for c in steps],
            "coarse_source": [c.real_source for c in steps],
            "fake_source_steps": [c.fake_source for c in steps],
        }
        return {
            **super().visuals,
            **{name: torch.cat(images, dim=3) for name, images in strips.items()},
            "fake_target": steps[-1].fake_target,
        }

    def learn(
        self, label: str, total: Callable[[], torch.Tensor], chunks: Iterable[Chunk]
    ) -> list[Chunk]:
        """Add the gradient of all chunks to network ``label``; returns them without history.

        Steps are detached from each other and no layer mixes samples, so a backward pass after
        every step adds up to the gradient of the joint loss with 1/J of its memory.
        """
        joint = self.opt.step_backward == "joint"
        done = list(chunks) if joint else []
        for self.chunk in [join(done)] if joint else chunks:
            with self.precision.networks():
                loss = total()
            self.stepper.backward(label, loss)
            if not joint:
                done.append(self.chunk.detach())
        return [chunk.detach() for chunk in done]

    @property
    def weight(self) -> float:
        """Weight of the chunk's mean losses: all chunks add up to the mean over steps.

        Without step loss the published run adds the steps up instead.
        """
        steps = 1 if self.opt.no_step_loss else len(self.divisors)
        return len(self.chunk.steps) / steps / self.opt.accumulate

    def generator_loss(self) -> torch.Tensor:
        """The chunk's share of L_G: both branches against their coarse images, D, step and face.

        The eight terms of the paper, and one for hue; all chunks add up to their means over the
        steps.
        """
        opt, c, w, r = self.opt, self.chunk, self.weight, self.opt.t_s_ratio
        (content_t, style_t), (content_s, style_s) = self._perceptual()
        gan, step = self._judgement_of_fakes()
        face_t, face_s = self._faces()
        gan_weight = 1 / opt.accumulate if opt.no_step_loss else w * 0.5
        vgg_t = opt.lambda_content * content_t + opt.lambda_style * style_t
        vgg_s = opt.lambda_content * content_s + opt.lambda_style * style_s
        return self._sum({
            "L1_target": w * r * opt.lambda_rec * F.l1_loss(c.fake_target, c.real_target),
            "L1_source": w * (1 - r) * opt.lambda_rec * F.l1_loss(c.fake_source, c.real_source),
            "VGG_target": w * r * vgg_t,
            "VGG_source": w * (1 - r) * vgg_s,
            "GAN_target": gan_weight * opt.lambda_g * gan,
            "Step_loss": w * 0.5 * opt.lambda_step * step,
            "Face_target": w * opt.lambda_face * face_t,
            "Face_source": w * opt.lambda_face * face_s,
            "Chroma": self._chroma(),
        })  # fmt: skip

    def _perceptual(self) -> list[tuple[Any, Any]]:
        """(content, style) of the target and of the source branch; 0 and no pass if unweighted."""
        opt, c = self.opt, self.chunk
        layers = layers_of(opt.lambda_content, opt.lambda_style)
        fakes = self.features(torch.cat([c.fake_target, c.fake_source]), layers)
        with torch.no_grad():
            reals = self.features(torch.cat([c.real_target, c.real_source]), layers)
        return [
            (
                content_loss(fake, real) if opt.lambda_content else 0,
                style_loss(fake, real) if opt.lambda_style else 0,
            )
            for fake, real in zip(halves(fakes), halves(reals), strict=True)
        ]

    def _judgement_of_fakes(self) -> tuple[Any, Any]:
        """Adversarial and step loss of the fakes; without step loss D sees the last step only."""
        c, net_D = self.chunk, self.networks["D"]
        if not self.opt.no_step_loss:
            scores, log_p = net_D(c.fake_target)
            return self.gan(scores, True), step_loss(log_p, c.labels)
        if c.steps[-1] != len(self.divisors):
            return 0, 0
        scores, _ = net_D(c.fake_target.chunk(len(c.steps))[-1])
        return self.gan(scores, True), 0

    def _faces(self) -> list[Any]:
        """Face loss of the target and of the source branch."""
        opt, c = self.opt, self.chunk
        if opt.no_step_loss or not opt.lambda_face:
            return [0, 0]
        losses = []
        for role, fake, real in (
            ("target", c.fake_target, c.real_target), ("source", c.fake_source, c.real_source)
        ):  # fmt: skip
            keypoints = self.inputs[f"{role}_keypoints"].repeat(len(c.steps), 1, 1)
            eyes, has_face = eye_pixels(keypoints, opt.annotation_size, opt.load_size)
            losses.append(face_loss(self.vgg, fake, real, eyes, has_face))
        return losses

    def _chroma(self) -> Any:
        """The chunk's share of the hue loss of both branches, weighted as L1; 0 if unweighted."""
        opt, c, r = self.opt, self.chunk, self.opt.t_s_ratio
        of_t = weighted(r * opt.lambda_chroma, chroma_loss, c.fake_target, c.real_target)
        of_s = weighted((1 - r) * opt.lambda_chroma, chroma_loss, c.fake_source, c.real_source)
        return self.weight * (of_t + of_s)

    def discriminator_loss(self) -> torch.Tensor:
        """The chunk's share of L_D; the real images of step j are the coarse targets of level j.

        L_D = (GAN(real) + GAN(fake))/2 + lambda_step (step(real) + step(fake))/2.
        """
        opt, c, net_D = self.opt, self.chunk, self.networks["D"]
        fake, real = c.fake_target, c.real_target
        if opt.no_step_loss:  # last step against the full image; C_J is the identity
            fake, real = (x.chunk(len(c.steps))[-1] for x in (fake, real))
        w = 1 / opt.accumulate if opt.no_step_loss else self.weight
        scores_real, log_real = net_D(real)
        scores_fake, log_fake = net_D(fake)
        terms = {
            "Real_loss": w * 0.5 * self.gan(scores_real, True, for_discriminator=True),
            "Fake_loss": w * 0.5 * self.gan(scores_fake, False, for_discriminator=True),
        }
        if not opt.no_step_loss:
            terms["Real_step"] = w * 0.5 * opt.lambda_step * step_loss(log_real, c.labels)
            terms["Fake_step"] = w * 0.5 * opt.lambda_step * step_loss(log_fake, c.labels)
        if self.gan.mode == "wgangp":  # on the adversarial scores alone
            terms["Penalty"] = w * gradient_penalty(lambda x: net_D(x)[0], real, fake)
        return self._sum(terms)

    def _sum(self, terms: Tensors) -> torch.Tensor:
        """Total of the terms; their values are added to ``self.losses``."""
        for name, value in detached(terms).items():
            self.losses[name] = self.losses.get(name, 0) + value
        return sum(terms.values())

    # ---- checkpoints -----------------------------------------------------------------------

    def network_path(self, label: str, which: str) -> Path:
        """File of a network; when testing, the published ``<which>_net.pth`` where it is alone."""
        path = super().network_path(label, which)
        if not self.is_train and not path.is_file() and container_path(path).is_file():
            return container_path(path)
        return path

    def load_networks(self, which: str, labels: tuple[str, ...] | None = None) -> None:
        """As every model; training also goes on from a published container, optimizers included."""
        own = super().network_path("G", which)
        if self.is_train and not own.is_file() and container_path(own).is_file():
            self.check_architecture()
            load_container(self.networks, self.stepper, container_path(own))
            self.restart_averages()
        else:
            super().load_networks(which, labels)

    def read_network(self, label: str, path: Path) -> Tensors:
        """State dict of a network; the positional table of published files is left out."""
        return read_network(path, label)

    def warm_start(self, path: Path) -> None:
        """Start from the networks of a DPTN or DPTN_step run; warns of what starts fresh."""
        for warning in start_from(self.networks, path):
            warnings.warn(f"--init_from: {warning}", stacklevel=2)
        self.restart_averages()
