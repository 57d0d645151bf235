"""The result pages, and all kinds of pages opened in a real browser."""

import json
import math
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest

from tests.browser import Browser, needs_chromium
from tests.helpers import make_visualizer
from util.image import save_image
from util.show import result_page
from util.show.html import table
from util.show.result_page import add_scores, page_name, write_pages, write_rows

HOSTILE = "<script>alert(1)</script>"


def _write(folder: Path, rows: int, per_page: int) -> list[str]:
    pairs = [(f"s{row}.jpg", f"t{row}.jpg", f"{row}.png") for row in range(rows)]
    write_rows(folder, "test", pairs, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_page, "PER_PAGE", per_page)
        write_pages(folder)
    return sorted(path.name for path in folder.glob("*.html"))


def _order(folder: Path, name: str) -> list[str]:
    return re.findall(r'src="(\d+)\.png"', (folder / name).read_text())


@pytest.mark.parametrize(
    ("rows", "pages"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)], ids=lambda n: str(n)
)
def test_every_row_is_on_exactly_one_page(tmp_path, rows, pages):
    assert len(_write(tmp_path, rows, per_page=3)) == pages
    order = [name for n in range(1, pages + 1) for name in _order(tmp_path, page_name(n))]
    assert order == [str(row) for row in range(rows)]


def test_the_links_lead_from_the_first_page_to_the_last_and_back(tmp_path):
    _write(tmp_path, rows=35, per_page=3)
    for step, path in (("next", ["index.html"]), ("prev", ["page_12.html"])):
        while match := re.search(f'href="([^"]+)" rel="{step}"', (tmp_path / path[-1]).read_text()):
            path.append(match[1])
        assert len(path) == len(set(path)) == 12
    middle = (tmp_path / "page_6.html").read_text()
    for name in ("index.html", "page_4.html", "page_5.html", "page_7.html", "page_12.html"):
        assert f'href="{name}"' in middle


def test_pages_of_an_earlier_longer_test_are_removed_and_other_files_stay(tmp_path):
    _write(tmp_path, rows=9, per_page=2)
    (tmp_path / "page_notes.html").write_text("mine")
    assert _write(tmp_path, rows=3, per_page=2) == ["index.html", "page_2.html", "page_notes.html"]


def test_the_first_page_says_what_made_the_images(tmp_path):
    made = {"name": "dptn", "checkpoint": "latest_net_G.pth", "sha256": "0123456789abcdef" * 4,
            "image_size": [256, 176], "date": "2024-05-01T10:00:00+00:00"}  # fmt: skip
    (tmp_path / "generation.json").write_text(json.dumps(made))
    _write(tmp_path, rows=4, per_page=2)
    first = (tmp_path / "index.html").read_text()
    shown = ("dptn", "latest_net_G.pth", "0123456789ab…", "256 × 176", "2024-05-01 10:00 UTC")
    for text in shown:
        assert text in first
    assert "latest_net_G.pth" not in (tmp_path / "page_2.html").read_text()


def test_scores_order_the_pairs_and_the_metrics_page_is_linked(tmp_path):
    results = tmp_path / "results"
    _write(results, rows=4, per_page=3)
    values = {"SSIM": {"0.png": 0.5, "1.png": 0.9, "2.png": 0.1, "3.png": math.nan},
              "LPIPS": {"0.png": 0.3, "1.png": 0.2, "2.png": 0.4, "3.png": 0.1}}  # fmt: skip
    better = {"SSIM": True, "LPIPS": False}
    add_scores(results, values, better, tmp_path / "eval" / "index.html")
    assert _order(results, "best_ssim.html") == ["1", "0", "2"]
    assert _order(results, "worst_ssim.html") == ["2", "0", "1"]
    assert _order(results, "best_lpips.html") == ["3", "1", "0", "2"]
    assert _order(results, "worst_lpips.html") == ["2", "0", "1", "3"]
    page = (results / "index.html").read_text()
    assert "SSIM 0.5 · LPIPS 0.3" in page
    assert "SSIM, mean</dt><dd>0.5</dd>" in re.sub(r">\s+<", "><", page)
    for link in ("best_ssim.html", "worst_lpips.html", "../eval/index.html"):
        assert f'href="{link}"' in page


def test_scores_of_another_checkpoint_are_not_shown(tmp_path):
    made = tmp_path / "generation.json"
    made.write_text('{"sha256": "a"}')
    _write(tmp_path, rows=1, per_page=3)
    add_scores(tmp_path, {"SSIM": {"0.png": 0.5}}, {"SSIM": True})
    assert (tmp_path / "best_ssim.html").is_file()
    made.write_text('{"sha256": "b"}')
    assert _write(tmp_path, rows=1, per_page=3) == ["index.html"]


def test_a_folder_without_a_page_takes_no_scores(tmp_path):
    add_scores(tmp_path, {"SSIM": {"0.png": 0.5}}, {"SSIM": True})
    assert list(tmp_path.iterdir()) == []


def test_the_steps_of_a_model_are_one_strip_below_the_other_pictures(tmp_path):
    write_rows(tmp_path, "test", [("a.jpg", "b.jpg", "a_2_b_vis.png")], ("step_1", "step_2"))
    html = write_pages(tmp_path).read_text()
    pictures, strip = html.split('class="pairs"')[1].split('class="strip"')
    for name in ("source", "generated", "ground truth"):
        assert f"{name}</figcaption>" in pictures
    assert "a_2_b_vis_step_1.jpg" in strip
    assert "a_2_b_vis_step_2.jpg" in strip


def test_result_and_truth_are_beside_each_other_however_narrow_the_page(tmp_path):
    _write(tmp_path, rows=1, per_page=3)
    result = (tmp_path / "index.html").read_text().split('class="result"')[1]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", result) == ["generated", "ground truth"]


def test_short_cells_of_a_table_stay_on_one_line_and_empty_ones_are_left_out_on_a_phone():
    row = ["dptn.ssim_256", "0.8646", "", "a definition of more than two dozen letters", 3]
    made = table(["column", "value", "published", "definition", "images"], [row]).render()
    assert re.findall(r'<td class="([^"]*)"', made) == [
        "short",
        "short",
        "none",
        "",
        "number short",
    ]


def _people(folder: Path, names: list[str]) -> None:
    shades = np.random.default_rng(0)
    for name in names:
        image = np.full((64, 44, 3), 235, np.uint8)
        image[8:60, 12:32] = shades.integers(30, 200, 3)
        save_image(folder / name, image)


@pytest.fixture(scope="module")
def browser():
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def result_folder(tmp_path_factory) -> Path:
    """Seven pairs with every character in their names that breaks careless pages."""
    folder = tmp_path_factory.mktemp("results of 100% # ?")
    names = [
        "plain",
        "with space & amp;",
        "100%25 #1?x=2",
        "ünïcödé 服装",
        "quote\"s'",
        HOSTILE.replace("/", ""),
        "a_very_long_name_without_any_place_to_break_it_" * 4,
    ]
    _people(folder / "page_images", [f"{n}{end}.jpg" for n in names for end in ("", "_pose")])
    _people(folder, [f"{name}.png" for name in names])
    pairs = [(f"{name}.jpg", f"{name}.jpg", f"{name}.png") for name in names]
    write_rows(folder, f"run {HOSTILE}", pairs, ())
    scores = {f"PSNR {HOSTILE}": {f"{name}.png": 19.1492 for name in names}}
    (folder / "metrics").mkdir()
    (folder / "metrics" / "index.html").write_text("metrics")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result_page, "PER_PAGE", 3)
        add_scores(folder, scores, dict.fromkeys(scores, True), folder / "metrics" / "index.html")
    return folder


@needs_chromium
@pytest.mark.parametrize("width", [360, 1400], ids=["phone", "wide"])
@pytest.mark.parametrize(("number", "rows"), [(1, 3), (2, 3), (3, 1)])
def test_a_browser_shows_every_result_page_without_a_problem(
    browser, result_folder, number, rows, width
):
    report = browser.check(result_folder / page_name(number), width)
    assert report.problems() == []
    assert len(report.images) == 5 * rows
    assert report.scripts == 0
    assert report.text.count(HOSTILE) >= rows + 1  # each caption and the title, as text
    for url in report.links:
        assert Path(unquote(urlparse(url).path)).exists(), url


@needs_chromium
@pytest.mark.parametrize("width", [360, 1400], ids=["phone", "wide"])
def test_a_browser_shows_the_training_page_without_a_problem(browser, tmp_path, width):
    names = ["source_image", "target_pose", HOSTILE]
    visualizer = make_visualizer(tmp_path, 4, 20, name=f"run {HOSTILE}")
    for total in range(10, 90, 10):
        losses = {"G": 1 / total, "style": 500.0 / total**3, HOSTILE: float("nan")}
        visualizer.log_losses(total // 20 + 1, total % 20, total, losses, {"G": 2e-4, "D": 2e-5})
        images = {name: np.full((64, 44, 3), total, np.uint8) for name in names}
        visualizer.show(images, total // 20 + 1, total)
    visualizer.log_metrics({"PSNR": 19.1, HOSTILE: 1.0}, 4, 80)
    visualizer.close()
    report = browser.check(tmp_path / "web" / "index.html", width)
    assert report.problems() == []
    assert len(report.images) == 8 * 3
    assert report.scripts == 0
    assert report.text.index("80 samples") < report.text.index("70 samples")
    assert "PSNR: 19.1" in report.text
    assert HOSTILE in report.text


@needs_chromium
def test_the_check_itself_notices_every_kind_of_problem(browser, tmp_path):
    _people(tmp_path, ["fine.png"])
    (tmp_path / "bad.html").write_text(
        "<title>bad</title><img src=fine.png alt=person><img src=gone.png alt=gone>"
        "<img src=fine.png><img src='http://127.0.0.1:9/x.png' alt=far>"
        "<div style='width:3000px'>wide</div>"
        "<script>alert('hello'); console.error('wrong'); missing_function()</script>"
    )
    report = browser.check(tmp_path / "bad.html", 360)
    assert [url.rsplit("/", 1)[1] for url in report.broken_images] == ["gone.png", "x.png"]
    assert [url.rsplit("/", 1)[1] for url in report.images_without_alt] == ["fine.png"]
    assert report.external_requests == ["http://127.0.0.1:9/x.png"]
    assert report.dialogs == ["hello"]
    assert report.scripts == 1
    errors = " ".join(report.console_errors)
    for expected in ("wrong", "Uncaught", "gone.png"):
        assert expected in errors
    assert report.page_width > report.view_width == 360
    assert len(report.problems()) >= 8


@needs_chromium
def test_a_page_of_ours_runs_no_script_even_if_one_slipped_in(browser, tmp_path):
    _write(tmp_path, rows=0, per_page=1)
    page = tmp_path / "index.html"
    script = "<script>alert('run')</script><img src=x onerror=alert(2)>"
    page.write_text(page.read_text().replace("</body>", script + "</body>"))
    report = browser.check(page)
    assert report.dialogs == []
    assert any("Content Security Policy" in text for text in report.console_errors)
