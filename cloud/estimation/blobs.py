"""Arrays as bytes and back, exactly: a length, a JSON header, then each array's own bytes; a CRC guards all of it."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wire.errors import BadData

FORMAT = 1
KERNEL = f"numpy-{np.__version__}"
"""What the promise of equal bits is made for."""
_FRAME = struct.Struct("<II")


class Blob(NamedTuple):
    """Arrays by name, and a few facts about them that JSON can hold."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]


def encode(blob: Blob) -> bytes:
    """Bytes of a blob."""
    shapes = [(name, array.dtype.str, array.shape) for name, array in blob.arrays.items()]
    head = json.dumps({"format": FORMAT, "kernel": KERNEL, "facts": dict(blob.facts), "arrays": shapes}).encode()
    body = b"".join([head, *(np.ascontiguousarray(array).tobytes() for array in blob.arrays.values())])
    return _FRAME.pack(zlib.crc32(body), len(head)) + body


def decode(data: bytes) -> Blob:
    """The blob again, its arrays ready to be written to; raises BadData("checkpoint") if these are not its bytes."""
    try:
        crc, size = _FRAME.unpack_from(data)
        body = memoryview(data)[_FRAME.size :]
        if zlib.crc32(body) != crc:
            raise BadData("checkpoint", "the bytes are damaged")
        head = json.loads(bytes(body[:size]))
        if head["format"] != FORMAT:
            raise BadData("checkpoint", f"format {head['format']} is not {FORMAT}")
        arrays, at = {}, size
        for name, kind, shape in head["arrays"]:
            array = np.frombuffer(body, dtype=kind, count=int(np.prod(shape, dtype=np.int64)), offset=at)
            arrays[name] = array.reshape(shape).copy()
            at += array.nbytes
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise BadData("checkpoint", f"not a packed cohort: {error}") from error
    return Blob(head["facts"] | {"kernel": head["kernel"]}, arrays)
