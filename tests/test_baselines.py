"""The comparison with copying and with another person's photo."""

from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from data.prepare.identities import identity_of, is_distractor
from script import baselines
from script.baselines import generated_views, headline, other_person
from tests.metric_helpers import picture
from util.errors import UserError
from util.image import resize_linear


class Pairs:
    """As much of a data set as is needed."""

    def __init__(self, pairs):
        self.pairs = pairs

    def turns(self):
        return {}

    def __len__(self):
        return len(self.pairs)


@pytest.mark.parametrize("view", ["1front", "2side", "3back", "4full", "7additional"])
def test_every_view_of_a_person_is_the_same_person(view):
    name = f"fashionWOMENBlouses_Shirtsid0000000102_{view}.jpg"
    assert identity_of(name) == "WOMEN/Blouses_Shirts/id_00000001"


def test_other_names_tell_the_person_before_the_underscore():
    assert identity_of("0002_c1s1_000451_03.jpg") == "0002"
    assert identity_of("sidney_1.png") == "sidney"


@pytest.mark.parametrize(
    "name",
    [
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg",
        "WOMEN/Dresses/id_00000002/01_7_additional.jpg",
        "train/fashionWOMENDressesid0000000202_1front.jpg",
    ],
)
def test_names_that_are_paths_tell_the_same_person_as_flat_ones(name):
    assert identity_of(name) == "WOMEN/Dresses/id_00000002"
    bob = name.replace("00000002", "00000003")
    people = Pairs([(name, name), (bob, bob)])
    assert [other_person(people, i) for i in range(2)] == [1, 0]


def test_only_names_of_market_are_distractors():
    assert all(map(is_distractor, ("0000_c1s1_000151_01.jpg", "test/-1_c3s2_000001_00.jpg")))
    assert not any(map(is_distractor, ("00001_front.jpg", "0000_1.png", "-1.jpg")))


def test_the_other_person_is_somebody_else():
    ann = [f"fashionWOMENDressesid0000000101_{view}.jpg" for view in ("2side", "1front", "3back")]
    bob = "fashionMENDenimid0000000201_2side.jpg"
    people = Pairs([(source, ann[0]) for source in (*ann, bob)])
    assert [other_person(people, i) for i in range(4)] == [3, 3, 3, 0]
    with pytest.raises(UserError, match="the same person"):
        other_person(Pairs(people.pairs[:3]), 0)


SIZE, LOADED = (32, 20), (16, 16)  # of the photographs, and of what the network sees
NAMES = ("ann_1.png", "ann_2.png", "bob_1.png", "bob_2.png")


class Photographs:
    """Four photographs, in pairs of one person; a sample has been through the network's size."""

    annotation_size = SIZE
    pairs = (("ann_1.png", "ann_2.png"), ("bob_1.png", "bob_2.png"))

    def __len__(self):
        return len(self.pairs)

    def turns(self):
        return {}

    def photograph(self, name):
        return picture(NAMES.index(name), SIZE)

    def __getitem__(self, index):
        sample = {}
        for role, name in zip(("source", "target"), self.pairs[index], strict=True):
            small = resize_linear(self.photograph(name), LOADED)
            sample[f"{role}_image"] = torch.from_numpy(small).permute(2, 0, 1)
            sample[f"{role}_keypoints"] = torch.full((18, 2), float(NAMES.index(name)))
            sample[f"{role}_name"] = name
        return sample


class Copier:
    """A model whose result is its source image; remembers what it was given."""

    result_size = SIZE

    def __init__(self):
        self.seen = []

    def prepare(self, batch):
        self.seen.append(batch)
        return batch

    def generate(self, inputs):
        return {"fake_target": inputs["source_image"].float() / 127.5 - 1}


@pytest.fixture
def views():
    dataset, model = Photographs(), Copier()
    loader = DataLoader(dataset, batch_size=2)
    return model, list(generated_views(model, dataset, loader, SIZE))


def test_truth_and_copy_are_the_photographs_themselves(views):
    _, pairs = views
    for (source, target), pair in zip(Photographs.pairs, pairs, strict=True):
        truth, copy = pair["copy"]
        assert np.array_equal(truth, picture(NAMES.index(target), SIZE))
        assert np.array_equal(copy, picture(NAMES.index(source), SIZE))
        assert all(np.array_equal(truth, other[0]) for other in pair.values())


def test_the_wrong_source_has_the_picture_the_keypoints_and_the_name_of_another_person(views):
    model, pairs = views
    own, swapped = model.seen
    assert own["source_name"] == ["ann_1.png", "bob_1.png"]
    assert swapped["source_name"] == ["bob_1.png", "ann_1.png"]
    assert swapped["target_name"] == own["target_name"]
    assert torch.equal(swapped["source_image"], own["source_image"].flip(0))
    assert torch.equal(swapped["source_keypoints"], own["source_keypoints"].flip(0))
    assert np.array_equal(pairs[0]["wrong source"][1], pairs[1]["generated"][1])


def test_the_headline_names_the_difference_to_the_files_of_a_test_run():
    photos = (256, 176)
    assert headline(photos, photos, photos) == (
        "protocol standard, images of 256 x 176 px (height x width)"
    )
    assert "test.py writes 256 x 256, of which" in headline(photos, (256, 256), photos)
    assert "photographs of 256 x 176 px are brought" in headline((64, 48), (64, 48), photos)


def test_a_size_of_results_is_the_size_of_the_comparison(monkeypatch, capsys):
    monkeypatch.setattr(baselines, "load_for_test", lambda opt: Copier())
    monkeypatch.setattr(baselines, "create_dataset", lambda opt: Photographs())
    monkeypatch.setattr(baselines, "create_dataloader", lambda data, opt: DataLoader(data))
    table = baselines.compare(Namespace(result_size=LOADED))
    assert "images of 16 x 16 px" in capsys.readouterr().out
    small = [
        np.asarray(Image.fromarray(picture(i, SIZE)).resize(LOADED, Image.Resampling.BILINEAR))
        for i in range(4)
    ]
    differences = [(small[i + 1].astype(float) - small[i]) ** 2 for i in (0, 2)]
    expected = np.mean([10 * np.log10(255**2 / d.mean()) for d in differences])
    assert abs(table["copy"]["psnr"] - expected) < 1e-9


def test_results_of_one_colour_are_said(monkeypatch, capsys):
    class Grey(Copier):
        def generate(self, inputs):
            return {"fake_target": torch.zeros(len(inputs["source_image"]), 3, *LOADED)}

    monkeypatch.setattr(baselines, "load_for_test", lambda opt: Grey())
    monkeypatch.setattr(baselines, "create_dataset", lambda opt: Photographs())
    monkeypatch.setattr(baselines, "create_dataloader", lambda data, opt: DataLoader(data))
    table = baselines.compare(Namespace(result_size=None))
    assert table["generated"]["pairs"] == 2
    assert "all 2 generated images are (nearly) one colour" in "".join(capsys.readouterr())
    monkeypatch.setattr(baselines, "load_for_test", lambda opt: Copier())
    baselines.compare(Namespace(result_size=None))
    assert "one colour" not in "".join(capsys.readouterr())
