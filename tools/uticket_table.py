"""The published energy cuts of u-Ticket beside what follows from its own cycle table.

Run from the repository's root:  python tools/uticket_table.py

One ratio is fitted over all rows, by least squares: the energy of an accumulate over that of a
cycle, E_d / E_l, which the paper's model has and its table does not give.
"""

from __future__ import annotations

from dataclasses import dataclass

ELEMENTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One column of the published table: work and idle in 1e8, spike sparsity 0..1."""

    work: float
    idle: float
    spike_sparsity: float

    @property
    def latency(self) -> float:
        """Cycles, in 1e8."""
        return (self.work + self.idle) / ELEMENTS

    def energy(self, ratio: float, *, idle: bool = True) -> float:
        """Return E / E_l, in 1e8; ratio: E_d / E_l. idle: with the elements' waiting."""
        busy = self.work * (ratio * (1 - self.spike_sparsity) + 1)
        return busy + (self.idle if idle else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A published row: the magnitude ticket, the balanced one, and the energy cut in percent."""

    name: str
    lth: Network
    uticket: Network
    published: float

    def cut(self, ratio: float) -> float:
        """Return the energy cut in percent."""
        return 100 * (1 - self.uticket.energy(ratio) / self.lth.energy(ratio))

    def cut_by_balance(self, ratio: float) -> float:
        """Return what the same work without waiting cuts, in percent."""
        return 100 * (1 - self.lth.energy(ratio, idle=False) / self.lth.energy(ratio))

    def latency_cuts(self) -> tuple[float, float]:
        """Return the latency cut in percent: all of it, and by balance alone."""
        before = self.lth.work + self.lth.idle
        after = self.uticket.work + self.uticket.idle
        return 100 * (1 - after / before), 100 * self.lth.idle / before


def _row(name: str, work: tuple[float, float], idle: float, spike: tuple[float, float],
         published: float) -> Row:  # fmt: skip
    return Row(
        name=name,
        lth=Network(work=work[0], idle=idle, spike_sparsity=spike[0] / 100),
        uticket=Network(work=work[1], idle=0.0, spike_sparsity=spike[1] / 100),
        published=published,
    )


ROWS = (
    _row("VGG16 CIFAR-10", (1.34, 0.94), 0.41, (84.8, 85.9), 41.8),
    _row("VGG16 FMNIST", (1.10, 0.81), 0.42, (83.9, 81.4), 35.4),
    _row("VGG16 SVHN", (1.15, 0.86), 0.69, (84.9, 80.1), 37.2),
    _row("ResNet19 CIFAR-10", (1.66, 1.10), 1.73, (64.1, 68.3), 55.5),
    _row("ResNet19 FMNIST", (1.26, 0.73), 1.89, (60.1, 62.9), 63.8),
    _row("ResNet19 SVHN", (1.27, 0.84), 1.34, (63.6, 68.2), 56.1),
)


def fitted_ratio() -> float:
    """Return the E_d / E_l with the least squared error over all rows."""
    from scipy.optimize import minimize_scalar

    def error(ratio: float) -> float:
        return sum((row.cut(ratio) - row.published) ** 2 for row in ROWS)

    return float(minimize_scalar(error, bounds=(0, 100), method="bounded").x)


def table(ratio: float) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| network | energy cut published % | computed % | of it by balance "
        "| latency 1e8 cycles | latency cut % | of it by balance |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in ROWS:
        cut, balance = row.latency_cuts()
        lines.append(
            f"| {row.name} | {row.published:.1f} | {row.cut(ratio):.1f} "
            f"| {row.cut_by_balance(ratio):.1f} "
            f"| {row.lth.latency:.3f} -> {row.uticket.latency:.3f} | {cut:.1f} | {balance:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    ratio = fitted_ratio()
    print(f"E_d / E_l = {ratio:.2f}\n\n{table(ratio)}")
