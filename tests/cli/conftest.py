"""Small models and data, written once per session and copied into each test's folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import tickets


@pytest.fixture(scope="session")
def _made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tickets.save(folder / "mlp.pt", tickets.mlp_content())
    tickets.save(folder / "conv.pt", tickets.conv_content())
    tickets.save_data(folder / "mlp.npz")
    tickets.save_data(folder / "conv.npz", (1, 6, 6), samples=6)
    return folder


@pytest.fixture
def here(_made, tmp_path, monkeypatch) -> Path:
    """A working folder with mlp.pt, mlp.npz, conv.pt and conv.npz, 80 columns, no colours."""
    folder = tmp_path / "work"
    shutil.copytree(_made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return folder
