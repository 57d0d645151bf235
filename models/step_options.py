"""Options of DPTN step generation, and the settings of its optimizers that follow from them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from models.networks.dptn_step import MAX_STEPS
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


def add_network_options(parser, generators: Sequence[str]) -> None:
    """Options that describe the generator and its inputs."""
    parser.set_defaults(init_type="xavier")
    add = parser.group("DPTN_step model")
    add("--netG", choice(generators), "dptn", "generator")
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


def add_training_options(parser, discriminators: Sequence[str]) -> None:
    """Options of the discriminator, the losses and the optimizers."""
    parser.set_defaults(niter=150, niter_decay=50, lr_policy="linear_to_zero")
    parser.set_defaults(beta1=None, batchSize=6)
    add = parser.group("DPTN_step training")
    add("--netD", choice(discriminators), "res", "discriminator")
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


def optimizer_settings(opt: Namespace) -> tuple[float, float, tuple[float, float]]:
    """Learning rates of G and D, and the moments of Adam, whose defaults follow --no_TTUR.

    TTUR, a rate for each network: Heusel et al., NeurIPS 2017.
    """
    beta1 = (0.5 if opt.no_TTUR else 0.0) if opt.beta1 is None else opt.beta1
    beta2 = (0.999 if opt.no_TTUR else 0.9) if opt.beta2 is None else opt.beta2
    lr_G, lr_D = (opt.lr, opt.lr) if opt.no_TTUR else (opt.lr / 2, opt.lr * 2)
    return lr_G, lr_D, (beta1, beta2)
