"""Device files: what ships, and every way in which a file can be wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from snn_deploy.device import KINDS, VALUE_KINDS, load, names
from snn_deploy.device.load import MAX_BYTES
from snn_deploy.errors import DeviceError, UsageError
from snn_deploy.ir.events import EVENT_NAMES

GOOD = """
schema = 1
name = "toy"
title = "A toy"
family = "loihi"
basis = "chip"

[sources.sheet]
title = "Toy data sheet"
ref = "table 1"

[sources.other]
title = "Toy paper"
doi = "10.0/toy"

[limits.neurons_per_core]
value = 16
unit = "neurons"
source = "sheet"
kind = "specified"

[timing.clock_hz]
value = 1e6
unit = "Hz"
source = "sheet"
kind = "estimated"

[prices.synops_quantized]
low_pj = 1.0
nominal_pj = 2.0
high_pj = 4.0
unit = "pJ"
sources = ["sheet", "other"]
kind = "simulated"

[unknown]
hops = "never published"
"""


def write(tmp_path: Path, text: str, name: str = "toy.toml") -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def broken(tmp_path: Path, old: str, new: str) -> DeviceError:
    """Return the error for GOOD with one text replaced."""
    assert GOOD.count(old) >= 1
    with pytest.raises(DeviceError) as caught:
        load(write(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.exit_code == 8
    return caught.value


SHIPPED = (
    "cpu45",
    "ecp5-25f",
    "ecp5-45f",
    "ecp5-85f",
    "ice40hx8k",
    "ice40up5k",
    "loihi1",
    "loihi2",
    "nrf52840",
    "rp2040",
    "stm32h7",
    "zynq-7020",
)


def test_the_shipped_devices_are_listed() -> None:
    assert set(SHIPPED) <= set(names())
    assert list(names()) == sorted(names())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_number_has_unit_source_and_kind(name: str) -> None:
    device = load(name)
    assert device.name == name
    cited = set()
    for value in [*device.limits.values(), *device.timing.values()]:
        assert value.unit and value.kind in VALUE_KINDS
        cited.add(value.source)
    for event, price in device.prices.items():
        assert event in EVENT_NAMES and price.kind in KINDS and price.unit == "pJ"
        cited |= set(price.sources)
    assert cited == set(device.sources), "a source is defined and never cited"
    assert bool(device.prices) == bool(device.basis)
    assert device.prices or device.fit_only or "synops_quantized" in device.unknown
    assert not device.unknown.keys() & (device.limits.keys() | device.prices.keys())


def test_shipped_numbers_that_others_rely_on() -> None:
    loihi = load("loihi1")
    expected = {
        "neurons_per_core": 1024,
        "synapse_bits_per_core": 16384 * 64,
        "in_axons_per_core": 4096,
        "out_axons_per_core": 4096,
        "cores_per_chip": 128,
        "cores_per_tile": 4,
        "threshold_bits": 17,
        "bias_bits": 13,
    }
    assert {key: loihi.limit(key) for key in expected} == expected
    small, large = load("ecp5-25f"), load("ecp5-85f")
    for device in (small, large, *map(load, ("ecp5-45f", "ice40hx8k", "ice40up5k", "zynq-7020"))):
        blocks, bits = device.limit("block_ram"), device.limit("block_ram_bits")
        assert device.limit("memory_bits") == blocks * bits
    assert small.prices == large.prices and small.limit("lut4") < large.limit("lut4")
    assert load("stm32h7").limit("ram_d2_bytes") == (128 + 128 + 32) * 1024


def test_loihi_prices_charge_each_update_once() -> None:
    prices = load("loihi1").prices
    inactive, extra = prices["neuron_updates"], prices["neuron_updates_active"]
    assert inactive.nominal_pj + extra.nominal_pj == 81.0


def test_loihi2_has_no_invented_energy() -> None:
    device = load("loihi2")
    assert not device.prices and not device.fit_only
    assert "no per-operation energy" in device.unknown["synops_quantized"]
    assert "no primary source" in device.unknown["synapse_bits_per_core"]


def test_load_is_cached_for_shipped_names_only(tmp_path: Path) -> None:
    assert load("loihi1") is load("loihi1")
    path = write(tmp_path, GOOD)
    first = load(path)
    Path(path).write_text(GOOD.replace("16", "17"))
    assert load(path).limit("neurons_per_core") == 17
    assert first.limit("neurons_per_core") == 16


def test_a_good_file(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    device = load(Path(path))
    assert (device.name, device.family, device.fit_only) == ("toy", "loihi", False)
    assert device.limit("neurons_per_core") == 16 and device.time("clock_hz") == 1e6
    assert device.prices["synops_quantized"].high_pj == 4.0
    assert device.path == path and len(device.sha256) == 64
    assert str(device.sources["other"]) == "Toy paper, doi:10.0/toy"
    with pytest.raises(TypeError):
        device.limits["x"] = 1  # type: ignore[index]


def test_a_limit_that_is_not_known_says_why(tmp_path: Path) -> None:
    device = load("loihi2")
    with pytest.raises(DeviceError) as caught:
        device.limit("neurons_per_core")
    assert caught.value.where == "loihi2.toml -> limits.neurons_per_core"
    assert "no primary source" in str(caught.value.used)
    assert "inherits from this one" in str(caught.value.hint)
    listed = load(write(tmp_path, GOOD.replace("value = 16", "value = [16, 8]")))
    with pytest.raises(DeviceError, match="is a list"):
        listed.limit("neurons_per_core")
    assert listed.limits["neurons_per_core"].value == (16, 8)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load("loihi")
    assert caught.value.exit_code == 2
    assert "did you mean" in str(caught.value.hint) and "'loihi1'" in str(caught.value.hint)
    assert "nrf52840" in str(caught.value.hint)
    with pytest.raises(UsageError) as caught:
        load("qqqq")
    assert str(caught.value.hint).startswith("known devices: cpu45")
    with pytest.raises(UsageError, match="there is no device file"):
        load(str(tmp_path / "absent.toml"))
    with pytest.raises(UsageError, match="there is no device file"):
        load(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("old", "new", "where", "message", "hint"),
    [
        ("schema = 1", "schema = 2", "schema", "schema is 2", "write schema = 1"),
        ("schema = 1", "", "schema", "schema is None", "write schema = 1"),
        ("schema = 1", "schema = true", "schema", "schema is True", "write schema = 1"),
        ("title = ", "titel = ", "titel", "unknown key 'titel'", "did you mean 'title'"),
        ('title = "A toy"', "title = 3", "title", "must be a text", None),
        ('title = "A toy"', "", "title", "'title' is missing", None),
        ('name = "toy"', 'name = "../toy"', "name", "name is '../toy'", "lower-case"),
        ('family = "loihi"', "", "family", "'family' is missing", "one of cpu, loihi"),
        ('"loihi"', '"lohi"', "family", "'family' is 'lohi'", "did you mean 'loihi'"),
        ('basis = "chip"', "", "basis", "prices need a basis", "architecture, chip, board"),
        ('basis = "chip"', 'basis = "chip"\nfit_only = "no"', "fit_only", "true or false", None),
        ('basis = "chip"', 'basis = "chip"\nnotes = 3', "notes", "list of texts", None),
        ("value = 16", "", "limits.neurons_per_core.value", "'value' is missing", None),
        ("value = 16", 'value = "16"', "limits.neurons_per_core.value", "a number", "quotes"),
        ("value = 16", "value = true", "limits.neurons_per_core.value", "a number", "quotes"),
        ("value = 16", "value = -1", "limits.neurons_per_core.value", "not be negative", None),
        ("value = 16", "value = nan", "limits.neurons_per_core.value", "finite", None),
        ("value = 16", "value = inf", "limits.neurons_per_core.value", "finite", None),
        ("value = 16", "value = []", "limits.neurons_per_core.value", "empty list", None),
        ("value = 16", "value = [1, -1]", "limits.neurons_per_core.value", "negative", None),
        ("value = 16", f"value = {10**30}", "limits.neurons_per_core.value", "larger", "unit"),
        ('unit = "neurons"', "", "limits.neurons_per_core.unit", "missing", "what the number"),
        ('unit = "neurons"', 'unit = ""', "limits.neurons_per_core.unit", "not empty", None),
        ('source = "sheet"', "", "limits.neurons_per_core.source", "missing", "does not ship"),
        (
            'source = "sheet"',
            'source = "shet"',
            "limits.neurons_per_core.source",
            "source 'shet' is not defined",
            "did you mean 'sheet'",
        ),
        (
            'source = "sheet"',
            'source = "zzz"',
            "limits.neurons_per_core.source",
            "source 'zzz' is not defined",
            "add [sources.zzz]",
        ),
        ('kind = "specified"', "", "limits.neurons_per_core.kind", "missing", "one of specified"),
        (
            'kind = "specified"',
            'kind = "guessed"',
            "limits.neurons_per_core.kind",
            "'kind' is 'guessed'",
            "one of specified, measured",
        ),
        ('kind = "simulated"', 'kind = "specified"', "prices.synops_quantized.kind", "is", None),
        ("[limits.neurons_per_core]", "[limits]", "limits.value", "must be a table", None),
        ("[limits.neurons_per_core]", '[limits."A b"]', "limits.A b", "lower-case", None),
        (
            "[prices.synops_quantized]",
            "[prices.synops_quantised]",
            "prices.synops_quantised",
            "is not an event",
            "did you mean 'synops_quantized'",
        ),
        (
            "[prices.synops_quantized]",
            "[prices.zap]",
            "prices.zap",
            "is not an event",
            "plugin:event",
        ),
        ('unit = "pJ"', 'unit = "nJ"', "prices.synops_quantized.unit", "'unit' is 'nJ'", "pJ"),
        ('unit = "pJ"', "", "prices.synops_quantized.unit", "missing", "one of pJ"),
        ("low_pj = 1.0", "", "prices.synops_quantized", "has both", None),
        ("low_pj = 1.0", "low_pj = 3.0", "prices.synops_quantized", "does not hold", None),
        ("high_pj = 4.0", "high_pj = 1.5", "prices.synops_quantized", "does not hold", None),
        ("nominal_pj = 2.0", "", "prices.synops_quantized.nominal_pj", "missing", None),
        (
            '"sheet", "other"',
            '"sheet", "sheet"',
            "prices.synops_quantized.sources",
            "an interval needs two sources",
            "drop low_pj",
        ),
        ('["sheet", "other"]', "[]", "prices.synops_quantized.sources", "missing", None),
        (
            '"sheet", "other"',
            '"sheet", "odder"',
            "prices.synops_quantized.sources",
            "not defined",
            "did you mean 'other'",
        ),
        ('ref = "table 1"', "", "sources.sheet", "needs 'doi' or 'ref'", "section 2.3"),
        ('title = "Toy paper"', "", "sources.other.title", "missing", None),
        ('hops = "', 'neurons_per_core = "', "unknown.neurons_per_core", "listed as un", None),
        ('hops = "never published"', "hops = 3", "unknown.hops", "must be a text", None),
        ('name = "toy"', 'inherits = "loihi3"', "inherits", "not a shipped", "'loihi1'"),
    ],
)
def test_a_bad_file_is_located(
    tmp_path: Path, old: str, new: str, where: str, message: str, hint: str | None
) -> None:
    error = broken(tmp_path, old, new)
    assert error.where == f"{tmp_path / 'toy.toml'} -> {where}"
    assert message in error.message
    assert hint is None or hint in str(error.hint)


def test_files_that_are_no_device_files(tmp_path: Path) -> None:
    cases = {
        "text": b"= = =",
        "binary": bytes(range(256)),
        "deep": b"a = " + b"[" * 100_000,
        "digits": b"a = " + b"9" * 10_000,
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.toml"
        path.write_bytes(content)
        with pytest.raises(DeviceError, match="not a TOML file"):
            load(path)
    large = tmp_path / "large.toml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(DeviceError, match="too large") as caught:
        load(large)
    assert "256" in str(caught.value.used) or "262,144" in str(caught.value.used)
    exact = tmp_path / "exact.toml"
    exact.write_bytes(GOOD.encode() + b"#" * (MAX_BYTES - len(GOOD.encode())))
    assert load(exact).name == "toy"


def test_control_characters_are_escaped(tmp_path: Path) -> None:
    device = load(write(tmp_path, GOOD.replace("A toy", "A \\u001b[31mtoy")))
    assert "\x1b" not in device.title and "\\x1b" in device.title


CHILD = """
schema = 1
inherits = "loihi1"
name = "mine"
title = "Mine"
notes = ["calibrated"]
[sources.meter]
title = "Own measurement"
ref = "log of 3 May"
[limits.neurons_per_core]
value = 512
unit = "neurons"
source = "meter"
kind = "measured"
[static_power]
value = 0.5
unit = "W"
source = "meter"
kind = "measured"
[unknown]
hops = "not measured"
"""


def test_inherits_one_level(tmp_path: Path) -> None:
    base, device = load("loihi1"), load(write(tmp_path, CHILD))
    assert device.limit("neurons_per_core") == 512 and device.limit("cores_per_chip") == 128
    assert device.family == "loihi" and device.basis == "chip"
    assert "hops" not in device.prices and device.unknown["hops"] == "not measured"
    assert device.static_power is not None and device.static_power.value == 0.5
    assert "static_power" not in device.unknown and "static_power" in base.unknown
    assert device.notes == (*base.notes, "calibrated") and device.excludes == base.excludes
    assert device.sha256 != base.sha256
    with pytest.raises(DeviceError, match="one level is the most") as caught:
        load(write(tmp_path, CHILD.replace('"loihi1"', '"ecp5-85f"')))
    assert "inherit from 'ecp5-25f'" in str(caught.value.hint)


def test_zynq_counts_other_look_up_tables() -> None:
    device = load("zynq-7020")
    assert "lut4" not in device.limits and "six-input" in device.unknown["lut4"]


def test_static_power_is_checked(tmp_path: Path) -> None:
    for old, new, message in [
        ('unit = "W"', 'unit = "mW"', "'unit' is 'mW'"),
        ("value = 0.5", "value = [0.5]", "one number"),
        ("hops =", "static_power =", "listed as unknown"),
    ]:
        with pytest.raises(DeviceError, match=message) as caught:
            load(write(tmp_path, CHILD.replace(old, new)))
        assert "static_power" in str(caught.value.where)


ROOT = Path(__file__).resolve().parents[2]


def test_devices_are_found_in_the_layout_of_a_wheel(tmp_path: Path) -> None:
    package = tmp_path / "site" / "snn_deploy"
    ignore = shutil.ignore_patterns("__pycache__")
    for room in ("ir", "device"):
        shutil.copytree(ROOT / "snn_deploy" / room, package / room, ignore=ignore)
    for leaf in ("errors.py", "units.py"):
        shutil.copy(ROOT / "snn_deploy" / leaf, package / leaf)
    (package / "__init__.py").write_text("")
    (package / "_targets").mkdir()
    shutil.copy(ROOT / "targets" / "loihi1.toml", package / "_targets")
    code = "from snn_deploy.device import load, names; print(names(), load('loihi1').path)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "('loihi1',) loihi1.toml\n"


def test_the_document_of_devices_is_up_to_date() -> None:
    tool = ROOT / "tools" / "make_device_docs.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "")
