"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snn_deploy.backends.fpga import tools
from snn_deploy.backends.loihi import environment
from snn_deploy.io.cache import CACHE_VARIABLE, cache_folder
from tests.requirements import require_tool

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what golden tests see to tests/golden; read the difference before committing",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Return a function that compares text with the file of that name under tests/golden."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        assert path.is_file(), f"{name} is missing: run pytest --update-golden, then read it"
        assert text == path.read_bytes().decode()

    return check


@pytest.fixture(scope="session")
def lava() -> environment.LavaEnvironment:
    """Return Lava's environment; without one the test is skipped, or fails where it is demanded."""
    found = environment.find()
    require_tool("lava", found is not None, f"run: {environment.SETUP_COMMAND}")
    assert found is not None
    return found


def _require(name: str, needed: tuple[str, ...]) -> None:
    missing = [tool for tool in needed if tools.find(tool) is None]
    how = "; ".join(dict.fromkeys(tools.how_to_install(tool) for tool in missing))
    require_tool(name, not missing, f"run: {how} (for {', '.join(missing)})")


@pytest.fixture(scope="session")
def verilator() -> tools.Tool:
    """Return Verilator, with a compiler and make beside it; skipped or failed as ``lava``."""
    _require("verilator", ("verilator", "c++", "make"))
    return tools.require("verilator")


@pytest.fixture(scope="module")
def yosys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tools.Tool]:
    """Return Yosys, with nextpnr beside it; skipped or failed as ``lava``.

    Results are kept in a folder of the test's own, the compiled tools where they always are.
    """
    _require("yosys", ("yosys", "nextpnr-ecp5", "nextpnr-ice40"))
    with pytest.MonkeyPatch.context() as patch:
        compiled = os.environ.get(tools.WASM_CACHE_VARIABLE) or str(cache_folder() / "yowasp")
        patch.setenv(tools.WASM_CACHE_VARIABLE, compiled)
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield tools.require("yosys")
