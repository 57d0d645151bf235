"""Options of ``--model DPTN_step``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence


# fmt: off
def add_network_options(parser: ArgumentParser, generators: Sequence[str]) -> None:
    """Options that describe the generator and its inputs."""
    parser.set_defaults(init_type="xavier")
    add = parser.add_argument_group("DPTN_step model").add_argument
    add("--netG", default="dptn", choices=generators, help="generator")
    add("--nhead", type=int, default=2, help="attention heads of the Pose Transformer Module")
    add("--num_CABs", type=int, default=2, help="context augment blocks")
    add("--num_TTBs", type=int, default=2, help="texture transfer blocks")
    add("--step_size", type=int, default=5, help="number of steps J, 1 to 254")
    add("--d_schedule", type=int, nargs="+", default=None, metavar="D",
        help="divisors of the coarse images, strictly decreasing, the last 1; replaces "
        "--step_size (5 steps: 204 153 102 51 1)")
    add("--no_step_loss", action="store_true",
        help="the published run without step prediction: no step head, D judges the last step "
        "only, losses are summed over steps, texture from the full source image, no face term")
    add("--kp_sigma", type=float, default=None,
        help="sigma of the keypoint maps in pixels; default: 6, with --no_step_loss 2")
    add("--limb_sigma", type=float, default=None,
        help="sigma of a limb 256 pixels long; default: 3, with --no_step_loss 2")
    add("--use_spect_g", "--spectral_g", action="store_true", default=True,
        help="spectral norm in the generator")
    add("--no_spect_g", "--no-spectral_g", dest="use_spect_g", action="store_false",
        help="no spectral norm in the generator")


def add_training_options(parser: ArgumentParser, discriminators: Sequence[str]) -> None:
    """Options of the discriminator, the losses and the optimizers."""
    parser.set_defaults(
        niter=150, niter_decay=50, lr_policy="linear_to_zero", beta1=None, batchSize=6
    )
    add = parser.add_argument_group("DPTN_step training").add_argument
    add("--netD", default="res", choices=discriminators, help="discriminator")
    add("--dis_layers", "--dis_layer", type=int, default=4,
        help="down-samplings of the discriminator")
    add("--use_spect_d", action="store_true", default=True,
        help="spectral norm in the discriminator")
    add("--no_spect_d", dest="use_spect_d", action="store_false",
        help="no spectral norm in the discriminator (its output layer keeps it)")
    add("--lambda_rec", type=float, default=2.5, help="weight of the L1 reconstruction loss")
    add("--lambda_content", type=float, default=0.25, help="weight of the content loss")
    add("--lambda_style", type=float, default=250.0, help="weight of the style loss")
    add("--lambda_g", type=float, default=2.0,
        help="weight of the adversarial loss (halved with step loss, as published)")
    add("--lambda_step", type=float, default=2.0, help="weight of the step prediction loss")
    add("--lambda_face", type=float, default=1.0, help="weight of the face loss; 0 = off")
    add("--t_s_ratio", type=float, default=0.5,
        help="share r of the target branch in the reconstruction losses; the source branch has 1-r")
    add("--step_backward", default="per_step", choices=("per_step", "joint"),
        help="backward pass after every step (least memory) or once for all; equal gradients")
    add("--d_reuse_fakes", action="store_true",
        help="train D on the images of the generator's step instead of a second rollout (faster)")
    add("--no_TTUR", action="store_true",
        help="learning rate --lr for both networks; default: G lr/2, D lr*2")
    add("--beta2", type=float, default=None,
        help="second momentum of Adam; default: 0.9, with --no_TTUR 0.999 "
        "(and --beta1 0, with --no_TTUR 0.5)")
    add("--init_from", default=None, metavar="PATH",
        help="start from a DPTN or DPTN_step run: its folder or a *_net_G.pth or *_net.pth file")
# fmt: on


def optimizer_settings(opt: Namespace) -> tuple[float, float, tuple[float, float]]:
    """Learning rates of G and D, and the moments of Adam, whose defaults follow --no_TTUR.

    TTUR, a rate for each network: Heusel et al., NeurIPS 2017.
    """
    beta1 = (0.5 if opt.no_TTUR else 0.0) if opt.beta1 is None else opt.beta1
    beta2 = (0.999 if opt.no_TTUR else 0.9) if opt.beta2 is None else opt.beta2
    lr_G, lr_D = (opt.lr, opt.lr) if opt.no_TTUR else (opt.lr / 2, opt.lr * 2)
    return lr_G, lr_D, (beta1, beta2)
