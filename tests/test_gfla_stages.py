"""From stage 1 to stage 2: what is taken over, what is said, what is refused."""

import pytest
import torch

from models import create_model
from models.networks.gfla import GFLAConfig, GFLAGenerator
from models.training import TrainingRun
from tests.gfla_rules import make_inputs, small_model
from tests.helpers import train_options
from util.errors import UserError
from util.run import checkpoint
from util.run.folder import RunFolder
from util.show.visualizer import Visualizer


def stage_1_run(folder, **values):
    """A stage-1 run that was saved after one step."""
    model = small_model("poseflownet", folder, name="run", **values)
    model.inputs = make_inputs("fashion")
    model.optimize_parameters()
    model.run_dir.mkdir(parents=True)
    model.save_networks("latest")
    return model


def flow_weights(model) -> dict[str, torch.Tensor]:
    return model.networks["G"].flow_net.state_dict()


def notes_on_flow(model) -> list[str]:
    return [note for note in model.notes if "flow" in note]


def assert_flow_was_taken(stage_1, stage_2, untouched) -> None:
    for key, value in flow_weights(stage_1).items():
        assert torch.equal(flow_weights(stage_2)[key], value), key
    for key, value in stage_2.networks["G"].state_dict().items():
        if not key.startswith("flow_net."):
            assert torch.equal(value, untouched[key]), key
    (note,) = notes_on_flow(stage_2)
    assert "the flow estimator's 90 tensors come from" in note
    assert "new" in note


def test_stage_2_begins_from_the_training_state_of_stage_1(tmp_path):
    stage_1 = stage_1_run(tmp_path)
    stage_2 = small_model("pose", tmp_path, name="run")
    untouched = {k: v.clone() for k, v in stage_2.networks["G"].state_dict().items()}
    restored = stage_2.load_state_dict(stage_1.state_dict(), "latest_state.pth")
    assert not restored  # training starts at its first epoch
    assert_flow_was_taken(stage_1, stage_2, untouched)
    stage_2.inputs = make_inputs("fashion")
    stage_2.optimize_parameters()
    assert stage_2.load_state_dict(stage_2.state_dict(), "itself")


def test_stage_2_begins_from_the_network_file_of_stage_1(tmp_path):
    stage_1 = stage_1_run(tmp_path)
    stage_2 = small_model("pose", tmp_path, name="run")
    untouched = {k: v.clone() for k, v in stage_2.networks["G"].state_dict().items()}
    stage_2.load_networks("latest")
    assert_flow_was_taken(stage_1, stage_2, untouched)


@pytest.mark.parametrize("donor", ["poseflownet", "pose"])
def test_flow_checkpoint_accepts_the_files_of_both_stages(tmp_path, donor):
    giver = stage_1_run(tmp_path) if donor == "poseflownet" else small_model("pose", tmp_path)
    path = tmp_path / "given.pth"
    checkpoint.save_state(giver.networks["G"].state_dict(), path)
    stage_2 = small_model("pose", tmp_path, name="other", flow_checkpoint=path)
    for key, value in flow_weights(giver).items():
        assert torch.equal(flow_weights(stage_2)[key], value), key
    (note,) = notes_on_flow(stage_2)
    assert str(path) in note


def test_flow_checkpoint_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "wide.pth"
    giver = small_model("poseflownet", tmp_path, ngf=16)
    checkpoint.save_state(giver.networks["G"].state_dict(), path)
    with pytest.raises(UserError, match=r"wide\.pth.*another shape"):
        small_model("pose", tmp_path, flow_checkpoint=path)


def test_flow_checkpoint_without_a_flow_estimator_is_refused(tmp_path):
    path = tmp_path / "d.pth"
    checkpoint.save_state(small_model("pose", tmp_path).networks["D"].state_dict(), path)
    with pytest.raises(UserError, match="holds no flow estimator"):
        small_model("pose", tmp_path, flow_checkpoint=path)


def test_flow_checkpoint_and_continue_train_exclude_each_other(tmp_path):
    options = train_options(
        "--continue_train", model="pose", load_size=(64, 64), gpu_ids="-1", ngf=8,
        flow_checkpoint=tmp_path / "x.pth", checkpoints_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(UserError, match="leave one of them out"):
        create_model(options)


def test_stage_1_options_that_contradict_stage_2_are_named(tmp_path):
    stage_1 = stage_1_run(tmp_path, attn_layer="2", kernel_size="2=5")
    stage_2 = small_model("pose", tmp_path, name="run")
    with pytest.raises(UserError, match="attn_layer"):
        stage_2.load_state_dict(stage_1.state_dict(), "latest_state.pth")


def test_stage_1_cannot_resume_a_run_of_stage_2(tmp_path):
    stage_2 = small_model("pose", tmp_path)
    with pytest.raises(UserError, match="--model"):
        small_model("poseflownet", tmp_path).load_state_dict(stage_2.state_dict(), "x")


def test_files_with_one_name_per_tensor_or_a_wrapper_prefix_load(tmp_path):
    """Older files lack one of the two names of a convolution that is registered twice."""
    model = small_model("pose", tmp_path)
    state = model.networks["G"].state_dict()
    short = {f"module.{k}": v for k, v in state.items() if ".conv1." not in k}
    assert len(short) < len(state)
    other = GFLAGenerator(GFLAConfig(**model.configs["G"]))
    checkpoint.load_state(other, short, "file")
    assert all(torch.equal(v, state[k]) for k, v in other.state_dict().items())


class RecordingVisualizer(Visualizer):
    """Keeps what it was told."""

    def __init__(self):
        super().__init__()
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_continue_train_begins_stage_2_at_its_first_epoch_and_says_so(tmp_path):
    def run_of(model):
        visualizer = RecordingVisualizer()
        folder = RunFolder(model.run_dir, resume=model.opt.model == "pose", overwrite=False)
        return TrainingRun(model, folder, visualizer), folder, visualizer

    stage_1 = small_model("poseflownet", tmp_path, name="run")
    run, folder, _ = run_of(stage_1)
    with folder:
        run.start("latest", lambda: None)
        run.progress.advance(8)
        run.progress.next_epoch()
        run.save("latest")

    stage_2 = small_model("pose", tmp_path, name="run")
    run, folder, visualizer = run_of(stage_2)
    with folder:
        run.start("latest", lambda: None)
        assert (run.progress.epoch, run.progress.samples, run.progress.total) == (1, 0, 8)
        assert len([m for m in visualizer.messages if "stage 2 begins" in m]) == 1
        run.progress.advance(4)
        run.save("latest")

    again = small_model("pose", tmp_path, name="run")
    run, folder, visualizer = run_of(again)
    with folder:
        run.start("latest", lambda: None)
    assert (run.progress.samples, run.progress.total) == (4, 12)
    assert not any("stage 2 begins" in m for m in visualizer.messages)
