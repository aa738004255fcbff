"""A device profile as its simulator reads it: the same file that the edge reads, seen from the device's side.

The edge is the judge of a profile; what only a reader needs (limits of setpoints, read-backs) is passed over here.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from wire.points import Name


class Served(BaseModel):
    """One point as a device offers it: ``engineering = raw * scale + offset``, as the edge computes it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    point: Name
    unit: str = ""
    scale: Annotated[float, Field(gt=0)] | Annotated[float, Field(lt=0)] = 1.0
    offset: float = 0.0
    write: dict[str, Any] | None = None
    """Present where the point may be written; its limits are the reader's business."""

    @property
    def writable(self) -> bool:
        return self.write is not None

    def raw(self, engineering: float) -> float:
        """The number on the wire, not rounded."""
        return (engineering - self.offset) / self.scale

    def engineering(self, raw: float) -> float:
        """The number that was meant by one on the wire."""
        return raw * self.scale + self.offset


P = TypeVar("P", bound=Served)


class Profile(BaseModel):
    """The file; address fields at its top are the defaults of every point."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)

    profile: Name
    kind: Name
    points: Annotated[list[dict[str, Any]], Field(min_length=1)]

    @model_validator(mode="after")
    def _spread(self) -> Self:
        shared = self.model_extra or {}
        self.points[:] = [shared | point for point in self.points]
        return self

    def served(self, model: type[P]) -> tuple[P, ...]:
        """Every point with its address in one protocol; a ValidationError names all that cannot be served."""
        found: list[P] = []
        problems: list[InitErrorDetails] = []
        for index, point in enumerate(self.points):
            try:
                found.append(model.model_validate(point))
            except ValidationError as error:
                problems.extend(
                    InitErrorDetails(
                        type=detail["type"],
                        loc=("points", index, *detail["loc"]),
                        input=detail["input"],
                        ctx=detail.get("ctx", {}),
                    )
                    for detail in error.errors(include_url=False)
                )
        if problems:
            raise ValidationError.from_exception_data("profile", problems)
        return tuple(found)
