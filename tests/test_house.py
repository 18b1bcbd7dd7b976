"""The house: which room imports which, what is heavy, and what stands where. From the syntax
tree: nothing is imported, so that a broken room is found too."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "snn_deploy"
WORKER = PACKAGE / "backends" / "loihi" / "lava_worker"
ROOMS = (
    "_version",
    "errors",
    "units",
    "ir",
    "io",
    "device",
    "engine",
    "passes",
    "bridges",
    "backends",
    "budget",
    "report",
    "frontends",
    "tickets",
    "cli",
)
LEAVES = ("_version", "errors", "units")
# These two stand after the backends and still know nothing of them.
WITHOUT_BACKENDS = ("frontends", "tickets")
HEAVY = {
    "torch", "torchvision", "h5py", "nir", "numba", "onnx", "onnxruntime", "matplotlib", "lava",
    "scipy", "norse", "sklearn", "snntorch", "spikingjelly", "sinabs", "safetensors",
}  # fmt: skip
WORKER_MAY_IMPORT = {"lava", "numpy", "scipy"}
MOST_LINES = 400
# Tables of data, whose length says nothing about how many ideas they hold.
TABLES: set[str] = set()


@dataclass(frozen=True)
class Import:
    """One import: the absolute module, and whether it runs when its own module is imported."""

    module: str
    line: int
    top: bool


def files() -> list[Path]:
    """Return the package's modules, without the worker that runs in Lava's own interpreter."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if WORKER not in p.parents]


def module_name(path: Path) -> str:
    """Return ``snn_deploy.room.module``."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """Return the room of one of our modules, "" for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a file, those under TYPE_CHECKING and in functions included."""
    own = module_name(path)
    package = own if path.name == "__init__.py" else own.rpartition(".")[0]
    yield from _imports(tree(path), package, top=True)


def _imports(node: ast.AST, package: str, top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, top)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            if child.level:
                parts = package.split(".")
                parts = parts[: len(parts) - child.level + 1]
                base = ".".join([*parts, base] if base else parts)
            for alias in child.names:
                whole = f"{base}.{alias.name}"
                yield Import(whole if _is_module(whole) else base, child.lineno, top)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, package, top=False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.body:
                yield from _imports(ast.Module([part], []), package, top=False)
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), package, top=top)
        else:
            yield from _imports(child, package, top)


@cache
def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _ours(found: Import) -> bool:
    return found.module.split(".")[0] == "snn_deploy"


def _at(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_module_is_in_a_room():
    rooms = {room_of(module_name(path)) for path in files()} - {"", "__main__"}
    assert rooms <= set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_before_it(room):
    allowed = {room} if room in LEAVES else set(ROOMS[: ROOMS.index(room) + 1])
    if room in WITHOUT_BACKENDS:
        allowed -= {"backends", "budget", "report"}
    wrong = [
        f"{_at(path, found.line)}: {room} imports {found.module}"
        for path in files()
        if room_of(module_name(path)) == room
        for found in imports(path)
        if _ours(found) and room_of(found.module) not in allowed | {""}
    ]
    assert not wrong, "\n".join(wrong)


def lazy_modules() -> dict[str, str]:
    """Return our modules that load a heavy package when imported, and how.

    A module that imports one of them at its top is one of them.
    """
    found: dict[str, str] = {}
    known = {module_name(path): list(imports(path)) for path in files()}
    growing = True
    while growing:
        growing = False
        for name, all_imports in known.items():
            for one in all_imports:
                heavy = one.module.split(".")[0] in HEAVY or one.module in found
                if one.top and heavy and name not in found:
                    found[name] = one.module
                    growing = True
    return found


# These rooms work on torch modules; whoever imports one of their modules does it late.
MAY_BE_LAZY = ("bridges", "frontends", "tickets")


def test_heavy_packages_are_imported_late():
    lazy = lazy_modules()
    assert {room_of(name) for name in lazy} <= set(MAY_BE_LAZY), lazy
    for name, because in lazy.items():
        path = ROOT.joinpath(*name.split("."))
        assert not path.is_dir(), f"importing the room {name} loads {because}"


def test_no_other_module_imports_a_lazy_one_at_its_top():
    lazy = lazy_modules()
    eager = [
        f"{_at(path, one.line)}: importing {module_name(path)} loads {one.module}"
        for path in files()
        if room_of(module_name(path)) not in MAY_BE_LAZY
        for one in imports(path)
        if one.top and one.module in lazy
    ]
    assert not eager


def test_files_divide_before_they_grow():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files()
        if (lines := len(path.read_text().splitlines())) > MOST_LINES
        and str(path.relative_to(ROOT)) not in TABLES
    }
    assert not long


def test_the_library_prints_nothing():
    wrong = [
        _at(path, node.lineno)
        for path in files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("print", "breakpoint")
    ]
    assert not wrong


def _identifiers(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value, line


JOULES = re.compile(r"(^|_)(pj|nj|uj|mj|joules?|picojoules?)($|_)", re.IGNORECASE)


@pytest.mark.parametrize("room", ["ir", "io", "engine", "passes", "bridges", "backends"])
def test_no_joules_before_the_budget(room):
    wrong = [
        f"{_at(path, line)}: {name}"
        for path in files()
        if room_of(module_name(path)) == room
        for name, line in _identifiers(path)
        if JOULES.search(name)
    ]
    assert not wrong


def test_one_place_multiplies_events_by_prices():
    budget = [p for p in files() if room_of(module_name(p)) == "budget"]
    with_prices = {p.name for p in budget if any(JOULES.search(n) for n, _ in _identifiers(p))}
    assert with_prices == {"price.py"}


def test_built_in_targets_are_registered_and_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["snn_deploy.targets"]
    folders = {
        p.parent.name for p in (PACKAGE / "backends").glob("*/target.py") if p.parent != PACKAGE
    }
    assert set(declared) == folders
    for name, value in declared.items():
        module, _, cls = value.partition(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        classes = {n.name: n for n in tree(path).body if isinstance(n, ast.ClassDef)}
        assert cls in classes
        names = [
            ast.literal_eval(node.value)
            for node in classes[cls].body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "name"
        ]
        assert names == [name]


def test_modules_and_public_names_say_what_they_are():
    missing = []
    for path in files():
        module = tree(path)
        if not ast.get_docstring(module) and path.name != "_version.py":
            missing.append(str(path.relative_to(ROOT)))
        for node in module.body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                missing.append(f"{_at(path, node.lineno)}: {node.name}")
    assert not missing


# ---------------------------------------------------------------- Lava's interpreter


def worker_files() -> list[Path]:
    return sorted(WORKER.rglob("*.py"))


def test_the_worker_stands_alone():
    import sys

    own = {p.stem for p in worker_files()} | {p.parent.name for p in worker_files()}
    allowed = WORKER_MAY_IMPORT | own | set(sys.stdlib_module_names)
    assert len(worker_files()) >= 3
    wrong = [
        f"{_at(path, node.lineno)}: {name}"
        for path in worker_files()
        for node in ast.walk(tree(path))
        for name in _roots(node)
        if name not in allowed
    ]
    assert not wrong


def _roots(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [(node.module or "").split(".")[0]]
    return []


@pytest.mark.parametrize("path", worker_files(), ids=lambda p: p.name)
def test_the_worker_is_python_3_10(path):
    ast.parse(path.read_text(), str(path), feature_version=(3, 10))
    later = {"tomllib", "TaskGroup", "ExceptionGroup", "StrEnum", "Self", "assert_never"}
    used = {name for name, _ in _identifiers(path)} | {
        root for node in ast.walk(tree(path)) for root in _roots(node)
    }
    assert not used & later


# ---------------------------------------------------------------- the tests see what they must


def test_the_reader_of_imports_sees_every_kind(tmp_path, monkeypatch):
    source = (
        "from typing import TYPE_CHECKING\n"
        "import torch.nn\n"
        "from .. import errors\n"
        "from .sibling import name\n"
        "if TYPE_CHECKING:\n    from snn_deploy.cli import main\n"
        "try:\n    import h5py\nexcept ImportError:\n    pass\n"
        "class A:\n    import nir\n    def f(self):\n        import numba\n"
        "async def g():\n    from snn_deploy.io import ticket\n"
    )
    found = {(i.module, i.top) for i in _imports(ast.parse(source), "snn_deploy.ir", top=True)}
    assert found == {
        ("typing", True),
        ("torch.nn", True),
        ("snn_deploy.errors", True),
        ("snn_deploy.ir.sibling", True),
        ("snn_deploy.cli.main", False),
        ("h5py", True),
        ("nir", True),
        ("numba", False),
        ("snn_deploy.io.ticket", False),
    }
