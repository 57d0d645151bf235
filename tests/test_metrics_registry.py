"""The table of protocols and the registry of metrics."""

import sys

import pytest

import util.metrics
from script.metrics import main
from tests.metric_helpers import arguments, make_folders, picture
from util.errors import UserError
from util.metrics import registry
from util.metrics.networks import WEIGHTS
from util.metrics.pairs import higher_is_better, score_pairs
from util.metrics.protocols import PROTOCOLS, find_protocol
from util.metrics.registry import columns_for, list_metrics

PLUGIN = """
from util.metrics.registry import Column, register_metric


def brightness(gt, pred):
    return float(abs(gt.mean() - pred.mean()))


@register_metric("brightness")
def columns(protocol):
    return [Column("brightness", "difference of mean values", brightness, False)]
"""


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_metric_has_named_and_described_columns_in_every_protocol(name):
    seen = {}
    for metric in list_metrics():
        for column in columns_for(find_protocol(name), [metric]):
            assert column.name not in seen, f"{metric} and {seen[column.name]}"
            seen[column.name] = metric
            assert column.definition
            assert callable(column.scorer or column.settings)
    assert set(PROTOCOLS[name].defaults) <= set(list_metrics())


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_deviation_from_a_protocol_changes_its_label(name):
    protocol = find_protocol(name)
    assert protocol.label == name
    assert find_protocol(name, market=True).label == f"{name}-market"
    other = "keep" if protocol.fid.remainder == "drop" else "drop"
    changed = find_protocol(name, remainder=other)
    assert changed.label == f"{name}-{other}"
    assert {d.remainder for d in changed.lpips.values()} == {other}
    assert find_protocol(name, remainder=protocol.fid.remainder) == protocol


def test_weight_files_are_the_published_ones_with_their_hashes():
    assert {key: weight.name for key, weight in WEIGHTS.items()} == {
        "alex": "alexnet-owt-7be5be79.pth",
        "vgg": "vgg16-397923af.pth",
        "squeeze": "squeezenet1_1-b8a52dc0.pth",
        "torchvision": "inception_v3_google-0cc3c7bd.pth",
        "pytorch-fid": "pt_inception-2015-12-05-6726825d.pth",
        "ssd300": "ssd300_vgg16_coco-b556d3b4.pth",
    }
    for weight in WEIGHTS.values():
        assert weight.name.endswith(f"-{weight.sha256}.pth")


def test_a_metric_is_one_new_file(tmp_path, monkeypatch):
    (tmp_path / "brightness.py").write_text(PLUGIN)
    monkeypatch.setattr(util.metrics, "__path__", [*util.metrics.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))
    try:
        assert "brightness" in list_metrics()
        assert score_pairs([(picture(0), picture(0))], metrics=["brightness"]) == {"brightness": 0}
        folders = make_folders(tmp_path / "data", count=2)
        assert main(arguments(folders, "--metrics", "brightness", "--name", "run")) == 0
    finally:
        sys.modules.pop("util.metrics.brightness", None)


def test_direction_of_a_column_is_known_for_choosing_the_best_checkpoint():
    assert higher_is_better("psnr")
    assert higher_is_better("ssim_256")
    assert not higher_is_better("lpips")
    assert not higher_is_better("fid", "standard")
    with pytest.raises(UserError, match="there is no column 'ssim_256'; choose from"):
        higher_is_better("ssim_256", "standard")


def test_two_metrics_cannot_share_a_name():
    with pytest.raises(ValueError, match="two metrics are called 'psnr'"):
        registry.register_metric("psnr")(lambda protocol: [])
