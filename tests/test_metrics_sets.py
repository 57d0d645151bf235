"""Set metrics over folders with a small network in Inception's place: passes, caching, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from script.metrics import EXIT_REFUSED, main
from tests.metric_helpers import arguments, later, make_folders, noisy, picture, save
from util.errors import UserError
from util.metrics import networks
from util.metrics.protocols import PYTORCH_FID, InceptionScore
from util.metrics.sets import split_assignment


class SmallNetwork(torch.nn.Module):
    """Features: a 2x2 thumbnail of the image; counts the images it has seen."""

    seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        SmallNetwork.seen += len(images)
        values = images.permute(0, 3, 1, 2).double() / 255
        return F.adaptive_avg_pool2d(values, 2).flatten(1)  # (B, 12)

    def logits(self, features: torch.Tensor, bias: bool = True) -> torch.Tensor:
        return 10 * features


@pytest.fixture
def folders(tmp_path, monkeypatch):
    def build(definition, store, device):
        store.used[definition.weights] = {"file": "small", "sha256": "0", "published": True}
        return SmallNetwork()

    monkeypatch.setattr(networks, "InceptionFeatures", build)
    monkeypatch.setattr(SmallNetwork, "seen", 0)
    return make_folders(tmp_path, count=20, real=30, size=(16, 11))


def measured(folders, *more) -> dict[str, dict]:
    main(arguments(folders, "--name", "run", *more))
    text = (Path(folders["--output_dir"]) / "run" / "metrics.json").read_text()
    return json.loads(text)["metrics"]


FID = ("--metrics", "fid")


def test_real_statistics_are_computed_once_and_results_every_time(folders):
    first = measured(folders, *FID)["dptn.fid"]
    assert SmallNetwork.seen == 20 + 30
    second = measured(folders, *FID)["dptn.fid"]
    assert SmallNetwork.seen == 20 + 30 + 20
    assert second == first


def test_regenerated_results_give_a_new_fid(folders):
    first = measured(folders, *FID)["dptn.fid"]["value"]
    for i, path in enumerate(sorted(Path(folders["--distorated_path"]).iterdir())):
        save(path, noisy(picture(50 + i, (16, 11)), i, amount=60))
    assert measured(folders, *FID)["dptn.fid"]["value"] != pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize("change", ["content", "time", "new", "gone", "renamed"])
def test_a_changed_real_set_is_measured_again(folders, change):
    first = measured(folders, *FID)["dptn.fid"]["value"]
    path = Path(folders["--fid_real_path"]) / "r00.png"
    if change == "content":
        save(path, picture(999, (16, 11)))
    elif change == "time":
        later(path)
    elif change == "new":
        save(path.with_name("r99.png"), picture(999, (16, 11)))
    elif change == "gone":
        path.unlink()
    else:
        path.rename(path.with_name("z.png"))
    SmallNetwork.seen = 0
    second = measured(folders, *FID)["dptn.fid"]["value"]
    assert SmallNetwork.seen > 20  # the real set was read again
    if change in ("content", "new", "gone"):
        assert second != first


def test_another_protocol_does_not_find_the_statistics_of_this_one(folders):
    measured(folders, *FID)
    SmallNetwork.seen = 0
    measured(folders, *FID, "--protocol", "standard")
    assert SmallNetwork.seen == 20 + 30


def test_no_cache_keeps_nothing(folders):
    measured(folders, *FID, "--no_cache")
    assert not (Path(folders["--output_dir"]) / "cache").exists()


def test_fid_and_inception_score_of_one_network_share_one_pass(folders):
    found = measured(folders, "--metrics", "fid", "inception_score", "--protocol", "standard")
    assert set(found) == {"standard.fid", "standard.inception_score"}
    assert SmallNetwork.seen == 20 + 30
    assert found["standard.inception_score"]["value"] > 1


def test_dropped_and_kept_remainder_have_their_own_columns(folders, tmp_path):
    folders = make_folders(tmp_path / "more", count=70, real=66, size=(8, 6))
    dropped = measured(folders, *FID)
    kept = measured(folders, *FID, "--remainder", "keep")
    assert dropped["dptn.fid"]["count"] == dropped["dptn.fid"]["real_count"] == 64
    assert (kept["dptn-keep.fid"]["count"], kept["dptn-keep.fid"]["real_count"]) == (70, 66)


def test_kid_is_refused_for_fewer_images_than_a_subset(folders):
    words = arguments(folders, "--metrics", "kid", "psnr", "--name", "run")
    assert main(words) == EXIT_REFUSED
    text = (Path(folders["--output_dir"]) / "run" / "metrics.json").read_text()
    assert "subsets of 1000 images, there are 20" in json.loads(text)["refused"]["dptn.kid"]


def test_a_damaged_real_image_stops_the_measurement(folders):
    path = Path(folders["--fid_real_path"]) / "r05.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"(?s)unreadable.*r05\.png"):
        measured(folders, *FID)
    assert not list((Path(folders["--output_dir"])).rglob("*.npz"))  # nothing half-true is kept


def test_fid_of_the_small_network_equals_its_formula(folders):
    from tests.test_metrics_networks import low_rank_frechet

    found = measured(folders, *FID)["dptn.fid"]["value"]
    network, sets = SmallNetwork(), []
    for option in ("--fid_real_path", "--distorated_path"):
        from PIL import Image

        paths = sorted(Path(folders[option]).iterdir())
        images = torch.from_numpy(np.stack([np.asarray(Image.open(p)) for p in paths]))
        sets.append(network(images).numpy())
    assert found == pytest.approx(low_rank_frechet(*sets), rel=1e-9)


def test_damaged_statistics_are_computed_again(folders):
    first = measured(folders, *FID)["dptn.fid"]
    (entry,) = (Path(folders["--output_dir"]) / "cache").iterdir()
    entry.write_bytes(entry.read_bytes()[:100])
    SmallNetwork.seen = 0
    assert measured(folders, *FID)["dptn.fid"] == first
    assert SmallNetwork.seen == 20 + 30
    assert measured(folders, *FID)["dptn.fid"] == first
    assert SmallNetwork.seen == 20 + 30 + 20


def test_every_image_is_in_one_split_or_in_the_dropped_rest():
    magpt = InceptionScore(PYTORCH_FID, splits=3, drop_rest=True)
    assert split_assignment(8, magpt).tolist() == [0, 0, 1, 1, 2, 2, -1, -1]
    assert split_assignment(8, InceptionScore(PYTORCH_FID, splits=3)).tolist() == [
        *(0, 0),
        *(1, 1, 1),
        *(2, 2, 2),
    ]


def test_images_in_sub_folders_of_the_real_set_are_read(folders):
    first = measured(folders, *FID)["dptn.fid"]
    more = Path(folders["--fid_real_path"]) / "more"
    for i in range(5):
        save(more / f"m{i}.png", picture(200 + i, (16, 11)))
    second = measured(folders, *FID)["dptn.fid"]
    assert second["real_count"] == first["real_count"] + 5
    assert second["value"] != first["value"]


def test_a_real_set_of_one_image_has_no_fid(folders):
    for path in sorted(Path(folders["--fid_real_path"]).iterdir())[1:]:
        path.unlink()
    assert main(arguments(folders, *FID, "psnr", "--name", "run")) == EXIT_REFUSED
    text = (Path(folders["--output_dir"]) / "run" / "metrics.json").read_text()
    found = json.loads(text)
    assert "in the real set: a covariance needs at least two images" in found["refused"]["dptn.fid"]
    assert set(found["metrics"]) == {"dptn.psnr"}


def test_features_that_are_no_numbers_are_no_fid(folders, monkeypatch):
    monkeypatch.setattr(SmallNetwork, "forward", lambda self, x: torch.full((len(x), 3), torch.nan))
    assert main(arguments(folders, *FID, "--name", "run")) == EXIT_REFUSED
    text = (Path(folders["--output_dir"]) / "run" / "metrics.json").read_text()
    assert "the features give nan" in json.loads(text)["refused"]["dptn.fid"]


def test_a_cache_that_cannot_be_written_is_a_note_by_default_and_an_error_when_asked_for(
    folders, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    words = arguments(folders, *FID, "--name", "run")
    at = words.index("--cache_dir")
    assert main(words[:at] + words[at + 2 :]) == 0
    text = (Path(folders["--output_dir"]) / "run" / "metrics.json").read_text()
    (note,) = (note for note in json.loads(text)["notes"] if "--cache_dir" in note)
    assert "could not be kept in" in note
    words[at + 1] = str(tmp_path / "file" / "cache")
    with pytest.raises(UserError, match="cannot be written"):
        main(words)


def test_padding_of_a_protocol_is_for_its_own_inception_score_only(folders, monkeypatch):
    seen = []
    forward = SmallNetwork.forward

    def watched(self, images):
        seen.append(tuple(images.shape[1:3]))
        return forward(self, images)

    monkeypatch.setattr(SmallNetwork, "forward", watched)
    measured(folders, "--metrics", "inception_score", "fid", "--protocol", "patn")
    assert (16, 16) in seen  # the score
    assert (16, 11) in seen  # FID
    seen.clear()
    measured(folders, "--metrics", "inception_score", "--protocol", "patn", "--market")
    assert set(seen) == {(16, 11)}
