"""Errors that a user can act on: what happened, where, used against allowed, and a hint.

Every exception that leaves a public function because of the user's input, machine or
network derives from :class:`SnnDeployError`; anything else that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_BUG = 1
EXIT_INTERRUPT = 130


def printable(text: object) -> str:
    """Return ``text`` with control characters escaped: names in model files are untrusted."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class SnnDeployError(Exception):
    """Base of all located errors.

    message: what is wrong, one line, no trailing full stop. where: ``file -> node``.
    used: the amount found against the amount allowed. hint: what most likely fixes it.
    """

    exit_code: ClassVar[int] = EXIT_BUG
    kind: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        used: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.where = None if where is None else printable(where)
        self.used = None if used is None else printable(used)
        self.hint = None if hint is None else printable(hint)

    def located(self, where: str) -> SnnDeployError:
        """Prefix the place with an outer one (a file, a layer) and return ``self``."""
        where = printable(where)
        self.where = where if self.where is None else f"{where} -> {self.where}"
        return self

    def __str__(self) -> str:
        lines = [f"error: {self.message}"]
        for label, value in (("where", self.where), ("used", self.used), ("hint", self.hint)):
            if value:
                lines.append(f"  {label:<6} {value}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Return the fields that ``--json`` prints on failure."""
        return {
            "kind": self.kind,
            "exit_code": self.exit_code,
            "message": self.message,
            "where": self.where,
            "used": self.used,
            "hint": self.hint,
        }


class UsageError(SnnDeployError):
    """The command line or a function's arguments do not make sense together."""

    exit_code = 2
    kind = "usage"


class InputError(SnnDeployError):
    """A model, data or option file is malformed, hostile, or disagrees with another."""

    exit_code = 3
    kind = "bad-input"


class UnsupportedError(SnnDeployError):
    """The input is well formed, but the target or this version cannot express it."""

    exit_code = 4
    kind = "unsupported"


class FitError(SnnDeployError):
    """The network does not fit a device that the user named."""

    exit_code = 5
    kind = "does-not-fit"


class MismatchError(SnnDeployError):
    """Two simulators of the same network disagree."""

    exit_code = 6
    kind = "mismatch"


class MissingDependencyError(SnnDeployError):
    """A package, environment or tool is absent; the hint is the command that installs it."""

    exit_code = 7
    kind = "missing-dependency"


class DeviceError(SnnDeployError):
    """A device description is malformed or incomplete."""

    exit_code = 8
    kind = "device-file"


class ExternalToolError(SnnDeployError):
    """An external program crashed, hung or was killed; its last words are in the message."""

    exit_code = 9
    kind = "external-tool"


class OutputError(SnnDeployError):
    """A result cannot be written where the user asked for it."""

    exit_code = 10
    kind = "cannot-write"
