"""Options of train.py."""

from __future__ import annotations

import argparse
from argparse import Namespace

from models.losses.adversarial import GAN_MODES
from models.optim import LR_POLICIES
from options.base_options import Add, BaseOptions
from options.parser import Parser


class TrainOptions(BaseOptions):
    """Options of train.py."""

    is_train = True

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.add_argument_group("training").add_argument
        self._add_run(add)
        self._add_schedule(add)
        self._add_step(add)
        self._add_validation(parser.add_argument_group("validation").add_argument)
        add = parser.add_argument_group("logging and saving").add_argument
        self._add_saving(add)
        self._add_logging(add)

    def _add_run(self, add: Add) -> None:
        """How a run starts and ends."""
        add(
            "--continue_train",
            action="store_true",
            help="resume the run --name from --which_epoch, exactly where it stopped",
        )
        add(
            "--overwrite",
            action="store_true",
            help="start anew although the folder of the run holds an earlier one",
        )
        add(
            "--max_minutes",
            type=float,
            default=None,
            help="save and stop after this time, with exit status 75",
        )

    def _add_schedule(self, add: Add) -> None:
        """Epochs and learning rate."""
        add("--niter", type=int, default=100, help="epochs at the initial learning rate")
        add("--niter_decay", type=int, default=100, help="epochs of decay after them")
        add("--lr", type=float, default=2e-4, help="initial learning rate of the generator")
        add("--beta1", type=float, default=0.5, help="first momentum of Adam")
        add(
            "--lr_policy",
            default="lambda",
            choices=sorted(LR_POLICIES),
            help="schedule of the learning rate",
        )

    def _add_step(self, add: Add) -> None:
        """Losses and what happens to their gradients."""
        add(
            "--gan_mode",
            type=_gan_mode,
            default="lsgan",
            choices=sorted(GAN_MODES),
            help="adversarial loss; wgan-gp, the published spelling, is accepted too",
        )
        add(
            "--vgg_weights",
            default="imagenet",
            help="VGG-19 of the perceptual losses: imagenet (torchvision's file), random (fixed "
            "seed), or the path of a file in torchvision's format",
        )
        add(
            "--vgg_width",
            type=float,
            default=1.0,
            help="with --vgg_weights random: share of the channels of every VGG convolution "
            "(0.25: nearly three times faster training of small models)",
        )
        add(
            "--vgg_centre",
            action="store_true",
            default=True,
            help="with --vgg_weights random: centre its channels on training images, so that the "
            "losses tell images apart",
        )
        add(
            "--no_vgg_centre",
            dest="vgg_centre",
            action="store_false",
            help="leave the random VGG-19 as it was drawn",
        )
        add(
            "--accumulate",
            type=int,
            default=1,
            help="parts of --batchSize samples whose gradients make one step: a larger batch in "
            "the same memory",
        )
        add(
            "--clip_grad",
            type=float,
            default=None,
            help="largest total gradient norm of one network; larger ones are scaled down",
        )
        add(
            "--on_nan",
            default="stop",
            choices=("stop", "skip"),
            help="a loss or gradient that is not finite: stop the run, or leave the step out",
        )
        add("--serial_batches", action="store_true", help="do not shuffle the training pairs")

    def _add_validation(self, add: Add) -> None:
        """What is measured while training."""
        add(
            "--val_freq",
            type=int,
            default=0,
            help="samples between two validations; 0 = none. The best checkpoint is kept as "
            "best_net_*.pth",
        )
        add(
            "--val_pairs",
            type=int,
            default=200,
            help="pairs that are validated, spread evenly over the list",
        )
        add("--val_phase", default="test", help="phase of the data set whose pairs are validated")
        add(
            "--val_metrics",
            default="psnr,ssim",
            help="comma-separated metrics of image pairs (util/metrics), standard protocol",
        )
        add(
            "--best_metric", default="psnr", help="metric that decides which checkpoint is the best"
        )

    def _add_saving(self, add: Add) -> None:
        """Which checkpoints are written and kept."""
        add("--save_latest_freq", type=int, default=1000, help="samples between saves of latest")
        add("--save_epoch_freq", type=int, default=1, help="epochs between numbered checkpoints")
        add(
            "--keep_last",
            type=int,
            default=2,
            help="numbered checkpoints that can be resumed; older ones keep their networks only",
        )
        add(
            "--save_by_iter",
            action=argparse.BooleanOptionalAction,
            default=False,
            help="at every save of latest also write <total samples>_net_*.pth (default for "
            "market)",
        )

    def _add_logging(self, add: Add) -> None:
        """What a run shows, and where."""
        add("--print_freq", type=int, default=200, help="samples between two lines of loss_log.txt")
        add("--display_freq", type=int, default=200, help="samples between two picture updates")
        add(
            "--display_seconds",
            type=float,
            default=5.0,
            help="pictures are not updated more often than this many seconds; 0 = no limit",
        )
        add("--display_id", type=int, default=0, help="visdom window; 0 = no visdom")
        add("--display_server", default="http://localhost", help="address of the visdom server")
        add("--display_port", type=int, default=8096, help="port of the visdom server")
        add("--display_env", default=None, help="visdom environment; default: --name")
        add("--no_html", action="store_true", help="no page of intermediate results")
        add("--no_tensorboard", action="store_true", help="no TensorBoard log")

    def check(self, opt: Namespace) -> None:
        if opt.debug:
            opt.niter, opt.niter_decay = 1, 0
            opt.max_dataset_size = min(opt.max_dataset_size or 10, 10)
            opt.display_freq = opt.print_freq = 1
            opt.display_seconds = 0.0


def _gan_mode(word: str) -> str:
    """``wgan-gp``, a choice of the published programs, is called ``wgangp`` here."""
    return word.replace("-", "")
