"""test.py --save_steps, style mixing and the evaluation of steps, on a small untrained model."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
from models.dptn_step_model import DPTNStepModel
from models.networks.dptn_step import coarse_bytes, step_divisors
from script import eval_step, style_mixing
from script.overview import overview
from tests.helpers import train_options
from util.errors import UserError
from util.names import result_name
from util.show.grid import GAP, HEADER
from util.tables.patn import write_keypoints, write_pairs

SIZE = (64, 32)
NAMES = [f"person{i}.png" for i in range(4)]
PAIRS = [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[2]), (NAMES[2], NAMES[3])]
FILE = result_name(*PAIRS[0])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set of noise, a model that has seen it three times, and the arguments to use them."""
    root = tmp_path_factory.mktemp("step")
    rng = np.random.RandomState(0)
    data = root / "data"
    for phase in ("train", "test"):
        (data / phase).mkdir(parents=True)
        for name in NAMES:
            picture = Image.fromarray(rng.randint(0, 256, (*SIZE, 3), dtype=np.uint8))
            picture.save(data / phase / name)
        keypoints = {name: np.floor(rng.rand(18, 2) * SIZE) for name in NAMES}
        write_pairs(data / f"fashion-pairs-{phase}.csv", PAIRS)
        write_keypoints(data / f"fashion-annotation-{phase}.csv", keypoints)
    opt = train_options(
        model="DPTN_step", checkpoints_dir=root / "runs", name="run", gpu_ids=-1, load_size=SIZE,
        annotation_size=SIZE, ngf=4, ndf=4, step_size=3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DPTNStepModel(opt)
    batch = {
        f"{role}_{part}": value
        for role in ("source", "target")
        for part, value in (
            ("image", torch.zeros(1, 3, *SIZE, dtype=torch.uint8)),
            ("keypoints", torch.zeros(1, 18, 2, dtype=torch.float64)),
        )
    }
    model.set_input(batch)
    with torch.no_grad():
        for _ in range(3):
            list(model.rollout(with_source=True))
    model.run_dir.mkdir(parents=True)
    model.save_networks("latest")
    saved = json.dumps({k: str(v) if k == "checkpoints_dir" else v for k, v in vars(opt).items()})
    (model.run_dir / "train_opt.json").write_text(saved)
    arguments = ["--id", "run", "--checkpoints_dir", str(root / "runs"), "--dataroot", str(data)]
    return root, [*arguments, "--gpu_ids", "-1", "--num_workers", "0"]


@pytest.fixture(scope="module")
def results(world):
    """Images of test.py with all steps, by the published spelling of its options."""
    root, arguments = world
    run(test_script.main, *arguments, "--results_dir", root / "results", "--save_id", "plain",
        "--simple_test", "--save_steps", "--batchsize", "2")  # fmt: skip
    return root / "results"


def run(main, *arguments):
    before, sys.argv = sys.argv, ["program", *map(str, arguments)]
    try:
        return main()
    finally:
        sys.argv = before


def read(path):
    return np.asarray(Image.open(path))


def test_every_step_is_saved_in_its_own_folder(results):
    files = {result_name(*pair) for pair in PAIRS}
    for folder in ("plain_1", "plain_2", "plain_3"):
        assert {p.name for p in (results / folder).iterdir()} == files
    assert files < {p.name for p in (results / "plain").iterdir()}
    assert not (results / "plain" / "index.html").exists()
    assert np.array_equal(read(results / "plain" / FILE), read(results / "plain_3" / FILE))
    assert not np.array_equal(read(results / "plain" / FILE), read(results / "plain_1" / FILE))


def test_the_result_page_shows_the_steps_side_by_side(world):
    root, arguments = world
    run(test_script.main, *arguments, "--results_dir", root / "page", "--how_many", "1")
    page = (root / "page" / "index.html").read_text()
    places = [page.index(f"_step_{j}.jpg") for j in (1, 2, 3)]
    assert places == sorted(places)
    assert not (root / "page_1").exists()


def test_the_overview_shows_the_steps_and_another_model_between_pose_and_truth(world):
    root, arguments = world
    for name, noise in (("one", "0"), ("two", "1")):
        run(test_script.main, *arguments, "--results_dir", root / name, "--seed", noise)
    one, two = root / "one", root / "two"
    picture = overview(one, rows=1, columns=1, height=64, steps=True, beside=[two])
    assert picture.shape == (HEADER + 64, 7 * 32 + 6 * GAP, 3)  # source pose 1 2 3 two truth
    tiles = [picture[HEADER:, left : left + 32] for left in range(0, 7 * 36, 36)]
    first = min(PAIRS)
    assert np.array_equal(tiles[5], read(two / result_name(*first)))
    last = read(one / "page_images" / f"{result_name(*first)[:-4]}_step_3.jpg")
    assert np.array_equal(tiles[4], last)
    assert not np.array_equal(tiles[2], tiles[4])
    (two / result_name(*first)).unlink()
    with pytest.raises(UserError, match="the same test pairs"):
        overview(one, rows=1, columns=1, height=64, beside=[two])
    for path in (one / "page_images").glob("*_step_*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="shows no steps"):
        overview(one, rows=1, columns=1, height=64, steps=True)


def test_a_save_id_must_be_a_folder_name(world):
    with pytest.raises(UserError, match="without slashes"):
        run(test_script.main, *world[1], "--save_id", "../elsewhere")


def test_a_constant_assignment_writes_exactly_the_image_of_test_py(world, results):
    root, arguments = world
    run(style_mixing.main, *arguments, "--results_dir", root / "mixed", "--assign", "1,1,1")
    run(style_mixing.main, *arguments, "--results_dir", root / "other", "--assign", "1,2,2")
    for pair in PAIRS:
        expected = read(results / "plain" / result_name(*pair))
        assert np.array_equal(read(root / "mixed" / result_name(*pair)), expected)
        assert not np.array_equal(read(root / "other" / result_name(*pair)), expected)


def test_the_sweep_runs_from_pure_b_to_pure_a(world, results):
    root, arguments = world
    run(style_mixing.main, *arguments, "--results_dir", root / "sweep",
        "--styles", NAMES[0], NAMES[3], "--pose", NAMES[1])  # fmt: skip
    (path,) = (root / "sweep").glob("*.png")
    height, width = SIZE
    picture = read(path)
    assert picture.shape == (height + HEADER, 7 * width + 6 * GAP, 3)
    tiles = [picture[HEADER:, i * (width + GAP) :][:, :width] for i in range(7)]
    assert np.array_equal(tiles[0], read(root / "data" / "test" / NAMES[0]))
    assert np.array_equal(tiles[1], read(root / "data" / "test" / NAMES[3]))
    assert np.array_equal(tiles[6], read(results / "plain" / FILE))  # A alone, A's noise
    assert len({tile.tobytes() for tile in tiles[3:]}) == 4


def test_the_sweep_over_test_pairs_mixes_different_people(world):
    root, arguments = world
    run(style_mixing.main, *arguments, "--results_dir", root / "rows", "--how_many", "2")
    picture = read(root / "rows" / "mixing.png")
    assert picture.shape == (HEADER + 2 * SIZE[0] + GAP, 7 * SIZE[1] + 6 * GAP, 3)
    first, last = picture[HEADER:][: SIZE[0]], picture[-SIZE[0] :]
    photos = [read(root / "data" / "test" / name) for name in NAMES]
    for row, (a, b) in ((first, (0, 1)), (last, (2, 0))):  # sources of the first and last pair
        assert np.array_equal(row[:, : SIZE[1]], photos[a])
        assert np.array_equal(row[:, SIZE[1] + GAP : 2 * SIZE[1] + GAP], photos[b])


def test_neighbours_that_show_the_same_person_are_not_mixed(world, tmp_path):
    root, arguments = world
    for folder in ("train", "test"):
        shutil.copytree(root / "data" / folder, tmp_path / folder)
        names = {name: f"{'ann' if i < 2 else 'bob'}_{i}.png" for i, name in enumerate(NAMES)}
        for old, new in names.items():
            (tmp_path / folder / old).rename(tmp_path / folder / new)
        pairs = [(names[a], names[b]) for a, b in PAIRS]
        write_pairs(tmp_path / f"fashion-pairs-{folder}.csv", pairs)
        points = {new: np.full((18, 2), 5.0) for new in names.values()}
        write_keypoints(tmp_path / f"fashion-annotation-{folder}.csv", points)
    run(style_mixing.main, *arguments, "--dataroot", tmp_path, "--results_dir", tmp_path / "rows",
        "--how_many", "1")  # fmt: skip
    picture = read(tmp_path / "rows" / "mixing.png")[HEADER:]
    assert np.array_equal(picture[:, : SIZE[1]], read(tmp_path / "test" / "ann_0.png"))
    assert np.array_equal(
        picture[:, SIZE[1] + GAP :][:, : SIZE[1]], read(tmp_path / "test" / "bob_2.png")
    )


def test_sweep_assignments():
    assert style_mixing.sweep(2) == [[1, 1], [0, 1], [0, 0]]
    assert style_mixing.parse_assignment("2,1,2", 3, 2) == [1, 0, 1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--assign", "1,1"), "expected 3 numbers"),
        (("--assign", "1,1,3"), "from 1 to 2"),
        (("--assign", "1,x,1"), "expected 3 numbers"),
        (("--styles", "person0.png", "person1.png"), "belong together"),
        (("--styles", "nobody.png", "person1.png", "--pose", "person2.png"), "in no pair"),
        (("--styles", "person0.png", "--pose", "person2.png"), "mixes 2 styles"),
        (("--name", "nothing"), "no checkpoint .*nothing"),
    ],
)
def test_wrong_mixtures_are_refused(world, tmp_path, extra, message):
    with pytest.raises(UserError, match=message):
        run(style_mixing.main, *world[1], "--results_dir", tmp_path, *extra)


def evaluate(root, results, *extra):
    arguments = ["--results", results / "plain", "--gt_path", root / "data" / "test"]
    arguments += ["--step_size", 3, "--output_dir", root / "reports", "--workers", 1]
    arguments += ["--market", "--metrics", "psnr", "l1", "--device", "cpu", "--no_cache"]
    return eval_step.main([str(a) for a in [*arguments, *extra]])


def read_table(path):
    with path.open() as file:
        rows = list(csv.reader(file))
    return rows[0], {row[0].rpartition(".")[2]: [float(v) for v in row[1:]] for row in rows[1:]}


def l1_by_hand(root, results, step, divisor):
    values = []
    for pair in PAIRS:
        fake = read(results / f"plain_{step}" / result_name(*pair)).astype(float)
        truth = coarse_bytes(read(root / "data" / "test" / pair[1]), divisor)
        values.append(np.abs(fake - truth).mean() / 255)
    return np.mean(values)


@pytest.mark.parametrize("reference", ["coarse", "full"])
def test_steps_are_measured_against_coarse_or_full_images(world, results, reference):
    root, _ = world
    assert evaluate(root, results, "--vs", reference, "--name", reference) == 0
    header, table = read_table(root / "reports" / reference / "steps.csv")
    assert header == ["metric", "step_1", "step_2", "step_3"]
    divisors = step_divisors(3) if reference == "coarse" else (1, 1, 1)
    expected = [l1_by_hand(root, results, j, d) for j, d in enumerate(divisors, 1)]
    assert table["l1"] == pytest.approx(expected, rel=1e-5)
    assert len(table["psnr"]) == 3
    with Image.open(root / "reports" / reference / "steps.png") as picture:
        assert picture.format == "PNG"
    assert (root / "reports" / reference / "step_2" / "metrics.json").is_file()


def test_chosen_steps_and_own_schedules(world, results, tmp_path):
    root, _ = world
    shutil.copytree(results, tmp_path / "results")
    made = tmp_path / "results" / "plain" / "generation.json"
    made.write_text(json.dumps(json.loads(made.read_text()) | {"divisors": [100, 20, 1]}))
    words = ("--steps", 1, 3, "--d_schedule", 100, 20, 1, "--name", "own")
    evaluate(root, tmp_path / "results", *words)
    header, table = read_table(root / "reports" / "own" / "steps.csv")
    assert header == ["metric", "step_1", "step_3"]
    expected = [l1_by_hand(root, results, 1, 100), l1_by_hand(root, results, 3, 1)]
    assert table["l1"] == pytest.approx(expected, rel=1e-5)


def test_refused_metrics_leave_empty_cells_and_a_status(world, results):
    root, _ = world
    status = evaluate(root, results, "--metrics", "l1", "ssim", "--name", "refused")
    assert status == eval_step.EXIT_REFUSED  # images of 32 columns, a window of 51
    rows = (root / "reports" / "refused" / "steps.csv").read_text().splitlines()
    assert len(rows) == 3  # header, l1 and the Gaussian SSIM
    assert not any("window51" in row for row in rows)


def test_missing_steps_are_explained(world, results, tmp_path):
    root, _ = world
    with pytest.raises(UserError, match="from 1 to 3"):
        evaluate(root, results, "--steps", 4)
    other = tmp_path / "other"  # made by something that leaves no generation.json
    for step in (1, 2, 3):
        shutil.copytree(results / f"plain_{step}", other / f"plain_{step}")
    with pytest.raises(UserError, match=r"of 3 steps, asked are 5; .*--step_size 3"):
        evaluate(root, other, "--step_size", 5, "--steps", 5)
    shutil.rmtree(other / "plain_2")
    with pytest.raises(UserError, match="--save_steps"):
        evaluate(root, other)


def test_published_protocol_letters_name_protocols():
    assert eval_step.ALIASES == {"A": "dptn_step", "B": "nted_pidm"}
    for name in eval_step.ALIASES.values():
        assert eval_step.find_protocol(name).name == name


def test_other_divisors_than_those_of_the_results_are_refused(world, results, tmp_path):
    root, _ = world
    made = json.loads((results / "plain" / "generation.json").read_text())["divisors"]
    assert made == list(step_divisors(3))
    for extra in (("--step_size", 5), ("--d_schedule", 100, 20, 1)):
        with pytest.raises(UserError, match=r"made with the divisors 170 85 1"):
            evaluate(root, results, *extra)
    evaluate(root, results, "--d_schedule", *made, "--name", "same")


def test_steps_that_lack_images_are_refused(world, results, tmp_path):
    root, _ = world
    for name in ("plain", "plain_1", "plain_2", "plain_3"):
        shutil.copytree(results / name, tmp_path / name)
    lost = sorted((tmp_path / "plain_2").glob("*_vis.png"))[0]
    lost.unlink()
    with pytest.raises(UserError, match=r"(?s)plain_2 lacks 1 of \d+ images.*" + lost.name):
        evaluate(root, tmp_path)


def test_a_report_of_steps_stays_in_its_folder(world, results):
    root, _ = world
    with pytest.raises(UserError, match="--name"):
        evaluate(root, results, "--name", "../x")
    with pytest.raises(UserError, match="--batchSize"):
        evaluate(root, results, "--batch_size", 0)
