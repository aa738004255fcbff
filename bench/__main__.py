"""``python -m bench [--quick] [--only NAME ...]``: each figure is one JSON line on standard output.

throughput  what the whole pipeline carries, every commit at full sync and every ack on
edge        CPU a value at 10,000 values/s against the bare floor (`bench.floor`) on the same plant; memory
latency     1,000 readings/s: edge stamp -> committed estimate
recovery    the broker is killed and comes back: how long until a reading stamped after that is on the cloud's topic
"""

from __future__ import annotations

import argparse
import json
import platform
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench.deployment import Deployment, Usage, deployment, wait_until
from bench.plant import REGISTERS
from wire.runtime.outbox import Outbox

DEVICES = 100


def show(figure: str, **facts: Any) -> None:
    """One line of result."""
    print(json.dumps({"figure": figure, **facts}), flush=True)


def throughput(folder: Path, seconds: float) -> None:
    """What the whole pipeline carries when offered twice what is promised; then everything is counted."""
    devices, period = 2 * DEVICES, 0.1
    with deployment(folder / "throughput", devices=devices, period_s=period) as made:
        settle(made)
        start, began, before = made.stats(), time.monotonic(), usages(made)
        time.sleep(seconds)
        end, took, after = made.stats(), time.monotonic() - began, usages(made)
        committed = drain(made)
        show(
            "throughput",
            readings_per_s=round((end["readings_applied"] - start["readings_applied"]) / took),
            offered_per_s=round(devices * REGISTERS / period),
            seconds=round(took, 1),
            lost=committed - made.stats()["readings_applied"],
            cpu_cores={name: round((after[name].cpu_s - before[name].cpu_s) / took, 3) for name in before},
        )


def edge(folder: Path, seconds: float) -> None:
    """The edge's CPU a value at 10,000 values/s against the bare floor on the same plant; memory with 1,000 twins."""
    period = 0.1
    with deployment(folder / "edge", devices=DEVICES, period_s=period) as made:
        settle(made)
        start, before = made.stats(), usages(made)
        time.sleep(seconds)
        end, after = made.stats(), usages(made)
        edge_us = (
            1e6 * (after["edge"].cpu_s - before["edge"].cpu_s) / (end["readings_applied"] - start["readings_applied"])
        )
        show("memory", twins=DEVICES * REGISTERS, rss_mib={n: round(after[n].rss / 2**20, 1) for n in after})
    with deployment(folder / "floor", devices=DEVICES, period_s=period, pipeline=False) as bare:
        floor_us = floor_cpu(bare, period, min(seconds, 20.0))
    show(
        "edge_cpu_per_value", edge_us=round(edge_us, 2), floor_us=round(floor_us, 2), ratio=round(edge_us / floor_us, 2)
    )


def usages(made: Deployment) -> dict[str, Usage]:
    """CPU and memory of every part of the pipeline."""
    return {name: made.processes.usage(name) for name in ("edge", "gateway", "cloud", "broker")}


def drain(made: Deployment) -> int:
    """Stop the plant, let everything arrive; returns what the edge says it has ever committed."""
    outbox = made.folder / "edge" / "outbox.db"
    made.processes.stop("plant")
    wait_until(lambda: not Outbox.inspect(outbox).pending_records, 30, "the edge's outbox is empty")
    made.processes.stop("edge")
    committed = Outbox.inspect(outbox).committed_readings
    wait_until(lambda: made.stats()["readings_applied"] >= committed, 30, "the cloud has applied what was committed")
    return committed


def floor_cpu(bare: Deployment, period: float, seconds: float) -> float:
    """Microseconds of CPU a value of the bare floor."""
    bare.processes.start(
        "floor",
        sys.executable,
        "-m",
        "bench.floor",
        str(bare.mqtt_port),
        str(bare.plant_base),
        str(DEVICES),
        str(period),
    )
    time.sleep(3)
    before, began = bare.processes.usage("floor"), time.monotonic()
    time.sleep(seconds)
    used, took = bare.processes.usage("floor").cpu_s - before.cpu_s, time.monotonic() - began
    return 1e6 * used / (DEVICES * REGISTERS * took / period)


def latency(folder: Path, seconds: float) -> None:
    """Edge stamp to committed estimate at 1,000 readings/s."""
    with deployment(folder / "latency", devices=DEVICES, period_s=1.0) as made:
        settle(made)
        time.sleep(seconds)
        stats = made.stats()
        show("latency", readings_per_s=DEVICES * REGISTERS, seconds=seconds, **stats["latency_ms"])


def recovery(folder: Path, kills: int) -> None:
    """Broker back -> first reading stamped after that on the topic that the cloud listens to."""
    with deployment(folder / "recovery", devices=DEVICES, period_s=1.0) as made:
        settle(made)
        fresh = []
        for _ in range(kills):
            made.processes.stop("broker", signal.SIGKILL)
            time.sleep(5)
            made.start_broker()
            fresh.append(first_fresh(made, time.time_ns()))
            time.sleep(3)
        show(
            "fresh_reading_after_broker_s",
            kills=kills,
            worst=round(max(fresh), 3),
            median=round(statistics.median(fresh), 3),
        )


def first_fresh(made: Deployment, since_ns: int) -> float:
    """Seconds from ``since_ns`` until a record with a later reading arrives."""
    seen = threading.Event()
    at: list[int] = []

    def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        for record in orjson.loads(message.payload)["records"]:
            body = record["body"]
            if not at and body["kind"] == "readings" and body["base"] + max(body["dt"]) > since_ns:
                at.append(time.time_ns())
                seen.set()

    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="bench-listener")
    client.on_message = on_message
    client.connect("127.0.0.1", made.mqtt_port)
    client.subscribe("tw/1/c/+/+/+/up/telemetry")
    client.loop_start()
    found = seen.wait(timeout=30)
    client.loop_stop()
    client.disconnect()
    return (at[0] - since_ns) / 1e9 if found else float("inf")


def settle(made: Deployment) -> None:
    """Readings flow and the start-up backlog is gone."""
    wait_until(lambda: made.stats()["readings_applied"] > 2_000, 60, "readings are applied")
    time.sleep(3)


FIGURES = {"throughput": throughput, "edge": edge, "latency": latency, "recovery": recovery}


def main() -> None:
    """Parse, run the figures in order, print."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the time, for a look")
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    options = parser.parse_args()
    show("machine", python=platform.python_version(), machine=platform.machine(), system=platform.system())
    with tempfile.TemporaryDirectory(prefix="twinline-bench-") as made:
        folder = Path(made)
        for name in options.only:
            if name == "recovery":
                recovery(folder, 1 if options.quick else 5)
            else:
                FIGURES[name](folder, 6.0 if options.quick else 60.0)


if __name__ == "__main__":
    main()
