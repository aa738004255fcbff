"""Bodies in and out: capped, checked, as JSON."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from wire.errors import BadData

B = TypeVar("B", bound=BaseModel)


async def receive(request: Request, kind: type[B], limit: int) -> B:
    """Read and check the request's body; raises BadData ``oversize`` (before it is parsed) or ``malformed``."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > limit:
            raise BadData("oversize", f"at most {limit} bytes")
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in each['loc']) or 'body'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise BadData("malformed", "; ".join(lines)) from None


def reply(body: BaseModel, status: int = 200) -> Response:
    """A JSON response."""
    return Response(body.model_dump_json(), status, media_type="application/json")
