"""``--calibrate``: samples that show how far states go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snn_deploy.backends.base import Target
    from snn_deploy.ir.network import Network
    from snn_deploy.passes.reach import Reached


def check_calibration(
    targets: Sequence[Target], options: dict[str, Any], arithmetic: str | None = None
) -> None:
    """Raise UsageError for a ``--calibrate`` where everything is computed in float."""
    floats = arithmetic in (None, "float") and all(t.arithmetic() is None for t in targets)
    if options.get("calibrate") is not None and floats:
        raise UsageError(
            "--calibrate sets the range of integer states, and here all are floats",
            where=", ".join(target.name for target in targets),
            hint="leave --calibrate out, or use --target loihi or fpga",
        )


def observed(network: Network, path: Path | None) -> dict[str, Reached] | None:
    """Return how far each population's states go in float on the samples of ``path``, if any."""
    if path is None:
        return None
    from snn_deploy.io.inputs import read_for
    from snn_deploy.passes.calibrate import observe
    from snn_deploy.report.analyse import encoded, encoded_batches

    data = read_for(path, {name: network.shapes[name] for name in network.inputs})
    spans = encoded_batches(network, data, data.samples)
    return observe(network, (encoded(network, data, *span) for span in spans))
