"""Serving the page: at one address, with a password for others, and without requests to other hosts."""

import hmac
import ipaddress
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, NoReturn

import uvicorn
from fastapi import FastAPI, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pdnla.errors import UserError
from pdnla.web.studio import Studio

PORTS = range(7860, 7960)
"""Ports that are tried if none is given; the page is at the first free one."""
SHORTEST_PASSWORD = 8
"""Smallest number of characters of a password."""
# Scripts and styles of the page are inline; nothing may come from or go to another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:;"
    " object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
# Paths that the page requests. Gradio's other ones are refused: look-ups at other hosts, recordings, its API.
_PATHS = (
    "/assets/", "/static/", "/theme.css", "/config", "/favicon.ico", "/manifest.json", "/robots.txt", "/login",
    "/logout", "/gradio_api/queue/", "/gradio_api/upload", "/gradio_api/file=", "/gradio_api/heartbeat/",
    "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/startup-events", "/gradio_api/app_id",
    "/gradio_api/login_check", "/gradio_api/token", "/gradio_api/user",
)  # fmt: skip

ROOM = 1_000_000_000
"""Bytes of the disk that remain free after an upload."""
_LONGEST_BODY = 4_000_000  # bytes of a request that names files; a thousand names are a few hundred kilobytes
_HEADERS = {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}


class Address(NamedTuple):
    """The address of the page, and its password; None for a page that only this machine can reach."""

    host: str = "127.0.0.1"
    port: int | None = None
    password: str | None = None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: Address) -> None:
    """Raise UserError if others would reach the page without a password, or with a short one."""
    if address.password is not None and len(address.password) < SHORTEST_PASSWORD:
        raise UserError(f"--password: must have at least {SHORTEST_PASSWORD} characters")
    if address.password is None and not is_loopback(address.host):
        raise UserError(
            f"--host {address.host}: others can reach it, which takes a password; set PDNLA_WEB_PASSWORD or --password"
        )


def listen(address: Address) -> socket.socket:
    """Return a socket that listens at an address.

    Raises:
        UserError: the address is not this machine's, or its port is taken.
    """
    reason = ""
    for port in PORTS if address.port is None else [address.port]:
        try:
            family, _, _, _, place = socket.getaddrinfo(address.host, port, type=socket.SOCK_STREAM)[0]
            listening = socket.socket(family, socket.SOCK_STREAM)
            if os.name == "posix":  # elsewhere it would let two servers share a port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(place)
                listening.listen(128)
            except OSError:
                listening.close()
                raise
            return listening
        except OSError as error:
            reason = error.strerror or str(error)
    ports = f"port {address.port}" if address.port is not None else f"ports {PORTS[0]} to {PORTS[-1]}"
    raise UserError(f"--host {address.host}, {ports}: cannot listen there ({reason}); choose another with --port")


class _Guard:
    """Refuses requests that the page does not make, and tells browsers to fetch nothing from other hosts.

    Args:
        app: the application.
        own_names_only: refuse requests under other host names, so that another site cannot reach this page under a name
            that it directs here (DNS rebinding).
        folder: the folder of uploaded files; a request that names another file or address is refused.
    """

    def __init__(self, app: ASGIApp, own_names_only: bool, folder: Path) -> None:
        self.app, self.own_names_only, self.folder = app, own_names_only, folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http" or not (scope["path"] == "/" or scope["path"].startswith(_PATHS)):
            await Response("there is no such page", status_code=404, media_type="text/plain")(scope, receive, send)
        elif self.own_names_only and not is_loopback(_host(scope)):
            await Response("this page has another name", status_code=400, media_type="text/plain")(scope, receive, send)
        else:

            async def send_with_policy(message: Message) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(_HEADERS)
                await send(message)

            if scope["path"].startswith("/gradio_api/queue/join"):
                body = await _read_body(receive)
                if body is None or not _names_only_files_in(body, self.folder):
                    await Response("this was not sent here", status_code=400, media_type="text/plain")(
                        scope, receive, send
                    )
                    return
                receive = _then(body, receive)
            if scope["path"] == "/gradio_api/upload" and not _has_room(scope, self.folder):
                await Response("there is no room for it", status_code=507, media_type="text/plain")(
                    scope, receive, send
                )
                return
            await self.app(scope, receive, send_with_policy)


def _has_room(scope: Scope, folder: Path) -> bool:
    """Return whether the disk has room for an upload; False if its length is not given."""
    length = Headers(scope=scope).get("content-length", "")
    return length.isdecimal() and int(length) + ROOM <= shutil.disk_usage(folder).free


async def _read_body(receive: Receive) -> bytes | None:
    """Return the body of a request; None if it is too long or breaks off."""
    body = b""
    while len(body) <= _LONGEST_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body
    return None


def _then(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that yields a body that was already read, and then the messages after it."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


def _names_only_files_in(body: bytes, folder: Path) -> bool:
    """Return whether every file that a JSON body names is in a folder; the page only names uploaded files."""
    try:
        waiting = [json.loads(body)]
    except ValueError:
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get("path")
            if isinstance(path, str) and not Path(path).resolve().is_relative_to(folder.resolve()):
                return False
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True


def _host(scope: Scope) -> str:
    """Return the host that a request is for, without its port."""
    host = Headers(scope=scope).get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


class _Server(uvicorn.Server):
    """A server that reports when it can be reached."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and report it."""
        await super().startup(sockets)
        self._started()


def build_app(studio: Studio, address: Address, folder: Path) -> FastAPI:
    """Return the application that serves the page; its ``state.sessions`` are the open pages.

    Args:
        studio: the network and the limits that all users share.
        address: its address and password.
        folder: the folder for uploads and results.
    """
    # Gradio reads these when it is imported and when its components are created.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    from pdnla.web.page import STYLE, build_page, theme
    from pdnla.web.sessions import Sessions

    sessions = Sessions(studio, folder)
    page = build_page(studio, sessions)
    page.has_launched = True  # otherwise Gradio takes any file of this machine for an upload
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.state.sessions = sessions
    app.add_middleware(_Guard, own_names_only=is_loopback(address.host), folder=folder)
    password = address.password
    return gradio.mount_gradio_app(
        app,
        page,
        "/",
        server_name=address.host,
        auth=None if password is None else (lambda _, given: hmac.compare_digest(given.encode(), password.encode())),
        auth_message=None if password is None else "Any name will do; the password is that of pdnla-web.",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=f"{studio.limits.megabytes}mb",
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=STYLE,
    )


def serve(studio: Studio, address: Address, started: Callable[[str], None]) -> None:
    """Serve the page until the process receives SIGTERM or Ctrl-C; uploads and results are removed then.

    Args:
        studio: the network and the limits that all users share.
        address: the address and the password.
        started: called with the page's address once it can be opened.

    Raises:
        UserError: it cannot listen there, or others would reach it without a password.
    """
    check_address(address)
    # The server stops on SIGTERM and then raises it again, which would end the process before files are removed.
    signal.signal(signal.SIGTERM, _leave)
    with listen(address) as listening, tempfile.TemporaryDirectory(prefix="pdnla-web-") as folder:
        app = build_app(studio, address, Path(folder))
        host = f"[{address.host}]" if ":" in address.host else address.host
        url = f"http://{host}:{listening.getsockname()[1]}/"
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        _Server(config, lambda: started(url)).run(sockets=[listening])


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
