"""The total loss of DPTN-TA's generator: which branch gets r, and which 1 - r."""

import torch

from models import create_model
from tests.helpers import random_batch, train_options


def test_the_target_branch_has_the_share_r_and_the_source_branch_the_rest(tmp_path):
    opt = train_options(
        "--no_vgg_centre", t_s_ratio=0.8, load_size=32, ngf=4, ndf=4, gpu_ids=-1, vgg_width=0.25,
        vgg_weights="random", checkpoints_dir=tmp_path,
    )  # fmt: skip
    torch.manual_seed(0)
    model = create_model(opt)
    model.set_input(random_batch(2, (32, 32)))
    model.forward()
    model.discriminator_loss()
    total = model.generator_loss()
    parts = model.losses
    target, source = (
        sum(parts[f"{name}_gen_{branch}"] for name in ("app", "content", "style"))
        for branch in ("t", "s")
    )
    expected = 0.8 * (target + parts["affi_gen_t"]) + 0.2 * source + parts["ad_gen_t"]
    torch.testing.assert_close(total.detach(), expected)
    assert abs(target - source) > 1e-3  # else the shares could not be told apart
