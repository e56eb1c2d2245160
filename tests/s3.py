"""An S3 server of the tests' own, and one in front of it that misbehaves."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.error import HTTPError

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "box"


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address, with one bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        _call("POST", f"{url}/moto-api/reset")  # one process has one state, whichever server asks
        _call("PUT", f"{url}/{BUCKET}")
        yield url
    finally:
        server.stop()


def _call(method: str, url: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(url, method=method)):
        pass


class _Front(BaseHTTPRequestHandler):
    """Passes everything on, as the server's attributes say."""

    server: "_FrontServer"

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
        headers.setdefault("content-type", "application/octet-stream")  # urllib would call it a form
        if self.server.refuse:
            self._answer(403, b"<Error><Code>InvalidAccessKeyId</Code></Error>")
            return
        if self.server.forgets_conditions:
            headers.pop("if-none-match", None)
        request = urllib.request.Request(
            self.server.behind + self.path, data=body or None, headers=headers, method=self.command
        )
        try:
            with urllib.request.urlopen(request) as answer:
                status, text, etag = answer.status, answer.read(), answer.headers.get("etag", "")
        except HTTPError as error:
            status, text, etag = error.code, error.read(), ""
        if self.server.fail_after and self.command == "PUT" and ".probe-" not in self.path:
            self.server.fail_after -= 1
            status, text = 503, b"<Error><Code>SlowDown</Code></Error>"
        self._answer(status, text, etag)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _answer(self, status: int, text: bytes, etag: str = "") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        if etag:
            self.send_header("etag", etag)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        return


class _FrontServer(ThreadingHTTPServer):
    """`fail_after`: how many writes it reports as failed although they were done."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Front)
        self.behind = behind
        self.forgets_conditions = False
        self.refuse = False
        self.fail_after = 0


@contextmanager
def s3_front(behind: str) -> Iterator[tuple[str, _FrontServer]]:
    """Its address, and what to tell it."""
    server = _FrontServer(behind)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
