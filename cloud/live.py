"""What the worker knows right now, as the API and the commands ask for it; answered from memory, in SI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cloud.api.ports import Belief, Figures, Floats, Ints, Measured, Presence
from cloud.bank import Bank, Now
from cloud.batch import Batcher
from cloud.commands.model import EdgeState, Revision
from cloud.figures import Tally
from cloud.fleet import Fleet, Member
from cloud.presence import Presences
from wire.errors import Rejected
from wire.points import PointId


class Live:
    """A view without state of its own: `cloud.api.ports.LiveView` and `cloud.commands.model.EdgeView`."""

    def __init__(
        self,
        bank: Bank,
        fleet: Fleet,
        batcher: Batcher,
        tally: Tally,
        presences: Presences,
        terms: Mapping[int, int],
        *,
        now: Callable[[], int],
    ) -> None:
        self._bank = bank
        self._fleet = fleet
        self._batcher = batcher
        self._tally = tally
        self._presences = presences
        self._terms = terms
        self._now = now

    def beliefs(self, twins: Sequence[str], at: int) -> Mapping[str, Belief]:
        """Beliefs of the named twins, predicted to ``at``; those that have not started are missing."""
        asked = [self._fleet.members[name] for name in twins if name in self._fleet.members]
        answers = self._bank.now([member.handle for member in asked], at)
        return {
            member.twin.name: self._belief(member, answer)
            for member, answer in zip(asked, answers, strict=True)
            if answer.started
        }

    def forecast(self, twin: str, times: Ints) -> tuple[Floats, Floats]:
        """Mean and sigma (T, n); raises Rejected("no-estimate") for a twin that has not started."""
        member = self._fleet.members.get(twin)
        if member is None or not self._bank.now([member.handle])[0].started:
            raise Rejected("no-estimate", f"{twin} has not seen a reading yet")
        return self._bank.forecast(member.handle, times)

    def figures(self) -> Figures:
        """Counts since the beginning of the checkpoint."""
        outcomes = self._tally.outcomes
        return Figures(
            applied=self._tally.stored - outcomes["duplicate"],
            duplicates=outcomes["duplicate"],
            outcomes=dict(outcomes),
            latency_p50_ms=self._tally.latency.percentile(0.50),
            latency_p99_ms=self._tally.latency.percentile(0.99),
        )

    def presence(self) -> Sequence[Presence]:
        """Everybody heard of; who has fallen silent, or sits behind a silent gateway, is shown as away."""
        now = self._now()
        return [
            Presence(heard.alive.model_copy(update={"online": self._presences.online(heard, now)}), heard.received)
            for heard in self._presences
        ]

    def edge(self, source: str) -> EdgeState | None:
        """How to reach an edge, and the boot that a setpoint must name."""
        heard = self._presences.edge(source)
        if heard is None:
            return None
        return EdgeState(
            route=heard.route,
            nonce=heard.alive.nonce,
            online=self._presences.online(heard, self._now()),
            term=self._terms.get(heard.route.shard, 0),
            revisions={(item.device, item.point): Revision(item.term, item.revision) for item in heard.alive.revisions},
        )

    def device_unit(self, point: PointId) -> str | None:
        """The device's unit of a writable point, from its source's newest declaration."""
        known = self._batcher.schemas.get(point.source)
        if not known:
            return None
        schema = known[next(reversed(known))]
        declared = zip(schema.points, schema.declared, strict=True)
        return next((decl.device_unit for each, decl in declared if each == point and decl.writable), None)

    def _belief(self, member: Member, answer: Now) -> Belief:
        return Belief(
            at=answer.time,
            time=answer.newest,
            mean=answer.mean,
            sigma=answer.sigma,
            measured=self._measured(member, answer),
            nis=answer.nis if answer.nis_count else float("nan"),
            nis_band=(answer.nis_low, answer.nis_high),
            nis_total=answer.nis_total,
            updates=answer.updates,
            gated=answer.gated,
            resets=answer.resets,
        )

    def _measured(self, member: Member, answer: Now) -> dict[str, Measured]:
        """Newest reading by channel; after a restart, until the next reading, what the bank remembers."""
        newest, measured = self._fleet.newest, {}
        for channel, name in enumerate(member.twin.type.channels):
            slot = member.slot + channel
            if newest.time[slot] >= 0:
                value = float(newest.value[slot])
                measured[name] = Measured(
                    time=int(newest.time[slot]),
                    value=value if np.isfinite(value) else None,
                    quality=int(newest.quality[slot]),
                    fused=bool(newest.fused[slot]),
                )
            elif answer.measured_at[channel] >= 0:
                measured[name] = Measured(int(answer.measured_at[channel]), float(answer.measured[channel]), 0)
        return measured
