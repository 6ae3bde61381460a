"""The flag face: what is refused and how, what help shows, the command that repeats a stage."""

import dataclasses
import shlex
from pathlib import Path

import pytest

from interface.flags import build_parser, command
from interface.stages import STAGES
from pipeline.options import checked, flag
from pipeline.stages.collections import Synthesize
from pipeline.stages.data import Organize, Preprocess
from pipeline.stages.shared import Common
from pipeline.stages.training import Train

ALL = {name: stage.options for name, stage in STAGES.items()}


def parse(*arguments):
    return vars(build_parser(ALL).parse_args(list(arguments)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train --epochs 0", "argument --epochs: 0: must be between 1 and 10000"),
        ("train --epochs soon", "argument --epochs: 'soon' is not a whole number"),
        ("train --model vgg", "argument --model: vgg: not one of ResNet18_OPW"),
        ("train --model MammoCNN,vgg", "argument --model: vgg: not one of ResNet18_OPW"),
        ("train --model MammoCNN,", "argument --model: nothing before or after a comma"),
        ("train --fold some", "argument --fold: 'some' is not a whole number or all"),
        ("train --fold 51", "argument --fold: 51: must be between 1 and 50"),
        ("train --epoch 3", "main.py train: unrecognized arguments: --epoch; did you mean"),
        ("train --model MamoCNN", "PatchCore, all, anomaly; did you mean MammoCNN?"),
        ("--versio", "did you mean --version?"),
        ("trian", "invalid choice: 'trian'; did you mean train?"),
        ("organize --val-share 0.9", "argument --val-share: 0.9: must be between 0.05 and 0.5"),
        ("synthesize --size tall", "argument --size: tall: must be small, real, or a height"),
        ("tidy", "argument STAGE: invalid choice: 'tidy'"),
    ],
)
def test_wrong_flags_are_refused_in_one_line_with_status_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        parse(*arguments.split())
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert shown.rstrip().endswith("--help")


def test_a_refused_flag_names_the_stage_and_its_help(capsys):
    with pytest.raises(SystemExit):
        parse("train", "--epochs", "soon")
    shown = capsys.readouterr().err
    assert shown.startswith("main.py train: argument --epochs")
    assert shown.endswith("see: python main.py train --help\n")


def test_only_what_was_given_is_returned():
    assert parse("train", "--no-untrained-head", "--epochs", "3") == {
        "stage": "train",
        "answers": None,
        "untrained_head": False,
        "epochs": 3,
    }


@pytest.mark.parametrize(("name", "options"), ALL.items())
def test_help_shows_every_option_with_its_text(capsys, name, options):
    with pytest.raises(SystemExit) as stop:
        parse(name, "--help")
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for item in dataclasses.fields(options):
        assert flag(item) in shown
        assert " ".join(item.metadata["spec"].text.split()) in shown
    for common in ("--batch", "--answers", "--json", "--log-file"):
        assert common in shown
    if issubclass(options, Common):  # upkeep computes nothing
        assert "--seed" in shown
        assert "--workers" in shown


@pytest.mark.parametrize(
    "options",
    [
        Synthesize(),
        Synthesize(out=Path("my films"), size="300", layout="kaggle"),
        Organize(source=Path(), csv=Path("c s v"), val_share=0.2),
        Preprocess(data=Path("d"), clahe=False, annotations=False, blur_kernel=5),
        Train(data=Path("d"), model="MammoCNN", learning_rate=1e-4, untrained_head=True),
        Train(model="MammoCNN,ResNet18_PFT", fold="all", seeds=3),
    ],
    ids=["defaults", "synthesize", "organize", "preprocess", "train", "queue"],
)
def test_the_printed_command_gives_the_same_options(options):
    stage = type(options).__name__.lower()
    words = shlex.split(command(stage, options))
    assert words[:3] == ["python", "main.py", stage]
    given = parse(*words[2:])
    assert given.pop("batch") is True
    values = {name: given[name] for name in given if name not in ("stage", "answers")}
    again = dataclasses.replace(
        options, **{name: type(getattr(options, name))(value) for name, value in values.items()}
    )
    assert again == options
    assert set(values) == {
        item.name
        for item in dataclasses.fields(options)
        if getattr(options, item.name) != item.default
    }


def test_several_names_and_a_word_for_a_number_are_taken_as_people_type_them():
    given = parse("train", "--model", " MammoCNN, ResNet18_PFT,MammoCNN", "--fold", " all ")
    assert (given["model"], given["fold"]) == ("MammoCNN,ResNet18_PFT", "all")
    assert parse("train", "--fold", "2")["fold"] == 2


def test_flags_and_questions_share_one_declaration():
    assert checked(Synthesize, {"patients": "9"}) == Synthesize(patients=9)
