"""The page of a measurement: which pairs it shows, and what beside them."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from script.metrics import main
from tests.browser import Browser, needs_chromium
from tests.live_page import LivePage
from tests.metric_helpers import SIZE, arguments, make_folders, noisy, picture, save
from util.metrics.evaluate import evaluate_folder
from util.metrics.page import groups, rank
from util.metrics.protocols import find_protocol
from util.tables.patn import write_keypoints

NOISE = [30, 5, 60, 15, 45, 10, 25, 55, 20]  # of result 0, 1 …: its rank is that of its noise
ORDER = np.argsort(NOISE).tolist()  # best first


@pytest.fixture
def folders(tmp_path):
    folders = make_folders(tmp_path, count=len(NOISE))
    for i, amount in enumerate(NOISE):
        save(tmp_path / "results" / f"s_2_t{i:02d}_vis.png", noisy(picture(i), 1, amount))
    return folders


def evaluated(folders, results=None):
    results = results or folders["--distorated_path"]
    protocols = [find_protocol("standard")]
    return evaluate_folder(results, folders["--gt_path"], None, protocols, ["psnr", "l1"])


@pytest.mark.parametrize("column", [None, "psnr", "standard.psnr", "l1"])
def test_best_median_and_worst_pairs_are_those_of_the_column(folders, column):
    ranking = rank({"run": evaluated(folders)}, column)
    assert ranking.attrs["column"] == ("standard.l1" if column == "l1" else "standard.psnr")
    assert places(groups(ranking)) == {
        "Best pairs": ORDER[:3], "Median pairs": ORDER[3:6], "Worst pairs": ORDER[6:],
    }  # fmt: skip
    shown = places(groups(ranking, 1))
    assert list(shown.values()) == [ORDER[:1], ORDER[4:5], ORDER[-1:]]


def places(groups):
    """Numbers of the results in each group, from their names s_2_tNN_vis."""
    return {heading: [int(stem[5:7]) for stem in rows.index] for heading, rows in groups.items()}


def test_no_pair_is_shown_twice_however_few_there_are(tmp_path):
    for count in range(1, 12):
        folders = make_folders(tmp_path / str(count), count=count, size=(16, 11))
        found = places(groups(rank({"run": evaluated(folders)})))
        shown = [place for group in found.values() for place in group]
        assert len(shown) == len(set(shown))
        assert 0 in shown


@pytest.fixture
def complete(folders, tmp_path):
    """The folders with source image and keypoints."""
    (tmp_path / "gt").rename(tmp_path / "test")
    folders["--gt_path"] = str(tmp_path / "test")
    save(tmp_path / "test" / "s.png", picture(50))
    people = np.linspace((2, 2), (60, 42), 18)
    names = [f"t{i:02d}.png" for i in range(len(NOISE))]
    write_keypoints(tmp_path / "fashion-annotation-test.csv", dict.fromkeys(names, people))
    return folders


def test_the_page_shows_source_pose_truth_and_result_of_a_pair(complete, tmp_path):
    folders = complete
    (tmp_path / "results" / "index.html").write_text("results")
    assert main(arguments(folders, "--metrics", "psnr", "--name", "run")) == 0
    folder = tmp_path / "out" / "run"
    page = (folder / "index.html").read_text()
    first = page.split("<article")[1]
    found = re.findall(r'src="([^"]+)"', first)
    kinds = [name.split("_", 2)[2] for name in found]
    assert kinds == ["source.png", "pose.png", "gt.png", "result.png"]
    assert np.array_equal(read(folder / found[0]), picture(50))
    assert np.array_equal(read(folder / found[2]), picture(ORDER[0]))
    assert read(folder / found[1]).shape == (*SIZE, 3)
    assert 'href="../../results/index.html"' in page
    assert page.index("Best pairs") < page.index("Median pairs") < page.index("Worst pairs")


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@needs_chromium
@pytest.mark.parametrize("others", [0, 2])
def test_truth_and_results_are_beside_each_other_on_a_phone(complete, tmp_path, others):
    measure_all(complete, tmp_path, [f"other{i}" for i in range(others)])
    with Browser() as browser:
        url = (tmp_path / "out" / "both" / "index.html").as_uri()
        page = LivePage(browser, url, (390, 844), phone=True)
        figures = "[...document.querySelector('.card').querySelectorAll('figure')]"
        captions = page.value(f"{figures}.map(f => f.innerText)")
        tops = page.value(f"{figures}.map(f => Math.round(f.getBoundingClientRect().top))")
        assert page.value("document.documentElement.scrollWidth") == 390
    assert captions[:3] == ["source", "pose", "ground truth"]
    assert len(captions) == 4 + others
    assert len(set(tops[2:])) == 1


def measure_all(folders, tmp_path, others):
    """Measure the results and the folders ``others``, which have no result 0, as "both"."""
    words = arguments(folders, "--metrics", "psnr", "--name", "both")
    at = words.index("--distorated_path") + 2
    for seed, other in enumerate(others, 2):
        for i in range(1, len(NOISE)):
            image = noisy(picture(i), seed, 70 - NOISE[i])
            save(tmp_path / other / f"s_2_t{i:02d}_vis.png", image)
        words.insert(at, str(tmp_path / other))
    assert main(words) == 0


def test_several_folders_stand_side_by_side_for_the_same_people(folders, tmp_path):
    measure_all(folders, tmp_path, ["other"])
    page = (tmp_path / "out" / "both" / "index.html").read_text()
    cards = page.split("<article")[1:]
    assert len(cards) == 8
    for card in cards:
        assert len(re.findall(r"<img", card)) == 3  # truth and two results
        assert re.search(r"results: \d+\.\d{4}", card)
        assert re.search(r"other: \d+\.\d{4}", card)
        shown = re.findall(r'src="(page_images/(\d+)_result\d\.png)"', card)
        numbers = {int(number) for _, number in shown}
        assert len(numbers) == 1
        assert 0 not in numbers
    assert "★" in page
    assert (tmp_path / "out" / "both" / "other" / "index.html").is_file()


def test_pictures_of_an_earlier_page_are_removed(folders, tmp_path):
    main(arguments(folders, "--metrics", "psnr", "--name", "run"))
    images = tmp_path / "out" / "run" / "page_images"
    save(images / "000077_gt.png", picture(0))
    (images / "mine.txt").write_text("kept")
    main(arguments(folders, "--metrics", "psnr", "--name", "run"))
    assert not (images / "000077_gt.png").exists()
    assert (images / "mine.txt").exists()


def test_a_damaged_keypoint_file_costs_the_page_its_poses_only(folders, tmp_path):
    (tmp_path / "market-annotation-gt.csv").write_text("name:keypoints_y\nbroken")
    assert main(arguments(folders, "--metrics", "psnr", "--name", "run")) == 0
    assert "pose" not in (tmp_path / "out" / "run" / "index.html").read_text().split("<article")[1]
