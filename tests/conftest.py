"""What all tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snn_deploy.backends.loihi import environment
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
