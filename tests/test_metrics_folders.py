"""Measuring folders from the command line: reports, and every way a folder can be wrong."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from script.metrics import EXIT_REFUSED, main
from tests.metric_helpers import arguments, listing, make_folders, noisy, picture, save
from util.errors import UserError
from util.files import OutputError
from util.image import save_image
from util.metrics import report as report_module
from util.metrics import score_pairs
from util.run.main import run_main
from util.tables.magpt import write_magpt_keypoints
from util.tables.manifest import update_manifest

QUICK = ("--metrics", "psnr", "l1")


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


def report(folders, *more) -> dict:
    """The content of metrics.json after a successful run."""
    assert main(arguments(folders, "--name", "run", *more)) == 0
    return json.loads((Path(folders["--output_dir"]) / "run" / "metrics.json").read_text())


def values(folders, *more) -> dict[str, float]:
    return {name: m["value"] for name, m in report(folders, *more)["metrics"].items()}


def results(folders) -> Path:
    return Path(folders["--distorated_path"])


def test_values_are_means_over_pairs_with_standard_errors(folders):
    found = report(folders, *QUICK)
    pairs = [(picture(i, (64, 44)), noisy(picture(i, (64, 44)), i)) for i in range(6)]
    each = [score_pairs([pair], metrics=["psnr", "l1"]) for pair in pairs]
    for name in ("psnr", "l1"):
        single = np.array([values[name] for values in each])
        metric = found["metrics"][f"dptn.{name}"]
        assert metric["value"] == pytest.approx(single.mean(), abs=1e-12)
        assert metric["standard_error"] == pytest.approx(single.std() / 6**0.5, abs=1e-12)
        assert metric["count"] == 6


def test_report_says_what_was_measured_and_with_what(folders):
    (results(folders) / "generation.json").write_text('{"model": "DPTN", "sha256": "abc"}')
    found = report(folders, *QUICK)
    assert found["checkpoint"] == {"model": "DPTN", "sha256": "abc"}
    assert found["images"]["results"] == {
        "count": 6,
        "sizes": {"44x64": 6},
        "formats": {"PNG": 6},
    }
    assert found["protocols"][0]["label"] == "dptn"
    assert found["protocols"][0]["padding"] == "white"
    assert found["settings"]["device"] == "cpu"
    assert {"numpy", "torch", "scikit-image", "python"} <= set(found["versions"])
    assert found["refused"] == {}


def test_an_interrupted_generation_is_noticed_by_its_count(folders, capsys):
    manifest = results(folders) / "generation.json"
    manifest.write_text('{"model": "DPTN", "pairs": 8, "sha256": "0123456789abcdef"}')
    with pytest.raises(
        UserError, match=r"6 images, while generation\.json announces 8: .*interrup"
    ):
        main(arguments(folders, *QUICK))
    found = report(folders, *QUICK, "--allow_missing")
    assert "announces 8" in found["left_out"]["other number of results than announced"][0]
    assert "generator: model DPTN, sha256 0123456789ab…" in capsys.readouterr().out
    manifest.write_text('{"model"')
    with pytest.raises(UserError, match=r"generation\.json is not valid JSON"):
        main(arguments(folders, *QUICK))


def test_csv_has_one_row_for_each_image(folders):
    found = values(folders, *QUICK)
    with (Path(folders["--output_dir"]) / "run" / "metrics.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["name"] for row in rows] == sorted(p.name for p in results(folders).iterdir())
    assert [row["target"] for row in rows] == [f"t{i:02d}.png" for i in range(6)]
    mean = np.mean([float(row["dptn.psnr"]) for row in rows])
    assert mean == pytest.approx(found["dptn.psnr"], abs=1e-12)


def test_several_protocols_never_share_a_column(folders):
    found = values(folders, "--metrics", "psnr", "--protocol", "dptn", "gfla")
    assert set(found) == {"dptn.psnr", "gfla.psnr"}
    assert found["dptn.psnr"] > found["gfla.psnr"] + 1


def test_market_form_has_its_own_columns(folders):
    assert set(values(folders, "--metrics", "psnr", "--market")) == {"dptn-market.psnr"}


def test_regenerated_images_give_the_new_numbers(folders):
    before = values(folders, *QUICK)
    for i, path in enumerate(sorted(results(folders).glob("*.png"))):
        save(path, noisy(picture(i, (64, 44)), i, amount=40))
    after = values(folders, *QUICK)
    assert after["dptn.psnr"] < before["dptn.psnr"] - 3


def test_measured_folders_are_left_as_they_were(folders):
    measured = [v for k, v in folders.items() if k != "--output_dir"]
    before = [listing(folder) for folder in measured]
    main(arguments(folders, "--metrics", "psnr", "fid", "--name", "run"))
    assert [listing(folder) for folder in measured] == before


def test_report_is_never_written_into_a_measured_folder(folders):
    inside = {**folders, "--output_dir": folders["--gt_path"]}
    with pytest.raises(UserError, match="inside the measured folder"):
        main(arguments(inside, *QUICK))
    with pytest.raises(UserError, match="climbs out"):
        main(arguments(folders, *QUICK, "--name", "../elsewhere"))


def test_several_worker_processes_give_the_same_numbers(tmp_path):
    folders = make_folders(tmp_path, count=70, size=(16, 11))
    one = values(folders, *QUICK)
    words = arguments(folders, "--name", "run", *QUICK)
    words[words.index("--workers") + 1] = "2"
    assert main(words) == 0
    two = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())["metrics"]
    assert {name: metric["value"] for name, metric in two.items()} == one


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


def test_missing_weights_refuse_their_metric_and_leave_the_others(folders, tmp_path, capsys):
    nowhere = str(tmp_path / "nowhere.pth")
    words = ("--metrics", "lpips", "psnr", "fid", "--alexnet_weights", nowhere)
    status = main(arguments(folders, *words, "--inception_weights", nowhere, "--name", "run"))
    assert status == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert set(found["metrics"]) == {"dptn.psnr"}
    assert "AlexNet" in found["refused"]["dptn.lpips"]
    assert "--inception_weights" in found["refused"]["dptn.fid"]
    assert "dptn.lpips: not computed: " in capsys.readouterr().out


def test_offline_refusal_says_which_file_goes_where(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(arguments(folders, "--metrics", "lpips", "--name", "run")) == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    reason = found["refused"]["dptn.lpips"]
    assert "put alexnet-owt-7be5be79.pth there" in reason
    assert "--alexnet_weights" in reason
    assert str(tmp_path / "hub") in reason


def test_fid_without_a_real_set_is_refused(folders, tmp_path):
    words = arguments(folders, "--metrics", "fid", "psnr", "--name", "run")
    at = words.index("--fid_real_path")
    del words[at : at + 2]
    assert main(words) == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert "--fid_real_path" in found["refused"]["dptn.fid"]


def test_images_too_small_for_a_window_refuse_only_that_column(folders, tmp_path):
    words = ("--metrics", "ssim", "psnr", "--market", "--name", "run")
    assert main(arguments(folders, *words)) == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert set(found["metrics"]) == {"dptn-market.ssim_256", "dptn-market.psnr"}
    assert "51 px" in found["refused"]["dptn-market.ssim"]


def test_equal_images_have_infinite_psnr_in_valid_json(folders):
    folders["--distorated_path"] = folders["--gt_path"]
    found = report(folders, "--metrics", "psnr", "--pairing", "same_name")
    assert found["metrics"]["dptn.psnr"]["value"] == "inf"


def test_mistakes_on_the_command_line_end_with_status_2(folders, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: main(arguments(folders, "--metrics", "sim")))
    assert stop.value.code == 2
    assert "did you mean 'ssim'" in capsys.readouterr().err
    with pytest.raises(UserError, match="--protocol"):
        main(arguments(folders, "--protocol", "dptnn"))
    with pytest.raises(UserError, match="--batchSize"):
        main(arguments(folders, "--batch_size", "0"))
    with pytest.raises(UserError, match=r"--rank_by ssim: expected one of dptn\.psnr, dptn\.l1"):
        main(arguments(folders, *QUICK, "--rank_by", "ssim"))
    with pytest.raises(UserError, match="did you mean --market"):
        main(arguments(folders, "--markett"))


def test_page_shows_pairs_by_rank_from_copies(folders):
    found = report(folders, *QUICK, "--rank_by", "l1")
    folder = Path(folders["--output_dir"]) / "run"
    page = (folder / "index.html").read_text()
    assert page.index("Best pairs by dptn.l1") < page.index("Worst pairs by dptn.l1")
    shown = {p.name for p in (folder / "page_images").iterdir()}
    assert "000000_gt.png" in shown
    assert "000000_result.png" in shown
    assert all(f'src="page_images/{name}"' in page for name in shown)
    assert f"{found['metrics']['dptn.l1']['value']:.4f}" in page


def test_several_folders_make_one_comparison(folders, tmp_path, capsys):
    other = tmp_path / "results_b"
    for i in range(6):
        save(other / f"s_2_t{i:02d}_vis.png", noisy(picture(i, (64, 44)), i, amount=40))
    words = arguments(folders, *QUICK, "--name", "both", "--no_html")
    at = words.index("--distorated_path")
    words.insert(at + 2, str(other))
    assert main(words) == 0
    folder = tmp_path / "out" / "both"
    table = (folder / "comparison.md").read_text().splitlines()
    assert table[0] == "| results | dptn.psnr ↑ | dptn.l1 ↓ |"
    assert table[2].startswith("| results | **")
    assert table[3].startswith("| results_b | ")
    assert "**" not in table[3]
    assert table[2] in capsys.readouterr().out
    latex = (folder / "comparison.tex").read_text()
    assert r"results\_b & " in latex
    assert r"\textbf{" in latex
    assert (folder / "results_b" / "metrics.json").is_file()
    assert not (folder / "results_b" / "index.html").exists()


def test_result_folders_of_one_name_need_labels(folders, tmp_path):
    words = arguments(folders, *QUICK)
    at = words.index("--distorated_path")
    words.insert(at + 2, folders["--distorated_path"])
    with pytest.raises(UserError, match="use --labels"):
        main(words)


def test_names_with_the_separator_inside_are_paired_by_known_names(tmp_path):
    folders = make_folders(tmp_path, count=2)
    for name in ("a_2_b", "c"):
        save(tmp_path / "gt" / f"{name}.png", picture(5))
    save(tmp_path / "results" / "c_2_a_2_b_vis.png", picture(6))
    found = report(folders, *QUICK)
    assert found["pairs"] == 3


def test_results_in_another_format_than_the_published_ones_get_a_note(folders):
    note, _ = report(folders, *QUICK)["notes"]
    assert "measured on JPEG results, these are PNG" in note
    (note,) = report(folders, *QUICK, "--protocol", "patn")["notes"]
    assert "has 8,570 result images, here are 6: compare with no published number" in note
    assert report(folders, *QUICK, "--protocol", "standard")["notes"] == []


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


def test_a_flat_result_leaves_the_ssim_of_its_own_range_undefined(folders, tmp_path):
    save(results(folders) / "s_2_t02_vis.png", np.full((64, 44, 3), 7, np.uint8))
    words = ("--metrics", "ssim", "--protocol", "gfla", "standard", "--name", "run")
    assert main(arguments(folders, *words)) == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert "s_2_t02_vis.png" in found["refused"]["gfla.ssim_256"]
    assert "standard.ssim" in found["metrics"]


def test_the_files_of_an_error_are_listed_line_by_line_above_its_sentence(folders, capsys):
    for i in range(4):
        (Path(folders["--gt_path"]) / f"t{i:02d}.png").unlink()
    with pytest.raises(SystemExit) as status:
        run_main(lambda: main(arguments(folders, *QUICK)), debug=False)
    assert status.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()[-6:]
    assert lines[0] == "4 without ground truth:"
    assert [line.split()[0] for line in lines[1:5]] == [f"s_2_t{i:02d}_vis.png" for i in range(4)]
    assert lines[5].startswith("error: the images cannot be measured: 4 without ground truth; ")


def test_preparations_that_disagree_become_notes(folders, tmp_path):
    record = {"source": "img", "filter": None, "complete": True, "images": 7, "expected": 7}
    update_manifest(tmp_path, {"gt": {**record, "images": 6}, "real": {**record, "images": 9}})
    of_results = {**record, "source": "img_highres", "filter": "box"}
    (results(folders) / "generation.json").write_text(json.dumps({"prepared": of_results}))
    notes = report(folders, *QUICK)["notes"]
    assert any("real holds 7 images, dataset_manifest.json says 9" in note for note in notes)
    assert any("generated from were not prepared alike (source: img / img_h" in n for n in notes)


def test_results_of_two_formats_get_a_note_in_every_protocol(folders):
    first = results(folders) / "s_2_t00_vis.png"
    save(first.with_suffix(".jpg"), noisy(picture(0), 0))
    first.unlink()
    notes = report(folders, *QUICK, "--protocol", "standard")["notes"]
    assert any("not of one format (5 PNG, 1 JPEG)" in note for note in notes)


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
    with pytest.raises(UserError, match="have one result name, a_2_x_2_b_vis"):
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


def test_one_identical_pair_is_named_and_left_out_of_the_mean_psnr(folders):
    shutil.copy(Path(folders["--gt_path"]) / "t03.png", results(folders) / "s_2_t03_vis.png")
    metric = report(folders, "--metrics", "psnr")["metrics"]["dptn.psnr"]
    pairs = [(picture(i, (64, 44)), noisy(picture(i, (64, 44)), i)) for i in range(6) if i != 3]
    assert metric["value"] == pytest.approx(score_pairs(pairs, metrics=["psnr"])["psnr"], abs=1e-12)
    assert metric["count"] == 5
    assert metric["note"] == "1 infinite (s_2_t03_vis.png); the mean is over the rest"
    again = [*pairs, (picture(3), picture(3))]
    assert score_pairs(again, metrics=["psnr"])["psnr"] == pytest.approx(metric["value"], abs=1e-12)


def test_market_images_without_market_get_a_note(tmp_path):
    folders = make_folders(tmp_path, count=2, size=(128, 64))
    assert any("use --market" in note for note in report(folders, *QUICK)["notes"])
    assert not any("use --market" in n for n in report(folders, *QUICK, "--market")["notes"])


def test_an_output_that_cannot_be_written_is_refused_before_measuring(folders, tmp_path):
    (tmp_path / "file").write_text("")
    (Path(folders["--gt_path"]) / "t03.png").unlink()  # would be found while measuring
    with pytest.raises(UserError, match=r"cannot be written .*--output_dir"):
        main([*arguments(folders, *QUICK), "--output_dir", str(tmp_path / "file" / "out")])


def test_the_table_is_printed_although_the_report_cannot_be_written(folders, capsys, monkeypatch):
    def full(path, data):
        raise OutputError(f"{path} cannot be written")

    monkeypatch.setattr(report_module, "write_file", full)
    with pytest.raises(UserError, match="cannot be written"):
        main(arguments(folders, *QUICK))
    assert "dptn.psnr" in capsys.readouterr().out


def test_names_that_a_spreadsheet_would_compute_are_quoted(tmp_path):
    folders = make_folders(tmp_path, count=1)
    save(tmp_path / "gt" / "t.png", picture(1))
    save(tmp_path / "results" / "=cmd()_2_t_vis.png", picture(2))
    report(folders, *QUICK)
    rows = (tmp_path / "out" / "run" / "metrics.csv").read_text().splitlines()
    assert rows[1].startswith("'=cmd()_2_t_vis.png,t.png,")


def test_published_numbers_stand_beside_their_columns(folders, capsys):
    found = report(folders, "--metrics", "psnr", "l1")
    assert found["metrics"]["dptn.psnr"]["published"] == 19.1492
    assert found["metrics"]["dptn.l1"]["published"] is None
    out = capsys.readouterr().out
    assert "published by DPTN (CVPR 2022): dptn.psnr 19.1492\n" in out
    market = report(folders, "--metrics", "psnr", "--market")
    assert market["metrics"]["dptn-market.psnr"]["published"] == 14.5207


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_dead_links_with_the_name_of_an_image_are_refused(folders):
    os.mkfifo(results(folders) / "s_2_t07_vis.png")
    (results(folders) / "s_2_t08_vis.png").symlink_to("nowhere.png")
    with pytest.raises(UserError, match=r"(?s)2 in .* that are no files.*s_2_t07.*s_2_t08"):
        main(arguments(folders, *QUICK))
