"""The demo: the whole story in tiny sizes, done once and not again; pictures of a checkpoint; bad usage in one line."""

import ast
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rasterio
from map_factory import write_checkpoint
from PIL import Image

import demo
from classes import class_set
from constants import CLASS_NAMES
from mapping import gallery
from mapping.demo_report import MappedScene, compare, gather_story, map_by_index
from mapping.false_alarm import find_false_alarm
from pictures.false_alarm import FRAME, alarm_words, with_alarm
from pictures.gallery_page import best_median_worst
from pictures.page import View
from runtime.errors import RunError, UserError
from runtime.logs import SilentConsole

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}  # on two shared cores more only get into each other's way


def run(*words, code=0):
    done = subprocess.run([sys.executable, str(ROOT / "demo.py"), *map(str, words)], capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == code, done.stderr[-2000:]
    return done


@dataclass
class Made:
    """A demo of tiny sizes: its folder, what it printed, and the commands that it ran."""

    folder: Path
    said: str
    commands: list


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Made once for all tests, with the programs called in this process: starting five of them takes longer than their work."""
    folder, commands = tmp_path_factory.mktemp("demo"), []

    def run_here(console, *words):
        commands.append(" ".join(map(str, words)))
        assert not import_module(words[0].removesuffix(".py")).main([*map(str, words[1:]), "--quiet"])

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        patch.setattr(demo, "run_command", run_here)
        words = ["--fast", "--output-dir", str(folder / "demo"), "--save-pictures", str(folder / "pictures"), "--device", "cpu", "--quiet"]
        assert demo.main(words) == 0
    return Made(folder / "demo", said.getvalue(), commands)


# ---------------------------------------------------------------------------------------------------------------- the story


def check_the_end(said, folder):
    """The last two lines are the headline, which is that of the report, and the report's path."""
    headline, path = said.strip().splitlines()[-2:]
    assert re.search(r"hectares burned\. The map finds|Nothing burned", headline) and Path(path) == folder / "report.html"
    assert headline in re.sub(r"<[^>]+>", "", (folder / "report.html").read_text(encoding="utf-8")).replace("  ", " ")


PROGRAMS = ("chip.py make-patches", "train.py --patches-dir", "train.py --test-only", "inference.py")


def test_the_fast_demo_goes_all_the_way(story):
    check_the_end(story.said, story.folder)
    assert [command.startswith(program) for command, program in zip(story.commands, PROGRAMS, strict=True)] == [True] * 4
    assert [p.name for p in (story.folder / "scenes").rglob("*_S2L2A.tif")].count("EMSR903_AOI01_01_S2L2A.tif") == 1


def test_the_pictures_of_the_report_are_saved_as_files(story):
    pictures = {p.name: Image.open(p).size for p in (story.folder.parent / "pictures").iterdir()}
    names = ("natural", "map", "burn", "truth", "probability", "errors", "baseline-errors")
    assert pictures == {f"demo-{name}.jpg": (128, 128) for name in names}


@pytest.mark.slow
def test_the_demo_runs_the_programs_as_a_user_would_and_not_again_when_they_are_done(tmp_path):
    folder = tmp_path / "demo"
    done = run("--fast", "--output-dir", folder)
    check_the_end(done.stdout, folder)
    assert all(f"$ python {program}" in done.stderr for program in PROGRAMS)
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    again = run("--fast", "--output-dir", folder)
    assert "$ python" not in again.stderr and again.stderr.count("done earlier") == 5
    assert (folder / "report.html").read_bytes() == page


def test_the_report_refers_to_nothing_outside_itself(story):
    page = (story.folder / "report.html").read_text(encoding="utf-8")
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", page)
    assert len(addresses) == 8 and all(a.startswith("data:") for a in addresses)  # seven pictures and an empty icon
    bare = re.sub(r'data:[^"]*', "", page)
    assert "http" not in bare and "<script" not in bare and "@import" not in bare and "url(" not in bare


def test_the_hectares_of_the_report_are_those_of_the_files(story):
    folder = story.folder
    with rasterio.open(next((folder / "scenes" / "test").rglob("*_DEL.tif"))) as dataset:
        burned = int((dataset.read(1) == 1).sum()) / 100  # 10 m pixels
    with rasterio.open(next((folder / "maps").glob("*_classes.tif"))) as dataset:
        mapped = int((dataset.read(1) == 1).sum()) / 100
    words = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text(encoding="utf-8"))
    assert re.search(rf"\b{round(burned)}\s+hectares burned", words)
    assert re.search(rf"It marks\s+{round(mapped)}\s+hectares", words)


def test_a_finished_demo_is_not_made_again_but_the_report_is(story, monkeypatch, capsys):
    folder = story.folder
    page = (folder / "report.html").read_bytes()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.suffix in (".tif", ".pt", ".npy")}
    (folder / "report.html").unlink()
    monkeypatch.setattr(demo, "run_command", lambda console, *words: pytest.fail(f"{words} was run again"))
    assert demo.main(["--fast", "--output-dir", str(folder), "--device", "cpu"]) == 0
    assert capsys.readouterr().err.count("done earlier") == 5
    assert {p: p.stat().st_mtime_ns for p in before} == before and len(before) > 20
    assert (folder / "report.html").read_bytes() == page


def test_other_settings_in_the_same_folder_are_refused_and_named(story):
    with pytest.raises(UserError, match=r"seed: 0 → 1.*--overwrite"):
        demo.main(["--fast", "--seed", "1", "--output-dir", str(story.folder)])


def test_a_folder_that_the_demo_did_not_make_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="was not made by demo.py"):
        demo.main(["--fast", "--output-dir", str(tmp_path), "--overwrite"])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_overwrite_empties_only_what_the_demo_made(tmp_path):
    demo.Stages(tmp_path / "d", {"seed": 1}, False, SilentConsole()).run("scenes", lambda: (tmp_path / "d" / "scenes").mkdir())
    (tmp_path / "d" / "notes.txt").write_text("mine")
    stages = demo.Stages(tmp_path / "d", {"seed": 2}, True, SilentConsole())
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["demo.json", "notes.txt"]
    again = []
    stages.run("scenes", lambda: again.append(1))
    assert again == [1]


@pytest.mark.parametrize("text", ['{"seconds": "many"}', "{}", "[3]", "", "\0\0", '{"seconds": null}'])
def test_a_damaged_stage_is_one_line_and_done_again_when_it_is_removed(tmp_path, text):
    path = tmp_path / "d" / ".stages" / "map.json"
    demo.Stages(tmp_path / "d", {}, False, SilentConsole()).run("map", lambda: None)
    path.write_text(text)
    with pytest.raises(UserError, match="map.json .*remove it"):
        demo.Stages(tmp_path / "d", {}, False, SilentConsole()).run("map", lambda: None)
    path.unlink()
    again = []
    demo.Stages(tmp_path / "d", {}, False, SilentConsole()).run("map", lambda: again.append(1))
    assert again == [1]
    (tmp_path / "d" / "demo.json").write_text(text)
    demo.Stages(tmp_path / "d", {"seed": 1}, True, SilentConsole())  # what --overwrite replaces need not be whole
    assert json.loads((tmp_path / "d" / "demo.json").read_text()) == {"seed": 1} and not path.exists()


@pytest.mark.parametrize("scores", [{}, {"nbr_threshold": "low", "nbr_fire_is_above": True}, {"nbr_threshold": 1, "nbr_fire_is_above": 1}])
def test_scores_without_what_the_report_tells_are_one_line(tmp_path, scores):
    (tmp_path / "scores_test.json").write_text(json.dumps(scores))
    with pytest.raises(UserError, match="scores_test.json .*nbr_.*; remove .stages/scores.json to score again"):
        gather_story(None, tmp_path, scar=None, size=None, seed=0, stages=[], commands=[])


def test_a_stage_that_fails_is_not_noted_as_done(tmp_path):
    stages = demo.Stages(tmp_path / "d", {}, False, SilentConsole())
    with pytest.raises(ZeroDivisionError):
        stages.run("map", lambda: 1 / 0)
    assert not list((tmp_path / "d").rglob("map.json"))


def test_a_program_that_fails_ends_the_demo_with_its_name():
    with pytest.raises(RunError, match="chip.py ended with exit code 2"):
        demo.run_command(SilentConsole(), "chip.py", "--no-such-flag")


def test_scores_are_counted_over_what_both_know():
    truth = np.array([[1, 1, 1, 0, 0, 255, 1]], np.uint8)
    prediction = np.array([[1, 1, 0, 1, 0, 1, 255]], np.uint8)
    scores = compare("x", truth, prediction)
    assert (scores.found, scores.right, scores.overlap) == (2 / 3, 2 / 3, 2 / 4)
    assert (scores.hectares, scores.missed, scores.false) == (0.03, 0.01, 0.01)
    assert compare("x", truth * 0, truth * 0).found is None


def test_the_baseline_marks_what_lies_on_the_burned_side_of_the_threshold():
    bands = np.zeros((12, 1, 4), np.float32)
    bands[[7, 8]], bands[11] = [0.3, 0.1, 0.2, 0.0], [0.1, 0.3, 0.2, 0.0]  # near infrared and B12: NBR 0.5, -0.5, 0, nodata
    none = np.zeros((1, 4), np.uint8)
    scene = MappedScene("x", None, bands, none, none, none)
    assert map_by_index(scene, 0.1, above=False).tolist() == [[0, 1, 1, 255]]
    assert map_by_index(scene, 0.0, above=True).tolist() == [[1, 0, 1, 255]]


def test_the_commands_of_the_report_parse():
    """What the page tells people to type is understood by the programs it names."""
    import shlex

    for _, command in demo.own_data_commands():
        words = shlex.split(command.replace("\\\n", " "))
        assert words[0] == "python" and (ROOT / words[1]).is_file()
        module = __import__(words[1].removesuffix(".py"))
        parser = getattr(module, "build_parser", None) or module.build_parser
        parser().parse_args(words[2:])


@pytest.mark.parametrize(
    "words, message",
    [
        (["--patches-dir", "x"], "needs --checkpoint"),
        (["--checkpoint", "x.pt", "--fast"], "belongs to the demo without"),
        (["--checkpoint", "x.pt", "--scenes", "a.tif", "--patches-dir", "p"], "not both"),
        (["--checkpoint", "x.pt", "--masks", "a.tif"], "needs --scenes"),
        (["--checkpoint", "x.pt", "--cases", "0"], "expected a whole number of at least 1, got '0'"),
        (["--seed", "-1"], "expected a whole number of at least 0, got '-1'"),
        (["--checkpoint", "missing.pt"], "does not exist"),
    ],
)
def test_usage_that_cannot_be_meant_is_refused(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        demo.main(words)
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------- pictures of a checkpoint


def test_chips_are_not_what_a_segmentation_checkpoint_is_shown_on(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "best_model.pt")
    with pytest.raises(UserError, match="--chips is for sharpening checkpoints"):
        demo.main(["--checkpoint", str(checkpoint), "--chips", "chips/test", "--output-dir", str(tmp_path / "pictures")])
    assert not (tmp_path / "pictures").exists()


def test_best_median_and_worst_are_chosen_by_score():
    scores = [(score, 0) for score in (0.5, None, 0.9, 0.1, 0.7, 0.3, 0.2, 0.8, 0.6)]
    assert gallery.choose_cases(scores, 2) == {"best": [2, 7], "median": [8, 0], "worst": [6, 3]}
    assert gallery.choose_cases(scores[:3], 2) == {"all": [2, 0]}
    assert gallery.choose_cases([(None, 0)], 2) == {}
    assert gallery.choose_cases([(0.1, 0), (0.2, 0), (0.3, 0)], 5) == {"best": [2], "median": [1], "worst": [0]}


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_no_case_is_shown_twice(count):
    for total in range(12):
        shown = [case for cases in best_median_worst(list(range(total)), count).values() for case in cases]
        assert len(shown) == len(set(shown)) == (total if total < 3 else 3 * min(count, total // 3))


def test_of_equal_overlap_more_wrong_pixels_are_worse():
    assert gallery.choose_cases([(0.0, 900), (0.9, 5), (0.0, 3)], 1) == {"best": [1], "median": [2], "worst": [0]}


def test_the_overlap_merges_severities_and_leaves_out_what_is_unknown():
    truth = np.array([[1, 4, 0, 255]], np.uint8)
    severities = class_set(CLASS_NAMES[5])
    assert gallery.overlap(truth, np.array([[2, 0, 3, 1]], np.uint8), severities) == (1 / 3, 2)
    assert gallery.overlap(truth * 0, truth * 0, severities) == (None, 0)


def test_masks_are_found_by_name_or_beside_the_scene(tmp_path):
    scene = tmp_path / "post_fire" / "DOVE.tif"
    for path in (scene, tmp_path / "masks" / "DOVE.tif", tmp_path / "other" / "DOVE.tif"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert gallery.find_mask(scene.as_posix(), []) == str(tmp_path / "masks" / "DOVE.tif")
    assert gallery.find_mask(scene.as_posix(), [str(tmp_path / "other" / "DOVE.tif")]) == str(tmp_path / "other" / "DOVE.tif")
    assert gallery.find_mask(scene.as_posix(), [str(tmp_path / "other" / "CANAL.tif")]) is None
    assert gallery.find_mask("s3://bucket/DOVE.tif", []) is None


def test_patches_of_a_checkpoint_are_shown(story, tmp_path):
    checkpoint = story.folder / "run" / "checkpoints" / "final_model.pt"
    output = tmp_path / "p"
    words = ["--checkpoint", str(checkpoint), "--patches-dir", str(story.folder / "patches"), "--output-dir", str(output), "--quiet"]
    assert demo.main([*words, "--cases", "2"]) == 0
    names = sorted(p.name for p in output.iterdir())
    assert names in (["best.png", "index.html", "median.png", "worst.png"], ["all.png", "index.html"])
    assert Image.open(output / names[0]).width == 8 + 5 * 232
    page = (output / "index.html").read_text(encoding="utf-8")
    assert "split test" in page and "http" not in re.sub(r'data:[^"]*', "", page)
    with pytest.raises(UserError, match="exists already"):
        demo.main(words)


def test_scenes_are_mapped_and_shown_with_and_without_truth(story, tmp_path):
    checkpoint = story.folder / "run" / "checkpoints" / "final_model.pt"
    scene = next((story.folder / "scenes" / "test").rglob("*_S2L2A.tif"))
    lonely = tmp_path / "lonely.tif"
    lonely.write_bytes(scene.read_bytes())
    output = tmp_path / "p"
    words = ["--checkpoint", str(checkpoint), "--scenes", str(scene), str(lonely), "--output-dir", str(output), "--quiet"]
    assert demo.main(words) == 0
    assert {p.name for p in output.glob("*.png")} == {"all.png", "unlabelled.png"}
    with (
        rasterio.open(output / "maps" / f"{scene.stem}_classes.tif") as mapped,
        rasterio.open(story.folder / "maps" / f"{scene.stem}_classes.tif") as own,
    ):
        assert np.array_equal(mapped.read(), own.read())


def test_a_mask_on_another_grid_is_refused(story, tmp_path, make_raster):
    checkpoint = story.folder / "run" / "checkpoints" / "final_model.pt"
    scene = next((story.folder / "scenes" / "test").rglob("*_S2L2A.tif"))
    mask = make_raster(f"{scene.stem}.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match="must share a grid"):
        demo.main(
            ["--checkpoint", str(checkpoint), "--scenes", str(scene), "--masks", str(mask), "--output-dir", str(tmp_path / "p"), "--quiet"]
        )


def without_times(folder):
    """{name: content} of a demo's files, without its place, its command, and the seconds that its stages and epochs took."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and ".stages" not in p.parts and p.suffix != ".pt"):
        content = path.read_bytes()
        if path.suffix in (".json", ".jsonl", ".csv", ".html"):
            content = content.replace(str(folder).encode(), b"")
        if path.name == "config.json":  # tells how the run was begun, or resumed
            content = {key: value for key, value in json.loads(content).items() if key != "command"}
        if path.name == "metrics.csv":
            content = [row.rsplit(b",", 1)[0] for row in content.splitlines()]
            assert path.read_bytes().splitlines()[0].endswith(b",seconds")
        if path.suffix == ".html":
            content = re.sub(rb"<footer>.*|[0-9]+[^<>0-9]{1,8}(s|seconds|minutes|min)\b", b"", content, flags=re.DOTALL)
        found[str(path.relative_to(folder))] = content
    return found


def test_the_scenes_have_one_modification_time(story):
    assert {path.stat().st_mtime for path in (story.folder / "scenes").rglob("*.tif")} == {demo.GENERATED}


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_was(tmp_path, story):
    import time

    words = [sys.executable, str(ROOT / "demo.py"), "--fast", "--output-dir", str(tmp_path / "demo")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "demo" / ".stages" / "patches.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert json.loads((tmp_path / "demo" / ".stages" / "patches.json").read_text())["seconds"] >= 0
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "patches: done earlier" in done.stderr and (tmp_path / "demo" / "report.html").exists()
    undisturbed, resumed = without_times(story.folder), without_times(tmp_path / "demo")
    assert undisturbed.keys() == resumed.keys()
    assert [name for name in undisturbed if undisturbed[name] != resumed[name]] == []


# --------------------------------------------------------------------------------------------------------- its own false alarm


def test_the_largest_error_is_measured_apart_from_the_edge_of_the_fire():
    """A fire of 10 × 10 pixels with a rim of errors around it, a patch of 12 × 10 far away, half of it on a scar, and a smaller one."""
    truth, prediction = np.zeros((60, 60), np.uint8), np.zeros((60, 60), np.uint8)
    truth[5:15, 5:15], prediction[4:16, 4:16] = 1, 1
    prediction[30:40, 20:32] = prediction[50:54, 50:54] = 1
    truth[59], index, scar = 255, np.full((60, 60), 0.5), np.zeros((60, 60), bool)
    index[truth == 1], index[30:40, 20:32], scar[30:40, 20:26] = 0.1, 0.2, True
    probability = np.where(prediction == 1, 0.8, 0.1)
    alarm = find_false_alarm(truth, prediction, probability, index, scar)
    assert (alarm.hectares, alarm.edge, alarm.patch) == pytest.approx(((44 + 120 + 16) / 100, 0.44, 1.2))
    assert alarm.box == (20, 30, 32, 40) and alarm.scar == pytest.approx(0.5)
    assert alarm.index == pytest.approx((0.2, 0.1, 0.5)) and alarm.sure == pytest.approx((0.8, 0.8, 0.1))
    assert "the scar of an earlier fire" in alarm_words(alarm) and "0.20 on average, lies between" in alarm_words(alarm)
    assert "a harvested field" in alarm_words(replace(alarm, scar=0.4))
    assert "is beside" in alarm_words(replace(alarm, index=(0.7, 0.1, 0.5)))
    small = prediction.copy()
    small[30:40, 20:32] = 0
    assert find_false_alarm(truth, small, probability, index, scar) is None  # sixteen pixels
    assert find_false_alarm(truth * 0, prediction, probability, index, scar) is None  # nothing burned to compare with
    shown = with_alarm(View("Errors", np.zeros((30, 30, 3), np.uint8), "a", "All."), alarm, 60)
    rows, columns = np.nonzero((shown.picture == FRAME).all(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (11, 23, 6, 19) and shown.note.startswith("All. 1 of the 2 hectares")


# ---------------------------------------------------------------------------------------------------------------- the notebook


@pytest.mark.slow
def test_the_notebook_runs_and_its_map_is_that_of_the_demo(story, monkeypatch, capsys):
    notebook = json.loads((ROOT / "docs" / "first_map.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and len({cell["id"] for cell in notebook["cells"]}) > 5
    beside = story.folder.parent / "docs"
    beside.mkdir()
    monkeypatch.chdir(beside)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names, shown = {}, []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            body = ast.parse("".join(cell["source"])).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None  # its value is what a notebook shows
            exec(compile(ast.Module(body, []), cell["id"], "exec"), names)
            shown += [eval(compile(ast.Expression(last.value), cell["id"], "eval"), names)] if last else []
    with rasterio.open(next((story.folder / "maps").glob("*_classes.tif"))) as file:
        assert np.array_equal(names["found"].classes, file.read(1))
    pictures = [picture for picture in shown if isinstance(picture, Image.Image)]
    assert [picture.size for picture in pictures] == [(256, 128)] * 2
    total = json.loads((story.folder / "maps" / "summary.json").read_text())["total"]
    assert f"fire: {total['burned_hectares']:,.1f} ha of {total['valid_hectares']:,.1f} ha" in capsys.readouterr().out
