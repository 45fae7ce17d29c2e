"""GET /: a page that writes with this gateway. Its files are in `web/`, as they were written: there is no build step.

It asks nobody but this gateway, and its browser is told to see to that. The files say nothing about anybody and are
given without a key; what the page then asks for is asked for with one.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import PurePath

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = files("skydraft.gateway") / "web"
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS = {
    # A sound that was recorded or dropped is played from memory: that is a blob.
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """A route for each file; nothing else of the disk can be asked for."""
    found = {entry.name: entry.read_bytes() for entry in FOLDER.iterdir() if PurePath(entry.name).suffix in TYPES}
    return [_route("/" if name == INDEX else f"/page/{name}", name, data) for name, data in sorted(found.items())]


def _route(path: str, name: str, data: bytes) -> Route:
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    headers = {**HEADERS, "ETag": tag}
    media_type = TYPES[PurePath(name).suffix]

    async def give(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=media_type)

    return Route(path, give)
