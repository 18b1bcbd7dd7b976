"""Checkpoints of a search: written whole or not at all, read without running anything."""

from __future__ import annotations

import io
import pickle
import re
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from snn_deploy.errors import InputError
from snn_deploy.io.files import atomic_write, read_limited
from snn_deploy.tickets.search import Round, Snapshot, intact

FORMAT = "snn-deploy/train-checkpoint"
VERSION = 2
_MAX_BYTES = 1 << 32


def save_checkpoint(path: Path, snapshot: Snapshot, config: dict[str, Any]) -> None:
    """Write ``snapshot`` and its settings, whole or not at all; raises OutputError."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": config,
        "finished": [asdict(r) for r in snapshot.finished],
        "method": snapshot.method,
        "run": snapshot.run,
        "model": snapshot.model,
        "masks": snapshot.masks,
    }
    # Through memory: torch turns a full disk into a RuntimeError, atomic_write into exit 10.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with atomic_write(path, force=True) as file:
        file.write(buffer.getbuffer())


def load_checkpoint(path: Path, config: dict[str, Any]) -> Snapshot:
    """Return the snapshot at ``path``; InputError where it is broken or of other settings.

    Whether it fits the model shows when the search takes it back.
    """
    if not path.is_file():
        raise InputError(
            "there is nothing to resume",
            where=str(path),
            hint="a checkpoint appears after the first epoch; train without --resume",
        )
    data = read_limited(path, _MAX_BYTES)
    try:
        with intact():
            content = _content(data)
            if content["format"] != FORMAT:
                raise ValueError("not a checkpoint")
            if content["version"] == VERSION:
                compare(content["config"], config, "checkpoint")
                return Snapshot(
                    finished=[Round(**r) for r in content["finished"]],
                    method=dict(content["method"]),
                    run=None if content["run"] is None else dict(content["run"]),
                    model=dict(content["model"]),
                    masks=dict(content["masks"]),
                )
    except InputError as error:
        raise error.located(str(path)) from error.__cause__
    raise InputError(
        "the checkpoint is of another version of snn-deploy",
        where=str(path),
        used=f"version {content['version']}, this one reads {VERSION}",
        hint="train without --resume",
    )


def _content(data: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on foreign pickles before refusing them
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, EOFError, OSError) as error:
        raise ValueError("not a file of torch.save") from error


def compare(found: object, wanted: dict[str, Any], what: str) -> None:
    """Raise InputError, which lists them, where settings differ. what: the file they are from."""
    found = found if isinstance(found, dict) else {}
    keys = sorted(found.keys() | wanted.keys(), key=str)
    differing = [k for k in keys if found.get(k) != wanted.get(k)]
    if differing:
        shown = [f"{k}: {found.get(k)!r} then, {wanted.get(k)!r} now" for k in differing]
        raise InputError(
            f"the {what} was made with other settings",
            used=re.sub(r"\s+", " ", "; ".join(shown)),
            hint="give the same settings as before, or train without --resume",
        )
