"""Every program ends with 130 or 143 and one line, whenever SIGINT or SIGTERM comes, and goes on when it is started again."""

import ast
import dataclasses
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from map_factory import BANDS, numbers, write_checkpoint
from test_demo import without_times
from training_programs import PROGRAMS, assert_same_run, file_of, torchrun

import chip
from benchmarks.fake_ard import make_fake_ard
from runtime.stop_signals import SILENT, Terminated

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}

# What a program does after its first lines; `work` is called by run_program.
PROGRAM = """
import sys; sys.path.insert(0, {root!r})
from runtime.stop_signals import catch_stop_signals
catch_stop_signals("It is safe")
import atexit, ctypes, os, signal, threading, time
from pathlib import Path
from runtime.errors import RunError, run_program
from runtime.files import atomic_path, scratch_folder
from runtime.interrupts import StopRequest
from runtime.stop_signals import held, told_on_stop

def begun():
    os.write(1, b"begun\\n")

{body}
run_program(work)
"""

# Where the exception of a handler would be lost, misunderstood or shown.
BODIES = {
    "a callback": """
@ctypes.CFUNCTYPE(None)
def callback():
    begun()
    time.sleep(60)
def work(argv):
    callback()  # ctypes, as GDAL's callbacks do, can only say that an exception was ignored
""",
    "a destructor": """
class Slow:
    def __del__(self):
        begun()
        time.sleep(60)
def work(argv):
    slow = Slow()
    del slow
""",
    "a broad except": """
def work(argv):
    try:
        begun()
        time.sleep(60)
    except BaseException:
        raise RunError("unreadable file") from None
""",
    "an exit in finally": """
def work(argv):
    try:
        begun()
        time.sleep(60)
    finally:
        sys.exit(0)
""",
    "an import": """
def work(argv):
    import slow_module
""",
    "a lock": """
def work(argv):
    lock = threading.Lock()
    lock.acquire()
    begun()
    lock.acquire()
""",
    "another thread's work": """
def work(argv):
    thread = threading.Thread(target=time.sleep, args=(60,))
    thread.start()
    begun()
    thread.join()
""",
    "a full pipe": """
def work(argv):
    begun()
    while True: print("x" * 1000)
""",
    "--debug's traceback": """
def work(argv):
    begun()
    sys.stdin.read()
""",
}


def start(tmp_path, body, *words, **more):
    (tmp_path / "slow_module.py").write_text("import os, time\nos.write(1, b'begun\\n')\ntime.sleep(60)\n")
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(root=str(ROOT), body=body))
    process = subprocess.Popen([sys.executable, str(script), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, bufsize=1, **more)
    assert process.stdout.readline() == "begun\n"
    return process


def end_of(process, timeout=60):
    """What a process has said on stderr. Nobody reads its stdout before it has ended."""
    process.wait(timeout)
    return process.communicate()[1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("what", BODIES)
def test_a_stop_takes_effect_in(tmp_path, what, number):
    process = start(tmp_path, BODIES[what])
    process.send_signal(number)
    assert end_of(process) == f"program.py: stopped by {SIGNALS[number]}. It is safe.\n"
    assert process.returncode == 128 + number


def test_with_debug_a_stop_says_where_it_came(tmp_path):
    process = start(tmp_path, BODIES["--debug's traceback"], "--debug")
    process.send_signal(signal.SIGINT)
    *where, line = end_of(process).splitlines()
    assert "in work" in "".join(where) and line == "program.py: stopped by Ctrl-C. It is safe."


SHUTDOWN = {
    "threads": (3, """
def work(argv):
    def sleep():
        time.sleep(0.5)
        begun()
        time.sleep(60)
    threading.Thread(target=sleep).start()
    return 3
"""),
    "exit functions": (0, """
def end():
    begun()
    time.sleep(60)
def work(argv):
    atexit.register(end)
"""),
    "wrong usage": (2, """
def end():
    begun()
    time.sleep(60)
def work(argv):
    atexit.register(end)
    sys.exit(2)
"""),
}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("what", SHUTDOWN)
def test_a_stop_after_the_work_leaves_the_exit_code_as_it_is(tmp_path, what, number):
    code, body = SHUTDOWN[what]
    process = start(tmp_path, body)
    process.send_signal(number)
    assert end_of(process) == "" and process.returncode == code


def test_a_stop_while_the_interpreter_ends_is_ignored(tmp_path):
    """After its last exit function; modules are cleared then, and Python has taken its handlers away."""
    process = start(tmp_path, """
class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"begun\\n")
        sleep(0.5)
last = Last()
def work(argv):
    pass
""")
    process.send_signal(signal.SIGTERM)
    assert end_of(process) == "" and process.returncode == 0


def test_a_stop_waits_for_the_end_of_what_must_not_be_left_half_done(tmp_path):
    process = start(tmp_path, """
def work(argv):
    with held():
        with held():
            begun()
            time.sleep(0.5)
        os.write(1, b"done\\n")
    os.write(1, b"too late\\n")
""")
    for number in (signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.1)
    said, errors = process.communicate(timeout=60)
    assert (said, errors, process.returncode) == ("done\n", "program.py: stopped by SIGTERM. It is safe.\n", 143)


def test_a_stop_removes_temporary_files_and_says_what_is_safe_now(tmp_path):
    (tmp_path / "out").mkdir()
    process = start(tmp_path, """
def work(argv):
    folder = Path(argv[0])
    with atomic_path(folder / "first.json") as path:
        path.write_text("whole")
    with scratch_folder(folder / "scratch") as scratch, atomic_path(folder / "second.json") as path, told_on_stop(lambda: f"{1 + 1} are"):
        path.write_text("half")
        (scratch / "part").write_text("half")
        begun()
        time.sleep(60)
""", str(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 3
    process.send_signal(signal.SIGINT)
    assert end_of(process) == "program.py: stopped by Ctrl-C. 2 are.\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first.json"]


REQUEST = """
def work(argv):
    with StopRequest() as stop:
        begun()
        end = time.monotonic() + float(argv[0])
        while time.monotonic() < end:
            time.sleep(0.01)
        stop.leave("Saved")
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_within_a_second_are_one_and_training_saves(tmp_path, number):
    """`timeout` signals a program and then its group; demo.py passes on what the terminal has sent to all of them."""
    process = start(tmp_path, REQUEST, "0.6")
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.1)
    assert end_of(process) == f"program.py: stopped by {SIGNALS[number]}. Saved.\n" and process.returncode == 128 + number


def test_a_later_signal_ends_training_at_once(tmp_path):
    process = start(tmp_path, REQUEST, "60")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    process.send_signal(signal.SIGINT)
    assert end_of(process) == "program.py: stopped by SIGTERM. Stopped at once; what the last checkpoint holds is safe.\n"
    assert process.returncode == 143


def test_a_forked_worker_that_has_not_begun_says_nothing(tmp_path):
    process = start(tmp_path, """
def work(argv):
    child = os.fork()
    if not child:
        begun()
        time.sleep(60)
    _, status = os.waitpid(child, 0)
    return 7 if os.waitstatus_to_exitcode(status) == 143 else 8
""")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)
    assert end_of(process) == "" and process.returncode == 7


def test_an_ignored_signal_stays_ignored(tmp_path):
    """nohup and background jobs of scripts have SIGINT ignored."""
    process = start(tmp_path, REQUEST, "0.5", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    assert end_of(process) == "program.py: stopped by Ctrl-C. Saved.\n"  # since nothing was received, and it leaves as if by Ctrl-C


@pytest.mark.parametrize("silent", [{SILENT: "1"}, {"RANK": "1"}], ids=["demo.py", "torchrun"])
def test_one_process_tells_of_a_stop(tmp_path, silent):
    process = start(tmp_path, BODIES["a lock"], env={**os.environ, **silent})
    process.send_signal(signal.SIGTERM)
    assert end_of(process) == "" and process.returncode == 143


def test_every_program_catches_signals_before_it_imports_anything():
    programs = [path for path in ROOT.glob("*.py") if "\n    run_program(" in path.read_text()]
    assert len(programs) == 8
    for path in programs:
        docstring, first, *_ = ast.parse(path.read_text()).body
        begins = "if __name__ == '__main__':\n    from runtime.stop_signals import catch_stop_signals\n    catch_stop_signals("
        assert ast.unparse(first).startswith(begins), path.name


def test_a_stop_is_no_exception_that_a_broad_except_takes():
    assert not issubclass(Terminated, Exception)
    assert str(pickle.loads(pickle.dumps(Terminated("saved")))) == "saved"


@pytest.mark.slow
@pytest.mark.parametrize("rank, number", [(1, signal.SIGTERM), (0, signal.SIGINT), (1, signal.SIGINT)])
def test_under_torchrun_a_stop_of_one_process_ends_all_with_its_line_and_its_code(tmp_path, rank, number):
    """Also where no training asks them to agree: the others wait in a sum that the one has left."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(root=str(ROOT), body=f"""
from runtime.program import program

def work(argv):
    with program("cpu") as (processes, console):
        processes.wait_for_all()
        if processes.rank == {rank}:
            time.sleep(0.5)
            os.kill(os.getpid(), {int(number)})
        processes.wait_for_all()
"""))
    errors = torchrun(script, code=1).stderr  # torchrun's own code
    assert [line for line in errors.splitlines() if "program.py: " in line] == [f"program.py: stopped by {SIGNALS[number]}. It is safe."]
    assert re.findall(r"exitcode +: (\d+)", errors) == [str(128 + number)] * 2


# ----------------------------------------------------------------------------------------------------------- every program


@dataclasses.dataclass(frozen=True)
class Case:
    """
    A command that is stopped, and continues when it is started again.

    words: (folder of the inputs, folder of the output) → its command line. content: folder of the output → what is compared; or check:
    (folder of the output, that of an undisturbed run), which compares. share: of an undisturbed run's time, in which it is stopped.
    """

    words: Callable
    content: Callable = None
    check: Callable = None
    share: float = 1.0


def tree(path):
    """{name: what is in a file, or where a link leads}, hidden ones included."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_symlink() or p.is_file()]
    return {str(p.relative_to(path)): os.readlink(p) if p.is_symlink() else hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def train_words(program):
    def words(inputs, out):
        goes_on = file_of(out, "last.pt").exists()
        return [f"{program.name}.py", *(program.go_on if goes_on else program.begin)(inputs / program.name, out, program.workers, 2)]

    return words


def patch_words(workers):
    return lambda inputs, out: (
        f"chip.py make-patches --images {inputs}/images --masks {inputs}/masks --nodata 0 --divide-by 10000 --patch-size 32 --val s1 "
        f"--patches-dir {out} --workers {workers}").split()


def chip_words(workers):
    return lambda inputs, out: (
        f"chip.py make-chips --ard-dir {inputs}/ard --chip-dir {out} -n 40 --chip-size 16 --workers {workers}").split()


def map_words(inputs, out):
    return (f"inference.py {inputs}/scene.tif --checkpoint {inputs}/model.pt --output-dir {out} --window 32 --device cpu --probabilities "
            "--min-area 0").split()


def pair_of(inputs):
    pan = sorted((inputs / "ard").rglob("*-pan.tif"))[0]
    return ["--pan", str(pan), "--ms", str(pan).replace("-pan", "-ms"), "--divide-by", "10000"]


CASES = {
    "make-patches": Case(patch_words(1), tree),
    "make-patches with workers": Case(patch_words(2), tree),
    "make-chips": Case(chip_words(1), tree),
    "make-chips with workers": Case(chip_words(2), tree),
    "fake-chips": Case(lambda inputs, out: f"chip.py fake-chips -o {out} -c 120 -s 32".split(), tree),
    "get-reflectance": Case(lambda inputs, out: ["chip.py", "get-reflectance", *pair_of(inputs), "-n", "40", "-o", str(out)], tree),
    "link-chips": Case(lambda inputs, out: f"chip.py link-chips {inputs}/many {inputs}/train_pansharpen/train {out}".split(), tree),
    "inspect": Case(lambda inputs, out: f"chip.py inspect {inputs}/train --overwrite --output {out}.png".split(),
                    lambda out: tree(out.with_name(f"{out.name}.png"))),
    "maps": Case(map_words, tree),
    "sharpening": Case(lambda inputs, out: ["inference.py", "--method", "gsa", *pair_of(inputs), "--output-dir", str(out), "-b", "64",
                                            "--device", "cpu"], tree),
    "train": Case(train_words(PROGRAMS[0]), check=assert_same_run),
    "train_pansharpen": Case(train_words(PROGRAMS[1]), check=assert_same_run),
    "train_detection": Case(train_words(PROGRAMS[2]), check=assert_same_run),
    "train_small_detection": Case(train_words(PROGRAMS[3]), check=assert_same_run),
    "make-tiles": Case(lambda inputs, out: (
        f"chip.py make-tiles --images {inputs}/train_detection/train --annotations {inputs}/train_detection/train.json --output-dir {out} "
        "--tile-size 32 --overlap 8").split(), tree),
    "make-warehouse": Case(lambda inputs, out: (
        f"chip.py make-warehouse --runs {inputs}/captures --output-root {out} --workers 2 --target-size 192x192").split(),
        lambda out: {name: content for name, content in tree(out).items() if not name.endswith(".verified.json")}),
    "fake-captures": Case(lambda inputs, out: f"chip.py fake-captures -o {out} --runs 2 --frames 60 --size 320x200".split(), tree),
    "demo": Case(lambda inputs, out: f"demo.py --fast --device cpu --output-dir {out}".split(), without_times,
                 share=0.4),  # each stop comes in a later stage
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """What the commands read."""
    import rasterio
    from rasterio.transform import from_origin

    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    place = {"transform": from_origin(500_000, 4_600_000, 10, 10), "crs": "EPSG:32633"}

    def write(path, array, **more):
        path.parent.mkdir(exist_ok=True)
        with rasterio.open(path, "w", driver="GTiff", count=len(array), dtype=array.dtype, height=array.shape[1], width=array.shape[2],
                           **{**place, **more}) as dataset:
            dataset.write(array)
            if len(array) == len(BANDS):
                dataset.descriptions = BANDS

    for number in range(2):
        image = rng.integers(1, 4000, (2, 500, 500)).astype(np.uint16)
        image[:, 100:300, 100:300] = 0
        elsewhere = {"transform": from_origin(500_000 + 100_000 * number, 4_600_000, 10, 10)}
        write(folder / "images" / f"s{number}.tif", image, **elsewhere)
        write(folder / "masks" / f"s{number}.tif", (image[:1] > 2000).astype(np.uint8), **elsewhere)
    write(folder / "scene.tif", numbers(1000, 200))
    write_checkpoint(folder / "model.pt")
    make_fake_ard(folder / "ard", tiles=3, ms_side=160, null_share=0.3, blocksize=64)
    for program in PROGRAMS:
        program.make_data(folder / program.name, train=24)
    chip.main(["fake-chips", "-o", str(folder / "many"), "-c", "200", "-s", "32", "--quiet"])
    chip.main(["fake-captures", "-o", str(folder / "captures"), "--runs", "3", "--frames", "100", "--size", "320x200", "--quiet"])
    return folder


def begin(case, inputs, out):
    """A process of the command's, in a session of its own, that has just begun to handle signals. → (process, time of that)"""
    first, *words = case.words(inputs, out)
    command = [sys.executable, str(ROOT / first), *map(str, words), *([] if "--quiet" in words else ["--quiet"])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=out.parent,
                               start_new_session=True)
    while process.poll() is None and not handles_signals(process.pid):
        time.sleep(0.001)
    return process, time.monotonic()


def handles_signals(pid):
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = int(status.split("SigCgt:")[1].split()[0], 16)
    return caught >> (signal.SIGTERM - 1) & 1


def finish(case, inputs, out):
    """Run to the end. → seconds, from when signals were handled."""
    process, since = begin(case, inputs, out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and not errors, errors
    return time.monotonic() - since


def same(case, out, undisturbed):
    if case.check:
        case.check(out, undisturbed)
    else:
        one, two = case.content(out), case.content(undisturbed)
        assert one.keys() == two.keys()
        assert [name for name in one if one[name] != two[name]] == []


def stop_at_moments(case, inputs, folder, count, seed):
    """
    Stop a command `count` times at drawn moments, by SIGTERM and SIGINT, to it alone and to its group, and go on; begin anew where it was
    finished. Whenever it is, its output is that of an undisturbed run. → how often it was stopped.
    """
    rng, stopped, out = np.random.default_rng(seed), 0, folder / "out0"
    seconds = finish(case, inputs, folder / "undisturbed")
    for number in range(count):
        process, since = begin(case, inputs, out)
        moment = rng.random() * (0.1 if number % 5 == 4 else case.share * seconds)
        time.sleep(max(0, since + moment - time.monotonic()))
        what, send = (signal.SIGTERM, signal.SIGINT)[number % 2], (os.kill, os.killpg)[number // 2 % 2]
        if process.poll() is None:
            send(process.pid, what)
        _, errors = process.communicate(timeout=120)
        told = f"{send.__name__} {SIGNALS[what]} after {moment:.3f} s of {seconds:.2f} (seed {seed}, number {number}): {errors}"
        assert process.returncode in (0, 128 + what), told
        if process.returncode:
            stopped += 1
            assert len(errors.splitlines()) == 1 and f".py: stopped by {SIGNALS[what]}." in errors, told
        else:
            assert not errors, told
            same(case, out, folder / "undisturbed")
            out = folder / f"out{number + 1}"
    finish(case, inputs, out)
    same(case, out, folder / "undisturbed")
    return stopped


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_program_stopped_at_ten_moments_says_one_line_and_goes_on(inputs, tmp_path, name):
    assert stop_at_moments(CASES[name], inputs, tmp_path, count=10, seed=0) >= 3


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", CASES)
def test_a_program_stopped_at_a_hundred_moments_says_one_line_and_goes_on(inputs, tmp_path, name, seed):
    stop_at_moments(CASES[name], inputs, tmp_path, count=10, seed=seed)
