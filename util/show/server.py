"""A web server for one page of ours: its files from memory, and calls that run in threads.

It listens on the loopback address only, answers only requests that this page itself sends (``Host``
and ``Origin`` are checked), and opens no file while it runs: paths of requests are matched against
a fixed list. Every refusal is a JSON object ``{"error": sentence}``.
"""

import asyncio
import ipaddress
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from util.errors import UserError
from util.run.main import explain

LOOPBACK = "127.0.0.1"
MAX_JSON = 1 << 18  # bytes of a request that holds no file
MAX_WAITING = 8  # requests of one lane; a page of ours has one in flight
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Reply:
    """The bytes of an answer: of a file, a picture or a JSON value."""

    body: bytes
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What a call is given; nothing in it has been used as the name of a file."""

    words: tuple[str, ...]  # the groups of the route's pattern
    query: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; a UserError when it is none."""
        try:
            value = json.loads(self.body)
            if isinstance(value, dict):
                return value
            found = f"a JSON {type(value).__name__}, not an object of fields"
        except (ValueError, RecursionError) as error:
            found = f"not JSON ({str(error)[:80]})"
        raise UserError(f"the request is {found}; reload the page and try again")


@dataclass(frozen=True)
class Route:
    """One call: ``method`` and ``pattern`` (a regular expression) choose it.

    The calls of a ``lane`` run one after the other in a thread of its own, so that a slow one
    delays only its like.
    """

    method: str  # "GET" or "POST"
    pattern: str
    answer: Callable[[Request], Any]  # a Reply, or a value that JSON can hold
    lane: str = "quick"
    max_bytes: int = MAX_JSON  # of the request's body


def page_files(folder: Path) -> dict[str, Reply]:
    """The files of a page by their URL path; ``index.html`` is ``/``."""
    files = {
        f"/{path.name}": Reply(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(folder.iterdir())
        if path.suffix in MEDIA_TYPES
    }
    files["/"] = files.pop("/index.html")
    return files


class PageServer:
    """Serves ``files`` and ``routes`` on a ``port`` of this computer (0: any free one).

    The port is taken at once. One that cannot be listened on is a UserError.
    """

    def __init__(self, files: Mapping[str, Reply], routes: Sequence[Route], port: int = 0):
        self.files = files
        self.lanes = {route.lane: ThreadPoolExecutor(1) for route in routes}
        self.waiting = Counter()  # requests by lane
        try:
            self._sockets = bind_sockets(port, LOOPBACK)
        except OSError as error:
            raise UserError(
                f"--port {port} cannot be listened on ({error}); choose another port above 1023, 0 "
                "takes any free one"
            ) from error
        self.port: int = self._sockets[0].getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self.port}/"
        self._application = tornado.web.Application(
            [(route.pattern, _CallHandler, {"server": self, "route": route}) for route in routes],
            default_handler_class=_FileHandler,
            default_handler_args={"server": self},
            log_function=lambda handler: None,  # a page that is dragged on asks 20 times a second
        )

    def run(self, announce: Callable[[str], None]) -> None:
        """Serve until Ctrl-C or :meth:`stop`; ``announce`` is called with the URL first."""
        asyncio.run(self._serve(announce))

    def stop(self) -> None:
        """Let :meth:`run` return; may be called from any thread while it runs."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    async def _serve(self, announce: Callable[[str], None]) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = HTTPServer(self._application)
        server.add_sockets(self._sockets)
        announce(self.url)
        try:
            await self._stopped.wait()
        finally:
            server.stop()
            await server.close_all_connections()
            for lane in self.lanes.values():
                lane.shutdown(wait=False, cancel_futures=True)

    def refusal(self, host: str, origin: str | None, site: str | None) -> str | None:
        """Why a request with these headers is none of our page; None when it may be one."""
        if not _is_this_computer(host):
            return (
                f"the request is addressed to {host[:60]!r}; this page is found under {self.url} "
                "only"
            )
        if origin not in (None, f"http://{host}") or site in ("cross-site", "same-site"):
            return (
                f"the request comes from another page ({(origin or site)[:60]}); only the page of "
                f"{self.url} may ask"
            )
        return None


def _is_this_computer(host: str) -> bool:
    """Loopback addresses and localhost are ours; a name that somebody made point here is not.

    The port is not compared: behind ``ssh -L`` it is another one.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:  # a broken name, or one that is no address
        return False


class _Handler(tornado.web.RequestHandler):
    """Checks where a request comes from, and says every refusal in a sentence."""

    def initialize(self, server: PageServer) -> None:
        self.server = server

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse what is none of our page; a click on a link to it is fine, wherever it stands."""
        headers = self.request.headers
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if headers.get("Sec-Fetch-Mode") == "navigate" and self.request.path == "/":
            origin = site = None
        sentence = self.server.refusal(self.request.host, origin, site)
        if sentence is not None:
            self.refuse(HTTPStatus.FORBIDDEN, sentence)

    def refuse(self, status: int, sentence: str) -> None:
        self.set_status(int(status))
        self.reply({"error": sentence})

    def reply(self, value: Any) -> None:
        reply = value
        if not isinstance(value, Reply):
            reply = Reply(json.dumps(value, allow_nan=False).encode())
        self.set_header("Content-Type", reply.kind)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        self.finish(reply.body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What the handlers did not expect: a wrong method, a malformed request, a bug."""
        sentence = f"the request cannot be understood ({status_code}); reload the page"
        if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            sentence = f"{self.request.method[:10]} is not possible here; reload the page"
        elif status_code >= 500:
            error = kwargs.get("exc_info", (None, "no reason is known"))[1]
            sentence = (
                f"an unexpected error ({type(error).__name__}: {str(error)[:120]}); the console "
                "shows where, please report it"
            )
        self.refuse(status_code, sentence)


class _FileHandler(_Handler):
    """The page's own files; every other path is refused."""

    def get(self) -> None:
        reply = self.server.files.get(self.request.path)
        if reply is None:
            path = self.request.path[:60]
            self.refuse(HTTPStatus.NOT_FOUND, f"there is no {path!r} here; go to {self.server.url}")
        else:
            self.reply(reply)


@tornado.web.stream_request_body
class _CallHandler(_Handler):
    """One call; its body is read no further than it may be long."""

    def initialize(self, server: PageServer, route: Route) -> None:
        super().initialize(server)
        self.route, self._body, self._length = route, bytearray(), 0

    def data_received(self, chunk: bytes) -> None:
        self._length += len(chunk)
        if self._length > self.route.max_bytes:
            self._body.clear()  # the rest is read and forgotten, so that the sentence arrives
        else:
            self._body += chunk

    async def get(self, *words: str) -> None:
        route, lane = self.route, self.server.lanes[self.route.lane]
        if self.request.method != route.method:
            raise tornado.web.HTTPError(HTTPStatus.METHOD_NOT_ALLOWED)
        if self._length > route.max_bytes:
            self.refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the upload has {self._length / 1e6:.1f} MB; at most {route.max_bytes / 1e6:.1f} "
                "MB are accepted: shrink it first",
            )
            return
        query = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        request, waiting = Request(words, query, bytes(self._body)), self.server.waiting
        if waiting[route.lane] >= MAX_WAITING:
            sentence = "requests are waiting already; try again when they are answered"
            self.refuse(HTTPStatus.BAD_REQUEST, f"{MAX_WAITING} {sentence}")
            return
        waiting[route.lane] += 1
        try:
            loop = asyncio.get_running_loop()
            self.reply(await loop.run_in_executor(lane, route.answer, request))
        except Exception as error:
            sentence = explain(error)
            if sentence is None:
                raise
            self.refuse(HTTPStatus.BAD_REQUEST, sentence)
        finally:
            waiting[route.lane] -= 1

    post = get
