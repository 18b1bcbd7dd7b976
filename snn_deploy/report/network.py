"""What identifies a network, as values and as text."""

from __future__ import annotations

from typing import Any

from snn_deploy import units
from snn_deploy.io.values import cutoff_json
from snn_deploy.ir.network import Network
from snn_deploy.ir.synapses import learned_nonzeros, learned_size
from snn_deploy.report.model import Text


def weights_of_network(network: Network) -> tuple[int, int]:
    """Return (nonzero, all) learned weights; those that a pass made do not count."""
    synapses = [s for p in network.projections if not p.helper for s in p.synapses]
    return sum(map(learned_nonzeros, synapses)), sum(map(learned_size, synapses))


def network_facts(network: Network) -> dict[str, Any]:
    """Return what identifies a network, as JSON values."""
    nonzeros, size = weights_of_network(network)
    return {
        "path": network.source.path,
        "sha256": network.source.sha256,
        "format": network.source.format,
        "dt_s": network.dt_s,
        "coding": network.coding.kind,
        "steps": network.coding.steps,
        "readout": network.readout.kind,
        "cutoff": cutoff_json(network.readout.cutoff),
        "neurons": sum(p.size for p in network.computing()),
        "weights": size,
        "nonzeros": nonzeros,
        "sparsity": 1 - nonzeros / size if size else 0.0,
    }


def network_text(network: Network) -> Text:
    """Return the network in three lines."""
    facts = network_facts(network)
    steps = f"{facts['steps']} steps" if facts["steps"] else "steps"
    coding = "events" if facts["coding"] == "events" else f"{facts['coding']} coding"
    return Text(
        lines=(
            ("model", f"{facts['path']} ({facts['format']})"),
            (
                "network",
                f"{facts['neurons']:,} neurons, {facts['nonzeros']:,} of {facts['weights']:,} "
                f"weights nonzero ({units.percent(facts['sparsity'])} sparse)",
            ),
            (
                "input",
                f"{coding}, {steps} of {units.si(network.dt_s, 's')}, {facts['readout']} readout"
                + (", early stop" if network.readout.cutoff is not None else ""),
            ),
        )
    )
