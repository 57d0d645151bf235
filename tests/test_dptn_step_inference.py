"""The step model paints: pose maps, noise, independence of the batch, style mixing."""

import torch

from tests.step_helpers import FRAME, SIZE, make_batch, make_model, to_double, warm_up
from util.person.maps import step_pose_maps


def test_pose_maps_have_41_channels_with_the_sigmas_of_the_chosen_run(tmp_path):
    keypoints = make_batch()["source_keypoints"]
    for flags, sigmas in ((), (6, 3)), (("--no_step_loss",), (2, 2)), (("--kp_sigma", "4"), (4, 3)):
        maps = make_model(tmp_path, *flags).pose_maps(keypoints)
        assert torch.equal(maps, step_pose_maps(keypoints, FRAME, SIZE, *sigmas))


def test_inference_does_not_depend_on_batch_size_or_order(tmp_path):
    model = make_model(tmp_path)
    model.set_input(make_batch())
    warm_up(model)
    model.inputs = model.prepare(make_batch(3))
    to_double(model)  # float32 rounding is amplified by the norms over eight positions
    model.eval_mode()
    inputs = model.inputs
    together = model.infer(inputs)
    assert set(together) == {"fake_target", *(f"step_{j}" for j in range(1, 6))}
    assert torch.equal(together["fake_target"], together["step_5"])
    for i in range(3):
        alone = model.infer({k: v[i : i + 1] for k, v in inputs.items()})
        for key, value in alone.items():
            assert torch.allclose(value[0], together[key][i], rtol=0, atol=1e-9)
    assert torch.equal(model.infer(inputs)["fake_target"], together["fake_target"])


def test_the_noise_depends_on_the_seed_and_on_both_names(tmp_path):
    model = make_model(tmp_path)
    inputs = model.prepare(make_batch(2))
    noise = model.noise(inputs)
    assert not torch.allclose(noise[0], noise[1])
    assert abs(float(noise.std()) - 1) < 0.05
    swapped = {**inputs, "source_name": inputs["target_name"], "target_name": inputs["source_name"]}
    assert not torch.allclose(model.noise(swapped)[0], noise[0])
    model.opt.seed = 1
    assert not torch.allclose(model.noise(inputs)[0], noise[0])


def test_the_target_image_is_not_an_input_of_inference(tmp_path):
    model = make_model(tmp_path)
    model.eval_mode()
    inputs = model.prepare(make_batch())
    expected = model.infer(inputs)["fake_target"]
    blind = {k: v for k, v in inputs.items() if k not in ("target_image", "target_keypoints")}
    assert torch.equal(model.infer(blind)["fake_target"], expected)


def test_a_constant_style_assignment_equals_plain_inference_bit_for_bit(tmp_path):
    model = make_model(tmp_path)
    model.eval_mode()
    inputs = model.prepare(make_batch())
    a = (inputs["source_image"], inputs["source_pose"])
    b = (inputs["target_image"], inputs["target_pose"])
    plain, noise = model.infer(inputs), model.noise(inputs)
    constant = model.mix_styles([a] * 5, inputs["target_pose"], noise)
    mixed = model.mix_styles([a, a, b, b, b], inputs["target_pose"], noise)
    for key in plain:
        assert torch.equal(plain[key], constant[key])
    assert torch.equal(mixed["step_2"], plain["step_2"])
    assert not torch.allclose(mixed["step_3"], plain["step_3"])
