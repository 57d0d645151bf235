"""Options: strict parsing, published spellings, saved with the checkpoint and taken from it."""

import json

import pytest
import torch

from options.parser import SYNONYMS, options_elsewhere
from options.test_options import TestOptions
from options.train_options import TrainOptions
from util.errors import UserError
from util.run import distributed

PUBLISHED_TRAIN = (
    "--name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion "
    "--batchSize 32 --gpu_id=0",
    "--name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market "
    "--dis_layers=3 --lambda_g=5 --lambda_rec 2 --t_s_ratio=0.8 --save_latest_freq=10400 "
    "--batchSize 32 --gpu_id=0",
)
PUBLISHED_TEST = (
    "--name=DPTN_fashion --model=DPTN --dataset_mode=fashion --dataroot=./dataset/fashion "
    "--which_epoch latest --results_dir ./results/DPTN_fashion --batchSize 1 --gpu_id=0",
    "--name=DPTN_market --model=DPTN --dataset_mode=market --dataroot=./dataset/market "
    "--which_epoch latest --results_dir=./results/DPTN_market --batchSize 1 --gpu_id=0",
)


def parse(words: str = "", options=TrainOptions):
    return options().parse(words.split())


@pytest.mark.parametrize("command", PUBLISHED_TRAIN)
def test_published_training_commands_parse_to_the_published_values(command):
    opt = parse(command)
    market = "market" in command
    assert opt.load_size == ((128, 64) if market else (256, 256))
    assert opt.annotation_size == ((128, 64) if market else (256, 176))
    assert (opt.batchSize, opt.lr, opt.beta1, opt.ratio_g2d) == (32, 2e-4, 0.5, 0.1)
    assert (opt.lambda_style, opt.lambda_content, opt.lambda_affi) == (500, 0.5, 100)
    assert (opt.init_type, opt.init_gain, opt.niter, opt.niter_decay) == (
        "orthogonal",
        0.02,
        100,
        100,
    )
    expected = (2, 5, 0.8, 3) if market else (5, 2, 0.5, 4)
    assert (opt.lambda_rec, opt.lambda_g, opt.t_s_ratio, opt.dis_layers) == expected
    assert opt.save_by_iter is market


@pytest.mark.parametrize("command", PUBLISHED_TEST)
def test_published_test_commands_parse(command, tmp_path):
    opt = parse(f"{command} --checkpoints_dir {tmp_path}", TestOptions)
    assert opt.batchSize == 1
    assert opt.results_dir.startswith("./results/DPTN_")


@pytest.mark.parametrize(
    ("spellings", "dest"),
    [
        (("--batchSize 3", "--batch_size 3", "--batchsize 3"), "batchSize"),
        (("--nThreads 3", "--num_workers 3", "--workers 3"), "nThreads"),
        (("--gpu_ids -1", "--gpu_id -1", "--gpu_ids=-1", "--device cpu"), "device"),
        (("--name x", "--id x", "--checkpoint ./checkpoints/x"), "name"),
        (("--loadSize 64", "--load_size 64", "--load_size 64 64"), "load_size"),
        (("--dis_layers 3", "--dis_layer 3", "--dis_layer=3"), "dis_layers"),
        (("--old_size 64 32", "--annotation_size 64 32"), "annotation_size"),
        (("--gan_mode wgangp", "--gan_mode wgan-gp"), "gan_mode"),
    ],
)
def test_every_published_spelling_means_the_same(spellings, dest):
    assert len({repr(getattr(parse(words), dest)) for words in spellings}) == 1


# Every published option that does something, with the published defaults.
PUBLISHED_DEFAULTS = (
    "--dataset_mode=fashion --checkpoints_dir=./checkpoints --gpu_ids=0 --batchSize=1 --nThreads=2 "
    "--loadSize=256 --phase=train --norm=instance --init_type=orthogonal --use_spect_d --nhead=2 "
    "--num_CABs=2 --num_TTBs=2 --dis_layers=4 --lambda_rec=5 --lambda_g=2 --lambda_style=500 "
    "--lambda_content=0.5 --lambda_affi=100 --t_s_ratio=0.5 --ratio_g2d=0.1 --lr=2e-4 --beta1=0.5 "
    "--lr_policy=lambda --niter=100 --niter_decay=100 --gan_mode=lsgan --which_epoch=latest "
    "--display_freq=200 --print_freq=200 --save_epoch_freq=1 --display_id=0"
)


def test_the_published_defaults_are_the_defaults():
    assert vars(parse(PUBLISHED_DEFAULTS)) == vars(parse())
    flags = parse("--serial_batches --max_dataset_size 40 --continue_train --debug")
    assert flags.serial_batches
    assert flags.continue_train
    assert flags.debug
    assert flags.max_dataset_size == 10  # --debug


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lambda_stile 3", "did you mean --lambda_style"),
        ("--batches 3", "unknown option --batches"),
        ("--resume", "unknown option --resume; here it is called --continue_train"),
        ("--n-epochs=3", "unknown option --n-epochs; here it is called --niter "),
        ("--learning_rate 3", "here it is called --lr "),
        ("--gan_mode lsgam", "expected one of .*did you mean lsgan"),
        ("--batchSize 0", "--batchSize: found 0, expected a whole number, 1 or more"),
        ("--batchSize many", "found many, expected a whole number"),
        ("--lr -1", "--lr: found -1.0, expected a finite number, more than 0"),
        ("--lr nan", "found nan, expected a finite number"),
        ("--lambda_rec -2", "expected a finite number, 0 or more"),
        ("--load_size 0 64", "1 to 4096"),
        ("--load_size 1 2 3", "height and width"),
        ("--name ../elsewhere", "single name without slashes"),
        ("--model dptm", "did you mean dptn"),
        ("--dataset_mode fashon", "did you mean fashion"),
        ("--gpu_ids first", "expected numbers"),
        (
            "--cuda_graphs --gpu_ids -1",
            "replays the work of a GPU, but the device is the CPU",
        ),
    ],
)
def test_a_wrong_option_is_one_sentence(words, message):
    with pytest.raises(UserError, match=message):
        parse(words)


def test_a_word_of_training_that_testing_calls_otherwise_is_translated():
    with pytest.raises(UserError, match="--continue_train; here it is called --resume"):
        parse("--continue_train", TestOptions)


def test_what_other_programs_call_it_leads_to_options_that_exist():
    known = set(options_elsewhere())
    assert {ours for words in SYNONYMS.values() for ours in words} - known == {"--output"}
    assert known & {f"--{word}" for word in SYNONYMS} == {"--resume", "--continue_train"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("--accumulate 2", "does not go with --accumulate 2: leave one of them out"),
        ("--gan_mode wgangp", "does not go with --gan_mode wgangp"),
    ],
)
def test_cuda_graphs_are_refused_where_they_would_not_hold(changed, message, monkeypatch):
    monkeypatch.setattr(distributed, "local_device", lambda word: torch.device("cuda:0"))
    assert parse("--cuda_graphs").cuda_graphs
    with pytest.raises(UserError, match=message):
        parse(f"--cuda_graphs {changed}")


def test_what_is_not_the_default_is_printed_and_everything_is_saved(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    options = TrainOptions()
    opt = options.parse(["--name", "run", "--lambda_style", "7", "--gpu_ids", "-1"])
    options.record(opt, tmp_path / "run")
    printed = capsys.readouterr().out.splitlines()
    text = (tmp_path / "run" / "train_opt.txt").read_text().splitlines()
    assert str(tmp_path / "run" / "train_opt.txt") in printed[0]
    assert [line.split()[0] for line in printed[1:]] == ["device:", "lambda_style:", "name:"]
    assert "7.0" in printed[2]
    assert "[default: 500.0]" in printed[2]
    assert set(printed[1:]) < set(text)
    assert len(text) == len(vars(opt))
    saved = json.loads((tmp_path / "run" / "train_opt.json").read_text())
    assert saved == json.loads(json.dumps(vars(opt)))


def test_a_gpu_that_is_asked_for_where_there_is_none_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words, said in (("--gpu_ids 0", True), ("--gpu_ids -1", False), ("", False)):
        options = TrainOptions()
        options.record(options.parse(words.split()), tmp_path)
        assert ("no GPU here, so the CPU computes" in capsys.readouterr().out) is said


def test_testing_takes_the_architecture_from_the_saved_options(tmp_path):
    words = f"--name run --checkpoints_dir {tmp_path} --ngf 16 --num_CABs 3 --load_size 64 32"
    (tmp_path / "run").mkdir()
    options = TrainOptions()
    saved = options.parse(f"{words} --batchSize 5 --lr 0.01".split())
    options.record(saved, tmp_path / "run")
    opt = parse(f"--name run --checkpoints_dir {tmp_path}", TestOptions)
    assert (opt.ngf, opt.num_CABs, opt.load_size) == (16, 3, (64, 32))
    assert opt.batchSize == 1  # not part of the architecture
    assert parse(f"--name run --checkpoints_dir {tmp_path} --ngf 8", TestOptions).ngf == 8


def test_damaged_saved_options_name_the_file(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train_opt.json").write_text("{")
    with pytest.raises(UserError, match=r"train_opt\.json is not valid JSON"):
        parse(f"--name run --checkpoints_dir {tmp_path}", TestOptions)


def test_help_of_every_command_describes_every_option(capsys):
    for options in (TrainOptions, TestOptions):
        with pytest.raises(SystemExit) as stop:
            parse("--help", options)
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert "--nhead" in text
        assert "(default: None)" not in text
