"""Every limit of a core, just met and just missed; what shares cores; the map as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest

from snn_deploy.backends.base import Options
from snn_deploy.backends.loihi.cores import Amounts, core_limits
from snn_deploy.backends.loihi.mapping import place
from snn_deploy.backends.loihi.placement import distances, place_cores
from snn_deploy.backends.loihi.target import LoihiTarget
from snn_deploy.backends.prepare import prepare
from snn_deploy.budget.findings import findings, fit_error, verdict
from snn_deploy.device.load import load
from snn_deploy.engine.operators import matrix
from snn_deploy.errors import UsageError
from snn_deploy.ir import Conv2d, Dense, Pool2d, Relay
from snn_deploy.passes.pipeline import fold
from tests.builders import grid, lif, mlp, network, population, projection, row

TARGET = LoihiTarget()
UNITS = {
    "neurons_per_core": "neurons",
    "synapse_bits_per_core": "bits",
    "in_axons_per_core": "axons",
    "out_axons_per_core": "axons",
    "compartment_configs_per_core": "configurations",
    "threshold_configs_per_core": "configurations",
    "synapse_formats_per_core": "formats",
    "index_bits": "bits",
    "cores_per_chip": "cores",
}


@pytest.fixture
def device(tmp_path):
    """Return a function that makes loihi1 with other limits."""

    def made(**limits):
        text = (
            'schema = 1\nname = "small"\ntitle = "small"\nfamily = "loihi"\ninherits = "loihi1"\n'
        )
        text += '[sources.test]\ntitle = "a test"\nref = "none"\n'
        for key, value in limits.items():
            text += f'[limits.{key}]\nvalue = {value}\nunit = "{UNITS[key]}"\n'
            text += 'source = "test"\nkind = "specified"\n'
        path = tmp_path / "small.toml"
        path.write_text(text)
        return load(str(path))

    return made


def program(net, device="loihi1", **options):
    chosen = load(device) if isinstance(device, str) else device
    return prepare(fold(net), TARGET, Options(device=chosen, **options))


def dense_layers(made):
    """Return synapses -> bool (post, pre)."""
    return {s.name: matrix(s.operator, s.in_shape).toarray() != 0 for s in made.payload.synapses}


def check(made, mapping):
    """Hold a mapping to its limits, counted neuron by neuron."""
    limits = core_limits(mapping.device)
    reached = dense_layers(made)
    held = Counter()
    packets = {name: np.zeros(w.shape[1], np.int64) for name, w in reached.items()}
    for core in mapping.cores:
        assert core.used.share(limits) <= 1
        neurons = axons = 0
        for part in core.slices:
            neurons += part.neurons.size
            held.update((part.population, n) for n in part.neurons.tolist())
            for synapses in made.payload.into(part.population):
                sources = reached[synapses.name][part.neurons].any(axis=0)
                packets[synapses.name] += sources
                if mapping.axons[synapses.name] == "population":
                    pixels = math.prod(synapses.in_shape[1:])
                    sources = np.unique(np.flatnonzero(sources) % pixels)
                    axons += sources.size
                else:
                    axons += int(sources.sum())
        assert (neurons, axons) == (core.used.neurons, core.used.in_axons)
    # Every neuron lies on one core, and on one alone.
    every = {(p.name, n) for p in made.payload.populations for n in range(math.prod(p.shape))}
    assert set(held) == every and max(held.values()) == 1
    for name, counts in packets.items():
        assert np.array_equal(mapping.targets[name], counts)
    for core in mapping.cores:
        assert core.used.out_axons == out_axons(made, mapping, core, reached)


def out_axons(made, mapping, core, reached):
    total = 0
    for sender in core.slices:
        for synapses in made.payload.synapses:
            if synapses.pre != sender.population:
                continue
            for _, part in mapping.slices_of(synapses.post):
                met = np.flatnonzero(reached[synapses.name][part.neurons].any(axis=0))
                if mapping.axons[synapses.name] == "discrete":
                    total += np.isin(sender.neurons, met).sum()
                else:
                    pixels = math.prod(synapses.in_shape[1:])
                    total += 2 * np.isin(np.unique(sender.neurons % pixels), met % pixels).sum()
    return total


def mapped(net, device="loihi1", **options):
    made = program(net, device, **options)
    mapping = TARGET.mapping(made)
    check(made, mapping)
    return mapping


def skip_net(rng, channels=6, side=6):
    """Two convolutions with a projection around them, then a fully connected layer."""
    shape = (channels, side, side)
    return network(
        [
            population("in", (2, side, side), Relay()),
            population("a", shape, lif()),
            population("b", shape, lif()),
            population("out", (5,), lif()),
        ],
        [
            projection("in", "a", Conv2d(weight=grid(rng, channels, 2, 3, 3), padding=(1,) * 4)),
            projection(
                "a", "b", Conv2d(weight=grid(rng, channels, channels, 3, 3), padding=(1,) * 4)
            ),
            projection("in", "b", Conv2d(weight=grid(rng, channels, 2, 1, 1)), name="short"),
            projection("b", "out", Dense(weight=grid(rng, 5, math.prod(shape), density=0.3))),
        ],
    )


# Limits.

LIMITS = {
    "neurons": "neurons_per_core",
    "synapse_bits": "synapse_bits_per_core",
    "in_axons": "in_axons_per_core",
}


@pytest.mark.parametrize("what", LIMITS)
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_a_layer_that_just_fits_a_core_and_one_that_just_does_not(device, what, kind):
    rng = np.random.default_rng(0)
    if kind == "dense":
        # Halves with inputs of their own, so that fewer neurons need fewer axons.
        weight = np.kron(np.eye(2), abs(grid(rng, 8, 6)) + 1).astype(np.float32) / 8
        net = row((12,), Dense(weight=weight), lif())
    else:
        net = row((2, 6, 6), Conv2d(weight=grid(rng, 3, 2, 3, 3)), lif())
    used = int(getattr(mapped(net).used(), what))
    assert used > 1
    kinds = []
    while True:
        mapping = mapped(net, device(**{LIMITS[what]: used}))
        assert len(mapping.cores) == 1
        kinds += mapping.axons.values()
        made = program(net, device(**{LIMITS[what]: used - 1}))
        mapping = TARGET.mapping(made)
        check(made, mapping)
        assert verdict(findings(TARGET.usage(made), made.device)).fits is True
        if len(mapping.cores) > 1:
            break
        used = int(getattr(mapping.used(), what))
    assert len(mapping.cores) == 2
    # What discrete axons leave no room for, population axons may still hold on one core.
    carried = kind == "conv" and what != "neurons"
    assert kinds[-1] == ("population" if carried else "discrete")


def test_a_layer_divides_for_the_output_axons_of_its_neurons(device):
    net = mlp(np.random.default_rng(1), 3, 8, 12, density=1.0)
    whole = mapped(net, splits={"w2": 3})
    hidden = next(core for core, _ in whole.slices_of("n1"))
    used = hidden.used.out_axons
    assert used == 8 * 3
    for limit, parts in ((used, 1), (used - 1, 2)):
        mapping = mapped(net, device(out_axons_per_core=limit), splits={"w2": 3})
        assert len(list(mapping.slices_of("n1"))) == parts


@pytest.mark.parametrize("what", ["compartment_configs_per_core", "threshold_configs_per_core"])
def test_configurations_are_counted_and_their_neurons_lie_together(device, what):
    rng = np.random.default_rng(2)
    kinds = np.tile([2.0, 4.0, 8.0], 4)  # in turn: as they come, every third would be alike
    neuron = lif(kinds) if what.startswith("comp") else lif(threshold=kinds / 8)
    net = row((4,), Dense(weight=grid(rng, 12, 4)), neuron)
    for limit, cores in ((3, 1), (2, 2), (1, 3)):
        mapping = mapped(net, device(**{what: limit}))
        assert len(mapping.cores) == cores
    entry = mapping.as_dict()["populations"]["n1"]
    assert sorted(entry["order"]) == list(range(12)) and entry["order"] != list(range(12))


def test_synapse_formats_decide_what_may_share_a_core(device):
    rng = np.random.default_rng(3)
    net = network(
        [population("in", (4,), Relay()), *(population(n, (4,), lif()) for n in "ab")],
        [
            projection("in", "a", Dense(weight=abs(grid(rng, 4, 4)) + 1 / 8)),
            projection("in", "b", Dense(weight=grid(rng, 4, 4)), delay_steps=3),
        ],
        outputs=("a", "b"),
    )
    assert len(mapped(net, device(synapse_formats_per_core=2)).cores) == 1
    assert len(mapped(net, device(synapse_formats_per_core=1)).cores) == 2


def test_a_core_has_no_more_compartments_than_an_index_names(device):
    net = mlp(np.random.default_rng(4), 3, 130, density=1.0)
    assert len(mapped(net, device(index_bits=8)).cores) == 1
    assert len(mapped(net, device(index_bits=7)).cores) == 2


def test_the_fan_in_of_a_neuron_is_bounded_by_the_axons_of_a_core(device):
    net = row((9,), Dense(weight=np.full((3, 9), 0.25, np.float32)), lif())
    made = program(net, device(in_axons_per_core=9))
    assert verdict(findings(TARGET.usage(made), made.device)).fits is True
    made = program(net, device(in_axons_per_core=8))
    fit = verdict(findings(TARGET.usage(made), made.device), "small")
    # One axon is missing, however the layer is divided: it was cut down to single neurons.
    assert [core.used.neurons for core in TARGET.mapping(made).cores] == [1, 1, 1]
    error = fit_error(fit)
    assert error.exit_code == 5
    assert error.message.startswith("w1 needs 1 input axons more than core 0")
    assert error.used == "9 of 8 axons (112.5 %) on core 0"
    assert error.hint == (
        "prune it so that no neuron has more inputs than a core has input axons, or choose a "
        "device with at least 9 axons (in_axons_per_core)"
    )


def test_a_neuron_with_too_many_weights_is_told_how_many_fit(device):
    net = mlp(np.random.default_rng(6), 100, 1, density=1.0)
    bits = int(mapped(net).used().synapse_bits)
    made = program(net, device(synapse_bits_per_core=bits - 64))
    fit = verdict(findings(TARGET.usage(made), made.device), "small")
    assert [f.name for f in fit.exceeds] == ["synapse memory"]
    nonzeros = int(np.count_nonzero(made.payload.synapses[0].weights))
    assert f"prune w1 to at most {nonzeros - 1} nonzeros" in (fit.exceeds[0].hint or "")


def test_cores_beyond_the_chip_are_counted_and_the_hint_says_how_many_chips(device):
    net = mlp(np.random.default_rng(7), 4, 9, density=1.0)
    small = device(neurons_per_core=3, cores_per_chip=3)
    assert verdict(findings(TARGET.usage(program(net, small)), small)).fits is True
    small = device(neurons_per_core=3, cores_per_chip=2)
    made = program(net, small)
    assert TARGET.mapping(made).chips == 2
    fit = verdict(findings(TARGET.usage(made), small), "small")
    assert fit.exceeds[0].hint == (
        "spread it over 2 chips, or choose a device with at least 3 cores (cores_per_chip)"
    )


# What shares cores, and what divides.


def test_several_populations_share_a_core_within_its_limits(device):
    net = mlp(np.random.default_rng(8), 6, 7, 5, 4)
    mapping = mapped(net)
    assert len(mapping.cores) == 1 and len(mapping.cores[0].slices) == 3
    assert mapping.used().neurons == 16
    apart = mapped(net, device(neurons_per_core=11))
    assert sorted(core.used.neurons for core in apart.cores) == [7, 9]


def test_convolutions_are_cut_into_tiles_that_keep_axons_few(device):
    rng = np.random.default_rng(9)
    small = device(neurons_per_core=64, in_axons_per_core=80, out_axons_per_core=400)
    mapping = mapped(skip_net(rng), small)
    boxes = [part.box for _, part in mapping.slices_of("b")]
    assert len(boxes) > 2
    assert any(box.rows != (0, 6) or box.columns != (0, 6) for box in boxes)


def test_population_axons_carry_what_discrete_ones_cannot(device):
    rng = np.random.default_rng(10)
    net = row((16, 4, 4), Conv2d(weight=grid(rng, 8, 16, 3, 3), padding=(1,) * 4), lif())
    mapping = mapped(net, device(in_axons_per_core=16))
    assert mapping.axons["w1"] == "population"
    assert len(mapping.cores) == 1
    assert mapped(net).axons["w1"] == "discrete"


def test_loops_find_output_axons_for_all_their_pieces(device):
    rng = np.random.default_rng(11)
    net = network(
        [population("in", (4,), Relay()), *(population(n, (12,), lif()) for n in "ab")],
        [
            projection("in", "a", Dense(weight=grid(rng, 12, 4))),
            projection("a", "b", Dense(weight=grid(rng, 12, 12))),
            projection("b", "a", Dense(weight=grid(rng, 12, 12)), delay_steps=1),
        ],
        outputs=("b",),
    )
    for neurons, axons in ((12, 24), (6, 20), (5, 12)):
        mapped(net, device(neurons_per_core=neurons, out_axons_per_core=axons))


@pytest.mark.parametrize("name", ["w2", "n2"])
def test_split_asks_for_at_least_so_many_cores(name):
    net = mlp(np.random.default_rng(12), 5, 6, 9, 4)
    assert len(mapped(net).cores) == 1
    mapping = mapped(net, splits={name: 4})
    homes = [core.index for core, _ in mapping.slices_of("n2")]
    assert len(homes) == len(set(homes)) == 4
    assert len(mapping.cores) == 4  # the others still share


def test_split_divides_a_convolution_down_to_its_pixels():
    net = row((1, 4, 4), Conv2d(weight=grid(np.random.default_rng(13), 1, 1, 2, 2)), lif())
    mapping = mapped(net, splits={"w1": 9})
    assert [core.used.neurons for core in mapping.cores] == [1] * 9


def test_split_of_an_unknown_layer_or_into_more_than_its_neurons():
    net = mlp(np.random.default_rng(14), 5, 6, 4)
    with pytest.raises(UsageError) as caught:
        program(net, splits={"w22": 2})
    assert caught.value.message == "no layer is called 'w22'"
    assert caught.value.used == "layers: w1, w2"
    assert caught.value.hint == "did you mean --split w2=2?"
    with pytest.raises(UsageError) as caught:
        program(net, splits={"w2": 5})
    assert caught.value.message == "w2 cannot lie on 5 cores"
    assert caught.value.used == "5 cores for 4 neurons"
    assert caught.value.hint == "--split w2=N with N from 1 to 4"


# loihi2, determinism, JSON.


def test_loihi2_is_filled_with_an_even_share_and_its_unknown_limits_are_named():
    made = program(mlp(np.random.default_rng(15), 8, 9000, 10, density=0.01), "loihi2")
    mapping = TARGET.mapping(made)
    check(made, mapping)
    limits = core_limits(mapping.device)
    assert (limits.neurons, limits.synapses) == (1_000_000 // 128, 120_000_000 // 128)
    assert math.isinf(limits.synapse_bits)
    assert len(mapping.cores) == 2 and mapping.links is None
    usage = TARGET.usage(made)
    fit = verdict(findings(usage, made.device))
    assert fit.fits is None
    assert {f.limit_key for f in fit.unknown} == {
        "neurons_per_core",
        "synapse_bits_per_core",
        "in_axons_per_core",
        "out_axons_per_core",
        "compartment_configs_per_core",
        "threshold_configs_per_core",
        "synapse_formats_per_core",
    }
    known = {f.limit_key for f in fit.findings} - {f.limit_key for f in fit.unknown}
    assert known == {"cores_per_chip", "neurons_per_chip", "synapses_per_chip"}
    assert any("7,812 neurons and 937,500 synapses" in text for text in usage.excludes)
    assert "hops between tiles" in usage.excludes


def test_the_same_program_gives_the_same_map():
    rng = np.random.default_rng(16)
    net = skip_net(rng, channels=8, side=8)
    one, other = (TARGET.usage(program(net, splits={"a": 5})).cores for _ in range(2))
    assert json.dumps(one) == json.dumps(other)


def test_the_map_says_where_every_neuron_lies(device):
    rng = np.random.default_rng(17)
    made = program(skip_net(rng), device(neurons_per_core=50))
    mapping = TARGET.mapping(made)
    document = json.loads(json.dumps(TARGET.usage(made).cores))
    found = {}
    for core in document["cores"]:
        assert core["core"] == 4 * core["tile"] + core["place"]
        column, line = core["position"]
        assert core["tile"] == 8 * line + column and core["chip"] == 0
        for part in core["slices"]:
            entry = document["populations"][part["population"]]
            channels, height, width = entry["shape"]
            order = entry["order"] or range(channels)
            for c in range(*part["channels"]):
                for y in range(*part["rows"]):
                    for x in range(*part["columns"]):
                        neuron = (order[c] * height + y) * width + x
                        found[part["population"], neuron] = core["core"]
    expected = {
        (part.population, n): core.index
        for core in mapping.cores
        for part in core.slices
        for n in part.neurons.tolist()
    }
    assert found == expected
    totals = document["totals"]
    assert totals["cores"] == len(document["cores"]) and totals["neurons"] == len(expected)
    for field in fields(Amounts):
        assert totals[field.name] == sum(core["used"][field.name] for core in document["cores"])
        if field.name in document["limits"]:
            limit = document["limits"][field.name]
            assert all(core["used"][field.name] <= limit for core in document["cores"])


def test_pools_and_strides_lie_within_the_limits_too(device):
    rng = np.random.default_rng(18)
    net = row(
        (2, 8, 8),
        Conv2d(weight=grid(rng, 6, 2, 3, 3), padding=(1,) * 4),
        lif(),
        Pool2d(kind="sum", kernel=(2, 2), stride=(2, 2)),
        Conv2d(weight=grid(rng, 6, 3, 2, 2), stride=(2, 1), padding=(1, 1, 0, 0), groups=2),
        lif(threshold=1.0),
        Dense(weight=grid(rng, 3, 54)),
        lif(),
    )
    mapped(net, device(neurons_per_core=100, in_axons_per_core=150, out_axons_per_core=300))


# Placement.


def cost(traffic, host, places):
    tile = places // 4
    apart = distances(64)
    return float((traffic * apart[tile[:, None], tile]).sum() + host @ apart[0, tile])


def test_no_swap_and_no_move_lowers_the_hops():
    from scipy.sparse import csr_array

    rng = np.random.default_rng(19)
    traffic = rng.integers(0, 9, (14, 14)) * (rng.random((14, 14)) < 0.3)
    np.fill_diagonal(traffic, 0)
    host = rng.integers(0, 9, 14).astype(float)
    places = place_cores(csr_array(traffic.astype(float)), host, 4)
    assert len(set(places.tolist())) == 14 and places.max() < 128
    best = cost(traffic, host, places)
    assert best < cost(traffic, host, np.arange(14))
    for core in range(14):
        for place_ in range(128):
            tried = places.copy()
            tried[places == place_] = places[core]
            tried[core] = place_
            assert cost(traffic, host, tried) >= best - 1e-9


def test_pairs_that_talk_share_a_tile():
    from scipy.sparse import csr_array

    traffic = np.zeros((8, 8))
    for core in range(4):
        traffic[core, core + 4] = 5
    places = place_cores(csr_array(traffic), np.zeros(8), 4)
    assert cost(traffic, np.zeros(8), places) == 0


def test_rates_decide_who_is_near_to_whom():
    made = program(mlp(np.random.default_rng(20), 4, 40, 40, density=0.5))
    small = replace(made.payload, splits={"n1": 10, "n2": 10})
    silent = {name: np.zeros(math.prod(shape)) for name, shape in small.network.shapes.items()}
    busy = silent | {"n1": np.r_[np.ones(4), np.zeros(36)]}
    links = []
    for rates in (None, busy):
        mapping = place(small, made.device, rates)
        links.append(int(busy["n1"] @ mapping.links["w2"]))
    assert links[1] < links[0]


def test_a_device_without_any_limit_takes_all_on_one_core(tmp_path):
    path = tmp_path / "bare.toml"
    path.write_text('schema = 1\nname = "bare"\ntitle = "bare"\nfamily = "loihi"\n')
    mapping = mapped(skip_net(np.random.default_rng(21)), load(str(path)))
    assert len(mapping.cores) == 1 and mapping.chips == 1 and mapping.links is None


def test_with_a_margin_layers_divide_so_that_it_stays_free():
    net = mlp(np.random.default_rng(22), 4, 1024, density=1.0)
    for margin, cores, most in ((0.0, 1, 1024), (0.1, 2, 921)):
        mapping = mapped(net, margin=margin)
        assert len(mapping.cores) == cores
        assert max(core.used.neurons for core in mapping.cores) == most
