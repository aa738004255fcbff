"""Messages to bytes and back. JSON, made and checked by pydantic; anything wrong is BadData with a reason.

A record is encoded once, at the edge (and once more by a gateway that changed its columns); frames are joined from
encoded records, so a relay never decodes what it only forwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from wire.errors import BadData
from wire.messages import MAX_FRAME_BYTES, VERSION, Ack, Alive, Frame, Record, Setpoint

M = TypeVar("M", Frame, Ack, Alive, Record, Setpoint)


def encode(message: BaseModel) -> bytes:
    """The message as compact JSON; defaults are left out."""
    return message.model_dump_json(exclude_defaults=True, exclude_none=True).encode()


def encode_record(record: Record) -> bytes:
    """A record as it is stored in an outbox and joined into frames (``kind`` always written)."""
    body = record.body.model_dump_json(exclude_defaults=True, exclude_none=True)
    kind = f'{{"kind":"{record.body.kind}"' + ("," if len(body) > 2 else "")
    head = f'{{"source":"{record.source}","stream":"{record.stream}","epoch":{record.epoch},"seq":{record.seq},"body":'
    return f"{head}{kind}{body[1:]}}}".encode()


def join_frame(records: Iterable[bytes]) -> bytes:
    """A frame from records that are already encoded."""
    return b'{"v":%d,"records":[%s]}' % (VERSION, b",".join(records))


def decode(kind: type[M], payload: bytes) -> M:
    """Check and read one message.

    Raises BadData: ``oversize`` before parsing, ``version`` for a version this code does not speak, ``malformed`` for
    everything else, with the place of the first defect.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise BadData("oversize", f"{len(payload)} bytes, at most {MAX_FRAME_BYTES}")
    try:
        return kind.model_validate_json(payload)
    except ValidationError as error:
        raise _bad(error) from None


def _bad(error: ValidationError) -> BadData:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "payload"
    reason = "version" if first["loc"][:1] == ("v",) else "malformed"
    return BadData(reason, f"{place}: {first['msg']}")
