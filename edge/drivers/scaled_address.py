"""Scale and offset: the one linear step between a device's raw number and its engineering unit."""

from __future__ import annotations

from pydantic import field_validator

from wire.settings import Settings


class Scaled(Settings):
    """``engineering = raw * scale + offset``; what every driver's Address has in common."""

    scale: float = 1.0
    """Engineering units per raw count; never zero."""
    offset: float = 0.0

    @field_validator("scale")
    @classmethod
    def _invertible(cls, scale: float) -> float:
        if scale == 0.0:
            raise ValueError("scale must not be zero")
        return scale

    @property
    def plain(self) -> bool:
        """True if raw and engineering values are the same number, so integers stay integers."""
        return self.scale == 1.0 and self.offset == 0.0

    def engineering(self, raw: float) -> float:
        """A raw number in the device's engineering unit."""
        return raw * self.scale + self.offset

    def raw(self, engineering: float) -> float:
        """The inverse, not rounded: rounding belongs to the type that is written."""
        return (engineering - self.offset) / self.scale
