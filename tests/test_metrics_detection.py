"""The detection score on made SSD300 weights, and LPIPS on VGG: networks of some size."""

import lpips
import numpy as np
import pytest
import torch
from torchvision.models.detection import ssd300_vgg16

from tests.metric_helpers import made_backbone, make_folders, picture
from util.metrics.evaluate import evaluate_folder
from util.metrics.networks import (
    WeightStore,
    build_detector,
    build_lpips,
    lpips_distances,
    person_scores,
)
from util.metrics.protocols import LPIPS, find_protocol
from util.metrics.registry import Settings


def test_the_score_is_that_of_the_best_detection_of_the_person_label():
    labels, scores = torch.tensor([3, 1, 1]), torch.tensor([0.9, 0.4, 0.6])
    found = [{"labels": labels[:n], "scores": scores[:n]} for n in (3, 1)]
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert person_scores(lambda inputs: found, "cpu", images) == pytest.approx([0.6, 0])


@pytest.mark.slow
def test_detection_score_is_the_mean_of_the_best_person_of_torchvisions_ssd300(tmp_path):
    torch.manual_seed(0)
    network = ssd300_vgg16(
        weights=None, weights_backbone=None, score_thresh=0.05, nms_thresh=0.5,
        detections_per_img=20,
    ).eval()  # fmt: skip
    for layer in network.head.classification_head.module_list:
        layer.bias.data.view(-1, 91)[:, 1] = 3.0  # some persons everywhere
    path = tmp_path / "ssd.pth"
    torch.save(network.state_dict(), path)
    images = np.stack([picture(i) for i in range(2)])
    inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found = network(list(inputs))
    expected = [float(one["scores"][one["labels"] == 1].max()) for one in found]
    detector = build_detector(WeightStore({"ssd300": path}))
    scores = person_scores(detector, "cpu", torch.from_numpy(images))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)

    folders = make_folders(tmp_path, count=2)
    evaluation = evaluate_folder(
        folders["--distorated_path"], folders["--gt_path"], None, [find_protocol("magpt")],
        ["detection_score"], Settings(weights={"ssd300": path}),
    )  # fmt: skip
    (score,) = evaluation.scores
    assert score.column == "magpt.detection_score_ssd300vgg16"
    assert score.count == 2
    assert 0.05 < score.value < 1


@pytest.mark.slow
@pytest.mark.parametrize("version", ["0.0", "0.1"])
def test_lpips_on_vgg_equals_the_lpips_package(tmp_path, version):
    path = made_backbone(tmp_path / "vgg.pth", "vgg")
    state = torch.load(path, weights_only=True)
    theirs = lpips.LPIPS(net="vgg", version=version, pnet_rand=True, verbose=False)
    own = theirs.net.state_dict()
    theirs.net.load_state_dict({k: state["features." + k.split(".", 1)[1]] for k in own})
    gt, pred = (torch.from_numpy(picture(i).copy())[None] for i in (0, 1))
    with torch.no_grad():
        pair = [x.permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (gt, pred)]
        expected = float(theirs(*pair))
    network = build_lpips(LPIPS("vgg", version), WeightStore({"vgg": path}))
    assert lpips_distances(network, gt, pred) == pytest.approx(expected, rel=1e-6)
