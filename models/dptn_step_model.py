"""DPTN step generation: the image is painted in J steps, coarse to fine (``--model DPTN_step``)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from models.base_model import Batch, Tensors, in_float32, split
from models.gan_model import GANModel
from models.losses import detached, weighted
from models.losses.adversarial import gradient_penalty
from models.losses.perceptual import content_loss, layers_of, style_loss
from models.losses.step import chroma_loss, face_loss, step_loss
from models.networks.dptn_step import (
    MAX_STEPS,
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
from util.kinds import (
    choice,
    flag,
    fraction,
    natural,
    number,
    positive,
    positive_int,
    several,
    text,
    weight,
    whole_number,
)
from util.person.maps import LIMB_SIGMA, SIGMA, eye_pixels, step_pose_maps
from util.run.folder import check_architecture
from util.tensors import constant


class Chunk(NamedTuple):
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
        return Chunk(self.steps, *(x if x is None else x.detach() for x in self[1:]))


def join(chunks: Sequence[Chunk]) -> Chunk:
    """One chunk of several, in their order."""
    steps, *images = zip(*chunks, strict=True)
    return Chunk(sum(steps, ()), *(None if x[0] is None else torch.cat(x) for x in images))


GENERATORS = {"dptn": StepGenerator}
DISCRIMINATORS = {"res": StepDiscriminator}
Style = tuple[torch.Tensor, torch.Tensor]  # source image, its pose maps


class DPTNStepModel(GANModel):
    """Unrolled coarse-to-fine generation; the discriminator also tells which step made an image."""

    vgg_losses = ("lambda_content", "lambda_style", "lambda_face")
    size_multiple = 16
    needs_people = True

    @staticmethod
    def modify_options(parser, is_train: bool) -> None:
        parser.set_defaults(init_type="xavier")
        add = parser.group("DPTN_step model")
        add("--netG", choice(GENERATORS), "dptn", "generator")
        add("--nhead", positive_int, 2, "attention heads of the Pose Transformer Module")
        add("--num_CABs", natural, 2, "context augment blocks")
        add("--num_TTBs", natural, 2, "texture transfer blocks")
        add("--step_size", whole_number(1, MAX_STEPS), 5, "number of steps J")
        divisors = "of the coarse images, instead of --step_size (5 steps: 204 153 102 51 1)"
        add("--d_schedule", several(positive_int), None, divisors, metavar="D")
        add("--no_step_loss", flag, False, "published run without step head, step and face losses")
        add("--kp_sigma", positive, None, "of keypoint maps, pixels; default: 6, --no_step_loss 2")
        add("--limb_sigma", positive, None, "of a 256 pixel limb; default: 3, --no_step_loss 2")
        spectral = "--use_spect_g --spectral_g | --no_spect_g --no-spectral_g"
        add(spectral, flag, True, "spectral norm in the generator")
        if is_train:
            _add_training_options(parser)

    def __init__(self, opt):
        super().__init__(opt)
        self.divisors = check_divisors(opt.d_schedule or step_divisors(opt.step_size))
        config = DPTNStepConfig(
            ngf=opt.ngf, nhead=opt.nhead, num_CABs=opt.num_CABs, num_TTBs=opt.num_TTBs,
            use_spectral=opt.use_spect_g, divisors=self.divisors,
            load_size=tuple(opt.load_size), raw_texture=opt.no_step_loss,
        )  # fmt: skip
        net_G = initialize(GENERATORS[opt.netG](config), opt.init_type, opt.init_gain)
        if not self.is_train:
            self.add_network("G", net_G, config)
            return
        # TTUR, a rate for each network: Heusel et al., NeurIPS 2017
        lr_G, lr_D = (opt.lr, opt.lr) if opt.no_TTUR else (opt.lr / 2, opt.lr * 2)
        beta1, beta2 = (0.5, 0.999) if opt.no_TTUR else (0.0, 0.9)
        beta1 = beta1 if opt.beta1 is None else opt.beta1
        betas = beta1, beta2 if opt.beta2 is None else opt.beta2
        self.add_network("G", net_G, config, lr_G, betas)
        config_D = StepDiscriminatorConfig(
            opt.ndf, opt.dis_layers, 0 if opt.no_step_loss else config.step_size,
            config.load_size, opt.use_spect_d,
        )  # fmt: skip
        net_D = initialize(DISCRIMINATORS[opt.netD](config_D), opt.init_type, opt.init_gain)
        self.add_network("D", net_D, config_D, lr_D, betas)
        if opt.init_from and not opt.continue_train:
            for warning in start_from(self.networks, Path(opt.init_from)):
                warnings.warn(f"--init_from: {warning}", stacklevel=2)
            self.restart_averages()

    @property
    def result_size(self) -> tuple[int, int]:
        """As published: the size that the networks work at."""
        return self.opt.load_size

    # ---- data and inference ----------------------------------------------------------------

    def pose_maps(self, keypoints: torch.Tensor) -> torch.Tensor:
        """Keypoints (B, 18, 2) -> pose maps (B, 41, H, W): 18 keypoints and 23 limbs."""
        opt = self.opt
        joint, limb = (2.0, 2.0) if opt.no_step_loss else (SIGMA, LIMB_SIGMA)  # as published
        sigmas = opt.kp_sigma or joint, opt.limb_sigma or limb
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
                fakes = next(rollout)
            yield in_float32(fakes)

    # ---- training --------------------------------------------------------------------------

    def rollout(self, with_source: bool) -> Iterator[Chunk]:
        """All steps on ``self.inputs`` from fresh noise, one chunk a step."""
        x = self.inputs
        images = x["target_image"], x["source_image"]
        styles = [(x["source_image"], x["source_pose"])] * len(self.divisors)
        noise = torch.randn_like(x["target_image"])
        fakes = self._steps(styles, x["target_pose"], noise, with_source=with_source)
        for step, (divisor, fake) in enumerate(zip(self.divisors, fakes, strict=True), start=1):
            yield Chunk((step,), *fake, *(coarse_image(image, divisor) for image in images))

    def forward(self) -> None:
        """One rollout with the whole graph: the chunk of the joint losses."""
        self.chunk = join(list(self.rollout(with_source=True)))

    def optimize_parameters(self) -> None:
        """G step on one rollout, then D step on a second, independent one without gradient."""
        whole, parts = self.inputs, split(self.inputs, self.opt.accumulate)
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
        found, steps = super().visuals, self.rolled_out
        for role in ("target", "source"):
            for name, part in ((f"coarse_{role}", "real"), (f"fake_{role}_steps", "fake")):
                found[name] = torch.cat([getattr(c, f"{part}_{role}") for c in steps], dim=3)
        return found | {"fake_target": steps[-1].fake_target}

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

        The eight terms of the paper, and one for hue; all chunks add up to the means over steps.
        """
        opt, c, w, r = self.opt, self.chunk, self.weight, self.opt.t_s_ratio
        vgg_t, vgg_s = self._perceptual()
        gan, step = self._judgement_of_fakes()
        face_t, face_s = self._faces()
        gan_weight = 1 / opt.accumulate if opt.no_step_loss else w * 0.5
        return self._sum({
            "L1_target": w * r * opt.lambda_rec * F.l1_loss(c.fake_target, c.real_target),
            "L1_source": w * (1 - r) * opt.lambda_rec * F.l1_loss(c.fake_source, c.real_source),
            "VGG_target": w * r * vgg_t,
            "VGG_source": w * (1 - r) * vgg_s,
            "GAN_target": gan_weight * opt.lambda_g * gan,
            "Step_loss": w * 0.5 * opt.lambda_step * step,
            "Face_target": w * opt.lambda_face * face_t,
            "Face_source": w * opt.lambda_face * face_s,
            "Chroma": w * (
                weighted(r * opt.lambda_chroma, chroma_loss, c.fake_target, c.real_target)
                + weighted((1 - r) * opt.lambda_chroma, chroma_loss, c.fake_source, c.real_source)
            ),
        })  # fmt: skip

    def _perceptual(self) -> list[Any]:
        """Weighted content and style loss of the target and of the source branch."""
        opt, c = self.opt, self.chunk
        layers = layers_of(opt.lambda_content, opt.lambda_style)
        fake_t, fake_s, real_t, real_s = self.features_of_both(
            (c.fake_target, c.fake_source), (c.real_target, c.real_source), layers
        )
        return [
            weighted(opt.lambda_content, content_loss, fake, real)
            + weighted(opt.lambda_style, style_loss, fake, real)
            for fake, real in ((fake_t, real_t), (fake_s, real_s))
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
        for role in ("target", "source"):
            images = getattr(c, f"fake_{role}"), getattr(c, f"real_{role}")
            keypoints = self.inputs[f"{role}_keypoints"].repeat(len(c.steps), 1, 1)
            face = eye_pixels(keypoints, opt.annotation_size, opt.load_size)
            losses.append(face_loss(self.vgg, *images, *face))
        return losses

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
            check_architecture(self.run_dir, self.configs)
            load_container(self.networks, self.stepper, container_path(own))
            self.restart_averages()
        else:
            super().load_networks(which, labels)

    def read_network(self, label: str, path: Path) -> Tensors:
        """State dict of a network; the positional table of published files is left out."""
        return read_network(path, label)


def _add_training_options(parser) -> None:
    schedule = {"niter": 150, "niter_decay": 50, "lr_policy": "linear_to_zero"}
    parser.set_defaults(beta1=None, batchSize=6, **schedule)
    add = parser.group("DPTN_step training")
    add("--netD", choice(DISCRIMINATORS), "res", "discriminator")
    add("--dis_layers --dis_layer", positive_int, 4, "down-samplings of the discriminator")
    add("--use_spect_d | --no_spect_d", flag, True, "spectral norm below the last layer of D")
    add("--lambda_rec", weight, 2.5, "weight of the L1 reconstruction loss")
    add("--lambda_content", weight, 0.25, "weight of the content loss")
    add("--lambda_style", weight, 250.0, "weight of the style loss")
    add("--lambda_g", weight, 2.0, "weight of the adversarial loss (half of it with step loss)")
    add("--lambda_step", weight, 2.0, "weight of the step prediction loss")
    add("--lambda_face", weight, 1.0, "weight of the face loss; 0 = off")
    chroma = "weight of an L1 loss of hue, R-G and B-G (ours); 0 = off, as published"
    add("--lambda_chroma", weight, 0.0, chroma)
    add("--t_s_ratio", fraction, 0.5, "share of the target branch in the reconstruction losses")
    backward = "backward pass after every step (least memory) or once; equal gradients"
    add("--step_backward", choice(("per_step", "joint")), "per_step", backward)
    add("--d_reuse_fakes", flag, False, "train D on the images of G's step, not of a second one")
    add("--no_TTUR", flag, False, "learning rate --lr for both networks; default: G lr/2, D lr*2")
    add("--beta2", number(0, 0.999999), None, "of Adam; default: 0.9, with --no_TTUR 0.999")
    add("--init_from", text, None, "DPTN or DPTN_step run, or *_net_G.pth, to start from")
