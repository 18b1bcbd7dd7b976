"""Events: what a run did, counted by place and kind. Prices live elsewhere (budget/price.py).

Definitions (all are totals over the samples that ran):

synops_dense      every connection, every step: steps x dense fan-out, for spiking input
synops_event      spikes x dense fan-out (zero weights included)
synops_effective  spikes x nonzero fan-out, on learned synapses (before quantization)
synops_quantized  the same after quantization: rounding makes zeros
synops_helper     accumulates of connections that a lowering or pass made
macs              multiply-accumulates of analogue (direct-coded) input, learned nonzero weights,
                  in every step, also where a static sample repeats
neuron_updates    populations x steps; neuron_updates_active: those of neurons that spiked
spikes            spikes that a population emitted
weight_read_bits, index_read_bits, pointer_read_bits, state_read_bits, state_write_bits
cycles            clock cycles of a synchronous target
packets, hops     messages sent and links crossed, for a target with a network on chip
host_ops          operations that the host does (encoding, analogue first layers, polling)
Plugins add names of their own as ``plugin:event``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

EVENT_NAMES: dict[str, str] = {
    "synops_dense": "connections x steps, zeros included",
    "synops_event": "spikes x fan-out, zeros included",
    "synops_effective": "spikes x nonzero fan-out, before quantization",
    "synops_quantized": "spikes x nonzero fan-out, after quantization",
    "synops_helper": "accumulates on connections made by a lowering",
    "macs": "multiply-accumulates of analogue input",
    "neuron_updates": "neuron updates, one per neuron and step",
    "neuron_updates_active": "neuron updates of a neuron that spiked",
    "spikes": "spikes emitted",
    "weight_read_bits": "bits read from weight memories",
    "index_read_bits": "bits read from index memories",
    "pointer_read_bits": "bits read from pointer memories",
    "state_read_bits": "bits read from neuron-state memories",
    "state_write_bits": "bits written to neuron-state memories",
    "cycles": "clock cycles",
    "packets": "messages sent between cores",
    "hops": "links crossed between cores",
    "host_ops": "operations on the host",
}


class Events(Mapping[tuple[str, str], int]):
    """Immutable counts ``{(where, event): n}`` that add with ``+``.

    Raises ValueError for an unknown event name without a plugin's namespace, or n < 0.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[tuple[str, str], int] | None = None) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        for (where, event), n in (counts or {}).items():
            if event not in EVENT_NAMES and ":" not in event:
                raise ValueError(f"unknown event {event!r}; plugins name theirs 'plugin:event'")
            if n < 0:
                raise ValueError(f"event {event!r} at {where!r} has a negative count")
            self._counts[where, event] = int(n)

    def __getitem__(self, key: tuple[str, str]) -> int:
        return self._counts[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __add__(self, other: Events) -> Events:
        total = dict(self._counts)
        for key, n in other.items():
            total[key] = total.get(key, 0) + n
        return Events(total)

    def __repr__(self) -> str:
        return f"Events({self._counts!r})"

    def total(self, event: str) -> int:
        """Return the sum of one event over all places."""
        return sum(n for (_, name), n in self._counts.items() if name == event)

    def has(self, event: str) -> bool:
        """Return whether the event was counted anywhere (a counted zero counts)."""
        return any(name == event for _, name in self._counts)

    def at(self, where: str) -> dict[str, int]:
        """Return the events counted at one place."""
        return {name: n for (place, name), n in self._counts.items() if place == where}

    def places(self) -> tuple[str, ...]:
        """Return the places, in the order in which they were first counted."""
        return tuple(dict.fromkeys(place for place, _ in self._counts))

    def names(self) -> tuple[str, ...]:
        """Return the event names that occur."""
        return tuple(dict.fromkeys(name for _, name in self._counts))

    @classmethod
    def sum(cls, parts: Iterable[Events]) -> Events:
        """Return the sum of any number of event counts."""
        total: dict[tuple[str, str], int] = {}
        for part in parts:
            for key, n in part.items():
                total[key] = total.get(key, 0) + n
        return cls(total)
