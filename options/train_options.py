"""Options of train.py."""

from argparse import Namespace

from models.losses.adversarial import GAN_MODES
from models.optim import LR_POLICIES
from options.base_options import BaseOptions
from options.parser import Parser
from util.errors import UserError
from util.kinds import (
    choice,
    flag,
    folder_name,
    natural,
    number,
    positive,
    positive_int,
    server_name,
    text,
    whole_number,
)
from util.run import distributed


class TrainOptions(BaseOptions):
    """Options of train.py."""

    is_train = True

    def add_options(self, parser: Parser) -> None:
        super().add_options(parser)
        add = parser.group("training")
        add("--continue_train", flag, False, "resume the run from --which_epoch where it stopped")
        add("--overwrite", flag, False, "start anew although the folder holds an earlier run")
        add("--max_minutes", positive, None, "save and stop after this time, with status 75")
        add("--niter", positive_int, 100, "epochs at the initial learning rate")
        add("--niter_decay", natural, 100, "epochs of decay after them")
        add("--lr", positive, 2e-4, "initial learning rate of the generator")
        add("--beta1", number(0, 0.9999), 0.5, "first momentum of Adam")
        add("--lr_policy", choice(sorted(LR_POLICIES)), "lambda", "schedule of the learning rate")
        # wgan-gp is the published spelling
        modes = choice(sorted(GAN_MODES), lambda word: word.replace("-", ""))
        add("--gan_mode", modes, "lsgan", "adversarial loss")
        add("--vgg_weights", text, "imagenet", "VGG-19: imagenet, random, or torchvision's file")
        add("--vgg_width", number(1 / 64, 1), 1.0, "of random: share of the channels of VGG-19")
        centre = "of random: centre VGG-19 on training images"
        add("--vgg_centre | --no_vgg_centre", flag, True, centre)
        add("--accumulate", positive_int, 1, "parts of --batchSize samples that make one step")
        graphs = "compile the networks, replay their kernels as CUDA graphs: one GPU, small steps"
        add("--cuda_graphs", flag, False, graphs)
        add("--clip_grad", positive, None, "largest gradient norm of a network; others are scaled")
        add("--on_nan", choice(("stop", "skip")), "stop", "what a gradient that is not finite does")
        add("--serial_batches", flag, False, "do not shuffle the training pairs")
        places = choice(("auto", "device", "host", "none"))
        cache = "all images in memory; auto: on a GPU if they fit in a third of what is free"
        add("--cache_images", places, "auto", cache)

        self._add_reports(parser)

    def _add_reports(self, parser: Parser) -> None:
        """What is measured, saved and shown meanwhile."""
        add = parser.group("validation")
        add("--val_freq", natural, 0, "samples between validations, 0 = none; keeps best_net_*.pth")
        add("--val_pairs", positive_int, 200, "pairs that are validated, spread over the list")
        add("--val_phase", folder_name, "test", "phase of the data set whose pairs are validated")
        add("--val_metrics", text, "psnr,ssim", "metrics of image pairs, separated by commas")
        batches = "batches that estimate G's batch norms before it; 0 = their running statistics"
        add("--bn_batches", natural, 50, batches)
        add("--bn_in_saves", flag, False, "with --val_freq: such statistics in all network files")
        add("--best_metric", text, "psnr", "metric that decides which checkpoint is the best")

        add = parser.group("logging and saving")
        latest = "samples between saves of latest; default: as published, at most one a minute"
        add("--save_latest_freq", positive_int, None, latest)
        add("--save_epoch_freq", positive_int, 1, "epochs between numbered checkpoints")
        add("--keep_last", natural, 2, "numbered checkpoints that can be resumed")
        by_iter = "with latest also write <total samples>_net_*.pth (market: on)"
        add("--save_by_iter | --no-save_by_iter", flag, False, by_iter)
        add("--print_freq", positive_int, 200, "samples between two lines of loss_log.txt")
        add("--display_freq", positive_int, 200, "samples between two picture updates")
        add("--display_seconds", number(0), 5.0, "least time between two of them; 0 = no limit")
        add("--display_id", natural, 0, "visdom window; 0 = no visdom")
        add("--display_server", server_name, "http://localhost", "address of the visdom server")
        add("--display_port", whole_number(1, 65535), 8096, "port of the visdom server")
        add("--display_env", text, None, "visdom environment; default: --name")
        add("--no_html", flag, False, "no page of intermediate results")
        add("--no_tensorboard", flag, False, "no TensorBoard log")

    def check(self, opt: Namespace) -> None:
        if opt.debug:
            opt.niter, opt.niter_decay = 1, 0
            opt.max_dataset_size = min(opt.max_dataset_size or 10, 10)
            opt.display_freq, opt.print_freq, opt.display_seconds = 1, 1, 0.0
        reasons = {
            "replays the work of a GPU, but the device is the CPU": opt.device == "cpu",
            f"does not go with --accumulate {opt.accumulate}": opt.accumulate > 1,
            "does not go with several processes": distributed.launched(),
            "does not go with --gan_mode wgangp, which differentiates twice": (
                opt.gan_mode == "wgangp"
            ),
        }
        for reason, applies in reasons.items():
            if opt.cuda_graphs and applies:
                raise UserError(f"--cuda_graphs {reason}: leave one of them out")
