"""What a target is: the protocol, its program, its oracle. A backend never sees a joule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from snn_deploy.engine.loop import Inputs, Record
from snn_deploy.ir.events import Events
from snn_deploy.ir.network import Network
from snn_deploy.ir.quantized import Arithmetic, QNetwork
from snn_deploy.ir.trace import Trace
from snn_deploy.passes.analogue import AnalogueMode
from snn_deploy.passes.reach import Reached

if TYPE_CHECKING:
    from snn_deploy.device.model import Device
    from snn_deploy.device.usage import Usage

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user may choose about a lowering.

    bits: weight bits, None for the target's own. device: the device to lower for, None for the
    target's default. settings: target-specific choices by name (fpga: banks, fifo_depth). analogue:
    how values of a directly coded input enter integers (see passes.quantize); None: as the target
    prefers. observed: how far each population's states go, from calibration. splits: layer or
    population -> on how many cores it lies at least, and margin: share of each of a core's limits
    to keep free, for targets with cores.
    """

    bits: int | None = None
    device: Device | None = None
    settings: dict[str, int] | None = None
    splits: Mapping[str, int] | None = None
    margin: float = 0.0
    analogue: AnalogueMode | None = None
    observed: dict[str, Reached] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Program:
    """A lowered network.

    real: the folded float network. qnet: its integers, None in float. payload: what the target
    loads, in the target's own type. device: what it was lowered for.
    """

    target: str
    real: Network
    qnet: QNetwork | None
    payload: Any
    device: Device


_MADE: WeakKeyDictionary[Program, dict[str, Any]] = WeakKeyDictionary()


def once(program: Program, name: str, make: Callable[[], T]) -> T:
    """Return what ``make`` returns, made once per program and kept as long as the program.

    A data set runs in batches, and engines, fan-outs and placements are the same for each.
    """
    made = _MADE.setdefault(program, {})
    if name not in made:
        made[name] = make()
    result: T = made[name]
    return result


def operations(program: Program, trace: Trace) -> Events:
    """Return the synops, MACs, updates and spikes of a trace of this program.

    Where its samples stopped early, also the host's operations that stopped them.
    """
    from snn_deploy.engine.count import Counter
    from snn_deploy.engine.early import host_operations

    counter = once(program, "counter", lambda: Counter(program.real, program.qnet))
    return counter.count(trace) + host_operations(program.real, trace)


def recording(program: Program, record: Record) -> Record:
    """Return what an engine must record: an early stop is cut out of the spikes of all steps."""
    early = program.real.readout.cutoff is not None and record == "output"
    return "spikes" if early else record


def counted(target: Target, program: Program, trace: Trace, record: Record = "states") -> Trace:
    """Return a trace of all steps with its events, until each sample's stop under a cutoff.

    trace: with spikes where there is a cutoff. record: "output" drops them. A target without
    ``extra_steps`` runs all steps in any case.
    """
    from snn_deploy.engine.early import in_step

    trace = replace(trace, events=target.events(program, trace))
    extra = getattr(target, "extra_steps", None)
    if program.real.readout.cutoff is not None and extra is not None:
        trace = in_step(program.real, trace, extra(program))
        trace = replace(trace, events=target.events(program, trace))
    return replace(trace, spikes={}) if record == "output" else trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one sample takes, as far as the target can say.

    steps: algorithmic steps run, hops included; the mean where samples stop early. hop_steps: of
    those, added by the target.
    cycles: mean per sample, clocked targets. seconds: None where no source allows it, and then
    unavailable_reason says why. kind: simulated, estimated, ...
    """

    steps: float
    hop_steps: int = 0
    cycles: float | None = None
    seconds: float | None = None
    kind: str = "simulated"
    unavailable_reason: str = ""


class Oracle(Protocol):
    """An independent simulator: it shares no arithmetic with ours."""

    name: str
    tolerance: float

    def version(self) -> str:
        """Return what ran, with its version."""

    def run(self, program: Program, x: Inputs) -> Trace:
        """Return spikes and states of every population, aligned to the un-pipelined steps."""


class Target(Protocol):
    """One backend. Methods are pure but for ``run`` on external tools and ``write``.

    default_device: a shipped device's name, or the path of the plugin's own device file.
    charged: the events that cost energy, each once. Four attributes are optional: ``settings``,
    name -> (what it is, least, most), is what ``--set`` takes; ``simulators()`` returns every
    Oracle that ``run --on`` takes, where there are more than the judge;
    ``extra_steps(program)`` returns, by population, the steps that it has run beyond the output's
    when the output finishes one (0 where not named): with it, ``counted`` ends what is counted at
    each sample's early stop. A target that has neither this nor a count of its own runs all steps.
    A target whose usage says on which cores a program lies has ``maps_cores = True``, honours
    ``Options.splits``, and ``core_work(program, trace)`` returns event -> count by core.
    """

    name: str
    title: str
    family: str
    default_device: str
    charged: tuple[str, ...]
    places: tuple[str, ...]

    def arithmetic(self) -> Arithmetic | None:
        """Return the target's integers, or None where it computes in float."""

    def constraints(self) -> tuple[tuple[str, str], ...]:
        """Return (what, rule) rows: what can be lowered, for ``targets ops``."""

    def lower(self, network: Network, qnet: QNetwork | None, options: Options) -> Program:
        """Return the program for a folded network; located errors for what cannot be lowered."""

    def run(self, program: Program, x: Inputs, record: Record = "output") -> Trace:
        """Run (samples, steps, *shape) on our model of the target; events and timing filled in.

        x: one such array per input name where there are several.
        """

    def events(self, program: Program, trace: Trace) -> Events:
        """Return what a trace of this program cost, whichever simulator it came from."""

    def latency(self, program: Program, trace: Trace) -> Latency:
        """Return the latency of one sample of ``trace``."""

    def usage(self, program: Program) -> Usage:
        """Return memory and other resources used, itemised."""

    def oracle(self) -> Oracle | None:
        """Return the independent simulator that ``verify`` asks, or None."""

    def write(self, program: Program, folder: Path, stem: str) -> list[str]:
        """Write the artifacts into an existing empty folder; returns their names."""
