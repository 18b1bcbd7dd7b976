"""DVS128 Gesture from its unpacked folder, as binary frames of equal length.

Each recording (userNN_LIGHT.aedat) holds one person's gestures in one light, and a table beside
it (userNN_LIGHT_labels.csv) says when which gesture was made, as class, start and end. Two lists
divide the recordings into training and test (Amir et al., CVPR 2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snn_deploy.errors import InputError, UsageError
from snn_deploy.io.files import read_limited
from snn_deploy.tickets.data import aedat
from snn_deploy.tickets.data.parts import Part, Parts

SIDE = 128
CLASSES = 11
# About as long as most gestures were made for; later events of longer ones are left out.
WINDOW_S = 6.0
SOURCE = "DVS128 Gesture of IBM Research (Amir et al., CVPR 2017)"
LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
CONTENT = f"{LISTS['train']}, {LISTS['test']} and the .aedat and _labels.csv files that they list"
_COLUMNS = "class,startTime_usec,endTime_usec"
# The lists have some hundred lines, the tables a dozen.
_MAX_TEXT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gesture:
    """One labelled interval of a recording: label from 0, microseconds from start to end."""

    label: int
    start_us: int
    end_us: int


def read(folder: Path, steps: int, step_s: float, downscale: int = 1) -> Parts:
    """Return the training and test parts: frames (n, steps, 2, side, side), 0 or 1.

    step_s: length of a frame in seconds, to the nearest microsecond; the first one starts with
    the gesture, and frames behind its end are empty. downscale: so many pixels in a row and in a
    column become one, side is 128 / downscale; a power of two. Several events of one pixel and
    polarity in a frame are one spike. Raises InputError and UsageError.
    """
    if downscale < 1 or SIDE % downscale:
        raise UsageError(
            "frames of DVS128 Gesture are made smaller by a power of two",
            used=f"downscale = {downscale}",
            hint="1 keeps 128x128 pixels, 4 makes 32x32",
        )
    lists = [folder / name for name in LISTS.values()]
    if not all(path.is_file() for path in lists):
        raise InputError(
            "this is no folder of DVS128 Gesture"
            if folder.is_dir()
            else "the DVS128 Gesture folder does not exist",
            where=str(folder),
            hint=f"a folder with {CONTENT}; {SOURCE}",
        )
    train, test = (_part(path, steps, step_s, downscale) for path in lists)
    return train, test


def _part(path: Path, steps: int, step_s: float, downscale: int) -> Part:
    step_us = max(1, round(1e6 * step_s))
    recordings = [(recording, gestures_of(recording)) for recording in _listed(path)]
    labels = [gesture.label for _, gestures in recordings for gesture in gestures]
    side = SIDE // downscale
    frames = np.zeros((len(labels), steps, 2, side, side), np.uint8)
    rows = iter(frames)
    for recording, gestures in recordings:
        events = aedat.read_polarity(recording)
        outside = np.flatnonzero((events.x >= SIDE) | (events.y >= SIDE))
        if len(outside):
            at = int(outside[0])
            raise InputError(
                f"an event lies outside {SIDE}x{SIDE} pixels",
                where=f"{recording} -> polarity event {at}",
                used=f"x {events.x[at]}, y {events.y[at]}",
                hint="recordings of another sensor are not read",
            )
        for gesture in gestures:
            time_us = events.time_us - gesture.start_us
            length_us = min(gesture.end_us - gesture.start_us, steps * step_us)
            kept = (time_us >= 0) & (time_us < length_us)
            x, y = (axis[kept] // downscale for axis in (events.x, events.y))
            next(rows)[time_us[kept] // step_us, events.polarity[kept], y, x] = 1
    return frames, np.array(labels, np.int64)


def _listed(path: Path) -> list[Path]:
    found: list[Path] = []
    for number, line in enumerate(_lines(path), start=1):
        name = line.strip()
        if not name:
            continue
        recording = path.parent / name
        if Path(name).name != name or recording.suffix != ".aedat":
            raise InputError(
                "a line does not name a recording",
                where=f"{path} -> line {number}",
                used=repr(name[:40]),
                hint="one line each: userNN_LIGHT.aedat, a file beside the list",
            )
        if not recording.is_file():
            raise InputError(
                "a listed recording is missing",
                where=f"{path} -> line {number}",
                used=f"no file {name[:80]}",
                hint="put it beside the list, or take its line out",
            )
        found.append(recording)
    if not found:
        raise InputError(
            "the list names no recordings",
            where=str(path),
            hint="one line each: userNN_LIGHT.aedat",
        )
    return found


def gestures_of(recording: Path) -> list[Gesture]:
    """Return the labelled intervals of a recording, in the table's order; raises InputError."""
    path = recording.with_name(f"{recording.stem}_labels.csv")
    if not path.is_file():
        raise InputError(
            "a recording has no table of labels",
            where=str(recording),
            used=f"no file {path.name}",
            hint=f"unpack the whole archive again; {SOURCE}",
        )
    head, *rows = _lines(path) or [""]
    if head.replace(" ", "") != _COLUMNS:
        raise InputError(
            "this is no table of gestures",
            where=f"{path} -> line 1",
            used=repr(head[:60]),
            hint=f"its first line is {_COLUMNS}",
        )
    gestures: list[Gesture] = []
    for number, row in enumerate(rows, start=2):
        words = [word.strip() for word in row.split(",")]
        if words == [""]:
            continue
        if len(words) != 3 or not all(w.isascii() and w.isdigit() and len(w) < 16 for w in words):
            raise _bad_row(path, number, row)
        label, start_us, end_us = map(int, words)
        if not 1 <= label <= CLASSES or end_us <= start_us:
            raise _bad_row(path, number, row)
        gestures.append(Gesture(label=label - 1, start_us=start_us, end_us=end_us))
    if not gestures:
        raise InputError(
            "the table holds no gestures", where=str(path), hint=f"lines of {_COLUMNS}"
        )
    return gestures


def _bad_row(path: Path, number: int, row: str) -> InputError:
    return InputError(
        "a line is not a gesture's class, start and end",
        where=f"{path} -> line {number}",
        used=repr(row[:60]),
        hint=f"{_COLUMNS}, the class from 1 to {CLASSES} and the end behind the start",
    )


def _lines(path: Path) -> list[str]:
    return read_limited(path, _MAX_TEXT_BYTES).decode("utf-8", "replace").splitlines()
