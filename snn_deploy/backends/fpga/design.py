"""A hardware design as the synthesis tools get it: its files in one folder, and how it is read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from snn_deploy.errors import UsageError
from snn_deploy.io.files import PathLike, cannot_write, sha256_file

HEADERS = (".svh", ".vh")
Parameter = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A module, ``top``, and the files that it is made of.

    sources: SystemVerilog, packages first; headers (.svh, .vh) are found by `include. images: the
    files that $readmemh and $readmemb name, without a folder. parameters: of ``top``.
    """

    top: str
    sources: Sequence[PathLike]
    images: Sequence[PathLike] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def files(self) -> dict[str, Path]:
        """Return the files by the name that the tools see; UsageError if two have the same."""
        found: dict[str, Path] = {}
        for path in map(Path, (*self.sources, *self.images)):
            if any(c in path.name for c in '"\\\n'):
                raise UsageError(
                    f"the tools cannot read a file called {path.name}", hint="rename it"
                )
            other = found.setdefault(path.name, path)
            if other != path:
                raise UsageError(
                    f"two files are called {path.name}",
                    where=f"{other}, {path}",
                    hint="rename one: the tools see them in one folder",
                )
        return found

    def digests(self) -> dict[str, str]:
        """Return each file's SHA-256 by its name; InputError if one is not there."""
        return {name: sha256_file(path) for name, path in self.files().items()}

    def copy(self, folder: Path) -> None:
        """Copy the files into a folder, made where missing; OutputError."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, path in self.files().items():
                if not ((copy := folder / name).exists() and copy.samefile(path)):
                    shutil.copyfile(path, copy)
        except OSError as error:
            raise cannot_write(error, folder) from error

    def script(self) -> list[str]:
        """Return the Yosys commands that read the design; UsageError if there is no source."""
        names = [Path(s).name for s in self.sources if Path(s).suffix not in HEADERS]
        if not names:
            raise UsageError("nothing to synthesize", hint="name at least one SystemVerilog file")
        chosen = sorted(self.parameters.items())
        return [
            "read_verilog -sv -defer " + " ".join(f'"{name}"' for name in names),
            f"hierarchy -check -top {self.top}"
            + "".join(f" -chparam {name} {constant(value)}" for name, value in chosen),
        ]


def constant(value: Parameter) -> str:
    """Return a parameter as a Verilog constant in bits, the form that takes every value."""
    if isinstance(value, str):
        data = value.encode() or b"\0"
        return f"{8 * len(data)}'b" + "".join(f"{byte:08b}" for byte in data)
    width = max(32, value.bit_length() + 1)
    return f"{width}'sb{value % (1 << width):0{width}b}"
