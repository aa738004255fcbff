"""Twin types for people without equations: a unit and a noise figure give any point a twin with a band.

===========  ==============================================================================================
signal       a value that wanders: dx = w dW
level_trend  a value with a slope that wanders: a tank filling, a room cooling
first_order  a value that follows an unseen, wandering target with time constant tau: a sensor in a pocket
===========  ==============================================================================================

``wander`` is the process noise of the state that wanders. Without it the value may move by one noise in 10 s
(signal), the slope may bend the value by one noise in 30 s (level_trend), and the target may move by one noise in a
quarter of tau (first_order).
"""

from __future__ import annotations

from typing import Any

from cloud.twins.findings import Findings
from cloud.twins.schema import Given, TypeFile
from wire.settings import Quantity

READY_MADE = ("signal", "level_trend", "first_order")
VERSION = "1.0.0"
TAU_S = 60.0
"""Time constant of ``first_order`` unless given."""


def ready_made(name: str, given: Given | None, findings: Findings) -> TypeFile:
    """The type file that somebody who knows the language would have written; raises ConfigError without ``with``."""
    if given is None:
        findings.add((), f"{name} needs its unit and noise", "with: {unit: degC, noise: 0.2 degC}")
        raise findings.error()
    findings.positive(given.noise, findings.unit(given.unit, ("unit",)), ("noise",))
    if given.tau is not None and name != "first_order":
        findings.add(("tau",), f"{name} has no time constant")
    if given.tau == 0:
        findings.add(("tau",), "must be above zero")
    findings.settle()
    extra = {word: f"{getattr(given, word)!r} s" for word in ("horizon", "tick") if getattr(given, word) is not None}
    sensor = {"measures": "value", "unit": given.unit, "noise": _text(given.noise)}
    if given.period is not None:
        sensor["period"] = f"{given.period!r} s"
    model = {"signal": _signal, "level_trend": _level_trend, "first_order": _first_order}[name](given)
    content = {
        "type": name,
        "version": VERSION,
        "offsets": "none",
        "sensors": {"value": sensor},
        **model,
        **extra,
    }
    return TypeFile.model_validate(content)


def _signal(given: Given) -> dict[str, Any]:
    return {
        "states": {"value": {"unit": given.unit, "initial": "from value"}},
        "dynamics": {"value": "0"},
        "process_noise": {"value": _text(given.wander) if given.wander else _noise(given, 10.0**-0.5, "sqrt(s)")},
    }


def _level_trend(given: Given) -> dict[str, Any]:
    return {
        "states": {
            "value": {"unit": given.unit, "initial": "from value"},
            "trend": {"unit": _per(given.unit, "s"), "initial": f"0 +/- {_noise(given, 0.1, 's')}"},
        },
        "dynamics": {"value": "trend", "trend": "0"},
        "process_noise": {
            "value": _noise(given, 0.0, "sqrt(s)"),
            "trend": _text(given.wander) if given.wander else _noise(given, 30.0**-1.5, "(s*sqrt(s))"),
        },
    }


def _first_order(given: Given) -> dict[str, Any]:
    tau = given.tau if given.tau is not None else TAU_S
    return {
        "states": {
            "value": {"unit": given.unit, "initial": "from value"},
            "target": {"unit": given.unit, "initial": f"from value +/- {_text(given.noise, 10.0)}"},
        },
        "parameters": {"tau": {"unit": "s", "value": tau}},
        "dynamics": {"value": "(target - value) / tau", "target": "0"},
        "process_noise": {
            "value": _noise(given, 0.0, "sqrt(s)"),
            "target": _text(given.wander) if given.wander else _noise(given, (tau / 4.0) ** -0.5, "sqrt(s)"),
        },
    }


def _text(quantity: Quantity, factor: float = 1.0) -> str:
    return f"{quantity.value * factor!r} {quantity.unit}"


def _noise(given: Given, factor: float, per: str) -> str:
    """The noise times a factor, per something."""
    return f"{given.noise.value * factor!r} {_per(given.noise.unit, per)}"


def _per(unit: str, divisor: str) -> str:
    return f"{unit}/{divisor}" if unit and unit.isalpha() else f"({unit or '1'})/{divisor}"
