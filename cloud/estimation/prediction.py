"""What a cohort needs from a model, linear or not: carry states forward in time and say what a sensor would read."""

from __future__ import annotations

from typing import Protocol

from cloud.twins.model import Floats, Ints


class Model(Protocol):
    """One twin type with its twins' parameters, which `enrol` gathers. Rows never influence each other."""

    def enrol(self, row: int, parameters: Floats) -> None:
        """Set the parameters (q,) of one row of the cohort."""
        ...

    def predict(self, rows: Ints, x: Floats, P: Floats, u: Floats, ticks: Ints) -> tuple[Floats, Floats]:
        """Mean and covariance after ``ticks`` (N,) > 0 of the type's resolution with the inputs held."""
        ...

    def observe(self, rows: Ints, x: Floats, u: Floats, sensor: Ints) -> tuple[Floats, Floats]:
        """Expected value (N,) of each row's sensor and its gradient (N, n)."""
        ...
