"""The random VGG-19: thin, centred on the data, and not asked for anything without a weight."""

import hashlib

import pytest
import torch

from models import create_model, list_models
from models.losses.perceptual import VGG19Features, random_vgg19_state
from tests.helpers import random_batch, train_options
from util.errors import UserError

SIZE = (64, 64)
# SHA-256 over the sorted names and bytes of the state dict
FULL = "f0a04fc99597a70ff2806957376d95c30dfc2aec72802984708417f57647bead"
QUARTER = "6bb97343c5c2ee87765d27ca6ada660ee97fc32d3f24c0ab0ab1db084b4415a1"
VGG_WEIGHTS = {
    "dptn": ("lambda_content", "lambda_style", "lambda_affi"),
    "dptn_step": ("lambda_content", "lambda_style", "lambda_face"),
    "pose2pose": ("lambda_per",),
    "pose": ("lambda_content", "lambda_style", "lambda_correct"),
    "poseflownet": ("lambda_correct",),
}


def small_model(name, folder, *flags):
    words = ["--model", name, "--checkpoints_dir", str(folder), "--gpu_ids", "-1", "--ngf", "4"]
    words += ["--ndf", "4", "--load_size", "64", "--batchSize", "2", *flags]
    return create_model(train_options("--vgg_weights", "random", *words))


class Photographs:
    """Any sequence of samples that hold a target image will do."""

    def __init__(self, count):
        self.images = random_batch(count, SIZE)["target_image"]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"target_image": self.images[index]}


def responses(vgg, images):
    """Every convolution's output before its ReLU."""
    seen = []
    convolutions = [layer for layer in vgg.features if isinstance(layer, torch.nn.Conv2d)]
    hooks = [c.register_forward_hook(lambda m, i, o: seen.append(o.clone())) for c in convolutions]
    vgg(images, ["relu5_2"])
    for hook in hooks:
        hook.remove()
    return seen


def test_the_full_random_vgg_has_the_bits_it_always_had():
    state = VGG19Features("random").state_dict()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].numpy().tobytes())
    assert digest.hexdigest() == FULL
    first = random_vgg19_state()["0.weight"]
    assert torch.equal(state["features.0.weight"], first)


def test_a_thin_vgg_has_its_share_of_the_channels_and_is_the_same_every_time():
    vgg, again = VGG19Features("random", width=0.25), VGG19Features("random", width=0.25)
    channels = [c.out_channels for c in vgg.features if isinstance(c, torch.nn.Conv2d)]
    assert channels == [16, 16, 32, 32, 64, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    pairs = zip(vgg.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    digest = hashlib.sha256()
    for name, value in sorted(vgg.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    assert digest.hexdigest() == QUARTER


def test_trained_weights_have_no_width(tmp_path):
    with pytest.raises(UserError, match=r"--vgg_width 0.5 .* --vgg_weights random"):
        VGG19Features("imagenet", width=0.5)


def test_every_channel_is_centred_on_the_training_images(tmp_path):
    model, photographs = small_model("DPTN", tmp_path, "--vgg_width", "0.25"), Photographs(6)
    model.centre_vgg(photographs)
    images = photographs.images.float() / 127.5 - 1
    for response in responses(model.vgg, images):
        assert response.mean((0, 2, 3)).abs().max() < 1e-4
        assert (response.std((0, 2, 3)) - 1).abs().max() < 1e-3
    again = small_model("DPTN", tmp_path, "--vgg_width", "0.25")
    again.centre_vgg(photographs)  # as a resumed run does
    pairs = zip(model.vgg.parameters(), again.vgg.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_centring_can_be_left_out_and_draws_no_random_numbers(tmp_path):
    model = small_model("DPTN", tmp_path, "--no_vgg_centre")
    model.centre_vgg(Photographs(3))
    assert torch.equal(model.vgg.features[0].weight, random_vgg19_state()["0.weight"])
    model = small_model("DPTN", tmp_path, "--vgg_width", "0.1")
    before = torch.get_rng_state()
    model.centre_vgg(Photographs(3))
    assert torch.equal(before, torch.get_rng_state())


def passes(model):
    """How many passes through the VGG-19 one training step takes."""
    count = []
    if model.vgg is not None:
        model.vgg.features[0].register_forward_hook(lambda *_: count.append(1))
    model.set_input(random_batch(2, SIZE))
    model.optimize_parameters()
    return len(count)


@pytest.mark.parametrize("name", list_models())
def test_a_loss_of_weight_zero_costs_no_vgg_pass(name, tmp_path):
    flags = [word for w in VGG_WEIGHTS[name] for word in (f"--{w}", "0")]
    thin = ("--vgg_width", "0.1")
    assert passes(small_model(name, tmp_path, *thin)) > 0
    assert passes(small_model(name, tmp_path, *flags, *thin)) == 0
    kept = [small_model(name, tmp_path, *flags[: 2 * k], *flags[2 * k + 2 :], *thin)
            for k in range(len(flags) // 2)]  # fmt: skip
    assert all(passes(model) > 0 for model in kept)
