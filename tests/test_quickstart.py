"""The quick start from its first to its last step, on a recipe of seconds."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from script import quickstart
from script.quickstart import RECIPES, Recipe, Training, follow
from util.errors import UserError
from util.run import checkpoint, distributed

TINY = Training((16, 16), 1.0, "--ngf 4 --ndf 4 --dis_layers 1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "TIMED_STEPS", 1)
    return tmp_path


def test_two_quick_starts_in_a_row_end_with_the_same_numbers(folder, capfd):
    recipe = Recipe("tiny", 3, 0.001, TINY)
    follow(recipe, test_people=2, test_pairs=6)
    first = (folder / "results/tiny/baselines.json").read_text()
    printed = capfd.readouterr().out
    for title in ("Rendering", "Training", "Generating", "Measuring", "Is the source", "One pic"):
        assert f"] {title}" in printed
    assert "Done in" in printed
    follow(recipe, test_people=2, test_pairs=6)
    assert (folder / "results/tiny/baselines.json").read_text() == first
    metrics = json.loads((folder / "eval_results/tiny/metrics.json").read_text())
    assert metrics
    assert (folder / "results/tiny.png").is_file()
    assert (folder / "results/tiny/index.html").is_file()


@pytest.mark.parametrize("ema", [0, 0.999])
def test_a_training_keeps_the_average_that_its_recipe_says(ema):
    words = replace(TINY, ema=ema).arguments("run", Path("people")).split()
    assert words[words.index("--ema") + 1] == str(ema)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_printed_command_gives_no_option_twice(recipe):
    words = RECIPES[recipe].training.arguments("run", Path("people")).split()
    options = [word for word in words if word.startswith("--")]
    assert sorted(options) == sorted(set(options))


@pytest.mark.parametrize(("decay", "epochs"), [(0.5, ("5", "4")), (0.34, ("6", "3"))])
def test_the_learning_rate_falls_in_the_last_share_of_the_epochs(decay, epochs):
    words = replace(TINY, epochs=9, decay=decay).arguments("run", Path("people")).split()
    assert (words[words.index("--niter") + 1], words[words.index("--niter_decay") + 1]) == epochs


def test_processes_of_a_training_and_of_its_probe_stand_where_torchrun_would_put_them(folder):
    assert quickstart.places(1) == [{}]
    first, second = quickstart.places(2)
    assert (first["RANK"], second["RANK"], first["WORLD_SIZE"]) == ("0", "1", "2")
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


def test_a_process_of_the_probe_joins_the_others(folder, monkeypatch):
    """What the processes say to each other belongs to the time of a sample."""
    quickstart.render(folder / "people", 3, 2, 6)
    joined = []
    monkeypatch.setattr(distributed, "setup", lambda device: joined.append(os.environ["RANK"]))
    monkeypatch.setenv("RANK", "")  # taken back after the test
    probe = replace(TINY, pairs=12)
    assert quickstart.seconds_here(probe, folder / "people", {"RANK": "0"}) > 0
    assert joined == ["0"]


def test_a_step_that_fails_is_named(folder):
    with pytest.raises(UserError, match="the step 'Testing' ended with status 2"):
        quickstart.run("Testing", "test.py --name nothing --dataroot nowhere")


@pytest.mark.parametrize("shell", [False, True])  # whose status is 128 more than the signal
def test_a_step_that_is_killed_names_the_signal_and_the_memory(shell, folder):
    die = "import os; os.kill(os.getpid(), 9)" if not shell else "raise SystemExit(128 + 9)"
    (folder / "step.py").write_text(die)
    with pytest.raises(UserError, match=r"step 'Testing' was killed .SIGKILL.*memory ran out"):
        quickstart.run("Testing", str(folder / "step.py"))


def test_a_step_that_another_signal_ends_names_it_and_blames_no_memory(folder):
    (folder / "step.py").write_text("import os; os.kill(os.getpid(), 15)")
    with pytest.raises(UserError, match="SIGTERM") as caught:
        quickstart.run("Testing", str(folder / "step.py"))
    assert "memory" not in str(caught.value)


def test_a_plan_of_an_earlier_start_is_kept(folder):
    path = folder / "plan.json"
    planned = Training((16, 16), 1.0, "--ngf 4", threads=1, pairs=8, epochs=5)
    path.write_text(json.dumps(planned.__dict__))
    assert quickstart.planned(path, TINY, 99, folder) == planned
    assert planned.samples == 40


def test_two_processes_share_the_batch_and_train_what_one_trains(folder):
    recipe = Recipe("tiny", 3, 0.001, TINY)
    data = folder / "people"
    quickstart.render(data, 3, 2, 6)
    numbers = {}
    for processes in (1, 2):
        training = Training((16, 16), 1.0, recipe.training.networks, pairs=8, epochs=1)
        training = quickstart.replace(training, processes=processes)
        quickstart.train("Training", f"run_{processes}", training, data)
        state = checkpoint.load(folder / f"checkpoints/run_{processes}/latest_net_G.pth")
        numbers[processes] = torch.cat([v.flatten() for v in state.values()])
    # Adam makes a full step of a gradient that is nearly zero, whatever its sign.
    assert (numbers[1] - numbers[2]).abs().median() < 1e-6, (numbers[1] - numbers[2]).abs().mean()


def test_a_training_of_two_processes_that_fails_is_named(folder):
    broken = quickstart.replace(TINY, processes=2)
    with pytest.raises(UserError, match="the step 'Training' ended with status 2"):
        quickstart.train("Training", "run", broken, folder / "nowhere")


def test_of_two_processes_the_killed_one_is_named_not_the_one_that_missed_it(folder):
    """One process is killed, the other fails for lack of it."""
    die = "import os; os.kill(os.getpid(), 9) if os.environ['RANK'] == '1' else os._exit(1)"
    (folder / "step.py").write_text(die)
    with pytest.raises(UserError, match=r"step 'Training' was killed .SIGKILL"):
        quickstart.run("Training", str(folder / "step.py"), processes=2)
