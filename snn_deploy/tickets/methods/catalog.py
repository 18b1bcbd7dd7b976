"""Methods by name, and their parameters as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snn_deploy.errors import UsageError
from snn_deploy.tickets.methods import early, one_run
from snn_deploy.tickets.methods.base import Method
from snn_deploy.tickets.methods.imp import Imp
from snn_deploy.tickets.methods.patch import Patch
from snn_deploy.tickets.methods.uticket import Uticket

METHODS: Mapping[str, type[Method]] = {
    "imp": Imp,
    "eb": early.EarlyBird,
    "et": early.EarlyTime,
    "eb-et": early.EarlyBirdTime,
    "uticket": Uticket,
    "patch": Patch,
    "gradr": one_run.GradientRewiring,
    "stds": one_run.SoftThreshold,
    "ndsnn": one_run.Ndsnn,
    "set": one_run.Set,
    "rigl": one_run.Rewired,
    "static": one_run.Static,
    "connection": one_run.Untrained,
    "random": one_run.Random,
    "reinit": one_run.Reinitialised,
    "snip": one_run.Snip,
    "cutoff": Imp,  # with the defaults of an early stop, see config.py
}
# Those that train one network from the start to the end, for longer than a pruning round.
ONE_RUN = tuple(name for name, method in METHODS.items() if issubclass(method, one_run.OneRun))


def parameters_of(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's parameters, the given ones in place of the defaults, each of its kind.

    given: values, or their text. Raises UsageError for an unknown name or an unfit value.
    """
    known = METHODS[method].parameters
    values = dict(known)
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"method {method} has no parameter {name!r}",
                hint=", ".join(f"{n}={v}" for n, v in known.items()) or "it has none",
            )
        values[name] = _like(name, value, known[name])
    return values


def _like(name: str, value: Any, default: Any) -> Any:
    kind = type(default)
    if isinstance(value, str) and kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        value = words.get(value.lower(), value)
    if kind is str or isinstance(value, bool) or kind is bool:
        fits = isinstance(value, kind)
    else:
        try:
            number = float(value)
        except (TypeError, ValueError):
            fits = False
        else:
            fits = 0 <= number < float("inf") and (kind is float or number == int(number))
            value = kind(number) if fits else value
    if not fits:
        words_of = {bool: "true or false", str: "a word", int: "a whole number, 0 or more"}
        raise UsageError(
            f"parameter {name} does not take this value",
            used=f"{name} = {value}",
            hint=f"{words_of.get(kind, 'a number, 0 or more')}; the default is {default}",
        )
    return value
