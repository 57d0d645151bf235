"""Measuring folders: which result belongs to which ground truth, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from script.metrics import main
from tests.metric_helpers import (
    QUICK,
    arguments,
    make_folders,
    noisy,
    picture,
    report,
    results,
    save,
    values,
)
from util.errors import UserError
from util.image import save_image
from util.run.main import run_main
from util.tables.uncropped import write_magpt_keypoints


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


def test_unknown_result_name_is_listed(folders):
    save(results(folders) / "picture.png", picture(0))
    with pytest.raises(UserError, match=r"(?s)without a readable target name.*picture\.png"):
        main(arguments(folders, *QUICK))


def test_missing_ground_truth_is_listed(folders):
    (Path(folders["--gt_path"]) / "t03.png").unlink()
    with pytest.raises(UserError, match=r"(?s)1 without ground truth.*s_2_t03_vis\.png"):
        main(arguments(folders, *QUICK))


def test_allowed_missing_images_are_written_into_the_report(folders):
    (Path(folders["--gt_path"]) / "t03.png").unlink()
    found = report(folders, *QUICK, "--allow_missing")
    assert found["pairs"] == 5
    assert "s_2_t03_vis.png" in found["left_out"]["without ground truth"][0]
    assert found["settings"]["allow_missing"] is True


def test_results_that_the_pairs_file_wants_must_exist(folders, tmp_path):
    pairs = tmp_path / "pairs.csv"
    rows = [f"s.jpg,t{i:02d}.jpg" for i in range(6)]
    pairs.write_text("from,to\n" + "\n".join(rows) + "\n")
    assert report(folders, *QUICK, "--pairs", str(pairs))["pairs"] == 6
    (results(folders) / "s_2_t05_vis.png").unlink()
    with pytest.raises(UserError, match=r"(?s)expected but not generated.*s_2_t05_vis"):
        main(arguments(folders, *QUICK, "--pairs", str(pairs)))


def test_two_formats_of_one_result_are_a_duplicate(folders):
    shutil.copy(results(folders) / "s_2_t00_vis.png", results(folders) / "s_2_t00_vis.jpg")
    with pytest.raises(UserError, match=r"(?s)twice in the results.*s_2_t00_vis\.jpg and s_2_t00"):
        main(arguments(folders, *QUICK, "--allow_missing"))


def test_unreadable_images_are_listed(folders):
    (results(folders) / "s_2_t01_vis.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"(?s)unreadable.*s_2_t01_vis\.png"):
        main(arguments(folders, *QUICK))


def test_truncated_images_are_listed(folders):
    for name in ("s_2_t01_vis.png", "s_2_t04_vis.png"):
        path = results(folders) / name
        path.write_bytes(path.read_bytes()[:-400])  # the header is whole
    with pytest.raises(UserError, match=r"(?s)2 unreadable.*s_2_t01.*s_2_t04"):
        main(arguments(folders, *QUICK))


def test_images_of_the_wrong_size_are_listed_unless_the_protocol_resizes(folders):
    save(results(folders) / "s_2_t02_vis.png", picture(2, (32, 22)))
    with pytest.raises(UserError, match=r"(?s)of another size.*s_2_t02_vis\.png is 22x32"):
        main(arguments(folders, *QUICK))
    words = ("--metrics", "psnr", "--protocol")
    assert "dptn_step.psnr" in values(folders, *words, "dptn_step")
    with pytest.raises(UserError, match="of another size"):  # resizes for networks only
        main(arguments(folders, *words, "nted_pidm"))


def test_real_set_of_another_size_is_an_error_for_fid(folders):
    save(Path(folders["--fid_real_path"]) / "r00.png", picture(9, (64, 64)))
    with pytest.raises(UserError, match=r"(?s)real set of another size.*r00\.png is 64x64"):
        main(arguments(folders, "--metrics", "fid"))
    assert "dptn.psnr" in values(folders, *QUICK)  # which does not look at the real set


@pytest.mark.parametrize("option", ["--gt_path", "--distorated_path"])
def test_missing_and_empty_folders_are_named(folders, tmp_path, option):
    with pytest.raises(UserError, match="no folder"):
        main(arguments({**folders, option: str(tmp_path / "nowhere")}, *QUICK))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.jpg"):
        main(arguments({**folders, option: str(tmp_path / "empty")}, *QUICK))


def test_names_with_the_separator_inside_are_paired_by_known_names(tmp_path):
    folders = make_folders(tmp_path, count=2)
    for name in ("a_2_b", "c"):
        save(tmp_path / "gt" / f"{name}.png", picture(5))
    save(tmp_path / "results" / "c_2_a_2_b_vis.png", picture(6))
    found = report(folders, *QUICK)
    assert found["pairs"] == 3


def test_magpt_folders_are_paired_by_equal_names(tmp_path):
    folders = make_folders(tmp_path, count=1)
    for i in range(2):
        save(tmp_path / "real_B" / f"{i}@imgWOMENid_{i}.jpg", picture(i))
        save(tmp_path / "fake_B" / f"{i}@imgWOMENid_{i}.jpg", noisy(picture(i), i))
    folders["--gt_path"], folders["--distorated_path"] = (
        str(tmp_path / side) for side in ("real_B", "fake_B")
    )
    words = ("--pairing", "same_name", "--protocol", "magpt", "--metrics", "ssim", "pckh")
    keypoints = {f"imgWOMENid_{i}": 5.0 + np.arange(36.0).reshape(18, 2) for i in range(2)}
    write_magpt_keypoints(tmp_path / "gt.csv", keypoints, (64, 44))
    write_magpt_keypoints(
        tmp_path / "found.csv",
        {f"{i}@{name}": k for i, (name, k) in enumerate(keypoints.items())},
        (64, 44),
    )
    words = (*words, "--annotation", str(tmp_path / "gt.csv"))
    found = values(folders, *words, "--result_keypoints", str(tmp_path / "found.csv"))
    assert 0.2 < found["magpt.ssim"] < 1
    assert found["magpt.pckh"] == 1


def test_the_files_of_an_error_are_listed_line_by_line_above_its_sentence(folders, capsys):
    for i in range(4):
        (Path(folders["--gt_path"]) / f"t{i:02d}.png").unlink()
    with pytest.raises(SystemExit) as status:
        run_main(lambda: main(arguments(folders, *QUICK)))
    assert status.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()[-6:]
    assert lines[0] == "4 without ground truth:"
    assert [line.split()[0] for line in lines[1:5]] == [f"s_2_t{i:02d}_vis.png" for i in range(4)]
    assert lines[5].startswith("error: the images cannot be measured: 4 without ground truth; ")


def mark(folder: Path, run: str, count: int, suffix: str = ".png") -> None:
    """Write the first ``count`` results again, as those of a run."""
    for i in range(count):
        path = folder / f"s_2_t{i:02d}_vis{suffix}"
        save_image(path, noisy(picture(i, (64, 44)), i), mark=run)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_results_of_two_runs_in_one_folder_are_refused(folders, suffix):
    if suffix == ".jpg":
        shutil.rmtree(results(folders))
    mark(results(folders), "aaaa", 6, suffix)
    (results(folders) / "generation.json").write_text('{"pairs": 6, "run": "aaaa"}')
    assert report(folders, *QUICK)["pairs"] == 6
    mark(results(folders), "bbbb", 2, suffix)
    with pytest.raises(UserError, match=r"2 runs of test\.py \(4 of run aaaa, 2 of run bbbb\)"):
        main(arguments(folders, *QUICK, "--allow_missing"))


def test_marked_results_over_older_unmarked_ones_are_refused(folders):
    mark(results(folders), "aaaa", 2)
    (results(folders) / "generation.json").write_text('{"pairs": 6, "run": "aaaa"}')
    with pytest.raises(UserError, match=r"4 of no known run, 2 of run aaaa"):
        main(arguments(folders, *QUICK))


def test_results_of_another_run_than_the_one_described_are_refused(folders):
    mark(results(folders), "aaaa", 6)
    (results(folders) / "generation.json").write_text('{"pairs": 6, "run": "bbbb"}')
    with pytest.raises(UserError, match=r"are of run aaaa, its generation\.json describes run bbb"):
        main(arguments(folders, *QUICK))


def test_a_result_name_that_fits_two_pairs_is_decided_by_known_names_or_the_pairs_file(tmp_path):
    folders = make_folders(tmp_path, count=1)
    for name in ("b", "x_2_b"):
        save(tmp_path / "gt" / f"{name}.png", picture(5))
    save(tmp_path / "results" / "a_2_x_2_b_vis.png", picture(6))
    with pytest.raises(UserError, match=r"(?s)1 that fit several pairs.*give --pairs"):
        main(arguments(folders, *QUICK, "--allow_missing"))
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("from,to\ns.png,t00.png\na.png,x_2_b.png\n")
    report(folders, *QUICK, "--pairs", str(pairs))
    rows = (tmp_path / "out" / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("a_2_x_2_b_vis.png,x_2_b.png,")
    save(tmp_path / "gt" / "a_2_x.png", picture(7))  # now one pair has both of its images
    report(folders, *QUICK)
    rows = (tmp_path / "out" / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("a_2_x_2_b_vis.png,b.png,")


def test_the_suffix_inside_a_name_is_no_end_of_it(tmp_path):
    folders = make_folders(tmp_path, count=1)
    for name in ("b", "b_visor"):
        save(tmp_path / "gt" / f"{name}.png", picture(5))
    save(tmp_path / "results" / "a_2_b_visor_vis.png", picture(6))
    report(folders, *QUICK)
    rows = (tmp_path / "out" / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("a_2_b_visor_vis.png,b_visor.png,")


def test_results_that_no_row_of_the_pairs_file_asks_for_are_refused(folders, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("from,to\n" + "".join(f"s.jpg,t{i:02d}.jpg\n" for i in range(4)))
    with pytest.raises(UserError, match=r"(?s)2 that no row of the pairs file asks for.*s_2_t05"):
        main(arguments(folders, *QUICK, "--pairs", str(pairs)))
    assert report(folders, *QUICK, "--pairs", str(pairs), "--allow_missing")["pairs"] == 4
    pairs.write_text("from,to\na.jpg,x_2_b.jpg\na_2_x.jpg,b.jpg\n")
    with pytest.raises(UserError, match=r"would get the same name 'a_2_x_2_b_vis\.png'"):
        main(arguments(folders, *QUICK, "--pairs", str(pairs)))


def test_hidden_files_and_pictures_of_our_pages_are_no_images(folders):
    for folder in ("--gt_path", "--distorated_path", "--fid_real_path"):
        (Path(folders[folder]) / "._t00_vis.png").write_bytes(bytes(4096))
        save(Path(folders[folder]) / ".thumbnails" / "t00.png", picture(0))
        save(Path(folders[folder]) / "page_images" / "t00.jpg", picture(0))
    found = report(folders, *QUICK)
    assert found["pairs"] == 6


def test_images_in_sub_folders_count_in_every_folder(folders, capsys):
    for option, name in (("--gt_path", "t00"), ("--distorated_path", "s_2_t00_vis")):
        path = Path(folders[option]) / f"{name}.png"
        (path.parent / "more").mkdir()
        path.rename(path.parent / "more" / path.name)
    # A nested ground truth is known by its path, as in MAGPT's img/ tree.
    result = results(folders) / "more" / "s_2_t00_vis.png"
    result.rename(result.with_name("s_2_moret00_vis.png"))
    assert report(folders, *QUICK)["pairs"] == 6
    out = capsys.readouterr().out
    assert "images: 6 results (44x64), 6 ground truths (44x64)" in out


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_dead_links_with_the_name_of_an_image_are_refused(folders):
    os.mkfifo(results(folders) / "s_2_t07_vis.png")
    (results(folders) / "s_2_t08_vis.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"(?s)2 in .* that are no files.*s_2_t07.*s_2_t08"):
        main(arguments(folders, *QUICK))
