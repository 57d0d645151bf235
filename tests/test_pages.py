"""The result pages, and all kinds of pages opened in a real browser."""

from __future__ import annotations

import gc
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from dominate import tags

from tests.browser import Browser, needs_chromium
from util.errors import UserError
from util.image import save_image
from util.show.results import RESULT_COLUMNS, ResultPage, page_name
from util.show.visualizer import Visualizer

HOSTILE = "<script>alert(1)</script>"


def _write(folder: Path, rows: int, per_page: int, **options) -> list[str]:
    with ResultPage(folder, title=options.pop("title", "test"), per_page=per_page) as page:
        for row in range(rows):
            page.add(f"pair {row}", {"generated": f"{row}.png"})
    return sorted(path.name for path in folder.glob("*.html"))


@pytest.mark.parametrize(
    ("rows", "pages"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)], ids=lambda n: str(n)
)
def test_every_row_is_on_exactly_one_page(tmp_path, rows, pages):
    assert len(_write(tmp_path, rows, per_page=3)) == pages
    text = "".join((tmp_path / page_name(n)).read_text() for n in range(1, pages + 1))
    assert re.findall(r'src="(\d+)\.png"', text) == [str(row) for row in range(rows)]


def test_the_links_lead_from_the_first_page_to_the_last_and_back(tmp_path):
    _write(tmp_path, rows=35, per_page=3)
    for step, path in (("next", ["index.html"]), ("prev", ["page_12.html"])):
        while match := re.search(f'href="([^"]+)" rel="{step}"', (tmp_path / path[-1]).read_text()):
            path.append(match[1])
        assert len(path) == len(set(path)) == 12
    middle = (tmp_path / "page_6.html").read_text()
    for name in ("index.html", "page_4.html", "page_5.html", "page_7.html", "page_12.html"):
        assert f'href="{name}"' in middle


def test_an_interrupted_test_leaves_the_full_pages(tmp_path):
    page = ResultPage(tmp_path, per_page=2)
    for row in range(5):
        page.add(str(row), {"generated": f"{row}.png"})
    assert (tmp_path / "index.html").exists()
    assert 'href="index.html"' in (tmp_path / "page_2.html").read_text()
    assert not (tmp_path / "page_3.html").exists()


def test_pages_of_an_earlier_longer_test_are_removed_and_other_files_stay(tmp_path):
    _write(tmp_path, rows=9, per_page=2)
    (tmp_path / "page_notes.html").write_text("mine")
    assert _write(tmp_path, rows=3, per_page=2) == ["index.html", "page_2.html", "page_notes.html"]


def test_the_summary_is_on_the_first_page_only(tmp_path):
    page = ResultPage(tmp_path, per_page=1)
    page.add("a", {})
    page.add("b", {})
    assert page.close({"PSNR": 19.14923}) == tmp_path / "index.html"
    assert "19.15" in (tmp_path / "index.html").read_text()
    assert "19.15" not in (tmp_path / "page_2.html").read_text()


def test_the_steps_of_a_model_are_one_strip_below_the_other_pictures(tmp_path):
    columns = ("source", "generated", "step_1", "step_2", "ground truth")
    with ResultPage(tmp_path, columns=columns) as page:
        page.add("a", {column: f"{column}.png" for column in columns if column != "step_2"})
    html = (tmp_path / "index.html").read_text()
    pictures, strip = html.split('class="pictures"')[1].split('class="strip"')
    assert [name in pictures for name in columns] == [True, True, False, False, True]
    assert [name in strip for name in columns] == [False, False, True, True, False]


def test_a_missing_picture_keeps_its_place_and_an_unknown_column_is_an_error(tmp_path):
    page = ResultPage(tmp_path, columns=("source", "flow"))
    with pytest.raises(ValueError, match="unknown columns"):
        page.add("a", {"sauce": "a.png"})
    page.add("a", {"source": "a.png"})
    text = page.close().read_text()
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["source", "flow"]
    assert text.count('class="missing"') == 1


def test_an_absolute_image_path_is_refused(tmp_path):
    page = ResultPage(tmp_path)
    with pytest.raises(UserError, match="expected a relative path"):
        page.add("a", {"generated": "/etc/passwd"})


def test_only_the_rows_of_the_current_page_are_kept_in_memory(tmp_path):
    page = ResultPage(tmp_path, per_page=10)
    for row in range(95):
        page.add(f"pair {row}", {"generated": f"{row}.png"})
    gc.collect()
    assert sum(type(thing) is tags.article for thing in gc.get_objects()) == 5


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
        "plain.png",
        "with space & amp;.png",
        "100%25 #1?x=2.png",
        "ünïcödé 服装.png",
        "quote\"s'.png",
        f"{HOSTILE.replace('/', '')}.png",
        "a_very_long_name_without_any_place_to_break_it_" * 4 + ".png",
    ]
    _people(folder / "page_images", names)
    title = f"run {HOSTILE}"
    with ResultPage(folder, title=title, per_page=3) as page:
        for name in names:
            page.add(f"{name} {HOSTILE}", dict.fromkeys(RESULT_COLUMNS, f"page_images/{name}"))
        page.summary.update({"PSNR": 19.1492, HOSTILE: HOSTILE})
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
    visualizer = Visualizer(
        tmp_path, f"run {HOSTILE}", epochs=4, samples_per_epoch=20, use_tensorboard=False
    )
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
