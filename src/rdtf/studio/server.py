"""Who may talk to the studio, and what it answers besides Gradio's page."""

from __future__ import annotations

import io
import ipaddress
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

import gradio as gr
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from gradio import processing_utils
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rdtf.studio.app import STYLE, build_page, theme
from rdtf.studio.state import Studio

COOKIE = "rdtf-studio"
UPLOAD_BYTES = 64 * 2**20
_REQUEST_BYTES = 2**20  # of anything but an upload
_MONTH = 30 * 24 * 3600
# Gradio's page needs inline scripts and Function(); nothing may come from or go to another place.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets in who has the token; on the loopback without a token, pages of this very address only."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return
        request = Request(scope)
        if (answer := self._answer(request)) is not None:
            await answer(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, send_guarded)

    def _answer(self, request: Request) -> Response | None:
        if refused := self._refused(request):
            return PlainTextResponse(refused, 403)
        path = request.url.path
        if path.startswith("/gradio_api/proxy="):
            return PlainTextResponse("Not here.", 404)
        if request.method not in ("GET", "HEAD"):
            length = request.headers.get("content-length", "")
            most = UPLOAD_BYTES + _REQUEST_BYTES if path.endswith("/upload") else _REQUEST_BYTES
            if not length.isdecimal() or int(length) > most:
                return PlainTextResponse(f"A request has to say its length, at most {most:,} bytes.", 413)
        if self.token and "token" in request.query_params and request.method == "GET":
            answer = RedirectResponse(path, 303)
            answer.set_cookie(COOKIE, self.token, max_age=_MONTH, httponly=True, samesite="strict")
            return answer
        return None

    def _refused(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        if self.token is None and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return "This studio answers on the loopback address only."  # the name of a stranger's site leads here
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "Another site's page may not use this studio."
        if self.token is not None:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            shown = (request.query_params.get("token"), request.cookies.get(COOKIE), bearer)
            if not any(secrets.compare_digest(one.encode(), self.token.encode()) for one in shown if one):
                return "This studio needs its token: open the address that it has printed."
        return None


async def _no_address(url: str) -> NoReturn:
    """Gradio fetches what a client names by an address; this machine asks nothing of others for anybody."""
    raise gr.Error("Give a file, not an address.", print_exception=False)


def build_server(studio: Studio, *, token: str | None, host: str, port: int) -> FastAPI:
    """The studio as a web application."""
    processing_utils.async_ssrf_protected_get = _no_address
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    server.add_middleware(Guard, token=token)

    def found(get: Callable[[], Path]) -> Path:
        try:
            return get()
        except ValueError as error:
            raise HTTPException(404, str(error)) from None

    @server.get("/stickers/{key}")
    def sticker(key: str) -> FileResponse:
        return FileResponse(found(lambda: studio.library.path(key)), media_type="image/webp")

    @server.get("/frames/{key}/{number}")
    def frame(key: str, number: int) -> Response:
        found(lambda: studio.library.path(key))
        frames = studio.library.read(key).frames
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(frames[number % len(frames)])).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png", headers={"Cache-Control": "max-age=86400"})

    @server.get("/exports/{name}")
    def exported(name: str) -> FileResponse:
        path = found(lambda: studio.library.exported(name))
        return FileResponse(path, filename=name, media_type="application/octet-stream")

    @server.get("/pages/{name:path}")
    def about(name: str) -> FileResponse:
        return FileResponse(found(lambda: studio.trainings.page(name)))

    @server.get("/previews/{name}")
    def preview(name: str) -> FileResponse:
        return FileResponse(found(lambda: studio.trainings.preview(name)), media_type="image/webp")

    return gr.mount_gradio_app(
        server,
        build_page(studio),
        path="/",
        server_name=host,
        server_port=port,
        footer_links=["api"],
        run_history=False,
        max_file_size=UPLOAD_BYTES,
        ssr_mode=False,
        theme=theme(),
        css=STYLE,
    )


def free_port(host: str, wanted: int) -> int:
    """The wanted port if nobody listens there, else one that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in (wanted, 0):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ValueError(f"nothing can listen on {host}; choose another --host")


def serve(studio: Studio, *, host: str, port: int, token: str | None, say: Callable[[str], None]) -> None:
    """Run the studio until it is stopped.

    Raises:
        ValueError: the address cannot be listened on.
    """
    if not is_loopback(host):
        token = token or secrets.token_urlsafe(24)
    port = free_port(host, port)
    server = build_server(studio, token=token, host=host, port=port)
    shown = f"[{host}]" if ":" in host else host
    say(f"Open http://{shown}:{port}/" + (f"?token={token}" if token else ""))
    uvicorn.run(server, host=host, port=port, log_level="warning", access_log=False)
