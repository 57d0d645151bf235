"""Where a result comes from: attention maps, flow arrows, gates, the page and the table."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from api import PoseTransfer
from models import create_model
from models.networks.dptn import DPTNConfig, DPTNGenerator
from models.networks.pose2pose import Pose2PoseConfig, Pose2PoseGenerator
from models.networks.ptm import PoseTransformerModule, TextureTransferBlock
from script import attention as command
from tests.browser import Browser, needs_chromium
from tests.helpers import random_batch, train_options
from tests.live_page import LivePage
from tests.view_folders import write_folder
from util.errors import UserError
from util.run import checkpoint
from util.show import attention as show

FRAME = (256, 176)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@torch.no_grad()
def test_the_weights_of_a_block_are_the_softmax_computed_by_hand():
    torch.manual_seed(0)
    heads, dim = 2, 8
    block = TextureTransferBlock(dim, heads).eval()
    t, memory, texture = torch.randn(3, 2, 12, dim)
    _, weights = block(t, memory, texture, need_weights=True)
    queries = block.norm1(t + block.self_attn(t, t, t, need_weights=False)[0])
    packed, bias = block.multihead_attn.in_proj_weight, block.multihead_attn.in_proj_bias
    q = (queries @ packed[:dim].T + bias[:dim]).double().numpy()
    k = (memory @ packed[dim : 2 * dim].T + bias[dim : 2 * dim]).double().numpy()
    assert weights.shape == (2, heads, 12, 12)
    for head in range(heads):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        scores = q[:, :, part] @ k[:, :, part].transpose(0, 2, 1) / np.sqrt(dim / heads)
        assert np.abs(softmax(scores) - weights[:, head].numpy()).max() <= 1e-6


@torch.no_grad()
def test_maps_are_laid_out_row_by_row_and_sum_to_one():
    torch.manual_seed(0)
    module = PoseTransformerModule(8, 2, 1, 2).eval()
    features = torch.randn(3, 1, 8, 3, 4)
    plain = module(*features)
    out, weights = module(*features, need_weights=True)
    assert torch.allclose(plain, out, atol=1e-5)
    assert [w.shape for w in weights] == [(1, 2, 3, 4, 3, 4)] * 2
    for of_block in weights:
        assert torch.allclose(of_block.sum(dim=(-2, -1)), torch.ones(1, 2, 3, 4), atol=1e-6)
    key, query, value = (f.flatten(2).transpose(1, 2) for f in features)
    memory = module.encoder(key)
    _, flat = module.decoder.layers[0](query, memory, value, need_weights=True)
    assert torch.equal(weights[0][0, 1, 2, 1, 1, 3], flat[0, 1, 2 * 4 + 1, 1 * 4 + 3])


@torch.no_grad()
def test_asking_for_weights_changes_neither_images_nor_state():
    torch.manual_seed(0)
    image, poses = torch.randn(1, 3, 32, 32), torch.rand(2, 1, 18, 32, 32)
    for network in (DPTNGenerator(DPTNConfig(ngf=4)), Pose2PoseGenerator(Pose2PoseConfig(4))):
        network.eval()
        keys = list(network.state_dict())
        told, _ = network(image, *poses, need_weights=True)
        silent = network(image, *poses)
        silent = silent[0] if isinstance(silent, tuple) else silent
        assert torch.allclose(told, silent, atol=1e-5)
        assert list(network.state_dict()) == keys


def model_of(tmp_path, name, **values):
    opt = train_options(
        model=name, loadSize=64, old_size=FRAME, ngf=8, ndf=4, gpu_ids=-1,
        checkpoints_dir=tmp_path, name="run", vgg_width=0.05, **values,
    )  # fmt: skip
    network = create_model(opt)
    network.eval_mode()
    return network


@pytest.mark.parametrize(("name", "attention", "flows", "gates"), [
    ("DPTN", [(2, 2, 8, 8, 8, 8)] * 2, [], []),
    ("poseflownet", [], [(2, 2, 8, 8), (2, 2, 16, 16)], []),
    ("pose", [], [(2, 2, 8, 8), (2, 2, 16, 16)], []),
    ("pose2pose", [], [], [(2, 128, 4, 4), (2, 64, 8, 8), (2, 32, 16, 16), (2, 16, 32, 32)]),
])  # fmt: skip
def test_every_model_explains_the_image_it_generates(name, attention, flows, gates, tmp_path):
    network = model_of(tmp_path, name)
    inputs = network.prepare(random_batch(2, (64, 64)))
    found, image = network.explain(inputs), network.infer(inputs)["fake_target"]
    assert torch.allclose(found.fake_target, image, atol=1e-5)
    assert [tuple(x.shape) for x in found.attention] == attention
    assert [tuple(x.shape) for x in found.flows] == flows
    assert [tuple(x.shape) for x in found.gates] == gates
    assert all(((gate >= 0) & (gate <= 1)).all() for gate in found.gates)


def test_the_step_model_says_that_it_explains_nothing(tmp_path):
    network = model_of(tmp_path, "DPTN_step")
    with pytest.raises(UserError, match="DPTN_step has nothing that says where"):
        network.explain({})


def test_a_point_reads_the_map_of_the_cell_it_lies_in():
    attention = np.arange(4 * 2 * 3 * 3, dtype=float).reshape(4, 2, 3, 3)
    assert np.array_equal(show.maps_at(attention, (0, 0), (40, 20)), attention[0, 0])
    assert np.array_equal(show.maps_at(attention, (39.9, 10), (40, 20)), attention[3, 1])
    assert np.array_equal(show.maps_at(attention, (60, -5), (40, 20)), attention[3, 0])


def test_the_peak_of_a_map_is_the_middle_of_its_largest_cell():
    source_map = np.zeros((4, 8))
    source_map[2, 5] = 1
    assert show.peak(source_map, (40, 80)) == pytest.approx([25, 55])
    source_map[2, 6] = 1
    assert show.peak(source_map, (40, 80)) == pytest.approx([25, 60])


def test_mass_within_a_disc():
    even, middle = np.ones((8, 8)) / 64, show.disc(np.array([32.0, 32.0]), 8, (64, 64))
    share = show.fine_map(even, (64, 64))[middle].sum()
    assert share == pytest.approx(np.pi * 64 / 64**2, rel=0.05)
    peaked = np.zeros((32, 32))
    peaked[16, 16] = 1  # 2 x 2 pixels around (33, 33), spread bilinearly over 4 x 4
    fine = show.fine_map(peaked, (64, 64))
    assert fine[show.disc(np.array([33.0, 33.0]), 4, (64, 64))].sum() == pytest.approx(1)
    assert fine[show.disc(np.array([10.0, 10.0]), 4, (64, 64))].sum() == 0


def test_a_flow_leads_from_the_target_to_the_source():
    flow = np.zeros((2, 4, 8))
    flow[:, 1, 2] = (3, -1)  # three cells to the right, one up
    origin = show.flow_source(flow, np.array([15.0, 25.0]), (40, 80))
    assert origin == pytest.approx([5, 55])


def case_of(attention=None, flows=(), shift=0):
    """A case whose joints lie on a diagonal, in the source ``shift`` pixels further right."""
    points = np.stack([np.arange(18) * 12.0 + 20, np.arange(18) * 6.0 + 20], axis=1)
    own = points + np.array([0, shift])
    own[3] = -1
    picture = np.full((*FRAME, 3), 128, np.uint8)
    attention = None if attention is None else attention[None]
    return command.Case("title", picture, picture, FRAME, own, points, attention, list(flows), [])


def test_joint_masses_tell_attention_on_the_joint_from_attention_elsewhere():
    cells = (32, 22)
    looks = np.zeros((1, *cells, *cells), np.float32)
    for row in range(32):
        for column in range(22):
            looks[0, row, column, row, column] = 1  # every position looks at its own place
    near = command.joint_masses(case_of(looks))
    assert set(near) == set(range(18)) - {3}
    assert min(share for share, _ in near.values()) > 0.95
    radius = 0.1 * 17 * 12
    even = np.pi * radius**2 / (256 * 176)
    assert near[9][1] == pytest.approx(even, rel=0.05)
    far = command.joint_masses(case_of(looks, shift=60))
    assert max(share for share, _ in far.values()) < 0.01


def test_joint_masses_of_a_flow_count_the_points_that_it_hits():
    flow = np.zeros((2, 64, 44), np.float32)
    flow[0] = 10  # ten cells of four pixels to the right
    assert {
        share for share, _ in command.joint_masses(case_of(flows=[flow], shift=40)).values()
    } == {1}
    assert {share for share, _ in command.joint_masses(case_of(flows=[flow])).values()} == {0}


def test_heat_is_hottest_where_the_map_is():
    source_map = np.full((4, 4), 0.01)
    source_map[1, 2] = 1
    hot = show.heat(np.full((64, 64, 3), 100, np.uint8), source_map).astype(int)
    assert hot[24, 40].sum() > hot[60, 4].sum() + 200


def test_the_page_holds_every_map(tmp_path):
    rng = np.random.default_rng(0)
    attention = rng.random((2, 2, 3, 4, 3, 4)).astype(np.float32)
    attention /= attention.sum(axis=(-2, -1), keepdims=True)
    picture = np.zeros((30, 40, 3), np.uint8)
    show.write_page(tmp_path / "page.html", "</script><b>title", picture, picture, attention)
    text = (tmp_path / "page.html").read_text()
    assert "<b>title" not in text
    assert "http://" not in text
    found = re.search(r'<script id="content" type="application/json">(.*?)</script>', text, re.S)
    content = json.loads(found[1])
    assert [m["name"] for m in content["maps"]][1] == "block 1, head 2"
    levels = np.frombuffer(base64.b64decode(content["maps"][1]["levels"]), np.uint8)
    tops = np.frombuffer(base64.b64decode(content["maps"][1]["tops"]), "<f4")
    again = levels.reshape(12, 12) / 255 * tops.reshape(12, 1)
    assert np.abs(again - attention[0, 1].reshape(12, 12)).max() <= tops.max() / 255


# ---- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    """A folder of chairs and the checkpoint of an untrained DPTN for it."""
    root = tmp_path_factory.mktemp("attention")
    data = write_folder(root / "chairs")
    opt = train_options(
        dataset_mode="view", dataroot=data, loadSize=32, ngf=4, ndf=4, gpu_ids=-1,
        checkpoints_dir=root, name="run", vgg_width=0.05,
    )  # fmt: skip
    network = create_model(opt)
    (root / "run").mkdir()
    network.save_networks("latest")
    (root / "run" / "train_opt.json").write_text(json.dumps(vars(opt)))
    return root


def test_a_pair_of_objects_is_explained_at_a_grid_of_points(chairs, tmp_path, capsys):
    words = ["--checkpoint", chairs / "run", "--dataroot", chairs / "chairs", "--pair", "5"]
    words += ["--grid", "2", "--html", "--device", "cpu", "-o", tmp_path / "out"]
    command.main([str(word) for word in words])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "figure.png", "maps.png", "page.html",
    ]  # fmt: skip
    with Image.open(tmp_path / "out" / "maps.png") as sheet:
        assert sheet.size == (6 * 256 + 5 * 4, 14 + 4 * 256 + 3 * 4)
    assert "chair_2_0_0.png to chair_2_10_0.png: written" in capsys.readouterr().out


BAD = {
    "nothing to look at": ([], "expected one of: --source with --pose"),
    "two things to look at": (["--pair", "1", "--table", "2"], "expected one of: --source"),
    "no pose": (["--source", "me.jpg"], "--source needs --pose"),
    "no data": (["--pair", "1"], "--pair needs --dataroot"),
    "a lonely number": (["--pair", "0", "--dataroot", "DATA", "--points", "1"], "has 1 numbers"),
    "a point outside": (
        ["--pair", "0", "--dataroot", "DATA", "--points", "1", "32"], "outside the result",
    ),
    "points and grid": (
        ["--pair", "0", "--dataroot", "DATA", "--points", "1", "2", "--grid", "2"],
        "--points and --grid both choose",
    ),
    "no such pair": (["--pair", "36", "--dataroot", "DATA"], "has the pairs 0 to 35"),
    "joints of chairs": (["--table", "2", "--dataroot", "DATA"], "--table compares joints"),
    "a folder that is a picture": (
        ["--pair", "0", "--dataroot", "DATA", "-o", "x.png"], "expected a folder, into which",
    ),
    "a photo of a person": (["--source", "me.jpg", "--pose", "p.json"], "turns objects"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_commands_are_one_sentence(case, chairs, tmp_path):
    words, sentence = BAD[case]
    words = [str(chairs / "chairs") if word == "DATA" else word for word in words]
    with pytest.raises(UserError, match=re.escape(sentence)):
        command.main(
            ["--checkpoint", str(chairs / "run"), "--device", "cpu", "-o", str(tmp_path), *words]
        )


def test_a_table_compares_trained_and_untrained(tmp_path, monkeypatch):
    network = model_of(tmp_path, "DPTN")
    fresh = model_of(tmp_path, "DPTN")
    monkeypatch.setattr(command, "untrained", lambda model: fresh)
    batch = random_batch(3, (64, 64))
    samples = [{key: value[i] for key, value in batch.items()} for i in range(3)]
    rows = command.mass_table(network, samples, 2)
    assert rows[-1][:2] == ["all joints", 2 * 17]  # one joint is missing everywhere
    assert all(0 < share < 1 for row in rows for share in row[2:])
    command.write_table(rows, tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0] == "joint,pairs,trained,untrained,even"
    assert len(lines) == 1 + 17 + 1


def test_an_untrained_network_differs_from_the_trained_one_and_draws_nothing(tmp_path):
    network = model_of(tmp_path, "DPTN")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fresh = command.untrained(network)
    assert torch.equal(torch.get_rng_state(), before)
    one, other = (m.networks["G"].state_dict() for m in (network, fresh))
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[key], other[key]) for key in one)
    checkpoint.save_state(fresh.networks["G"].state_dict(), tmp_path / "latest_net_G.pth")


def test_a_checkpoint_of_objects_is_no_pose_transfer(chairs):
    with pytest.raises(UserError, match="turns objects and knows no poses of people"):
        PoseTransfer.from_checkpoint(chairs / "run", device="cpu")


@needs_chromium
def test_a_click_on_the_page_shows_where_the_point_was_taken_from(tmp_path):
    rows, columns = 4, 5
    attention = np.zeros((1, 2, rows, columns, rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            attention[0, :, row, column, row, columns - 1 - column] = 1  # mirrored
    picture = np.full((120, 150, 3), 90, np.uint8)
    show.write_page(tmp_path / "page.html", "a page", picture, picture, attention)
    with Browser() as browser:
        page = LivePage(browser, (tmp_path / "page.html").as_uri())
        page.wait("document.getElementById('told').textContent != 'source'")
        box = page.value(
            "(b => [b.left, b.top, b.width, b.height])"
            "(document.getElementById('result').getBoundingClientRect())"
        )
        at = box[0] + box[2] * 0.5 / columns, box[1] + box[3] * 2.5 / rows  # row 2, column 0
        for kind in ("mousePressed", "mouseReleased"):
            page.call(
                "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1
            )
        told = page.value("document.getElementById('told').textContent")
        assert told == "source: most from the dot, 100.0 % of one cell (even: 5.0 %)"
        dot = page.value(
            "(c => [...c.getContext('2d').getImageData("
            f"c.width * 4.5 / {columns}, c.height * 2.5 / {rows}, 1, 1).data])"
            "(document.getElementById('source'))"
        )
        assert dot[:3] == [0, 229, 255]
        assert page.problems() == []
        page.close()
