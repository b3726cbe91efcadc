"""The page of an `Explorer` over HTTP, through Starlette and uvicorn (the extra `explore`).

What it gives out is fixed when it starts: three files of ours and answers of the model. No request names a file, an
address or a module, so that nothing can be read but what was opened before. Who may ask: the address holds a secret, so
that other users of the machine cannot; the names in `Host` and `Origin` are held against ours, so that no page of
others can, whatever its name resolves to.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from distk.console import jsonable
from distk.errors import DistkError, UsageError
from distk.explore.looking import Explorer
from distk.explore.wish import read_rewrite, read_wish

LARGEST = 64 << 10
"""Bytes of a request's body."""
FILES = {
    "": ("page.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
}
"""Address below the secret -> the file in this package, and its type."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses that stand for all of a machine's."""


def needs(what: str) -> tuple[Any, Any]:
    """Starlette and uvicorn. Raises UsageError with the command that installs them; `what` needs them."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise UsageError(f"{what} needs the package {error.name}: pip install 'distk[explore]'.") from None
    return starlette, uvicorn


class _Refused(Exception):
    """Why a request is not read, and the status that says so."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


async def _body(request: Any) -> bytes:
    """The body of a request that our own page made. Raises _Refused for any other, and beyond LARGEST."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"http://{request.headers.get('host', '')}":
        raise _Refused("this page was not made by distk explore.", 403)
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused("the request is no JSON.", 415)
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST:
            raise _Refused(f"the request is longer than {LARGEST:,} bytes.", 413)
    return body


def app_of(explorer: Explorer, secret: str, hosts: list[str], touched: Callable[[], None] = lambda: None) -> Any:
    """The application. hosts: names that a request may call this machine; ["*"] for any. touched: called per request.

    Everything lies below `/<secret>/`: the page, `plan` (GET), `show` and `rewrite` (POST, JSON).
    """
    needs("distk explore")
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    lock = threading.Lock()  # one model, one answer at a time
    package = importlib.resources.files("distk.explore")
    files = {place: (package.joinpath(name).read_bytes(), kind) for place, (name, kind) in FILES.items()}
    plan = _as_json(explorer.plan())

    def answer(content: bytes | str, kind: str = "application/json", status: int = 200) -> Response:
        return Response(content, status, HEADERS, kind)

    def refused(sentence: str, status: int) -> Response:
        return answer(_as_json({"error": sentence}), status=status)

    async def file(request: Request) -> Response:
        touched()
        return answer(*files[request.url.path.removeprefix(f"/{secret}/")])

    async def planned(request: Request) -> Response:
        touched()
        return answer(plan)

    def locked(work: Callable[[], Any]) -> str:
        with lock:
            return _as_json(work())

    async def asked(request: Request, work: Callable[[Any], Callable[[], Any]]) -> Response:
        touched()
        try:
            return answer(await run_in_threadpool(locked, work(json.loads(await _body(request)))))
        except _Refused as error:
            return refused(str(error), error.status)
        except DistkError as error:
            return refused(str(error), 400)
        except (ValueError, RecursionError):
            return refused("the request is no JSON.", 400)
        except Exception as error:  # a model's own failure, said on the page; the server goes on
            return refused(f"the model failed ({type(error).__name__}): {' '.join(str(error).split())[:300]}", 500)

    async def show(request: Request) -> Response:
        def work(told: Any) -> Callable[[], Any]:
            wish = read_wish(told)
            return lambda: explorer.show(wish)

        return await asked(request, work)

    async def rewrite(request: Request) -> Response:
        def work(told: Any) -> Callable[[], Any]:
            sentence, to = read_rewrite(told)
            return lambda: explorer.rewrite(sentence, to)

        return await asked(request, work)

    routes = [Route(f"/{secret}/{place}", file, methods=["GET"]) for place in files]
    routes.append(Route(f"/{secret}/plan", planned, methods=["GET"]))
    routes += [
        Route(f"/{secret}/{name}", call, methods=["POST"]) for name, call in (("show", show), ("rewrite", rewrite))
    ]
    return Starlette(
        routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)]
    )


class Server:
    """The page at an address of this machine, from `open` to the end of `serve`.

    host: address to listen on. port: 0 for a free one. idle: seconds without a request after which it ends by itself;
    None never.
    """

    def __init__(self, explorer: Explorer, host: str = "127.0.0.1", port: int = 0, idle: float | None = None) -> None:
        self.explorer, self.host, self.idle = explorer, host, idle
        self.secret = secrets.token_urlsafe(16)
        self.socket = _listening(host, port)
        self.port = self.socket.getsockname()[1]
        self._last = time.monotonic()
        self._server: Any = None

    @property
    def url(self) -> str:
        """What to open in a browser; whoever knows it can use the page."""
        name = socket.gethostname() if self.host in EVERYWHERE else self.host
        return f"http://{f'[{name}]' if ':' in name else name}:{self.port}/{self.secret}/"

    def hosts(self) -> list[str]:
        """Names by which a request may call us; any where we listen on all addresses, and the secret alone guards."""
        if self.host in EVERYWHERE:
            return ["*"]
        # Of an address of IPv6 the part before the first colon is compared.
        return ["127.0.0.1", "localhost", f"[{self.host.partition(':')[0]}" if ":" in self.host else self.host]

    def serve(self) -> None:
        """Answer until Ctrl-C, SIGTERM, `stop`, or `idle`."""
        _, uvicorn = needs("distk explore")
        app = app_of(self.explorer, self.secret, self.hosts(), self._touched)
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False, proxy_headers=False, ws="none",
            timeout_graceful_shutdown=2,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        asyncio.run(self._until_idle())

    async def _until_idle(self) -> None:
        watch = asyncio.create_task(self._watch())
        try:
            await self._server.serve(sockets=[self.socket])
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while self.idle is not None:
            left = self.idle - (time.monotonic() - self._last)
            if left <= 0:
                self.stop()
                return
            await asyncio.sleep(left)

    def stop(self) -> None:
        """End `serve` soon; from any thread."""
        if self._server is not None:
            self._server.should_exit = True

    def close(self) -> None:
        """Let go of the address."""
        self.socket.close()

    def _touched(self) -> None:
        self._last = time.monotonic()


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError for an address that is not ours or a port that is taken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host '{host}' is no address: {getattr(error, 'strerror', None) or error}.") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(64)
    except OSError as error:
        made.close()
        raise UsageError(
            f"cannot listen on {host}, port {port}: {error.strerror or error}; choose another --port, or --host."
        ) from error
    return made


def _as_json(value: Any) -> str:
    return json.dumps(jsonable(value), allow_nan=False)
