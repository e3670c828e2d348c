"""Command lines: near names, --config, and which settings a user gave."""

import json

import pytest

from runtime.errors import UserError
from runtime.flags import Parser, add_common_flags, add_config_flag, parse_with_config


@pytest.fixture
def parser():
    parser = Parser(prog="train.py", description="Trains.")
    parser.add_argument("--epochs", type=int, default=50, help="passes over the chips")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--wandb", action="store_true")
    parser.add_argument("--bands", nargs="+", default=["B02"])
    parser.add_argument("--patches-dir", required=True)
    add_config_flag(parser, "train")
    add_common_flags(parser)
    return parser


def test_a_misspelt_flag_is_told_its_neighbour(parser):
    with pytest.raises(UserError, match=r"unknown argument --epoch. Did you mean '--epochs'\? \(see .* --help\)"):
        parser.parse_args(["--patches-dir", "p", "--epoch", "3"])


@pytest.fixture
def commands():
    parser = Parser(prog="tool.py")
    parser.add_argument("--log")
    children = parser.add_subparsers(dest="command", required=True)
    for name, flags in (("cut", ("--nodata", "--offset")), ("paste", ("--offset",)), ("look", ("--sheet",))):
        child = children.add_parser(name)
        for flag in flags:
            child.add_argument(flag)
    return parser


@pytest.mark.parametrize("words, message", [
    (["look", "--nodata", "3"], r"^look has no --nodata, which is a flag of cut \(see tool.py --help\)$"),
    (["look", "--offset=3"], "^look has no --offset, which is a flag of cut, paste "),
    (["cut", "--offst", "3"], "^unknown argument --offst. Did you mean '--offset'?"),
    (["look", "--lgo", "x"], "^unknown argument --lgo. Did you mean '--log'?"),
    (["look", "--nodaat"], r"^unknown argument --nodaat. \(see"),  # another command's flag would be no help here
])
def test_a_flag_of_another_command_is_told_as_such(commands, words, message):
    with pytest.raises(UserError, match=message):
        commands.parse_args(words)


def test_a_misspelt_choice_lists_the_choices(parser):
    with pytest.raises(UserError, match=r"expected one of fp32, bf16, got 'bf17'. Did you mean 'bf16'\?"):
        parser.parse_args(["--patches-dir", "p", "--precision", "bf17"])


@pytest.mark.parametrize("name, text", [("c.json", '{"epochs": 7, "wandb": true, "patches-dir": "p"}'),
                                        ("c.yaml", "epochs: 7\nwandb: true\npatches_dir: p\n")])
def test_a_config_file_sets_what_flags_do_not(parser, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    args, given = parse_with_config(parser, ["--config", str(tmp_path / name), "--precision", "bf16"])
    assert (args.epochs, args.wandb, args.precision, args.patches_dir) == (7, True, "bf16", "p")
    assert given == {"config", "epochs", "wandb", "precision", "patches_dir"}


def test_flags_win_over_the_config_file(parser, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"epochs": 7, "bands": ["B02", "B03"], "patches_dir": "from-file"}))
    args, _ = parse_with_config(parser, ["--config", str(path), "--epochs=9", "--patches-dir", "p"])
    assert args.epochs == 9 and args.bands == ["B02", "B03"] and args.patches_dir == "p"


def test_defaults_are_not_given(parser):
    _, given = parse_with_config(parser, ["--patches-dir", "p", "--epochs", "50"])
    assert given == {"patches_dir", "epochs"}  # 50 is the default, but the user said it


@pytest.mark.parametrize("content, words", [
    ("epoch: 3", "unknown key 'epoch'. Did you mean 'epochs'?"),
    ("- 1\n- 2", "keys and values"),
    ("wandb: maybe", "expected true or false"),
    ("a: [", "not valid YAML"),
])
def test_a_wrong_config_file_is_one_line(parser, tmp_path, content, words):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        parse_with_config(parser, ["--config", str(path), "--patches-dir", "p"])


def test_a_missing_config_file_is_a_user_error(parser):
    with pytest.raises(UserError, match="cannot be read"):
        parse_with_config(parser, ["--config", "nowhere.yaml", "--patches-dir", "p"])


@pytest.mark.parametrize("name", ["c.yaml", "c.json"])
def test_a_config_file_in_another_encoding_is_a_user_error(parser, tmp_path, name):
    (tmp_path / name).write_bytes("run_name: Évora".encode("latin-1"))
    with pytest.raises(UserError, match=f"{name} is not text in UTF-8.*save it as UTF-8"):
        parse_with_config(parser, ["--config", str(tmp_path / name), "--patches-dir", "p"])


def test_a_config_value_is_checked_like_a_flag(parser, tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("precision: fp8")
    with pytest.raises(UserError, match="expected one of"):
        parse_with_config(parser, ["--config", str(path), "--patches-dir", "p"])
