"""Talking to the cloud's HTTP API; the one place that knows httpx, status codes and the token."""

from __future__ import annotations

import re
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from wire.errors import BadData, ConfigError, Problem, Rejected, Unavailable
from wire.runtime.files import read_secret

B = TypeVar("B", bound=BaseModel)

TIMEOUT_S = 75.0
"""Longer than the longest wait that the server grants."""


def twin_path(twin: str, part: str = "") -> str:
    """The resource of one twin, whatever characters its name was typed with."""
    return "/".join(filter(None, ["/v1/twins", quote(twin, safe=""), part]))


class Client:
    """One session with one cloud; use as a context."""

    def __init__(self, url: str, token_file: Path) -> None:
        if not token_file.exists():
            hint = "say --token-file or set TWINLINE_TOKEN_FILE; `twin keys init` makes one"
            raise ConfigError.at(str(token_file), "there is no token", hint)
        token = read_secret(token_file)
        if not re.fullmatch(rb"[ -~]+", token):
            raise ConfigError.at(str(token_file), "a token is one line of ASCII characters", "see `twin keys init`")
        # No proxy or netrc of the environment: the token goes to the named address only.
        headers = {"Authorization": f"Bearer {token.decode()}"}
        try:
            self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False)
        except httpx.InvalidURL as error:
            raise BadData("address", f"{url!r} is not one such as http://127.0.0.1:8080: {error}") from None
        self._url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, kind: type[B], query: dict[str, str] | None = None) -> B:
        """Read one resource.

        Raises Unavailable if nobody answers, ConfigError with every problem of a refused file, Rejected with the
        server's reason, BadData if the answer is not one of this API's.
        """
        return self._ask(self._http.build_request("GET", path, params=query), kind)

    def post(self, path: str, body: BaseModel, kind: type[B]) -> B:
        """Ask for something; errors as for ``get``."""
        content = body.model_dump_json(exclude_none=True)
        request = self._http.build_request("POST", path, content=content, headers={"Content-Type": "application/json"})
        return self._ask(request, kind)

    def _ask(self, request: httpx.Request, kind: type[B]) -> B:
        try:
            response = self._http.send(request)
        except httpx.HTTPError as error:
            raise Unavailable(f"no answer from {self._url}: {str(error) or type(error).__name__}") from None
        try:
            if response.is_success:
                return kind.model_validate_json(response.content)
            if response.is_server_error:
                raise Unavailable(f"{self._url} answers {response.status_code}: {response.text[:200]}")
            answer = response.json()
            reason, detail, listed = str(answer["error"]), str(answer["detail"]), answer.get("problems", [])
            problems = [Problem(**problem) for problem in listed]
        except (ValidationError, ValueError, KeyError, TypeError, AttributeError):
            raise BadData("answer", f"{self._url} answered {response.status_code} with something else") from None
        if problems:
            raise ConfigError(problems)
        raise Rejected(reason, detail)
