"""Holds a process at a named moment; run as a script: Lava's worker, held there.

Needs the standard library alone: Lava's interpreter runs it too. ``held.py CONTROL WORKER ...``
runs the worker with the arguments that follow. CONTROL is a folder that holds the moment's name
in the file "moment"; the process that comes to it makes "reached" and waits for "go".
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path


def hold(control: Path, name: str) -> None:
    """Wait for "go" if ``name`` is the moment to hold at and nobody has been there."""
    if (control / "moment").read_text() != name or (control / "reached").exists():
        return
    (control / "reached").touch()
    while not (control / "go").exists():
        time.sleep(0.005)


def before(owner, attribute: str, control: Path, moment: str, calls: int = 1) -> None:
    """Hold before ``owner.attribute`` is called for the ``calls``th time."""
    _wrap(owner, attribute, control, moment, calls, early=True)


def after(owner, attribute: str, control: Path, moment: str, calls: int = 1) -> None:
    """Hold when the ``calls``th call of ``owner.attribute`` has come back."""
    _wrap(owner, attribute, control, moment, calls, early=False)


def _wrap(owner, attribute, control, moment, calls, early) -> None:
    original = getattr(owner, attribute)
    count = 0

    def held(*args, **kwargs):
        nonlocal count
        count += 1
        if early and count == calls:
            hold(control, moment)
        result = original(*args, **kwargs)
        if not early and count == calls:
            hold(control, moment)
        return result

    setattr(owner, attribute, held)


def main(control: Path, path: str, arguments: list[str]) -> int:
    spec = importlib.util.spec_from_file_location("worker", path)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    load_package = worker._load_package

    def load():
        hold(control, "lava is being imported")
        network = load_package()
        before(network, "run", control, "lava is imported")
        after(network, "run", control, "the results are written")
        after(network.actors.SystemProcess, "start", control, "nodes are forked", calls=2)
        before(network.lava_runtime.Runtime, "start", control, "all nodes are there")
        recorded = sys.modules["lava_worker.processes.recorded"]
        run_spk = recorded.RecordedLifModel.run_spk

        def held_run_spk(model):
            run_spk(model)
            if model.window.row(model.time_step) == model.window.rows // 2:
                hold(control, "recordings are half full")

        recorded.RecordedLifModel.run_spk = held_run_spk
        return network

    worker._load_package = load
    before(worker.Supervisor, "supervise", control, "the worker is starting")
    before(worker.Supervisor, "_run_lava", control, "the job is handed over")
    before(worker.Supervisor, "_wait", control, "lava.pid is written")
    after(worker.Supervisor, "_run_lava", control, "lava has ended")
    before(worker, "_become_lava", control, "lava's process is forked")
    return worker.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
