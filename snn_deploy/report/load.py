"""The load of processing elements, as a table and as values."""

from __future__ import annotations

from typing import Any

from snn_deploy import units
from snn_deploy.engine.load import LayerLoad, Load, cycles, utilisation
from snn_deploy.report.model import Table


def load_data(load: Load) -> dict[str, Any]:
    """Return a network's load as JSON values."""
    return {
        "elements": load.elements,
        "work": load.work,
        "idle": load.idle,
        "cycles": load.cycles,
        "balanced_cycles": load.balanced_cycles,
        "utilisation": load.utilisation,
        "layers": [_layer(layer) for layer in load.layers],
    }


def load_table(load: Load) -> Table:
    """Return the load of nonzero weights per layer."""
    data = load_data(load)
    rows = [*data["layers"], {**data, "name": "all", "ceiling": 1.0}]
    return Table(
        title="",
        columns=("layer", "nonzeros", "cycles", "idle", "idle share", "utilisation"),
        rows=tuple(
            (
                row["name"],
                f"{row['work']:,}",
                f"{row['cycles']:,}",
                f"{row['idle']:,}",
                units.percent(_share(row)),
                ratio(row["utilisation"])
                + (f" of {row['ceiling']:.3f}" if row["ceiling"] < 1 else ""),
            )
            for row in rows
        ),
        align="lrrrrr",
        total=True,
        note="each nonzero weight once; a layer of fewer channels than elements is shown against "
        "what it can reach, and does not count in the utilisation of all",
    )


def ratio(utilisation: float | None) -> str:
    """Return a utilisation as text; "-" where no layer fills the elements."""
    return "-" if utilisation is None else f"{utilisation:.3f}"


def _layer(layer: LayerLoad) -> dict[str, Any]:
    slowest, work = cycles(layer.work), int(layer.work.sum())
    return {
        "name": layer.name,
        "channels": layer.channels,
        "work": work,
        "idle": layer.work.shape[1] * slowest - work,
        "cycles": slowest,
        "utilisation": utilisation(layer.work),
        "ceiling": layer.ceiling,
    }


def _share(row: dict[str, Any]) -> float:
    """Return the share of all elements' cycles in which they wait."""
    total = row["work"] + row["idle"]
    return float(row["idle"] / total) if total else 0.0
