"""The weights that come with the code: they load, they are what the card says, people have hues."""

import numpy as np
import torch

from api import PoseTransfer
from data.fashion_dataset import FashionDataset
from data.synthetic.write import write_dataset
from tests.conftest import ROOT
from util.run import checkpoint

FOLDER = ROOT / "checkpoints/synthetic_people"


def test_the_shipped_generator_paints_unseen_people_better_than_copying_them(tmp_path):
    write_dataset(
        tmp_path, identities=1, test_identities=4, poses=4, test_pairs=12, seed=77, pairs=1
    )
    people = FashionDataset(tmp_path, "test")
    transfer = PoseTransfer.from_checkpoint(FOLDER, device="cpu")
    gains = []
    for source, target in people.pairs[::2]:
        truth, copy = people.photograph(target).astype(float), people.photograph(source)
        result = np.asarray(
            transfer.transfer(
                people.folder / source,
                people.keypoints[target],
                source_keypoints=people.keypoints[source],
            )
        )
        errors = [((picture - truth) ** 2).mean() for picture in (copy, result)]
        gains.append(10 * np.log10(errors[0] / errors[1]))
    assert np.mean(gains) > 6  # dB; the card says 9 on 250 pairs


def test_the_shipped_file_is_half_precision_and_small():
    path = FOLDER / "latest_net_G.safetensors"
    state = checkpoint.load(path)
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert path.stat().st_size < 24e6
    assert "MIT" in (FOLDER / "README.md").read_text()
