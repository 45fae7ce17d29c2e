"""The endpoints: what OpenAI's clients ask for, health and metrics.

Starlette and msgspec, not FastAPI: a device need not have pydantic, a request is read in one pass into types, and
errors have OpenAI's form from the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from skydraft import __version__
from skydraft.cloud.limits.uvicorn_limits import ABORT
from skydraft.gateway.audio import captions, transcriptions
from skydraft.gateway.choices import choices
from skydraft.gateway.completions import chat_completions, completions
from skydraft.gateway.gateway import Gateway
from skydraft.gateway.page import page_routes
from skydraft.gateway.problems import INVALID, Problem, problem_of
from skydraft.gateway.responses import forget_response, kept_response, responses
from skydraft.gateway.sse import HungUp, until_hung_up

log = logging.getLogger("skydraft.gateway")

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OWNER = "skydraft"


def make_app(gateway: Gateway, lifespan: Callable[[], AbstractAsyncContextManager[None]] | None = None) -> Starlette:
    """The endpoints of a gateway.

    Args:
        lifespan: entered before the first request and left after the last.
    """

    @asynccontextmanager
    async def live(_: Starlette) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan():
            yield

    routes = [
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/responses", responses, methods=["POST"]),
        Route("/v1/responses/{response_id}", kept_response),
        Route("/v1/responses/{response_id}", forget_response, methods=["DELETE"]),
        Route("/v1/audio/transcriptions", transcriptions, methods=["POST"]),
        Route("/v1/audio/captions", captions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", model),
        Route("/v1/choices", choices),
        Route("/health", health),
        Route("/metrics", metrics),
        *page_routes(),
    ]
    origins = [origin.rstrip("/") for origin in gateway.settings.allowed_origins]
    cors = Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST", "DELETE"], allow_headers=["*"], max_age=600
    )
    app = Starlette(
        routes=routes,
        middleware=[*([cors] if origins else []), Middleware(Answers, gateway)],
        lifespan=live,
        exception_handlers={HTTPException: _elsewhere},
    )
    app.state.gateway = gateway
    return app


class Answers:
    """Turns errors into answers, and ends quietly where the app has hung up, or the gateway ends by force."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def take(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            try:
                async with asyncio.timeout(self._gateway.settings.stall_s):
                    await send(message)
            except TimeoutError:
                raise HungUp from None

        try:
            await self._app(scope, receive, take)
        except (HungUp, asyncio.CancelledError):  # only a server that ends cancels
            scope["state"][ABORT]()  # not politely, which would wait until the app has read what it does not read
            await until_hung_up(receive)
        except Exception as error:
            problem = problem_of(error)
            if problem.status is HTTPStatus.INTERNAL_SERVER_ERROR:
                log.exception("a request failed")
            self._gateway.metrics.refused(problem.status)
            if not has_begun:
                await _as_response(problem)(scope, receive, send)


async def models(request: Request) -> Response:
    """The one model that is served."""
    gateway: Gateway = request.app.state.gateway
    gateway.admit(request)
    return _json({"object": "list", "data": [_model(gateway)]})


async def model(request: Request) -> Response:
    """The same by its name."""
    gateway: Gateway = request.app.state.gateway
    gateway.admit(request)
    name = request.path_params["model"]
    if name != gateway.model:
        sentence = f"there is no model {name!r} here; this gateway serves {gateway.model!r}"
        return _as_response(Problem(HTTPStatus.NOT_FOUND, sentence, INVALID, "model", "model_not_found"))
    return _json(_model(gateway))


async def health(request: Request) -> Response:
    """Whether texts are taken, and with what they are written."""
    gateway: Gateway = request.app.state.gateway
    settings = gateway.device_settings
    status = HTTPStatus.SERVICE_UNAVAILABLE if gateway.is_draining else HTTPStatus.OK
    facts = {
        "status": "draining" if gateway.is_draining else "ok",
        "version": __version__,
        "model": gateway.model,
        "mode": settings.mode.value,
        "share": settings.share.value,
        "can_hear": gateway.device.can_hear,
        "requests": gateway.num_present,
    }
    return _json(facts, status)


async def metrics(request: Request) -> Response:
    """Counts for Prometheus; for this machine and for keys that may see them."""
    gateway: Gateway = request.app.state.gateway
    gateway.guard.check_metrics(request)
    return Response(gateway.metrics.exposition(), media_type=METRICS_TYPE)


async def _elsewhere(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    sentence = f"{request.method} {request.url.path} is not here: {error.detail}"
    return _as_response(Problem(HTTPStatus(error.status_code), sentence, INVALID))


def _model(gateway: Gateway) -> dict[str, object]:
    return {"id": gateway.model, "object": "model", "created": int(gateway.begun_s), "owned_by": OWNER}


def _as_response(problem: Problem) -> Response:
    return _json(problem.body(), problem.status, problem.headers())


def _json(data: object, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(data), status, headers, "application/json")
