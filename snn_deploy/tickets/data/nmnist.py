"""N-MNIST from a folder of recordings, as binary frames of equal length.

A recording is a row of 40-bit events, most significant bit first: x (8 bits), y (8), polarity (1)
and time in microseconds (23). N-MNIST (Orchard et al. 2015) shows each MNIST digit to a sensor
of 34x34 pixels in three sweeps of about 100 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snn_deploy.errors import InputError
from snn_deploy.tickets.data.parts import Parts

SIDE = 34
CLASSES = 10
SHAPE = (2, SIDE, SIDE)
# The three sweeps; what recordings hold later is the sensor coming to rest.
WINDOW_S = 0.3
LISTS = {"train": "train1K.txt", "test": "test100.txt"}
FOLDERS = {"train": "Train", "test": "Test"}
_EVENT_BYTES = 5
# The longest recording of N-MNIST has under 20,000 events.
_MAX_BYTES = 1 << 22
CONTENT = (
    f"{FOLDERS['train']}/0/*.bin to {FOLDERS['test']}/9/*.bin, or {LISTS['train']}, "
    f"{LISTS['test']} and the .bs2 files that they list"
)
SOURCE = "N-MNIST of G. Orchard and others (2015)"

Recordings = list[tuple[Path, int]]


def read(folder: Path, steps: int, step_s: float) -> Parts:
    """Return the training and test parts as frames, see ``frames_of``; raises InputError."""
    train, test = (frames_of(recordings, steps, step_s) for recordings in find(folder))
    return train, test


def find(folder: Path) -> tuple[Recordings, Recordings]:
    """Return (train, test) recordings of ``folder`` and their labels, in a fixed order.

    Either the official layout (Train/LABEL/*.bin and Test/LABEL/*.bin), or two lists, train1K.txt
    and test100.txt, with lines "NUMBER LABEL" that name NUMBER.bs2. Raises InputError.
    """
    if all((folder / name).is_dir() for name in FOLDERS.values()):
        train, test = (_by_folder(folder / FOLDERS[part]) for part in ("train", "test"))
    elif all((folder / name).is_file() for name in LISTS.values()):
        train, test = (_by_list(folder / LISTS[part]) for part in ("train", "test"))
    else:
        raise InputError(
            "this is no folder of N-MNIST recordings"
            if folder.is_dir()
            else "the N-MNIST folder does not exist",
            where=str(folder),
            hint=f"a folder with {CONTENT}; {SOURCE}",
        )
    return train, test


def _by_folder(folder: Path) -> Recordings:
    found = [
        (path, label) for label in range(CLASSES) for path in (folder / str(label)).glob("*.bin")
    ]
    if not found:
        raise InputError(
            "the folder holds no recordings", where=str(folder), hint=f"a folder with {CONTENT}"
        )
    # Numbers run through all labels, so the first N recordings are of every label.
    return sorted(found, key=lambda item: (item[0].name, item[1]))


def _by_list(path: Path) -> Recordings:
    found: Recordings = []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not all(w.isascii() and w.isdigit() for w in words):
            raise _bad_line(path, number, line)
        label = int(words[1])
        if label >= CLASSES:
            raise _bad_line(path, number, line)
        recording = path.parent / f"{int(words[0])}.bs2"
        if not recording.is_file():
            raise InputError(
                "a listed recording is missing",
                where=f"{path} -> line {number}",
                used=f"no file {recording.name}",
                hint="put it beside the list, or take its line out",
            )
        found.append((recording, label))
    if not found:
        raise InputError(
            "the list names no recordings", where=str(path), hint="one line each: NUMBER LABEL"
        )
    return found


def _bad_line(path: Path, number: int, line: str) -> InputError:
    return InputError(
        "a line is not a recording's number and its label",
        where=f"{path} -> line {number}",
        used=repr(line[:40]),
        hint="NUMBER LABEL, the label from 0 to 9; # begins a comment",
    )


def frames_of(
    recordings: Sequence[tuple[Path, int]], steps: int, step_s: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return frames (samples, steps, 2, 34, 34), 0 or 1, and labels (samples,).

    step_s: length of a frame in seconds, to the nearest microsecond; the first starts at time 0,
    and events after the last are left out. Several events of one pixel and polarity in a frame
    are one spike. Raises InputError that names the file.
    """
    step_us = max(1, round(1e6 * step_s))
    frames = np.zeros((len(recordings), steps, *SHAPE), np.uint8)
    for out, (path, _) in zip(frames, recordings, strict=True):
        x, y, polarity, time_us = read_events(path)
        step = time_us // step_us
        kept = step < steps
        out[step[kept], polarity[kept], y[kept], x[kept]] = 1
    return frames, np.array([label for _, label in recordings], np.int64)


def read_events(path: Path) -> tuple[NDArray[np.int64], ...]:
    """Return (x, y, polarity, time in microseconds) of one recording's events.

    Raises InputError: unreadable, of a length that is no whole number of events, empty, or with
    a pixel outside 34x34.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as err:
        raise InputError(
            f"the recording cannot be read: {err.strerror}",
            where=str(path),
            hint="check the file's permissions",
        ) from err
    if len(content) > _MAX_BYTES or len(content) % _EVENT_BYTES or not content:
        raise InputError(
            "this is no recording of 40-bit events",
            where=str(path),
            used=f"{len(content):,} bytes, allowed are multiples of 5 up to {_MAX_BYTES:,}",
            hint="fetch the file again; recordings are the .bin or .bs2 files of N-MNIST",
        )
    raw = np.frombuffer(content, np.uint8).reshape(-1, _EVENT_BYTES).astype(np.int64)
    x, y, high, middle, low = raw.T
    outside = np.flatnonzero((x >= SIDE) | (y >= SIDE))
    if len(outside):
        at = int(outside[0])
        raise InputError(
            f"an event lies outside {SIDE}x{SIDE} pixels",
            where=f"{path} -> event {at}",
            used=f"x {x[at]}, y {y[at]}",
            hint="only N-MNIST's recordings are read; those of a larger sensor are not",
        )
    return x, y, high >> 7, (high & 0x7F) << 16 | middle << 8 | low
