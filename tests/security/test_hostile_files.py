"""Hostile files: a clear error of the right class, nothing run, nothing leaked, little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("torch", reason="some hostile files are made with torch")
import hostile_hdf5
import hostile_masks  # noqa: F401 (registers its cases)
from hostile import CASES

CHILD = Path(__file__).with_name("hostile_child.py")
ROOT = Path(__file__).parents[2]
MAX_GROWTH_BYTES = 200_000_000


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Every case's outcome; each reader's files are read in one child process."""
    base = tmp_path_factory.mktemp("hostile")
    canary = base / "canary"
    work = []
    for case in CASES:
        folder = base / case.name
        folder.mkdir()
        work.append([case.reader, str(case.make(folder, canary))])
    done = subprocess.run(
        [sys.executable, str(CHILD)],
        input=json.dumps(work),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {c.name: r | {"canary": canary.exists()} for c, r in zip(CASES, found, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_file(case: object, results: dict[str, dict[str, object]]) -> None:
    result = results[case.name]  # type: ignore[attr-defined]
    assert result["outcome"] == case.error, result  # type: ignore[attr-defined]
    assert result["hint"], "every error says what to do"
    assert str(result["where"]).count("file.") <= 1, "located once"
    assert hostile_hdf5.SECRET.decode() not in str(result["message"])
    assert len(str(result["message"])) < 1500
    assert not result["canary"], "a file ran code"
    assert int(str(result["grown_bytes"])) < MAX_GROWTH_BYTES


def test_there_are_enough_cases() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) > 120
