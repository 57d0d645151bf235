"""Checkpoints of the step model: published files, strict loading, warm starts."""

import warnings

import pytest
import torch

from models.networks.discriminators import DiscriminatorConfig, build_discriminator
from models.networks.dptn import DPTNConfig, DPTNGenerator
from tests.step_helpers import make_batch, make_model, make_test_model
from util.errors import UserError


def with_table(state):
    """A state dict as the published code saves it: with the table of positional maps."""
    return {**state, "positional_encoding.pe": torch.zeros(50, 1, 64)}


def save_published(model, path, prefix="module."):
    parts = {}
    for label, network in model.networks.items():
        state = {prefix + k: v for k, v in network.state_dict().items()}
        parts[f"net{label}"] = with_table(state) if label == "G" else state
        parts[f"opt{label}"] = model.stepper.optimizers[label].state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(parts, path)


def assert_equal_networks(a, b):
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert torch.equal(x, y), name


def test_published_one_file_checkpoints_load_for_testing(tmp_path):
    model = make_model(tmp_path)
    save_published(model, tmp_path / "old" / "latest_net.pth")
    tester = make_test_model(model, name="old")
    assert tester.network_path("G", "latest").name == "latest_net.pth"
    tester.load_networks("latest", labels=("G",))
    assert_equal_networks(tester.networks["G"], model.networks["G"])


def test_older_published_files_with_the_table_load_too(tmp_path):
    model = make_model(tmp_path)
    (tmp_path / "old").mkdir()
    torch.save(with_table(model.networks["G"].state_dict()), tmp_path / "old" / "7_net_G.pth")
    tester = make_test_model(model, name="old")
    tester.load_networks("7")
    assert_equal_networks(tester.networks["G"], model.networks["G"])


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "no G"])
def test_everything_but_the_table_is_strict(tmp_path, change):
    model = make_model(tmp_path)
    path = tmp_path / "old" / "latest_net.pth"
    save_published(model, path, prefix="")
    parts = torch.load(path)
    if change == "missing":
        del parts["netG"]["En_s.block0.model.0.bias"]
    elif change == "extra":
        parts["netG"]["En_s.block9.bias"] = torch.zeros(3)
    elif change == "shape":
        parts["netG"]["En_s.block0.model.0.bias"] = torch.zeros(3)
    else:
        del parts["netG"]
    torch.save(parts, path)
    with pytest.raises(UserError, match=r"En_s|no network G"):
        make_test_model(model, name="old").load_networks("latest")


def test_saving_and_loading_gives_the_same_images(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    model.optimize_parameters()
    model.save_networks("latest")
    model.eval_mode()
    tester = make_test_model(model)
    tester.load_networks("latest")
    inputs = model.prepare(make_batch())
    assert torch.equal(tester.infer(inputs)["fake_target"], model.infer(inputs)["fake_target"])


def test_another_schedule_than_the_trained_one_is_refused(tmp_path):
    model = make_model(tmp_path)
    model.save_networks("latest")
    model.opt.d_schedule = [100, 1]
    with pytest.raises(UserError, match="divisors"):
        make_test_model(model).load_networks("latest")


def test_warm_start_from_the_same_model_without_step_loss_keeps_all_but_the_step_head(tmp_path):
    first = make_model(tmp_path, "--no_step_loss", name="first")
    first.save_networks("latest")
    with pytest.warns(UserWarning, match=r"fc_step\.0\.weight.* start fresh"):
        second = make_model(tmp_path, name="second", init_from=tmp_path / "first")
    assert_equal_networks(second.networks["G"], first.networks["G"])
    state = second.networks["D"].state_dict()
    for name, value in first.networks["D"].state_dict().items():
        assert torch.equal(state[name], value)
    assert second.networks["D"].fc_step is not None


def test_warm_start_from_a_published_file_takes_the_step_head_too(tmp_path):
    first = make_model(tmp_path)
    save_published(first, tmp_path / "old" / "best_net.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = make_model(tmp_path, init_from=tmp_path / "old" / "best_net.pth")
    for label in ("G", "D"):
        assert_equal_networks(second.networks[label], first.networks[label])


def save_dptn(folder, kind):
    torch.manual_seed(3)
    generator = DPTNGenerator(DPTNConfig(ngf=4))
    discriminator = build_discriminator(DiscriminatorConfig(kind, ndf=4))
    folder.mkdir()
    torch.save(generator.state_dict(), folder / "latest_net_G.pth")
    torch.save(discriminator.state_dict(), folder / "latest_net_D.pth")
    return generator, discriminator


def test_warm_start_from_dptn_takes_over_every_layer(tmp_path):
    generator, discriminator = save_dptn(tmp_path / "dptn", "res")
    with pytest.warns(UserWarning, match="fc_step"):
        model = make_model(tmp_path, init_from=tmp_path / "dptn" / "latest_net_G.pth")
    own = model.networks["G"].state_dict()
    old = generator.state_dict()
    assert torch.equal(own["PTM.decoder.norm.weight"], old["PTM.decoder.norm.weight"])
    pairs = {
        "En_c.mblock1.conv2.weight_orig": "mblock1.conv2.weight",
        "En_s.encoder0.model.2.weight_orig": "source_encoder.encoder0.model.2.weight",
        "De.decoder1.model.5.weight_orig": "decoder1.model.5.weight",
        "De.outconv.conv1.bias": "outconv.conv1.bias",
    }
    for new_key, old_key in pairs.items():
        assert torch.equal(own[new_key], old[old_key])
    first, old_first = own["En_c.block0.model.0.weight_orig"], old["block0.model.0.weight"]
    assert torch.equal(first[:, :3], old_first[:, :3])
    assert torch.equal(first[:, 3:21], old_first[:, 3:21] + old_first[:, 21:])
    assert first[:, 21:].abs().max() == 0
    assert torch.equal(
        model.networks["D"].state_dict()["conv.weight_orig"],
        discriminator.state_dict()["conv.weight_orig"],
    )


def test_warm_start_from_dptn_leaves_spectral_layers_with_norm_one(tmp_path):
    save_dptn(tmp_path / "dptn", "res")
    with pytest.warns(UserWarning, match="fc_step"):
        model = make_model(tmp_path, init_from=tmp_path / "dptn")
    generator = model.networks["G"].eval()
    model.infer(model.prepare(make_batch()))
    for name in ("En_c.encoder0.model.2", "De.decoder1.model.5"):
        weight = generator.get_submodule(name).weight.detach()
        matrix = weight.transpose(0, 1) if name.startswith("De") else weight
        assert float(torch.linalg.matrix_norm(matrix.flatten(1), 2)) == pytest.approx(1, abs=1e-4)


def test_warm_start_from_dptn_ta_says_that_the_discriminator_starts_fresh(tmp_path):
    save_dptn(tmp_path / "ta", "resnet")
    with pytest.warns(UserWarning, match="another kind of discriminator; D starts fresh"):
        make_model(tmp_path, init_from=tmp_path / "ta")


def test_warm_start_from_something_else_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x_net_G.pth")
    with pytest.raises(UserError, match="missing"):
        make_model(tmp_path, init_from=tmp_path / "x_net_G.pth")
    with pytest.raises(UserError, match="no checkpoint"):
        make_model(tmp_path, init_from=tmp_path / "nowhere_net_G.pth")


def test_training_goes_on_from_a_released_container_with_its_optimizers(tmp_path):
    model = make_model(tmp_path)
    for seed in range(2):
        model.set_input(make_batch(seed=seed))
        model.optimize_parameters()
    save_published(model, tmp_path / "old" / "latest_net.pth")
    other = make_model(tmp_path, name="old")
    other.load_networks("latest")
    for label, network in model.networks.items():
        assert_equal_networks(other.networks[label], network)
        ours, theirs = (m.stepper.optimizers[label].state_dict() for m in (other, model))
        assert ours["param_groups"] == theirs["param_groups"]
        for index, moments in theirs["state"].items():
            for key, value in moments.items():
                assert torch.equal(ours["state"][index][key], value), (label, index, key)
    assert other.network_path("G", "latest").name == "latest_net_G.pth"  # saves go beside it


def test_a_container_with_moments_of_other_networks_is_refused(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    model.optimize_parameters()
    path = tmp_path / "old" / "latest_net.pth"
    save_published(model, path)
    parts = torch.load(path)
    parts["optG"], parts["optD"] = parts["optD"], parts["optG"]
    torch.save(parts, path)
    with pytest.raises(UserError, match=r"opt[GD] does not fit the optimizer of [GD]"):
        make_model(tmp_path, name="old").load_networks("latest")


def test_results_have_the_published_size_of_the_networks_images(tmp_path):
    model = make_model(tmp_path)
    assert model.result_size == tuple(model.opt.load_size)
