"""N-MNIST recordings: both layouts, framing, training on them, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from snn_deploy.errors import InputError
from snn_deploy.tickets.data import nmnist


def recording(events) -> bytes:
    """Return the bytes of (x, y, polarity, time in microseconds) events."""
    return b"".join(
        bytes((x, y, p << 7 | t >> 16 & 0x7F, t >> 8 & 0xFF, t & 0xFF)) for x, y, p, t in events
    )


def random_recording(rng: np.random.Generator, label: int, count: int = 200) -> bytes:
    """Return events of a patch whose place tells the label."""
    x, y = (rng.integers(0, 12, count) + 3 * (label % 5), rng.integers(0, 12, count) + 3 * label)
    times = np.sort(rng.integers(0, 310_000, count))
    y = np.minimum(y, 33)
    columns = (x, y, rng.integers(0, 2, count), times)
    return recording(np.stack(columns, 1).tolist())


def official(folder: Path, samples: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("Train", samples), ("Test", 1)):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
            for i in range(count):
                file = folder / part / str(label) / f"{10 * i + label:05}.bin"
                file.write_bytes(random_recording(rng, label))
    return folder


def listed(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    for name, numbers in (("train1K.txt", range(1, 21)), ("test100.txt", range(60001, 60011))):
        lines = ["#sample #class"]
        for i, number in enumerate(numbers):
            (folder / f"{number}.bs2").write_bytes(random_recording(rng, i % 10))
            lines.append(f"{number}\t{i % 10}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_events_are_read_bit_by_bit(tmp_path):
    events = [(0, 33, 1, 0), (33, 0, 0, 65_536 + 258), (5, 6, 1, (1 << 23) - 1)]
    file = tmp_path / "a.bin"
    file.write_bytes(recording(events))
    assert np.stack(nmnist.read_events(file), 1).tolist() == [list(e) for e in events]


def test_frames_hold_one_spike_per_cell_and_step(tmp_path):
    file = tmp_path / "a.bin"
    events = [(3, 4, 1, 0), (3, 4, 1, 14_999), (3, 4, 1, 15_000), (9, 8, 0, 299_999)]
    late = [(1, 1, 0, 300_000)]  # after the last frame
    file.write_bytes(recording(events + late))
    frames, labels = nmnist.frames_of([(file, 7)], 20, 0.015)
    assert frames.shape == (1, 20, 2, 34, 34)
    assert frames.dtype == np.uint8
    assert np.argwhere(frames[0]).tolist() == [[0, 1, 4, 3], [1, 1, 4, 3], [19, 0, 8, 9]]
    assert frames.max() == 1
    assert labels.tolist() == [7]


def test_both_layouts(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    train, test = nmnist.find(official(tmp_path / "a"))
    assert len(train) == 30
    assert [label for _, label in test] == list(range(10))
    assert [label for _, label in train] == 3 * list(range(10))
    assert train[10][0] == tmp_path / "a" / "Train" / "0" / "00010.bin"
    train, test = nmnist.find(listed(tmp_path / "b"))
    assert [(path.name, label) for path, label in train[:2]] == [("1.bs2", 0), ("2.bs2", 1)]
    assert len(test) == 10


@pytest.mark.parametrize(
    ("content", "what", "where", "used", "hint"),
    [
        (b"", "no recording of 40-bit", "1.bs2", "0 bytes", "fetch the file again"),
        (b"1234567", "no recording of 40-bit", "1.bs2", "7 bytes", ".bin or .bs2"),
        (bytes(5 << 20), "no recording of 40-bit", "1.bs2", "up to 4,194,304", "fetch"),
        (
            recording([(1, 2, 0, 5), (34, 2, 0, 9)]),
            "outside 34x34",
            "event 1",
            "x 34, y 2",
            "larger sensor",
        ),
    ],
    ids=["empty", "cut off", "too long", "outside"],
)
def test_broken_recordings_are_located(tmp_path, content, what, where, used, hint):
    train, _ = nmnist.find(listed(tmp_path))
    (tmp_path / "1.bs2").write_bytes(content)
    with pytest.raises(InputError, match=what) as caught:
        nmnist.frames_of(train, 20, 0.015)
    error = caught.value
    assert where in error.where
    assert used in error.used
    assert hint in error.hint


@pytest.mark.parametrize(
    ("line", "what", "used"),
    [
        ("5", "not a recording's number", "'5'"),
        ("1 2 3", "not a recording's number", "'1 2 3'"),
        ("../x 2", "not a recording's number", "'../x 2'"),
        ("1 10", "not a recording's number", "'1 10'"),
        ("777 1", "a listed recording is missing", "no file 777.bs2"),
    ],
)
def test_broken_lists_are_located(tmp_path, line, what, used):
    listed(tmp_path)
    (tmp_path / "test100.txt").write_text(f"60001 7\n{line}\n")
    with pytest.raises(InputError, match=what) as caught:
        nmnist.find(tmp_path)
    assert caught.value.where == f"{tmp_path / 'test100.txt'} -> line 2"
    assert caught.value.used == used
    assert caught.value.hint


def test_folders_without_recordings(tmp_path):
    with pytest.raises(InputError, match="no folder of N-MNIST") as caught:
        nmnist.find(tmp_path)
    assert "Train/0/*.bin" in caught.value.hint
    with pytest.raises(InputError, match="does not exist"):
        nmnist.find(tmp_path / "none")
    for part in ("Train", "Test"):
        (tmp_path / part).mkdir()
    with pytest.raises(InputError, match="holds no recordings") as caught:
        nmnist.find(tmp_path)
    assert caught.value.where == str(tmp_path / "Train")
    (tmp_path / "b").mkdir()
    listed(tmp_path / "b")
    (tmp_path / "b" / "test100.txt").write_text("# none\n")
    with pytest.raises(InputError, match="names no recordings") as caught:
        nmnist.find(tmp_path / "b")
    assert "NUMBER LABEL" in caught.value.hint


@pytest.mark.parametrize("arch", ["mlp", "conv", "recurrent"])
def test_a_ticket_of_recordings_runs_on_its_test_set(tmp_path, arch):
    torch = pytest.importorskip("torch")
    import snn_deploy
    from snn_deploy.engine.event import EventEngine
    from snn_deploy.io.inputs import encode, read_inputs
    from snn_deploy.tickets import loop
    from snn_deploy.tickets.samples import save_test_set
    from snn_deploy.tickets.trainer import TrainConfig, train

    config = TrainConfig(
        out=tmp_path / "m.pt", arch=arch, data="nmnist", data_dir=official(tmp_path / "data"),
        sparsity=0.5, rounds=1, epochs=3, steps=6, hidden=(3, 4), batch_size=10,
    )  # fmt: skip
    result = train(config)
    assert save_test_set(config, tmp_path / "x.npz") == 10
    network = snn_deploy.load_model(result.path)
    assert network.dt_s == pytest.approx(0.05)
    assert network.coding.kind == "events"
    assert network.coding.steps == 6
    samples = read_inputs(tmp_path / "x.npz", (2, 34, 34))
    assert samples.x.shape == (10, 6, 2, 34, 34)
    assert samples.x.dtype == np.uint8
    frames = encode(samples, network.coding)
    trace = EventEngine(snn_deploy.fold(network)).run(frames, "spikes")
    guess = network.readout.predict(trace.output)
    assert np.mean(guess == samples.y) == result.ticket_accuracy
    with torch.no_grad():
        recipe = loop.Recipe(
            steps=6, coding="events", gain=1.0, lr=0.1, batch_size=2, weight_decay=0.0
        )
        batch = loop.training_input(torch.from_numpy(np.array(samples.x)), recipe, None)
    assert batch.shape == (6, 10, 2, 34, 34)
    assert batch.dtype == torch.float32
    assert np.array_equal(batch.numpy().swapaxes(0, 1), frames)


def test_moved_samples_keep_what_stays_inside():
    torch = pytest.importorskip("torch")
    from snn_deploy.tickets import loop

    x = torch.zeros(200, 3, 2, 5, 6)
    x[:, 1, 0, 2, 3] = 1
    moved = loop.shifted(x, 1, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    at = moved.nonzero()
    assert len(at) == 200  # nothing lost, nothing doubled
    assert torch.equal(at[:, 0], torch.arange(200))
    assert {tuple(p) for p in at[:, 1:3].tolist()} == {(1, 0)}
    places = {tuple(p) for p in at[:, 3:].tolist()}
    assert places == {(i, j) for i in (1, 2, 3) for j in (2, 3, 4)}
    edge = loop.shifted(torch.ones(50, 1, 2, 2), 1, torch.Generator().manual_seed(0))
    assert set(edge.sum((1, 2, 3)).tolist()) == {1.0, 2.0, 4.0}  # no wrapping around


def test_a_short_run_sees_successive_frames_from_anywhere_in_a_recording():
    torch = pytest.importorskip("torch")
    from snn_deploy.tickets import loop

    # 10 times the recording's number, plus the frame's
    frames = 10 * torch.arange(300)[:, None] + torch.arange(8)
    generator = torch.Generator().manual_seed(0)
    part = loop.windows(frames, 3, generator)
    assert part.shape == (300, 3)
    assert torch.equal(part // 10, torch.arange(300)[:, None].expand(-1, 3))
    assert torch.equal(part - part[:, :1], torch.arange(3).expand(300, -1))
    assert set((part[:, 0] % 10).tolist()) == {0, 1, 2, 3, 4, 5}

    before = generator.get_state()
    assert torch.equal(loop.windows(frames, 8, generator), frames)
    assert torch.equal(generator.get_state(), before)  # whole recordings draw nothing
