"""OPC UA through asyncua: one subscription with the source's own time and status, and confirmed writes.

Namespaces are named by URI and looked up in every session, because a server may reorder its table. Reconnection is
left to whoever enters the driver again: one session at a time, always closed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Literal, Self

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.common.subscription import DataChangeEvent
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import variant_to_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from pydantic import Field

from edge.drivers.base import Samples
from edge.drivers.own_deadline import deadline
from edge.drivers.scaled_address import Scaled
from edge.drivers.typed_value import ValueType, add_value
from wire.errors import Rejected, Unavailable
from wire.quality import Quality
from wire.runtime import files
from wire.settings import Duration, LocalPath, Settings

STANDARD_NAMESPACE = "http://opcfoundation.org/UA/"
CAPACITY = 10_000
"""Notifications held between two reads; when full, the newest are dropped and counted."""
_ALIVE_S = 1.0
"""A quiet server that still answers lets ``read`` return nothing this often."""
_RETRY_S = 30.0
"""A node that the server did not know is asked for again this often."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Security(Settings):
    """Signed and encrypted sessions; all files are PEM or DER."""

    policy: Literal["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"] = "Aes256Sha256RsaPss"
    mode: Literal["Sign", "SignAndEncrypt"] = "SignAndEncrypt"
    certificate: LocalPath
    key: LocalPath
    server_certificate: LocalPath | None = None


class Config(Settings):
    """One server."""

    url: Annotated[str, Field(pattern=r"^opc\.tcp://")]
    interval: Duration = 0.1
    """Sampling and publishing interval asked of the server."""
    queue: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Changes of one node that the server keeps between two publications."""
    timeout: Duration = 2.0
    """For the session, for a write and for a fetch."""
    username: str | None = None
    password_file: LocalPath | None = None
    security: Security | None = None


class Address(Scaled):
    """One variable node: ``node: tank.h1`` is a text identifier; ``i=``, ``s=``, ``g=`` and ``b=`` say which kind."""

    node: Annotated[str, Field(min_length=1)]
    namespace: str = STANDARD_NAMESPACE
    """URI, usually written once at the top of the profile."""
    type: ValueType = "float"

    @property
    def value_type(self) -> ValueType:
        """What a reading of this point is."""
        return self.type if self.type != "int" or self.plain else "float"

    @property
    def writable(self) -> bool:
        return self.type != "text"


class Driver:
    """One session with one server, fed by a subscription."""

    pushes: ClassVar[bool] = True

    def __init__(
        self, config: Config, points: Sequence[Address], name: str = "opcua", polled: Sequence[int] | None = None
    ) -> None:
        self._config = config
        self._points = points
        self._name = name
        self._polled = range(len(points)) if polled is None else polled
        self.dropped = 0
        self._arrived = Samples()
        self._news = asyncio.Event()
        self._lost = ""
        self._nodes: dict[int, Node] = {}
        self._missing: set[int] = set()
        self._variants: dict[int, ua.VariantType] = {}
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        config = self._config
        self._client = Client(config.url, timeout=config.timeout)
        self._client.connection_lost_callback = self._on_lost
        async with AsyncExitStack() as stack:
            with _translated(self._name):
                async with deadline(config.timeout):
                    await self._log_in()
                stack.push_async_callback(self._log_out)
                async with deadline(config.timeout):
                    await self._find_nodes()
                    self._subscription = await self._client.create_subscription(
                        config.interval * 1000, queue_maxsize=CAPACITY
                    )
                    await self._monitor(self._polled)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            pump = tasks.create_task(self._pump(), name=f"opcua/{self._name}")
            stack.callback(pump.cancel)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._exit.aclose()

    async def read(self) -> Samples:
        """What has arrived; nothing at all after a second in which the quiet server was alive."""
        if not self._arrived.point and not self._lost:
            try:
                async with asyncio.timeout(_ALIVE_S):
                    await self._news.wait()
            except TimeoutError:
                await self._retry_missing()
        arrived, self._arrived = self._arrived, Samples()
        self._news.clear()
        if self._lost and not arrived.point:
            raise Unavailable(f"{self._name}: {self._lost}")
        return arrived

    async def fetch(self, point: int) -> Samples:
        samples = Samples()
        with _translated(self._name):
            async with deadline(self._config.timeout):
                value = await self._node(point).read_data_value(raise_on_bad_status=False)
        self._add(samples, point, value)
        return samples

    async def write(self, point: int, value: float) -> None:
        address = self._points[point]
        if not address.writable:
            raise Rejected("type", "text cannot be written")
        with _translated(self._name, refused=True):
            async with deadline(self._config.timeout):
                node = self._node(point)
                if point not in self._variants:
                    self._variants[point] = await node.read_data_type_as_variant_type()
                variant = _variant(address.raw(value), self._variants[point])
                await node.write_attribute(AttributeIds.Value, ua.DataValue(variant))

    async def _log_in(self) -> None:
        config = self._config
        if config.username is not None:
            self._client.set_user(config.username)
        if config.password_file is not None:
            secret = await asyncio.to_thread(files.read_secret, config.password_file)
            self._client.set_password(secret.decode())
        if config.security is not None:
            security = config.security
            parts = [security.policy, security.mode, security.certificate, security.key]
            parts += [security.server_certificate] if security.server_certificate else []
            await self._client.set_security_string(",".join(parts))
        await self._client.connect()

    async def _log_out(self) -> None:
        """Say farewell; one that fails must not take the place of the reason for leaving."""
        try:
            with _translated(self._name):
                async with deadline(self._config.timeout):
                    await self._client.disconnect()
        except Unavailable:
            self._client.disconnect_socket()

    async def _find_nodes(self) -> None:
        uris = await self._client.get_namespace_array()
        for point, address in enumerate(self._points):
            if address.namespace in uris:
                self._nodes[point] = self._client.get_node(_node_id(address.node, uris.index(address.namespace)))

    async def _monitor(self, points: Sequence[int]) -> None:
        """Subscribe to points; those that the server does not know become one bad row each."""
        known = [point for point in points if point in self._nodes]
        results = await self._subscription.create_monitored_items([self._request(point) for point in known])
        refused = [point for point, result in zip(known, results, strict=True) if isinstance(result, ua.StatusCode)]
        missing = {*refused, *(point for point in points if point not in self._nodes)}
        for point in sorted(missing - self._missing):
            self._arrived.add(point, 0.0, Quality.BAD_ADDRESS)
            self._news.set()
        self._missing = missing
        self._retry_at = asyncio.get_running_loop().time() + _RETRY_S

    async def _retry_missing(self) -> None:
        if self._missing and asyncio.get_running_loop().time() >= self._retry_at:
            with _translated(self._name):
                async with deadline(self._config.timeout):
                    await self._find_nodes()
                    await self._monitor(sorted(self._missing))

    def _request(self, point: int) -> ua.MonitoredItemCreateRequest:
        """Report every new stamp, not only every new value: an equal value is a reading too."""
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor.NodeId = self._nodes[point].nodeid
        request.ItemToMonitor.AttributeId = AttributeIds.Value
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters.ClientHandle = point
        request.RequestedParameters.SamplingInterval = self._config.interval * 1000
        request.RequestedParameters.QueueSize = self._config.queue
        request.RequestedParameters.DiscardOldest = True
        request.RequestedParameters.Filter = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        return request

    async def _pump(self) -> None:
        """Moves notifications into columns as they come; ends when the session does."""
        async for event in self._subscription:
            if isinstance(event, DataChangeEvent):
                item = event.data.monitored_item
                if len(self._arrived.point) < CAPACITY:
                    self._add(self._arrived, item.ClientHandle, item.Value)
                else:
                    self.dropped += 1
            else:
                self._lost = self._lost or "subscription ended"
            self._news.set()

    async def _on_lost(self, error: Exception) -> None:
        self._lost = f"session lost ({type(error).__name__})"
        self._news.set()

    def _node(self, point: int) -> Node:
        node = self._nodes.get(point)
        if node is None:
            raise Rejected("BadNodeIdUnknown", f"namespace {self._points[point].namespace} is not served")
        return node

    def _add(self, samples: Samples, point: int, value: ua.DataValue) -> None:
        content = value.Value.Value if value.Value is not None else None
        add_value(samples, point, self._points[point], content, _quality(value), _stamp(value.SourceTimestamp))


def _stamp(time: datetime | None) -> int:
    """Nanoseconds UTC; 0 if the source gives no time."""
    if time is None:
        return 0
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return max(0, (aware - _EPOCH) // timedelta(microseconds=1) * 1000)


def _quality(value: ua.DataValue) -> Quality:
    """OPC UA Part 8, 6.3: the two highest bits of a status are its severity."""
    status = value.StatusCode
    if status is None or status.is_good():
        return Quality.GOOD
    name = status.name
    if status.is_uncertain():
        substitute = name in ("UncertainLastUsableValue", "UncertainSubstituteValue", "UncertainInitialValue")
        return Quality.UNCERTAIN_SUBSTITUTE if substitute else Quality.UNCERTAIN_SENSOR
    if name.startswith("BadNodeId"):
        return Quality.BAD_ADDRESS
    if name in ("BadNoCommunication", "BadNotConnected", "BadCommunicationError"):
        return Quality.BAD_CONNECTION
    return Quality.BAD_TIMEOUT if name == "BadTimeout" else Quality.BAD_DEVICE


def _node_id(text: str, namespace: int) -> ua.NodeId:
    if text[:2] in ("i=", "s=", "g=", "b="):
        return ua.NodeId.from_string(f"ns={namespace};{text}")
    return ua.NodeId(ua.String(text), ua.Int16(namespace))


def _variant(raw: float, kind: ua.VariantType) -> ua.Variant:
    """The value in the node's own type; Rejected("unrepresentable") for what that type cannot hold."""
    content: float | bool = raw if kind in (ua.VariantType.Float, ua.VariantType.Double) else round(raw)
    if kind is ua.VariantType.Boolean:
        if raw not in (0.0, 1.0):
            raise Rejected("type", f"{raw!r} is neither 0 nor 1")
        content = raw == 1.0
    variant = ua.Variant(content, kind)
    try:
        variant_to_binary(variant)
    except (UaError, struct.error) as error:
        raise Rejected("unrepresentable", str(error)) from None
    return variant


@contextmanager
def _translated(name: str, *, refused: bool = False) -> Iterator[None]:
    """The library's errors by remedy; a refused write is the device's own word, everything else is worth a retry."""
    try:
        yield
    except UaStatusCodeError as error:
        status = ua.StatusCode(error.code).name
        if refused and not status.startswith(("BadSession", "BadConnection", "BadTimeout", "BadServer")):
            raise Rejected(status) from None
        raise Unavailable(f"{name}: {status}") from None
    except (UaError, TimeoutError, OSError) as error:
        raise Unavailable(f"{name}: {str(error) or type(error).__name__}") from None
