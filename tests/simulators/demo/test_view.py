"""The picture says what is measured, what is believed, and what nobody measures."""

from __future__ import annotations

import io

from rich.console import Console

from simulators.demo.replies import ChannelNow, Command, Latency, Now, StateNow, Stats, Step
from simulators.demo.view import Scene, draw


def picture(scene: Scene) -> list[str]:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(draw(scene))
    return console.export_text().splitlines()


def tank() -> Now:
    return Now(
        twin="tank-1",
        time=1,
        age_s=0.2,
        quality="good",
        nis=1.03,
        nis_band=(0.8, 1.2),
        states={
            "h1": StateNow(value=12.41, sigma=0.05, unit="cm"),
            "h3": StateNow(value=1.8, sigma=0.1, unit="cm"),
        },
        sensors={"h1": ChannelNow(value=12.9, unit="cm", age_s=0.2, quality="good")},
        inputs={"pump1": ChannelNow(value=None, unit="V", age_s=0.2, quality="bad/timeout")},
    )


def test_before_anything_is_known_it_says_what_it_waits_for() -> None:
    assert any("waiting for the cloud" in line for line in picture(Scene(0.0, "waiting for the cloud")))


def test_measured_estimated_and_unmeasured_stand_side_by_side() -> None:
    lines = picture(Scene(12.0, "running", {"tank-1": tank()}))
    (h1,) = [line for line in lines if " h1 " in line]
    assert "12.900" in h1
    assert "12.410" in h1
    assert "± 0.098" in h1
    (h3,) = [line for line in lines if " h3 " in line]
    assert "nobody measures" in h3
    (pump,) = [line for line in lines if "pump1" in line]
    assert "bad" in pump


def test_a_setpoint_tells_its_story_and_a_refusal_its_reason() -> None:
    steps = [Step(what=word, reason="") for word in ("requested", "sent", "accepted", "verified")]
    done = Command(
        id="1",
        twin="tank-1",
        actuator="pump1",
        value=3.3,
        unit="V",
        state="verified",
        reason="",
        final=True,
        steps=steps,
    )
    refused = done.model_copy(
        update={"value": 12.0, "state": "rejected", "reason": "range", "steps": [Step(what="rejected", reason="range")]}
    )
    stats = Stats(
        readings_applied=42,
        duplicates=0,
        outcomes={},
        latency_ms=Latency(p50=90.0, p99=310.0),
        setpoints={},
        twins={},
    )
    text = "\n".join(picture(Scene(12.0, "running", {"tank-1": tank()}, stats, [done, refused], 3, 1)))
    assert "pump1 = 3.3 V: requested → sent → accepted → verified" in text
    assert "pump1 = 12 V: rejected  (range)" in text
    assert "42 readings applied" in text
    assert "p99 310 ms" in text
    assert "restarts 1" in text
