"""LPIPS, FID, KID and Inception score against their libraries and formulas, on made weights."""

import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_fid import inception as pytorch_fid_inception
from pytorch_fid.fid_score import calculate_frechet_distance
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torchvision.models import inception_v3

from tests.metric_helpers import made_backbone, made_inception, make_folders, noisy, picture
from util.metrics.evaluate import evaluate_folder
from util.metrics.networks import (
    InceptionFeatures,
    WeightStore,
    build_lpips,
    lpips_distances,
)
from util.metrics.pairs import score_pairs
from util.metrics.protocols import (
    FID,
    KID,
    LPIPS,
    PYTORCH_FID,
    TORCHVISION_HISTORICAL,
    InceptionScore,
    find_protocol,
    kept,
)
from util.metrics.registry import MetricUnavailableError, Settings, Task, columns_for
from util.metrics.sets import Features, Moments, SplitScores, frechet_distance, squared_mmd


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    return made_inception(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture(scope="module")
def magpt_golden():
    with np.load(Path(__file__).parent / "golden" / "magpt_metrics.npz") as arrays:
        return dict(arrays)


def features(seed: int, count: int, width: int = 12) -> np.ndarray:
    random = np.random.RandomState(seed)
    return random.standard_normal((count, width)) @ random.standard_normal((width, width)) + 3


def moments(rows: np.ndarray, limit: int | None = None, batch: int = 7) -> Moments:
    running = Moments(FID(PYTORCH_FID), len(rows) if limit is None else limit)
    for start in range(0, len(rows), batch):
        running.add(torch.from_numpy(rows[start : start + batch]))
    return running


def test_running_moments_equal_mean_and_covariance_of_all_rows():
    rows = features(0, 50) + 1e4  # a large mean must not cost digits
    running = moments(rows)
    assert running.count == 50
    np.testing.assert_allclose(running.mean, rows.mean(0), rtol=1e-13)
    np.testing.assert_allclose(running.covariance(), np.cov(rows, rowvar=False), rtol=1e-8)


def test_running_moments_stop_at_the_limit():
    rows = features(0, 50)
    running = moments(rows, limit=40)
    np.testing.assert_allclose(running.covariance(), np.cov(rows[:40], rowvar=False), rtol=1e-10)


def test_frechet_distance_of_equal_gaussians_is_zero():
    covariance = np.cov(features(1, 40), rowvar=False)
    assert frechet_distance(np.ones(12), covariance, np.ones(12), covariance) == pytest.approx(
        0, abs=1e-9
    )


def test_frechet_distance_of_equal_covariances_is_the_squared_distance_of_means():
    covariance = np.cov(features(1, 40), rowvar=False)
    value = frechet_distance(np.zeros(12), covariance, np.full(12, 2.0), covariance)
    assert value == pytest.approx(48, abs=1e-9)


def test_frechet_distance_of_commuting_covariances_has_a_closed_form():
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 4.0])
    value = frechet_distance(np.zeros(3), np.diag(a), np.zeros(3), np.diag(b))
    assert value == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), abs=1e-12)


def test_frechet_distance_equals_pytorch_fid_on_the_same_features():
    a, b = features(2, 60), features(3, 50)
    expected = calculate_frechet_distance(
        a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)
    )
    value, _, details = moments(b).result(real=moments(a))
    assert value == pytest.approx(float(expected), rel=1e-9)
    assert details["real_count"] == 60


def test_frechet_distance_of_fewer_images_than_dimensions_is_exact():
    a, b = features(4, 5, width=30), features(5, 6, width=30)
    value, _, details = moments(b).result(moments(a))
    assert value == pytest.approx(low_rank_frechet(a, b), rel=1e-9)
    assert "fewer images" in details["note"]


def low_rank_frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance from centred rows: tr (C1 C2)^(1/2) is the nuclear norm of A B^T."""
    centred_a, centred_b = (
        (x - x.mean(0)).astype(np.float64) / np.sqrt(len(x) - 1) for x in (a, b)
    )
    nuclear = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    means = ((a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)) ** 2).sum()
    return float(means + (centred_a**2).sum() + (centred_b**2).sum() - 2 * nuclear)


@pytest.mark.parametrize(
    ("count", "remainder", "expected"),
    [(130, "drop", 128), (130, "keep", 130), (20, "drop", 20), (64, "drop", 64), (0, "drop", 0)],
)
def test_whole_batches_are_kept_and_a_small_set_is_one_batch(count, remainder, expected):
    assert kept(count, FID(TORCHVISION_HISTORICAL, 64, remainder)) == expected


def _paper_features(path, folder) -> np.ndarray:
    """Section 5.2 of the DPTN specification, written out with torchvision alone."""
    network = inception_v3(weights=None, init_weights=False, transform_input=False)
    network.load_state_dict(torch.load(path, weights_only=True))
    network.fc = torch.nn.Identity()
    network.eval()
    images = [np.asarray(Image.open(p)) for p in sorted(folder.iterdir())]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = x * (std / 0.5).view(3, 1, 1) + ((mean - 0.5) / 0.5).view(3, 1, 1)
    with torch.no_grad():
        return network(x).numpy()


def test_paper_fid_equals_the_formula_with_the_remainder_dropped_or_kept(tmp_path, inception_file):
    make_folders(tmp_path, count=6, real=7)
    real, fake = (_paper_features(inception_file, tmp_path / d) for d in ("real", "results"))
    settings = Settings(weights={"torchvision": inception_file}, batch_size=3)
    values = {}
    for remainder in ("drop", "keep"):
        protocol = find_protocol("dptn", remainder=remainder)
        protocol = replace(protocol, fid=replace(protocol.fid, batch=4))
        folders = (tmp_path / "results", tmp_path / "gt", tmp_path / "real")
        evaluation = evaluate_folder(*folders, [protocol], ["fid"], settings)
        assert not evaluation.refused
        values[evaluation.scores[0].column] = evaluation.scores[0]
    dropped, everything = values["dptn.fid"], values["dptn-keep.fid"]
    assert (dropped.count, dropped.details["real_count"]) == (4, 4)
    assert (everything.count, everything.details["real_count"]) == (6, 7)
    assert dropped.value == pytest.approx(low_rank_frechet(real[:4], fake[:4]), rel=1e-4)
    assert everything.value == pytest.approx(low_rank_frechet(real, fake), rel=1e-4)
    assert dropped.value != pytest.approx(everything.value, rel=1e-3)


def test_standard_features_and_logits_equal_those_of_pytorch_fid(tmp_path, monkeypatch):
    path = made_inception(tmp_path / "fid.pth", tensorflow=True)
    state = torch.load(path, weights_only=True)
    monkeypatch.setattr(
        pytorch_fid_inception, "load_state_dict_from_url", lambda url, progress: dict(state)
    )
    theirs = pytorch_fid_inception.InceptionV3([3]).eval()
    network = InceptionFeatures(PYTORCH_FID, WeightStore({"pytorch-fid": path}))
    images = torch.from_numpy(np.stack([picture(0), picture(1)]))
    expected = theirs(images.permute(0, 3, 1, 2).float() / 255)[0].flatten(1)
    ours = network(images)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        network.logits(ours, bias=False), ours @ state["fc.weight"].T, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("version", ["0.0", "0.1"])
@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_equals_the_lpips_package_on_the_same_backbone(tmp_path, net, version):
    path = made_backbone(tmp_path / "backbone.pth", net)
    state = torch.load(path, weights_only=True)
    theirs = lpips.LPIPS(net=net, version=version, pnet_rand=True, verbose=False)
    own = theirs.net.state_dict()
    theirs.net.load_state_dict({k: state["features." + k.split(".", 1)[1]] for k in own})
    gt = np.stack([picture(i) for i in range(3)])
    pred = np.stack([noisy(image, 1) for image in gt])
    tensors = [torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (gt, pred)]
    with torch.no_grad():
        expected = theirs(*tensors).flatten().numpy()
    network = build_lpips(LPIPS(net, version), WeightStore({net: path}))
    ours = lpips_distances(network, torch.from_numpy(gt), torch.from_numpy(pred))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    name = f"lpips_{net}_v{version}"
    pairs = zip(gt, pred, strict=True)
    mean = score_pairs(pairs, metrics=[name], weights={net: path})[name]
    assert mean == pytest.approx(expected.mean(), rel=1e-5)


def test_measuring_lpips_leaves_the_random_state_alone(tmp_path):
    path = made_backbone(tmp_path / "alex.pth", "alex")
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    build_lpips(LPIPS(), WeightStore({"alex": path}))
    assert torch.equal(torch.rand(2), expected)


def test_mask_lpips_sees_grey_outside_the_mask(tmp_path):
    path = made_backbone(tmp_path / "alex.pth", "alex")
    network = build_lpips(LPIPS(), WeightStore({"alex": path}))
    gt, pred = (torch.from_numpy(picture(i))[None] for i in (0, 1))
    nothing = torch.zeros(1, *gt.shape[1:3], dtype=torch.bool)
    assert lpips_distances(network, gt, pred, nothing) == pytest.approx(0, abs=1e-7)
    everything = ~nothing
    assert lpips_distances(network, gt, pred, everything) == lpips_distances(network, gt, pred)


def test_a_weight_file_of_another_network_is_refused(tmp_path, inception_file):
    path = made_backbone(tmp_path / "squeeze.pth", "squeeze")
    with pytest.raises(MetricUnavailableError, match="backbone lacks"):
        build_lpips(LPIPS(), WeightStore({"alex": path}))
    with pytest.raises(MetricUnavailableError, match="does not fit"):
        InceptionFeatures(PYTORCH_FID, WeightStore({"pytorch-fid": inception_file}))


def _splits(logits: np.ndarray, **definition) -> np.ndarray:
    running = SplitScores(InceptionScore(PYTORCH_FID, **definition), len(logits))
    for start in range(0, len(logits), 6):
        running.add_logits(torch.from_numpy(logits[start : start + 6]))
    return running.scores()


@pytest.mark.parametrize("splits", [1, 3])
def test_inception_score_reproduces_the_recorded_values_of_magpt(magpt_golden, splits):
    scores = _splits(magpt_golden["is_logits"], splits=splits, drop_rest=True)
    expected = magpt_golden[f"is_splits{splits}"]
    np.testing.assert_allclose([scores.mean(), scores.std()], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shuffle", [False, True])
def test_inception_score_equals_torch_fidelity(magpt_golden, shuffle):
    logits = magpt_golden["is_logits"]
    scores = _splits(logits, splits=3, shuffle_seed=2020 if shuffle else None)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=3, shuffle=shuffle)
    assert scores.mean() == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert scores.std() == pytest.approx(theirs["inception_score_std"], rel=1e-9)


def test_kid_equals_torch_fidelity_on_the_same_features():
    a, b = features(6, 40).astype(np.float32), features(7, 30).astype(np.float32)
    kept_features = []
    for rows in (a, b):
        kept_features.append(Features(KID(PYTORCH_FID, subsets=5, subset_size=20), len(rows)))
        for start in range(0, len(rows), 9):
            kept_features[-1].add(torch.from_numpy(rows[start : start + 9]))
    mean, std, _ = kept_features[0].result(real=kept_features[1])
    theirs = kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=5,
        kid_subset_size=20,
        rng_seed=2020,
        verbose=False,
    )
    assert mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-5)


def test_values_of_a_batch_are_copied_and_let_go():
    parts, alive = [], []

    def measure(images: torch.Tensor) -> np.ndarray:
        alive.append(sum(part() is not None for part in parts))
        values = images.double().numpy() * 2
        parts.append(weakref.ref(values))
        return values

    evaluation = SimpleNamespace(pairs=list(range(7)), settings=Settings(batch_size=3))
    column = columns_for(find_protocol("magpt"), ["detection_score"])[0]
    task = Task(find_protocol("magpt"), [column], evaluation)
    values = task.measured(column, lambda i: (np.array(float(i)),), measure)
    assert values.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert max(alive) <= 1  # only the one that was copied last


def test_weights_that_are_no_numbers_are_named(tmp_path):
    path = made_backbone(tmp_path / "alex.pth", "alex")
    state = torch.load(path, weights_only=True)
    state["features.3.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, path)
    with pytest.raises(MetricUnavailableError, match=r"features\.3\.weight is not finite"):
        build_lpips(LPIPS(), WeightStore({"alex": path}))


def test_without_a_home_a_missing_weight_file_refuses_its_metric(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setenv("TORCH_HOME", "/dev/null/torch")
    with pytest.raises(MetricUnavailableError, match=r"AlexNet.*--alexnet_weights"):
        WeightStore(offline=True).load("alex")
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("must not download"))
    with pytest.raises(MetricUnavailableError, match=r"AlexNet cannot be kept in /dev/null/torch"):
        WeightStore().load("alex")


def test_kid_in_single_precision_keeps_six_digits():
    a, b = (np.abs(features(seed, 300, 64)).astype(np.float32) for seed in (8, 9))
    products = [x.astype(np.float64) @ y.astype(np.float64).T for x, y in ((a, a), (b, b), (a, b))]
    kernels = [(p / 64 + 1) ** 3 for p in products]
    own = [(k.sum() - np.trace(k)) / (300 * 299) for k in kernels[:2]]
    assert squared_mmd(a, b) == pytest.approx(sum(own) - 2 * kernels[2].mean(), rel=1e-6)
