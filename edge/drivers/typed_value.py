"""Values that arrive already typed (OPC UA variants, JSON), checked against what the profile declares."""

from __future__ import annotations

from typing import Literal, Protocol

from edge.drivers.base import Samples
from wire.quality import Quality, is_bad

EXACT = 1 << 53
"""Beyond it a float cannot hold every integer."""

_LARGEST = 1 << 64
"""No device type holds a larger integer."""

ValueType = Literal["float", "int", "bool", "text"]


class Typed(Protocol):
    """What checking needs to know of an address."""

    @property
    def type(self) -> ValueType: ...
    @property
    def plain(self) -> bool: ...

    def engineering(self, raw: float) -> float: ...


def add_value(samples: Samples, point: int, address: Typed, value: object, quality: int = 0, time: int = 0) -> None:
    """One row: the value in engineering units, or bad/type if it is not what the profile says. True is no number."""
    if is_bad(quality):
        samples.add(point, 0.0, quality, time)
    elif address.type == "text" and isinstance(value, str):
        samples.side[len(samples.point)] = value
        samples.add(point, 0.0, quality, time)
    elif address.type == "bool" and isinstance(value, bool):
        samples.add(point, float(value), quality, time)
    elif _is_number(address.type, value):
        _add_number(samples, point, address, value, quality, time)  # type: ignore[arg-type]
    else:
        samples.add(point, 0.0, Quality.BAD_TYPE, time)


def _is_number(kind: ValueType, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, int):
        return kind in ("int", "float") and abs(value) < _LARGEST
    return kind == "float" or (kind == "int" and value.is_integer())


def _add_number(samples: Samples, point: int, address: Typed, value: float, quality: int, time: int) -> None:
    if isinstance(value, int) and abs(value) > EXACT and address.plain and address.type == "int":
        samples.side[len(samples.point)] = value
        samples.add(point, 0.0, quality, time)
    else:
        samples.add(point, address.engineering(value), quality, time)
