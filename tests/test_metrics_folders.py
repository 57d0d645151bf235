"""Measuring folders from the command line: reports, and every way a folder can be wrong."""

import csv
import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from script.metrics import EXIT_REFUSED, main
from tests.metric_helpers import (
    QUICK,
    arguments,
    listing,
    make_folders,
    noisy,
    picture,
    report,
    results,
    save,
    values,
)
from util.errors import UserError
from util.files import OutputError
from util.metrics import report as report_module
from util.metrics.pairs import score_pairs
from util.run.main import run_main
from util.tables.manifest import update_manifest


@pytest.fixture
def folders(tmp_path):
    return make_folders(tmp_path)


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


def test_a_narrow_terminal_gets_lines_that_fit_and_all_numbers(
    folders, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("script.metrics.terminal_width", lambda: 80)
    shutil.copytree(folders["--distorated_path"], tmp_path / "results_b")
    metrics = ["--metrics", "psnr", "ssim", "l1", "mae"]
    words = arguments(folders, *metrics, "--name", "both", "--no_html")
    words.insert(words.index("--distorated_path") + 2, str(tmp_path / "results_b"))
    assert main(words) == 0
    rows = [x for x in capsys.readouterr().out.splitlines() if x.startswith("dptn.")]
    assert max(map(len, rows)) <= 80
    assert any(row.endswith("…") for row in rows)  # a definition, not a number
    psnr = [row.split() for row in rows if row.startswith("dptn.psnr ")]
    value = f"{float(psnr[0][1]):.4f}"
    assert psnr[-1] == ["dptn.psnr", "↑", "*", value, "*", value]  # equal folders, both the best


def test_of_two_installations_the_report_names_the_one_that_is_imported(
    folders, tmp_path, monkeypatch
):
    (tmp_path / "site" / "lpips-0.0.1.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "~ips-0.0.1.dist-info").mkdir()  # what an interrupted pip leaves behind
    content = "Metadata-Version: 2.1\nName: lpips\nVersion: 0.0.1\n"
    (tmp_path / "site" / "lpips-0.0.1.dist-info" / "METADATA").write_text(content)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    assert report(folders, *QUICK)["versions"]["lpips"] == version("lpips") != "0.0.1"


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
    value = table[2].split("**")[1]
    assert f"* {value}" in capsys.readouterr().out
    latex = (folder / "comparison.tex").read_text()
    assert r"results\_b & " in latex
    assert r"\textbf{" in latex
    assert (folder / "results_b" / "metrics.json").is_file()
    assert not (folder / "results_b" / "index.html").exists()


def test_result_folders_of_one_name_are_told_apart_by_the_folders_above(folders, tmp_path):
    shutil.copytree(folders["--distorated_path"], tmp_path / "b" / "results")
    words = arguments(folders, *QUICK, "--name", "both", "--no_html")
    at = words.index("--distorated_path") + 2
    assert main([*words[:at], str(tmp_path / "b" / "results"), *words[at:]]) == 0
    table = (tmp_path / "out" / "both" / "comparison.md").read_text()
    labels = [row.split()[1] for row in table.splitlines()[2:]]
    assert labels == [f"{tmp_path.name}_results", "b_results"]
    with pytest.raises(UserError, match="has 2 folders, 1 of them different"):
        main([*words[:at], folders["--distorated_path"], *words[at:]])


def test_result_folders_of_one_label_are_refused(folders):
    words = arguments(folders, *QUICK)
    at = words.index("--distorated_path") + 2
    with pytest.raises(UserError, match="labels a_b_c, a_b_c, d_c; expected a different one"):
        main([*words[: at - 1], "a_b/c", "a/b_c", "d/c", *words[at:]])


def test_results_in_another_format_than_the_published_ones_get_a_note(folders):
    note, _ = report(folders, *QUICK)["notes"]
    assert "measured on JPEG results, these are PNG" in note
    (note,) = report(folders, *QUICK, "--protocol", "patn")["notes"]
    assert "has 8,570 result images, here are 6: compare with no published number" in note
    assert report(folders, *QUICK, "--protocol", "standard")["notes"] == []


def test_a_flat_result_leaves_the_ssim_of_its_own_range_undefined(folders, tmp_path):
    save(results(folders) / "s_2_t02_vis.png", np.full((64, 44, 3), 7, np.uint8))
    words = ("--metrics", "ssim", "--protocol", "gfla", "standard", "--name", "run")
    assert main(arguments(folders, *words)) == EXIT_REFUSED
    found = json.loads((tmp_path / "out" / "run" / "metrics.json").read_text())
    assert "s_2_t02_vis.png" in found["refused"]["gfla.ssim_256"]
    assert "standard.ssim" in found["metrics"]


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
