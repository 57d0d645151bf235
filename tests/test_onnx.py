"""Exported generators: the same pictures from ONNX Runtime, for every model and any batch size."""

import numpy as np
import onnx
import pytest
import torch

from api import PoseTransfer
from models import list_models
from models.onnx_graph import OnnxGenerator, with_noise
from script import export_onnx
from tests.photo_helpers import StickFigureEstimator, make_run, photo, standing
from util.errors import UserError

# Few steps and small flows: what an untrained generator amplifies is rounding, not the export.
SETTINGS = {"dptn_step": {"step_size": 2}, "poseflownet": {"init_gain": 0.2}}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(run, ONNX file) of a model, made when asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def export(model: str):
        if model not in made:
            run = make_run(folder / model, model, **SETTINGS.get(model, {}))
            path = folder / f"{model}.onnx"
            export_onnx.main(["--checkpoint", str(run), "-o", str(path)])
            made[model] = run, path
        return made[model]

    return export


@pytest.mark.parametrize("model", list_models())
def test_random_inputs_give_the_outputs_of_pytorch_for_any_batch_size(model, exported):
    run, path = exported(model)
    trained = PoseTransfer.from_checkpoint(run, device="cpu").model
    generator = OnnxGenerator(path)
    onnx.checker.check_model(str(path))
    for count in (1, 2, 5):
        batch = export_onnx.random_batch(count, (64, 64), (256, 176), seed=10 + count)
        inputs = with_noise(trained, trained.prepare(batch))
        expected = trained.infer(inputs)["fake_target"]
        found = generator.infer(inputs)["fake_target"]
        assert found.shape == (count, 3, 64, 64)
        assert expected.std() > 0.01
        assert (expected - found).abs().max() <= 1e-4


@pytest.mark.parametrize("model", list_models())
def test_pose_transfer_runs_from_the_file_alone(model, exported):
    run, path = exported(model)
    from_run = PoseTransfer.from_checkpoint(run, device="cpu", estimator=StickFigureEstimator())
    from_file = PoseTransfer.from_checkpoint(path, device="cpu", estimator=StickFigureEstimator())
    assert all(p.is_meta for p in from_file.model.networks["G"].parameters())
    a, b = (t.transfer_as(photo(), photo((200, 300), 1)) for t in (from_run, from_file))
    assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1
    points = [standing(10, 20, 230, 120), standing(30, 30, 180, 110), standing(20, 20, 220, 110)]
    many = from_file.transfer_many([photo()] * 3, points)
    assert len({result.tobytes() for result in many}) == 3


def test_the_command_says_what_it_wrote_and_how_exact_it_is(exported, tmp_path, capsys):
    run, _ = exported("dptn")
    export_onnx.main(["--checkpoint", str(run), "-o", str(tmp_path / "new" / "g.onnx")])
    text = capsys.readouterr().out
    assert "inputs source_image, source_pose, target_pose; output fake_target" in text
    assert "largest difference from PyTorch on random inputs" in text
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["g.onnx"]


def test_a_file_that_computes_something_else_is_not_written(exported, tmp_path, monkeypatch):
    run, _ = exported("dptn")
    infer = OnnxGenerator.infer

    def wrong(self, inputs):
        return {"fake_target": infer(self, inputs)["fake_target"] * 0.9}

    monkeypatch.setattr(OnnxGenerator, "infer", wrong)
    with pytest.raises(UserError, match="was not written: ONNX Runtime and PyTorch differ by"):
        export_onnx.main(["--checkpoint", str(run), "-o", str(tmp_path / "g.onnx")])
    with pytest.raises(UserError, match="absent"):
        export_onnx.main(["--checkpoint", str(run / "absent"), "-o", str(tmp_path / "new/g.onnx")])
    assert list(tmp_path.iterdir()) == []


def test_exporting_leaves_the_attention_kernels_as_they_were(exported):
    exported("dptn")
    assert torch.backends.mha.get_fastpath_enabled()


def test_other_files_are_refused(exported, tmp_path):
    run, path = exported("dptn")
    with pytest.raises(UserError, match=r"expected a name that ends in \.onnx"):
        export_onnx.main(["--checkpoint", str(run), "-o", str(tmp_path / "g.pth")])
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(UserError, match="is not a usable ONNX file"):
        PoseTransfer.from_checkpoint(tmp_path / "text.onnx")
    content = onnx.load(str(path))
    del content.metadata_props[:]
    onnx.save(content, str(tmp_path / "bare.onnx"))
    with pytest.raises(UserError, match="holds no options; expected a file written by"):
        PoseTransfer.from_checkpoint(tmp_path / "bare.onnx")
    with pytest.raises(UserError, match=r"there is no checkpoint .*none\.onnx"):
        PoseTransfer.from_checkpoint(tmp_path / "none.onnx")


HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    "options",
    [
        "not json", "[]", "7", "null", "[" * 100_000, '{"load_size": 64}',
        '{"load_size": ["64", null]}', '{"ngf": "8"}', '{"ngf": null}', '{"ngf": -8}',
        f'{{"ngf": {HUGE}}}', f'{{"load_size": [{HUGE}, 64]}}', '{"load_size": [64000000, 64]}',
        '{"annotation_size": [0, 0]}', '{"model": 3}', '{"model": "nobody"}',
        '{"heatmap_sigma": NaN}',
        '{"nhead": true}', '{"norm": ["instance"]}', '{"dataset_mode": {}}', '{"nonsense": 1}',
    ],
)  # fmt: skip
def test_changed_options_in_a_file_are_one_sentence(options, exported, tmp_path):
    _, path = exported("dptn")
    content = onnx.load(str(path))
    onnx.helper.set_model_props(content, {"options": options})
    onnx.save(content, str(tmp_path / "changed.onnx"))
    points = standing(10, 20, 230, 120)
    with pytest.raises(UserError) as caught:
        PoseTransfer.from_checkpoint(tmp_path / "changed.onnx").transfer(photo(), points, points)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
