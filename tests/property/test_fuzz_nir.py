"""A thousand damaged and changed NIR files, and .net files: each is a valid Network or an error,
within 200 MB and 2 s of processor time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.property.netx_mutations import changed_net
from tests.property.nir_mutations import GRAPHS, damaged, damaged_net, mutated, nir_file

ROOT = Path(__file__).parents[2]
CHILD = ROOT / "tests" / "security" / "hostile_child.py"
MAX_GROWTH_BYTES = 200_000_000
EACH = {"structure": (600, mutated), "bytes": (400, damaged)}


def read_all(files: list[Path], reader: str = "nir") -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, str(CHILD)],
        input=json.dumps([[reader, str(path)] for path in files]),
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_the_graphs_are_good_before_they_are_changed(tmp_path: Path) -> None:
    files = []
    for make in GRAPHS:
        files.append(tmp_path / f"{make.__name__}.nir")
        files[-1].write_bytes(nir_file(make()))
    assert [r["outcome"] for r in read_all(files)] == ["value"] * len(GRAPHS)


@pytest.mark.parametrize("kind", EACH)
def test_a_changed_file_is_a_network_or_a_clear_error(kind: str, tmp_path: Path) -> None:
    count, make = EACH[kind]
    files = []
    for seed in range(count):
        files.append(tmp_path / f"{seed}.nir")
        files[-1].write_bytes(make(seed))
    check(files, read_all(files), count)


def test_a_damaged_net_file_is_a_network_or_a_clear_error(tmp_path: Path) -> None:
    files = []
    for seed in range(150):
        files.append(tmp_path / f"{seed}.net")
        files[-1].write_bytes(damaged_net(seed))
    check(files, read_all(files, "netx"), len(files))


def test_a_changed_net_file_is_a_network_or_a_clear_error(tmp_path: Path) -> None:
    files = []
    for seed in range(300):
        files.append(tmp_path / f"{seed}.net")
        files[-1].write_bytes(changed_net(seed))
    results = read_all(files, "netx")
    assert results[0]["outcome"] == "value", results[0]
    check(files, results, len(files))


def check(files: list[Path], results: list[dict[str, object]], count: int) -> None:
    for path, result in zip(files, results, strict=True):
        assert result["outcome"] in ("value", "InputError", "UnsupportedError"), (path.name, result)
        assert int(str(result["grown_bytes"])) < MAX_GROWTH_BYTES, (path.name, result)
        if result["outcome"] != "value":
            assert result["hint"], (path.name, result)
            assert str(result["where"]).startswith(str(path)), (path.name, result)
    seen = Counter(str(result["outcome"]) for result in results)
    assert seen["value"] > count // 20
    assert seen["InputError"] > count // 4
