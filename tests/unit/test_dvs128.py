"""DVS128 Gesture folders: recordings, labelled intervals, frames, and what is wrong with a file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from snn_deploy.errors import InputError, UsageError
from snn_deploy.tickets.data import aedat, dvs128
from snn_deploy.tickets.data.load import load

TEXT = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-09-29\r\n"
    b"#!END-HEADER\r\n"
)


def packet(events, *, kind=1, overflow=0, size=8, valid=1, capacity=None) -> bytes:
    """Return a packet of (x, y, polarity, time in microseconds) events."""
    body = b"".join(
        struct.pack("<II", x << 17 | y << 2 | p << 1 | valid, t) for x, y, p, t in events
    )
    room = len(events) if capacity is None else capacity
    head = struct.pack("<HHiiiiii", kind, 1, size, 4, overflow, room, len(events), 0)
    return head + body


HEAD = "class,startTime_usec,endTime_usec\n"


def folder_of(folder: Path, recordings: dict[str, tuple[bytes, str]]) -> Path:
    """Write recordings; the first is for training, all others for testing."""
    folder.mkdir(exist_ok=True)
    for name, (content, table) in recordings.items():
        (folder / f"{name}.aedat").write_bytes(TEXT + content)
        (folder / f"{name}_labels.csv").write_text(HEAD + table)
    first, *others = (f"{name}.aedat" for name in recordings)
    (folder / "trials_to_train.txt").write_text(f"{first}\n")
    (folder / "trials_to_test.txt").write_text("\n".join([*others, "", ""]))
    return folder


EVENTS = packet([(3, 4, 1, 1000), (3, 4, 1, 1400), (120, 7, 0, 1999), (9, 9, 1, 2000)]) + packet(
    [(1, 2, 0, 3000), (64, 127, 1, 3499), (5, 5, 1, 999), (6, 6, 1, 4999)]
)


def both(folder: Path) -> Path:
    return folder_of(
        folder,
        {
            "user01_led": (EVENTS, "2,1000,2000\n11,3000,3500\n"),
            "user02_lab": (EVENTS, "1,1000,5000\n"),
        },
    )


def test_events_are_read_bit_by_bit(tmp_path):
    path = tmp_path / "a.aedat"
    first = [(127, 0, 1, 7), (0, 127, 0, 2**31 - 1)]
    other = struct.pack("<HHiiiiii", 3, 1, 36, 4, 0, 2, 2, 2) + bytes(72)
    path.write_bytes(
        TEXT + packet(first) + other + packet([(5, 6, 1, 35)], valid=0)
        + packet([(5, 6, 1, 35)], overflow=2)
    )  # fmt: skip
    found = aedat.read_polarity(path)
    assert np.stack([a.astype(np.int64) for a in found], 1).tolist() == [
        *map(list, first),
        [5, 6, 1, 35 + 2 * 2**31],
    ]
    path.write_bytes(TEXT)
    assert aedat.read_polarity(path).x.shape == (0,)


def test_events_are_what_another_reader_finds(tmp_path):
    io = pytest.importorskip("tonic.io")
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 10**8, 500))
    columns = (rng.integers(0, 128, 500), rng.integers(0, 128, 500), rng.integers(0, 2, 500), times)
    events = np.stack(columns, 1).tolist()
    path = tmp_path / "a.aedat"
    path.write_bytes(TEXT + packet(events[:123]) + packet(events[123:124]) + packet(events[124:]))
    version, start, _ = io.read_aedat_header_from_file(str(path))
    other = io.get_aer_events_from_file(str(path), version, start)
    found = aedat.read_polarity(path)
    assert np.array_equal(found.time_us, other["timeStamp"])
    assert np.array_equal(found.x, other["address"] >> 17 & 0x1FFF)
    assert np.array_equal(found.y, other["address"] >> 2 & 0x1FFF)
    assert np.array_equal(found.polarity, other["address"] >> 1 & 1)


def test_frames_cover_each_labelled_interval(tmp_path):
    found = load("dvs128", both(tmp_path), steps=3, step_s=500e-6)
    assert found.classes == 11
    assert found.x_train.shape == (2, 3, 2, 128, 128)
    assert found.x_train.dtype == np.uint8
    assert found.y_train.tolist() == [1, 10]
    assert np.argwhere(found.x_train[0]).tolist() == [[0, 1, 4, 3], [1, 0, 7, 120]]
    assert np.argwhere(found.x_train[1]).tolist() == [[0, 0, 2, 1], [0, 1, 127, 64]]
    # Three frames of half a millisecond end before the interval does.
    frames = [[0, 1, 4, 3], [1, 0, 7, 120], [2, 1, 9, 9]]
    assert np.argwhere(found.x_test[0]).tolist() == frames
    assert found.y_test.tolist() == [0]
    assert found.x_test.max() == 1


def test_smaller_frames(tmp_path):
    found = load("dvs128", both(tmp_path), steps=4, step_s=1e-3, downscale=4)
    assert found.x_train.shape == (2, 4, 2, 32, 32)
    assert np.argwhere(found.x_train[0]).tolist() == [[0, 0, 1, 30], [0, 1, 1, 0]]
    for wrong in (0, 3, 256):
        with pytest.raises(UsageError, match="power of two") as caught:
            load("dvs128", tmp_path, downscale=wrong)
        assert caught.value.used == f"downscale = {wrong}"
        assert "32x32" in caught.value.hint
    with pytest.raises(UsageError, match="digits are not made smaller") as caught:
        load("digits", downscale=2)
    assert caught.value.used == "downscale = 2"
    assert "dvs128" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "what", "used", "hint"),
    [
        (b"#!AER-DAT2.0\r\n", "no AEDAT 3.1", "AER-DAT2", "AEDAT 4"),
        (b"", "no AEDAT 3.1", "b''", "fetch"),
        (TEXT + bytes(20), "ends within a packet's header", "20 bytes", "fetch"),
        (TEXT + packet([(1, 1, 1, 1)] * 3)[:-1], "ends within a packet", "23 bytes", "fetch"),
        (TEXT + packet([], size=0), "makes no sense", "0 bytes", "damaged"),
        (TEXT + packet([], size=-8), "makes no sense", "-8 bytes", "damaged"),
        (TEXT + packet([], size=16), "makes no sense", "16 bytes", "damaged"),
        (TEXT + packet([], kind=2, size=2**30), "makes no sense", "1,073,741,824", "damaged"),
        (TEXT + packet([], overflow=-1), "makes no sense", "-1 overflows", "damaged"),
        (TEXT + packet([(1, 1, 1, 1)], capacity=2), "makes no sense", "1 of 2 events", "damaged"),
        (
            TEXT + packet([(1, 1, 1, 1), (128, 3, 1, 1)]),
            "outside 128x128",
            "x 128, y 3",
            "another sensor",
        ),
    ],
)
def test_broken_recordings_are_located(tmp_path, content, what, used, hint):
    path = both(tmp_path) / "user02_lab.aedat"
    path.write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        load("dvs128", tmp_path)
    assert caught.value.where.startswith(str(path))
    assert used in caught.value.used
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("table", "what", "line", "hint"),
    [
        ("", "no table of gestures", " -> line 1", "class,startTime_usec,endTime_usec"),
        ("1,2,3\n", "no table of gestures", " -> line 1", "class,startTime_usec,endTime_usec"),
        (HEAD, "holds no gestures", "", "lines of class"),
        (f"{HEAD}\n0,1,2\n", "not a gesture's class", " -> line 3", "from 1 to 11"),
        (f"{HEAD}12,1,2\n", "not a gesture's class", " -> line 2", "from 1 to 11"),
        (f"{HEAD}1,2\n", "not a gesture's class", " -> line 2", "from 1 to 11"),
        (f"{HEAD}1,5,5\n", "not a gesture's class", " -> line 2", "end behind the start"),
        (f"{HEAD}1,-5,5\n", "not a gesture's class", " -> line 2", "from 1 to 11"),
        (f"{HEAD}1,5,{'9' * 5000}\n", "not a gesture's class", " -> line 2", "from 1 to 11"),
    ],
)
def test_broken_tables_are_located(tmp_path, table, what, line, hint):
    path = both(tmp_path) / "user01_led_labels.csv"
    path.write_text(table)
    with pytest.raises(InputError, match=what) as caught:
        load("dvs128", tmp_path)
    assert caught.value.where == f"{path}{line}"
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("listed", "what"),
    [
        ("../user01_led.aedat", "does not name a recording"),
        ("user01_led.txt", "does not name a recording"),
        ("user09_led.aedat", "a listed recording is missing"),
    ],
)
def test_broken_lists_are_located(tmp_path, listed, what):
    path = both(tmp_path) / "trials_to_test.txt"
    path.write_text(f"user02_lab.aedat\n{listed}\n")
    with pytest.raises(InputError, match=what) as caught:
        load("dvs128", tmp_path)
    assert caught.value.where == f"{path} -> line 2"
    assert listed in caught.value.used
    assert caught.value.hint


def test_folders_without_recordings(tmp_path):
    with pytest.raises(UsageError, match="read from a folder") as usage:
        load("dvs128")
    assert "trials_to_train.txt" in usage.value.hint
    assert "IBM Research" in usage.value.hint
    with pytest.raises(InputError, match="no folder of DVS128 Gesture") as caught:
        load("dvs128", tmp_path)
    assert "trials_to_test.txt" in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        load("dvs128", tmp_path / "none")
    folder = both(tmp_path)
    (folder / "trials_to_train.txt").write_text("\n")
    with pytest.raises(InputError, match="names no recordings") as caught:
        load("dvs128", tmp_path)
    assert "userNN_LIGHT.aedat" in caught.value.hint
    both(tmp_path)
    (folder / "user01_led_labels.csv").unlink()
    with pytest.raises(InputError, match="no table of labels") as caught:
        load("dvs128", tmp_path)
    assert caught.value.used == "no file user01_led_labels.csv"
    assert "unpack" in caught.value.hint


def test_the_reader_takes_an_hour_of_events_as_numbers_of_one_clock(tmp_path):
    path = both(tmp_path) / "user01_led.aedat"
    path.write_bytes(TEXT + packet([(1, 2, 1, 5)], overflow=1))
    start = 2**31
    path.with_name("user01_led_labels.csv").write_text(f"{HEAD}3,{start},{start + 10}\n")
    (train, _), _ = dvs128.read(tmp_path, 2, 5e-6)
    assert np.argwhere(train[0]).tolist() == [[1, 1, 2, 1]]
