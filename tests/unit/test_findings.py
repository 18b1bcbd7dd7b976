"""Fit: every limit at the limit and one above, every message and hint, and the memory model."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from snn_deploy.budget import findings, fit_error, microcontroller_usage, smallest_fitting, verdict
from snn_deploy.budget.memory import storage
from snn_deploy.device import Device, Lever, Resource, Usage, Value, load, names
from snn_deploy.errors import DeviceError, UsageError
from snn_deploy.ir import (
    LI,
    LIF,
    Arithmetic,
    Coding,
    Conv1d,
    Conv2d,
    Csr,
    CubaLIF,
    Dense,
    Network,
    Population,
    Projection,
    QNetwork,
    QPopulation,
    Readout,
    Relay,
)


def usage(*resources: Resource) -> Usage:
    return Usage(items=(), resources=resources)


def resource(key: str, unit: str, used: int, **changes: object) -> Resource:
    made = Resource(name=key.replace("_", " "), where="core 7", used=used, limit_key=key, unit=unit)
    return replace(made, **changes)  # type: ignore[arg-type]


def with_limits(device: Device, **limits: tuple[float, str]) -> Device:
    """Return ``device`` with other limits {key: (value, unit)}."""
    values = {
        key: Value(value=value, unit=unit, source="x", kind="specified")
        for key, (value, unit) in limits.items()
    }
    return replace(device, limits=MappingProxyType(values), unknown=MappingProxyType({}))


LIMITS = [
    (name, key, value.value, value.unit)
    for name in names()
    for key, value in load(name).limits.items()
]


@pytest.mark.parametrize(("name", "key", "limit", "unit"), LIMITS)
def test_every_shipped_limit_just_fits_and_just_fails(
    name: str, key: str, limit: int, unit: str
) -> None:
    device = load(name)
    (fits,) = findings(usage(resource(key, unit, limit)), device)
    share = 1.0 if limit else 0.0
    assert (fits.severity, fits.excess, fits.share, fits.hint) == ("fits", 0, share, None)
    (over,) = findings(usage(resource(key, unit, limit + 1)), device)
    assert (over.severity, over.excess) == ("exceeds", 1)
    assert f"at least {limit + 1:,} {unit} ({key})" in str(over.hint)
    assert verdict((fits,)).fits is True and verdict((over,)).fits is False


def test_all_findings_in_order_never_only_the_first() -> None:
    found = findings(
        usage(
            resource("neurons_per_core", "neurons", 2000),
            resource("in_axons_per_core", "axons", 10),
            resource("synapse_bits_per_core", "bits", 2**21),
        ),
        load("loihi1"),
    )
    assert [f.severity for f in found] == ["exceeds", "fits", "exceeds"]
    assert str(found[0]) == (
        "neurons per core on core 7: 2,000 of 1,024 neurons (195.3 %), 976 neurons too many"
    )
    assert str(found[1]) == "in axons per core on core 7: 10 of 4,096 axons (0.2 %)"
    fit = verdict(found)
    assert fit.fits is False and len(fit.exceeds) == 2
    assert fit.tightest is found[2]
    assert str(fit) == "loihi1: does not fit (neurons per core, synapse bits per core)"


def test_an_unknown_limit_is_no_verdict() -> None:
    found = findings(
        usage(
            resource("synapse_bits_per_core", "bits", 5),
            resource("cores_per_chip", "cores", 5),
            resource("zap", "bits", 5),
        ),
        load("loihi2"),
    )
    assert [f.severity for f in found] == ["unknown limit", "fits", "unknown limit"]
    assert found[0].reason == "no primary source for the memory of a core"
    assert found[2].reason == "the device file does not state it"
    assert str(found[0]) == (
        "synapse bits per core on core 7: 5 bits, limit unknown "
        "(no primary source for the memory of a core)"
    )
    fit = verdict(found)
    assert fit.fits is None
    assert str(fit) == "loihi2: cannot be decided (limit unknown: synapse bits per core, zap)"
    over = findings(
        usage(resource("zap", "bits", 5), resource("cores_per_chip", "cores", 129)), load("loihi2")
    )
    assert verdict(over).fits is False


def test_margin_just_fits_and_just_fails() -> None:
    device = load("nrf52840")  # 262,144 bytes; 10 % kept free leaves 235,929
    kept = resource("ram_bytes", "bytes", 235_929)
    (fits,) = findings(usage(kept), device, margin=0.1)
    (over,) = findings(usage(replace(kept, used=235_930)), device, margin=0.1)
    assert (fits.severity, fits.allowed) == ("fits", 235_929)
    assert (over.severity, over.excess) == ("exceeds", 1)
    assert str(over).endswith("(90.0 %), 1 bytes too many with the margin")
    # The device that the hint asks for does hold it, with the same margin.
    need = int(str(over.hint).split("at least ")[1].split(" ")[0].replace(",", ""))
    larger = with_limits(device, ram_bytes=(need, "bytes"))
    smaller = with_limits(device, ram_bytes=(need - 1, "bytes"))
    over_usage = usage(replace(kept, used=235_930))
    assert verdict(findings(over_usage, larger, margin=0.1)).fits is True
    assert verdict(findings(over_usage, smaller, margin=0.1)).fits is False
    round_numbers = with_limits(device, ram_bytes=(1000, "bytes"))
    assert findings(usage(replace(kept, used=900)), round_numbers, margin=0.1)[0].excess == 0


@pytest.mark.parametrize("margin", [-0.1, 1.0, float("nan")])
def test_bad_margins(margin: float) -> None:
    with pytest.raises(UsageError, match="less than 100 %") as caught:
        findings(usage(), load("nrf52840"), margin=margin)
    assert caught.value.hint == "--margin 10%"


def test_units_must_agree() -> None:
    with pytest.raises(DeviceError, match="counted in bits") as caught:
        findings(usage(resource("ram_bytes", "bits", 1)), load("nrf52840"))
    assert caught.value.where == "nrf52840.toml -> limits.ram_bytes"
    assert caught.value.used == "the limit is in bytes"
    assert 'unit = "bits"' in str(caught.value.hint)


def test_the_largest_three_contributors() -> None:
    parts = (("a", 1), ("b", 5), ("c", 3), ("d", 4))
    (found,) = findings(
        usage(resource("in_axons_per_core", "axons", 13, contributors=parts)), load("loihi1")
    )
    assert found.contributors == (("b", 5), ("d", 4), ("c", 3))


SYNAPSES = resource(
    "synapse_bits_per_core",
    "bits",
    1_057_792,
    name="synapse bits",
    contributors=(("fc1", 7_792), ("fc2", 1_050_000)),
    levers=(
        Lever(where="fc1", unit="nonzeros", count=600, cost=12.0, fixed=592),
        Lever(where="fc2", unit="nonzeros", count=87_000, cost=12.0, fixed=6_000),
    ),
    hints=("allow splitting: --split fc2=2",),
)


def test_the_hint_says_how_far_to_prune_the_largest_layer() -> None:
    (found,) = findings(usage(SYNAPSES), load("loihi1"))
    # (1,050,000 - 9,216 excess - 6,000) / 12 = 86,232
    assert found.excess == 9_216
    assert found.hint == (
        "prune fc2 to at most 86,232 nonzeros, or allow splitting: --split fc2=2, "
        "or choose a device with at least 1,057,792 bits (synapse_bits_per_core)"
    )
    pruned = 6_000 + 12 * 86_232 + 7_792
    assert pruned <= 1_048_576 < pruned + 12


def test_other_levers() -> None:
    limit = {"synapse_bits_per_core": (80, "bits")}
    device = with_limits(load("loihi1"), **limit)  # type: ignore[arg-type]

    def hint(*levers: Lever, used: int = 100) -> str:
        made = resource(
            "synapse_bits_per_core", "bits", used, contributors=(("fc", used),), levers=levers
        )
        return str(findings(usage(made), device)[0].hint)

    bits = Lever(where="fc", unit="bits per weight", count=8, cost=12.5)
    assert hint(bits).startswith("use --bits 6, or choose a device")
    neurons = Lever(where="fc", unit="neurons", count=10, cost=10.0)
    assert hint(neurons).startswith("make fc at most 8 neurons, or")
    one_bit = Lever(where="fc", unit="bits per weight", count=2, cost=50.0)
    assert hint(one_bit).startswith("no single layer frees enough: prune several, or train")
    nothing = Lever(where="fc", unit="nonzeros", count=10, cost=1.0, fixed=90.0)
    assert hint(nothing).startswith("no single layer frees enough")
    assert hint().startswith("choose a device with at least 100 bits")


def test_fit_error_is_located_and_quantitative() -> None:
    fit = verdict(findings(usage(SYNAPSES), load("loihi1")))
    error = fit_error(fit, "model.pt -> fc2")
    assert error.exit_code == 5
    assert str(error) == (
        "error: fc2 needs 9,216 synapse bits more than core 7 of loihi1 holds\n"
        "  where  model.pt -> fc2\n"
        "  used   1,057,792 of 1,048,576 bits (100.9 %) on core 7\n"
        "  hint   prune fc2 to at most 86,232 nonzeros, or allow splitting: --split fc2=2, "
        "or choose a device with at least 1,057,792 bits (synapse_bits_per_core)"
    )
    both = verdict(
        findings(usage(SYNAPSES, resource("in_axons_per_core", "axons", 4097)), load("loihi1"))
    )
    assert "also exceeded: in axons per core on core 7: 4,097 of 4,096" in fit_error(both).message
    tight = verdict(findings(usage(replace(SYNAPSES, used=1_000_000)), load("loihi1"), margin=0.1))
    assert "943,718 with the margin" in str(fit_error(tight).used)


def test_json_is_plain() -> None:
    document = json.loads(json.dumps(verdict(findings(usage(SYNAPSES), load("loihi1"))).as_dict()))
    assert document["fits"] is False
    assert document["findings"][0]["contributors"] == [["fc2", 1_050_000], ["fc1", 7_792]]


def test_smallest_fitting_is_the_tightest() -> None:
    made = usage(resource("ram_bytes", "bytes", 263_000))
    fits = {name: verdict(findings(made, load(name))) for name in ("nrf52840", "rp2040")}
    assert smallest_fitting(fits) == "rp2040"
    made = usage(resource("ram_bytes", "bytes", 262_144))
    fits = {name: verdict(findings(made, load(name))) for name in ("rp2040", "nrf52840")}
    assert smallest_fitting(fits) == "nrf52840"
    assert smallest_fitting({}) is None
    unknown = verdict(findings(made, load("loihi2")))
    assert unknown.fits is None and smallest_fitting({"loihi2": unknown}) is None


def test_a_limit_of_zero() -> None:
    device = with_limits(load("ecp5-25f"), dsp=(0, "DSP"))
    (none,) = findings(usage(resource("dsp", "DSP", 0)), device)
    (one,) = findings(usage(resource("dsp", "DSP", 1)), device)
    assert (none.severity, none.share) == ("fits", 0.0)
    assert (one.severity, one.excess) == ("exceeds", 1)


# --- memory of a microcontroller ------------------------------------------------------------

INT16 = Arithmetic(
    name="int16",
    weight_bits=8,
    weight_grid="symmetric",
    shift_bits=(0, 7),
    state_bits=16,
    state_min=-32768,
    state_max=32767,
    current=False,
    decay_bits=12,
    threshold_bits=16,
    threshold_shift=0,
    bias_bits=16,
    bias_shift=0,
    resets=("value", "subtract"),
    hop_steps=0,
    max_delay_steps=63,
    max_exponent=0,
    analogue=False,
    initial_state=False,
)
ONE = np.asarray(1.0)


def lif() -> LIF:
    return LIF(tau_s=0.002 * ONE, r=ONE, v_leak=0 * ONE, v_threshold=ONE, v_reset=0 * ONE)


def sparse(rng: np.random.Generator, shape: tuple[int, ...], nonzeros: int) -> np.ndarray:
    weight = np.zeros(int(np.prod(shape)), np.int32)
    weight[rng.choice(weight.size, nonzeros, replace=False)] = rng.integers(1, 100, nonzeros)
    return weight.reshape(shape)


def qnetwork(network: Network, arithmetic: Arithmetic = INT16) -> QNetwork:
    populations = {}
    for population in network.computing():
        step = population.neuron.step(network.dt_s)
        populations[population.name] = QPopulation(
            name=population.name,
            scale=1.0,
            shift=0,
            decay_u=np.int64(0) * np.ones((), np.int64),
            decay_v=np.zeros((), np.int64),
            threshold=None if step.threshold is None else np.zeros((), np.int64),
            bias=np.zeros(population.size, np.int64),
            reset=step.reset,
            v_reset=np.zeros((), np.int64),
            reset_amount=np.zeros((), np.int64),
        )
    return QNetwork(
        network=network,
        arithmetic=arithmetic,
        populations=populations,
        tensors=(),
        real=network,
    )


def mlp(nonzeros: int = 2000, hidden: object = None, **changes: object) -> Network:
    """Return 784 -> 300 -> 10 with ``nonzeros`` in the first layer and a full second one."""
    rng = np.random.default_rng(0)
    network = Network(
        populations=(
            Population(name="in", shape=(784,), neuron=Relay()),
            Population(name="lif1", shape=(300,), neuron=hidden or lif()),  # type: ignore[arg-type]
            Population(name="lif2", shape=(10,), neuron=lif()),
        ),
        projections=(
            Projection(
                name="fc1",
                pre="in",
                post="lif1",
                synapses=(Csr.from_dense(sparse(rng, (300, 784), nonzeros)),),
            ),
            Projection(
                name="fc2",
                pre="lif1",
                post="lif2",
                synapses=(Dense(weight=sparse(rng, (10, 300), 3000)),),
            ),
        ),
        inputs=("in",),
        outputs=("lif2",),
        dt_s=0.001,
        coding=Coding(kind="rate", steps=10),
    )
    return replace(network, **changes)  # type: ignore[arg-type]


def sizes(made: Usage) -> dict[tuple[str, str], int]:
    total: dict[tuple[str, str], int] = {}
    for item in made.items:
        total[item.where, item.kind] = total.get((item.where, item.kind), 0) + item.bits // 8
    return total


def test_microcontroller_memory_by_hand() -> None:
    made = microcontroller_usage(qnetwork(mlp()), load("nrf52840"))
    assert sizes(made) == {
        ("fc1", "weights"): 2000,
        ("fc1", "indices"): 2000 * 2,  # 300 targets need 16 bits
        ("fc1", "pointers"): 785 * 2,
        ("fc2", "weights"): 3000,  # full: dense is smaller
        ("lif1", "thresholds"): 2 + 300 * 2 + 2 + 2,
        ("lif2", "thresholds"): 2 + 10 * 2 + 2 + 2,
        ("lif1", "state"): 600,
        ("lif2", "state"): 20,
        ("in", "buffers"): 98,
        ("lif1", "spikes"): 38,
        ("lif2", "spikes"): 2,
        ("lif2", "buffers"): 20,
    }
    flash, ram = made.resources
    assert (flash.name, flash.limit_key, flash.unit) == ("flash bytes", "flash_bytes", "bytes")
    assert flash.used == 2000 + 4000 + 1570 + 3000 + 606 + 26
    assert ram.used == 600 + 20 + 98 + 38 + 2 + 20
    for each in made.resources:
        assert sum(amount for _, amount in each.contributors) == each.used
    assert made.bits() == 8 * (flash.used + ram.used)
    assert made.bits("pointers") == 8 * 1570
    details = {i.where: i.detail for i in made.items if i.kind == "weights"}
    assert details == {"fc1": "compressed, 2,000 nonzeros", "fc2": "dense, 3,000 nonzeros"}
    assert "code" in made.excludes[0]


def test_flash_just_fits_and_just_fails_and_the_hint_is_enough() -> None:
    qnet, device = qnetwork(mlp()), load("nrf52840")
    used = microcontroller_usage(qnet, device).resources[0].used
    exact = with_limits(device, flash_bytes=(used, "bytes"), ram_bytes=(10_000, "bytes"))
    short = with_limits(device, flash_bytes=(used - 1, "bytes"), ram_bytes=(10_000, "bytes"))
    assert verdict(findings(microcontroller_usage(qnet, exact), exact)).fits is True
    fit = verdict(findings(microcontroller_usage(qnet, short), short))
    assert fit.fits is False
    assert fit.exceeds[0].hint == (
        f"prune fc1 to at most 1,999 nonzeros, or choose a device with at least {used:,} bytes "
        "(flash_bytes)"
    )
    pruned = qnetwork(mlp(nonzeros=1999))
    assert verdict(findings(microcontroller_usage(pruned, short), short)).fits is True


@pytest.mark.parametrize("short_by", [1, 500, 2999])
def test_a_dense_layer_is_pruned_until_its_compressed_form_fits(short_by: int) -> None:
    network = mlp(nonzeros=1)
    qnet, device = qnetwork(network), load("nrf52840")
    used = microcontroller_usage(qnet, device).resources[0].used
    short = with_limits(device, flash_bytes=(used - short_by, "bytes"), ram_bytes=(10_000, "bytes"))
    hint = str(findings(microcontroller_usage(qnet, short), short)[0].hint)
    if short_by == 2999:  # the pointers of fc2 alone take 301 x 2 bytes
        assert hint.startswith("no single layer frees enough")
        return
    assert hint.startswith("prune fc2 to at most ")
    count = int(hint.split("at most ")[1].split(" ")[0].replace(",", ""))
    fc2 = Dense(weight=sparse(np.random.default_rng(1), (10, 300), count))
    first, second = network.projections
    after = replace(network, projections=(first, replace(second, synapses=(fc2,))))
    made = microcontroller_usage(qnetwork(after), short)
    assert findings(made, short)[0].severity == "fits"


def test_ram_just_fits_and_just_fails_and_the_hint_is_enough() -> None:
    qnet, device = qnetwork(mlp()), load("nrf52840")
    flash, ram = microcontroller_usage(qnet, device).resources
    exact = with_limits(device, flash_bytes=(flash.used, "bytes"), ram_bytes=(ram.used, "bytes"))
    short = with_limits(
        device, flash_bytes=(flash.used, "bytes"), ram_bytes=(ram.used - 1, "bytes")
    )
    assert verdict(findings(microcontroller_usage(qnet, exact), exact)).fits is True
    over = findings(microcontroller_usage(qnet, short), short)[1]
    assert over.excess == 1 and str(over.hint).startswith("make lif1 at most 299 neurons, or")


def test_state_widths() -> None:
    device = load("nrf52840")
    cuba = CubaLIF(
        tau_syn_s=0.002 * ONE,
        tau_mem_s=0.002 * ONE,
        r=ONE,
        v_leak=0 * ONE,
        v_threshold=ONE,
        v_reset=0 * ONE,
        w_in=ONE,
    )
    li = LI(tau_s=0.002 * ONE, r=ONE, v_leak=0 * ONE)
    plain = sizes(microcontroller_usage(qnetwork(mlp()), device))
    current = sizes(microcontroller_usage(qnetwork(mlp(hidden=cuba)), device))
    wide = sizes(microcontroller_usage(qnetwork(mlp(), replace(INT16, state_bits=24)), device))
    silent = sizes(microcontroller_usage(qnetwork(mlp(hidden=li)), device))
    assert plain["lif1", "state"] == 2 * 300
    assert current["lif1", "state"] == 8 * 300
    assert wide["lif1", "state"] == 4 * 300
    assert ("lif1", "spikes") in plain and ("lif1", "spikes") not in silent
    # A second decay, one value of two bytes.
    assert current["lif1", "thresholds"] == plain["lif1", "thresholds"] + 2
    four = sizes(microcontroller_usage(qnetwork(mlp(), replace(INT16, weight_bits=9)), device))
    assert four["fc1", "weights"] == 2 * plain["fc1", "weights"]


def test_delays_and_loops_keep_earlier_spikes() -> None:
    device, network = load("nrf52840"), mlp()
    first, second = network.projections
    late = replace(network, projections=(first, replace(second, delay_steps=3)))
    assert sizes(microcontroller_usage(qnetwork(late), device))["lif1", "spikes"] == 4 * 38
    loop = Projection(
        name="rec", pre="lif1", post="lif1", synapses=(Dense(weight=np.eye(300, dtype=np.int32)),)
    )
    looped = replace(network, projections=(*network.projections, loop))
    found = sizes(microcontroller_usage(qnetwork(looped), device))
    assert found["lif1", "spikes"] == 2 * 38
    delays = np.zeros((10, 300), np.int64)
    delays[0, 0] = 2
    each = replace(network, projections=(first, replace(second, delay_steps=delays)))
    found = sizes(microcontroller_usage(qnetwork(each), device))
    assert found["fc2", "indices"] == 3000 and found["lif1", "spikes"] == 3 * 38


def test_input_and_readout_buffers() -> None:
    device = load("nrf52840")
    direct = mlp(coding=Coding(kind="direct", steps=4))
    assert sizes(microcontroller_usage(qnetwork(direct), device))["in", "buffers"] == 4 * 784
    last = mlp(readout=Readout(kind="last"))
    assert sizes(microcontroller_usage(qnetwork(last), device))["lif2", "buffers"] == 40


def test_two_learned_operators_need_a_buffer_between_them() -> None:
    network = mlp()
    rng = np.random.default_rng(2)
    pair = (Dense(weight=sparse(rng, (50, 300), 9)), Dense(weight=sparse(rng, (10, 50), 400)))
    first, second = network.projections
    chained = replace(network, projections=(first, replace(second, synapses=pair)))
    found = sizes(microcontroller_usage(qnetwork(chained), load("nrf52840")))
    assert found["fc2", "buffers"] == 50 * 4
    assert found["fc2[0]", "weights"] == 9 and found["fc2[1]", "weights"] == 500


def test_storage_picks_the_smaller_form() -> None:
    """8-bit weights and indices: dense takes 4,000, compressed 2 n + 21 x 2 bytes."""
    rng = np.random.default_rng(0)
    turn = (4000 - 42) // 2
    below = storage(Dense(weight=sparse(rng, (200, 20), turn - 1)), 8)
    at = storage(Dense(weight=sparse(rng, (200, 20), turn)), 8)
    assert (below.form, at.form) == ("compressed", "dense")
    assert below.weight_bytes + below.index_bytes + below.pointer_bytes == 3998
    assert (at.weight_bytes, at.index_bytes, at.pointer_bytes) == (4000, 0, 0)
    empty = storage(Dense(weight=np.zeros((4, 3), np.int32)), 8)
    assert (empty.form, empty.weight_bytes, empty.pointer_bytes) == ("compressed", 0, 4)


def test_storage_of_convolutions_does_not_depend_on_the_image() -> None:
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=sparse(rng, (16, 8, 3, 3), 40))
    kept = storage(conv, 8)
    # 144 taps per input channel: 8-bit indices; 8 channels: 9 pointers.
    assert (kept.form, kept.index_bytes, kept.pointer_bytes) == ("compressed", 40, 9)
    grouped = storage(replace(conv, groups=4), 8)
    assert grouped.pointer_bytes == 8 * 4 + 1
    line = storage(Conv1d(weight=sparse(rng, (16, 8, 9), 40)), 8)
    assert (line.index_bytes, line.pointer_bytes) == (40, 9)
    wide = storage(Conv2d(weight=sparse(rng, (32, 8, 3, 3), 40)), 8)
    assert wide.index_bytes == 80  # 288 taps


def test_regions_of_ram_are_filled_one_array_at_a_time() -> None:
    """Four regions on the STM32H7: an array that no region holds makes the largest overflow."""
    device = load("stm32h7")

    def hidden(size: int) -> QNetwork:
        network = mlp()
        rng = np.random.default_rng(0)
        first, second = network.projections
        populations = (
            network.populations[0],
            replace(network.populations[1], shape=(size,)),
            network.populations[2],
        )
        return qnetwork(
            replace(
                network,
                populations=populations,
                projections=(
                    replace(first, synapses=(Csr.from_dense(sparse(rng, (size, 784), 9)),)),
                    replace(second, synapses=(Csr.from_dense(sparse(rng, (10, size), 9)),)),
                ),
            )
        )

    largest = 524_288 // 2
    made = microcontroller_usage(hidden(largest), device)
    regions = {each.where: each.used for each in made.resources}
    assert list(regions) == ["flash", "ram_axi", "ram_d2", "ram_dtcm", "ram_d3"]
    assert regions["ram_axi"] == 524_288
    assert regions["ram_d3"] == largest // 8 + 20 + 98 + 2 + 20
    assert verdict(findings(made, device)).fits is True
    fit = verdict(findings(microcontroller_usage(hidden(largest + 1), device), device))
    assert fit.fits is False
    (over,) = fit.exceeds
    assert (over.where, over.excess) == ("ram_axi", 2)
    assert str(over.hint).startswith("make lif1 at most 262,144 neurons, or choose")


def test_a_microcontroller_without_stated_ram_is_undecided() -> None:
    device = with_limits(load("nrf52840"), flash_bytes=(10**6, "bytes"))
    fit = verdict(findings(microcontroller_usage(qnetwork(mlp()), device), device))
    assert fit.fits is None and [f.limit_key for f in fit.unknown] == ["ram_bytes"]


def test_other_families_compute_their_own_usage() -> None:
    with pytest.raises(UsageError, match="loihi1 is no microcontroller"):
        microcontroller_usage(qnetwork(mlp()), load("loihi1"))


def test_the_three_microcontrollers_and_the_smallest_that_fits() -> None:
    qnet = qnetwork(mlp(nonzeros=100_000))
    fits = {}
    for name in ("nrf52840", "stm32h7", "rp2040"):
        device = load(name)
        fits[name] = verdict(findings(microcontroller_usage(qnet, device), device))
    assert [fit.fits for fit in fits.values()] == [True, True, True]
    assert smallest_fitting(fits) == "nrf52840"
    assert str(fits["nrf52840"]).startswith("nrf52840: fits (flash bytes at ")
