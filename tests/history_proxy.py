"""A rewriting proxy in front of InfluxDB 1.6.7, which lacks the v2 write API that 1.8, 2.x and 3.x all have.

``POST /api/v2/write?org=&bucket=B&precision=ns`` becomes ``POST /write?db=B&precision=ns``; every other request goes
through as it came. Tests only: see docs/decisions/0003-influx-under-test.md.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit


@contextmanager
def rewriting_proxy(target_port: int) -> Iterator[int]:
    """The proxy's port on loopback, for as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection("127.0.0.1", target_port, timeout=10)
            try:
                upstream.request(self.command, rewritten(self.path), body)
                answer = upstream.getresponse()
                content = answer.read()
            finally:
                upstream.close()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
            if answer.status != http.client.NO_CONTENT:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = forward  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Silence is health."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="history-proxy")
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rewritten(path: str) -> str:
    """The 1.x form of a request path."""
    url = urlsplit(path)
    if url.path != "/api/v2/write":
        return path
    query = parse_qs(url.query)
    return "/write?" + urlencode({"db": query["bucket"][0], "precision": query.get("precision", ["ns"])[0]})
