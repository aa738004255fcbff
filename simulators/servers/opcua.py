"""A device on OPC UA: one variable a point, with the device's own time stamps and a bad status while a sensor is out.

A write that the plant refuses is answered BadOutOfRange. A slow device publishes late, with the stamps of the
measurement; a dead one closes its port and all sessions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, timedelta
from types import MappingProxyType
from typing import Annotated, Literal

from asyncua import ua
from asyncua.common.callback import CallbackType, ServerItemCallback
from asyncua.server.server import Server as UaServer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes
from pydantic import Field

from simulators.faults import Condition
from simulators.profile import Served
from simulators.servers.base import Obey, Outgoing, Sample
from wire.errors import Rejected, Unavailable
from wire.settings import Settings

EPOCH = ua.DateTime(1970, 1, 1, tzinfo=UTC)
STANDARD_NAMESPACE = "http://opcfoundation.org/UA/"
VARIANTS = MappingProxyType(
    {"float": ua.VariantType.Double, "int": ua.VariantType.Int64, "bool": ua.VariantType.Boolean}
)


class Config(Settings):
    """Where the device listens; loopback needs no login."""

    kind: Literal["opcua"]
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65_535)]


class Address(Served):
    """A point's variable: a text identifier in a namespace named by URI; ``i=`` and ``s=`` say which kind it is."""

    node: Annotated[str, Field(min_length=1)]
    namespace: str = STANDARD_NAMESPACE
    type: Literal["float", "int", "bool"] = "float"

    def node_id(self, namespace: int) -> ua.NodeId:
        """The node's id under the index that the server gave its namespace."""
        if self.node.startswith("i="):
            return ua.NodeId(ua.Int32(self.node[2:]), ua.Int16(namespace))
        return ua.NodeId(ua.String(self.node.removeprefix("s=")), ua.Int16(namespace))

    def variant(self, engineering: float) -> ua.Variant:
        """A value as the node holds it."""
        raw = self.raw(engineering)
        return ua.Variant(raw if self.type == "float" else round(raw), VARIANTS[self.type])


class Server:
    """One OPC UA server with one device behind it."""

    def __init__(self, config: Config, points: Sequence[Address], obey: Obey) -> None:
        self._config = config
        self._points = {point.point: point for point in points}
        self._obey = obey
        self._last: dict[str, Sample] = {}
        self._outgoing: Outgoing[Sequence[Sample]] = Outgoing()
        self._condition = Condition()
        self._changed = asyncio.Event()

    async def serve(self) -> None:
        while True:
            await self._until(dead=False)
            await self._live()

    def show(self, samples: Sequence[Sample]) -> None:
        known = [sample for sample in samples if sample.point in self._points]
        self._last.update({sample.point: sample for sample in known})
        if known and not self._condition.dead:
            self._outgoing.put(known, self._condition.delay_s)

    def impair(self, condition: Condition) -> None:
        self._condition = condition
        self._changed.set()

    async def _until(self, *, dead: bool) -> None:
        while self._condition.dead is not dead:
            self._changed.clear()
            await self._changed.wait()

    async def _live(self) -> None:
        """One life of the device: from opening its port to its death."""
        server, nodes = await self._build()
        try:
            await server.start()
        except OSError as error:
            raise Unavailable(f"cannot listen on {self._config.host}:{self._config.port}: {error}") from None
        try:
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(self._publish(server, nodes), name="opcua/publish")
                await self._until(dead=True)
                publishing.cancel()
        finally:
            await server.stop()

    async def _build(self) -> tuple[UaServer, dict[str, ua.NodeId]]:
        server = UaServer()
        await server.init()
        server.set_endpoint(f"opc.tcp://{self._config.host}:{self._config.port}")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        device = await server.nodes.objects.add_object(
            ua.NodeId(ua.String("device"), ua.Int16(1)), ua.QualifiedName("device", 1)
        )
        nodes: dict[str, ua.NodeId] = {}
        for name, point in self._points.items():
            index = await server.register_namespace(point.namespace)
            identity = point.node_id(index)
            variable = await device.add_variable(identity, ua.QualifiedName(name, index), point.variant(0.0))
            if point.writable:
                await variable.set_writable()
            await server.write_attribute_value(identity, self._value(self._last.get(name, Sample(name, 0, None))))
            nodes[name] = identity
        writable = {nodes[name]: point for name, point in self._points.items() if point.writable}

        async def check(event: ServerItemCallback, _service: object) -> None:
            if event.is_external:
                self._take(event.request_params, writable)

        server.subscribe_server_callback(CallbackType.PreWrite, check)
        return server, nodes

    async def _publish(self, server: UaServer, nodes: dict[str, ua.NodeId]) -> None:
        while True:
            for sample in await self._outgoing.get():
                await server.write_attribute_value(nodes[sample.point], self._value(sample))

    def _value(self, sample: Sample) -> ua.DataValue:
        point = self._points[sample.point]
        if sample.value is None:
            status = ua.StatusCode(
                ua.UInt32(StatusCodes.BadSensorFailure if sample.time else StatusCodes.BadWaitingForInitialData)
            )
            value = ua.Variant(None, ua.VariantType.Null)
        else:
            status, value = ua.StatusCode(ua.UInt32(StatusCodes.Good)), point.variant(sample.value)
        stamp = EPOCH + timedelta(microseconds=sample.time // 1000) if sample.time else None
        return ua.DataValue(value, StatusCode=status, SourceTimestamp=stamp, ServerTimestamp=stamp)

    def _take(self, request: ua.WriteParameters, writable: dict[ua.NodeId, Address]) -> None:
        """Obey a client's write before the server keeps it; a refusal answers the whole request."""
        for item in request.NodesToWrite:
            point = writable.get(item.NodeId)
            if point is None or item.AttributeId != AttributeIds.Value:
                continue
            value = item.Value.Value.Value if item.Value.Value else None
            if not isinstance(value, int | float):
                raise ua.uaerrors.BadTypeMismatch
            try:
                self._obey(point.point, point.engineering(float(value)))
            except Rejected:
                raise ua.uaerrors.BadOutOfRange from None
