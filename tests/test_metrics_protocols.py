"""Protocols against a direct evaluation of their published scripts, written out once more here."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchvision.models import inception_v3

from tests.metric_helpers import made_backbone, made_inception, make_folders, noisy, picture
from tests.test_metrics_networks import low_rank_frechet
from util.metrics.evaluate import evaluate_folder
from util.metrics.networks import InceptionFeatures, WeightStore, build_lpips
from util.metrics.protocols import LPIPS, PYTORCH_FID, find_protocol
from util.metrics.registry import Settings

COUNT, BATCH = 6, 4


def measured(folders, protocol, metrics, weights) -> dict:
    paths = [folders[k] for k in ("--distorated_path", "--gt_path", "--fid_real_path")]
    settings = Settings(weights=weights, batch_size=5)
    evaluation = evaluate_folder(*paths, [protocol], metrics, settings)
    assert not evaluation.refused
    return {score.column.split(".")[1]: score for score in evaluation.scores}


def images(folder) -> list[np.ndarray]:
    """What OpenCV reads, as RGB."""
    return [cv2.imread(str(path))[..., ::-1] for path in sorted(Path(folder).iterdir())]


def test_nted_pidm_is_what_pidms_script_computes(tmp_path):
    """Files as they are for SSIM and PSNR; FID and LPIPS after cv2.resize, whole batches only."""
    folders = make_folders(tmp_path, COUNT, COUNT, size=(96, 96))
    alex = made_backbone(tmp_path / "alex.pth", "alex")
    weights = {"alex": alex, "torchvision": made_inception(tmp_path / "inception.pth")}
    protocol = find_protocol("nted_pidm")
    assert (protocol.lpips["lpips"].batch, protocol.fid.batch) == (64, 64)
    protocol = replace(
        protocol,
        lpips={"lpips": replace(protocol.lpips["lpips"], batch=BATCH)},
        fid=replace(protocol.fid, batch=BATCH),
    )
    found = measured(folders, protocol, ["psnr", "ssim", "lpips", "fid"], weights)

    gt, fake, real = (
        images(folders[k]) for k in ("--gt_path", "--distorated_path", "--fid_real_path")
    )
    pairs = [(a / 255.0, b / 255.0) for a, b in zip(gt, fake, strict=True)]
    psnr = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs]
    ssim = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.2, use_sample_covariance=False, channel_axis=-1,
            data_range=b.max() - b.min(),
        )
        for a, b in pairs
    ]  # fmt: skip
    assert found["psnr"].value == pytest.approx(np.mean(psnr), abs=1e-9)
    assert found["ssim"].value == pytest.approx(np.mean(ssim), abs=1e-9)

    def resized(pictures, count):
        small = [cv2.resize(np.ascontiguousarray(p), (176, 256)) for p in pictures[:count]]
        return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float()

    whole = COUNT // BATCH * BATCH
    network = build_lpips(LPIPS(), WeightStore(weights))
    with torch.no_grad():
        distances = network(resized(gt, whole) / 127.5 - 1, resized(fake, whole) / 127.5 - 1)
    assert found["lpips"].count == whole
    assert found["lpips"].value == pytest.approx(float(distances.mean()), rel=1e-5)

    network = inception_v3(weights=None, init_weights=False, transform_input=False)
    network.load_state_dict(torch.load(weights["torchvision"], weights_only=True))
    network.fc = nn.Identity()
    network.eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    features = []
    for pictures in (real, fake):
        x = nn.functional.interpolate(resized(pictures, whole) / 255, (299, 299), mode="bilinear")
        x = x * (std / 0.5).view(3, 1, 1) + ((mean - 0.5) / 0.5).view(3, 1, 1)
        with torch.no_grad():
            features.append(network(x).numpy())
    assert found["fid"].count == whole
    assert found["fid"].value == pytest.approx(low_rank_frechet(*features), rel=1e-4)


def test_patn_is_what_patns_script_computes(tmp_path):
    """White columns before SSIM, L1 and Inception score; L1 of values in [-1, 1]."""
    folders = make_folders(tmp_path, 12, 2, size=(64, 44))
    weights = {"pytorch-fid": made_inception(tmp_path / "tf.pth", tensorflow=True)}
    found = measured(folders, find_protocol("patn"), ["ssim", "l1", "inception_score"], weights)

    sides = ((0, 0), (10, 10), (0, 0))
    gt, fake = (
        [np.pad(image, sides, constant_values=255) for image in images(folders[k])]
        for k in ("--gt_path", "--distorated_path")
    )
    ssim, l1 = [], []
    for a, b in zip(gt, fake, strict=True):
        ssim.append(
            structural_similarity(
                a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                channel_axis=-1, data_range=int(b.max()) - int(b.min()),
            )
        )  # fmt: skip
        l1.append(np.abs(2 * (a / 255.0 - 0.5) - 2 * (b / 255.0 - 0.5)).mean())
    assert found["ssim"].value == pytest.approx(np.mean(ssim), abs=1e-6)  # theirs in float32
    assert found["l1"].value == pytest.approx(np.mean(l1), abs=1e-12)
    assert found["l1"].definition.startswith("mean |a - b| of values in [-1, 1]")

    network = InceptionFeatures(PYTORCH_FID, WeightStore(weights))
    logits = network.logits(network(torch.from_numpy(np.stack(fake))), bias=False)
    p = torch.softmax(logits.double(), 1).numpy()
    scores = []
    for i in range(10):
        part = p[i * len(p) // 10 : (i + 1) * len(p) // 10]
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(np.exp(divergence.sum(1).mean()))
    assert found["inception_score"].value == pytest.approx(np.mean(scores), rel=1e-6)
    assert "white-padded" in found["inception_score"].definition


def test_every_png_is_decoded_once_by_a_metric_of_two_images(tmp_path, monkeypatch):
    folders = make_folders(tmp_path, 3, 3)
    decoded, load = [], PngImageFile.load

    def counted(file):
        if file.tile:  # not decoded yet
            decoded.append(file.filename)
        return load(file)

    monkeypatch.setattr(PngImageFile, "load", counted)
    paths = [folders[k] for k in ("--distorated_path", "--gt_path")]
    evaluate_folder(*paths, None, [find_protocol("dptn")], ["psnr"], Settings())
    assert len(decoded) == len(set(decoded)) == 6


def test_images_upright_by_exif_are_of_the_size_that_is_seen(tmp_path):
    folders = make_folders(tmp_path, 1, 1)
    turned = Image.fromarray(np.rot90(noisy(picture(0), 0)).copy())
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it
    turned.save(Path(folders["--distorated_path"]) / "s_2_t00_vis.png", exif=exif)
    paths = [folders[k] for k in ("--distorated_path", "--gt_path")]
    evaluation = evaluate_folder(*paths, None, [find_protocol("dptn")], ["l1"], Settings())
    assert evaluation.images["results"].sizes == {"44x64": 1}
    assert evaluation.scores[0].value < 0.1
