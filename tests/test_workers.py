"""Worker processes have what they need before they begin, wherever the program is started."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
if __name__ == "__main__":
    import os
    from runtime.workers import prepare_workers, worker_pool
    prepare_workers(["chipping.crew"], 2)
    with worker_pool(2, ["chipping.crew"]) as pool:
        print(pool.submit(eval, "'chipping.crew' in __import__('sys').modules").result(), os.environ.get("PYTHONPATH"))
"""


def test_workers_have_imported_their_modules_also_when_started_from_another_folder(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "None"], done.stderr
