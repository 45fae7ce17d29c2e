"""The endpoints: sessions, the vocabulary, health and metrics."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http import HTTPStatus

import msgspec
from fastapi import FastAPI, Request, Response, WebSocket
from fastapi.responses import PlainTextResponse

from skydraft import __version__
from skydraft.cloud.access.guard import Refusal
from skydraft.cloud.access.keys import Holder
from skydraft.cloud.connection import DeviceConnection
from skydraft.cloud.limits.uvicorn_limits import ADMIT
from skydraft.cloud.scheduler import Scheduler
from skydraft.cloud.service import Service, ServiceState
from skydraft.engines.base import ReportingEngine
from skydraft.protocol import messages
from skydraft.protocol.messages import FaultCode
from skydraft.transport.headers import PROMPT_READ, WANTS_HEADER

log = logging.getLogger("skydraft.cloud")

RETRY_AFTER_S = 1
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_CODES = {
    HTTPStatus.UNAUTHORIZED: FaultCode.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN: FaultCode.UNAUTHORIZED,
    HTTPStatus.TOO_MANY_REQUESTS: FaultCode.LIMIT,
    HTTPStatus.SERVICE_UNAVAILABLE: FaultCode.BUSY,
}


def make_app(service: Service, start: Callable[[], None]) -> FastAPI:
    """The endpoints of a service.

    Args:
        start: called once in the event loop, before the first request.
    """
    app = FastAPI(title="skydraft", version=__version__, lifespan=_lifespan(service, start), openapi_url=None)
    _add_health(app, service)
    _add_metrics(app, service)
    _add_vocabulary(app, service)
    _add_terms(app, service)
    _add_sessions(app, service)
    _add_elsewhere(app)

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return _answer(service, refusal)

    return app


def _lifespan(service: Service, start: Callable[[], None]) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        start()
        yield
        service.stop()

    return lifespan


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz")
    async def healthz(response: Response) -> dict[str, object]:
        """Whether the process works, so that it need not be started again; what is served."""
        is_well = service.state is not ServiceState.FAILED
        response.status_code = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return {
            "ok": is_well,
            "version": __version__,
            "protocol": messages.PROTOCOL_VERSION,
            "model": service.engine.name if service.engine else None,
            "rows": service.engine.row_promise._asdict() if service.engine else None,
            **(service.engine.report() if isinstance(service.engine, ReportingEngine) else {}),
        }

    @app.get("/readyz")
    async def readyz(response: Response) -> dict[str, object]:
        """Whether new texts are taken."""
        state = service.state
        response.status_code = HTTPStatus.OK if state is ServiceState.READY else HTTPStatus.SERVICE_UNAVAILABLE
        return {"state": state.value}


def _add_metrics(app: FastAPI, service: Service) -> None:
    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        """Counts for Prometheus; for this machine and for keys that may see them."""
        service.guard.check_metrics(request)
        return Response(service.metrics.exposition(), media_type=METRICS_TYPE)


def _add_vocabulary(app: FastAPI, service: Service) -> None:
    cache: list[bytes] = []

    @app.get("/v1/vocabulary")
    def vocabulary(request: Request) -> Response:
        """The id -> token map, for a device that wants to know why its own does not fit."""
        service.guard.holder_of(request)
        if service.engine is None:
            raise _still_loading()
        if not cache:
            name, tokens = service.engine.vocabulary.name, service.engine.vocabulary.tokens
            cache.append(msgspec.json.encode({"name": name, "tokens": tokens}))
        return Response(cache[0], media_type="application/json")


def _add_terms(app: FastAPI, service: Service) -> None:
    @app.get("/v1/terms")
    def terms(request: Request, num_tokens: int) -> dict[str, object]:
        """What a device may want to know before it loads its model: whether the first num_tokens ids mean the same,
        as far as both have them, and how long a text may be."""
        service.guard.holder_of(request)
        if service.engine is None:
            raise _still_loading()
        vocabulary = service.engine.vocabulary
        num_shared = max(0, min(num_tokens, vocabulary.num_tokens))
        return {
            "num_tokens": num_shared,
            "digest": vocabulary.digest(num_shared).hex(),
            "max_tokens": service.engine.limits.max_length,
        }


def _add_sessions(app: FastAPI, service: Service) -> None:
    numbers = itertools.count()

    @app.websocket("/v1/session")
    async def session(socket: WebSocket) -> None:
        try:
            holder, scheduler = _admit(socket, service)
        except Refusal as refusal:
            await socket.send_denial_response(_answer(service, refusal))
            return
        number = next(numbers)
        wants = {each.strip() for each in socket.headers.get(WANTS_HEADER, "").split(",")}
        connection = DeviceConnection(
            number, socket, holder, scheduler, service.settings, service.metrics, wants_prompt_read=PROMPT_READ in wants
        )
        facts = {"connection": number, "key": holder.name}
        service.connections.add(connection)
        log.info("a device connected", extra={"facts": facts})
        try:
            with service.metrics.connection(holder.name):
                _note_admission(socket, holder)
                await socket.accept()
                await connection.serve()
        finally:
            service.connections.discard(connection)
            log.info("a device is gone", extra={"facts": facts})


def _add_elsewhere(app: FastAPI) -> None:
    @app.websocket("/{path:path}")
    async def elsewhere(socket: WebSocket) -> None:
        """Answer a wrong path with 404; the framework's 403 would look like a question of keys."""
        sentence = "this cloud has no sessions at this path: they are at /v1/session"
        await socket.send_denial_response(PlainTextResponse(sentence, HTTPStatus.NOT_FOUND))


def _admit(socket: WebSocket, service: Service) -> tuple[Holder, Scheduler]:
    """The holder of the request's key, and the scheduler for its sessions.

    Raises:
        Refusal: they may not, there is no room, or the model is not there yet.
    """
    holder = service.guard.holder_of(socket)
    if service.scheduler is None:
        raise _still_loading()
    if service.state is ServiceState.FAILED:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "this cloud has failed; its log says why")
    service.guard.check_room(holder, (connection.holder for connection in service.connections))
    return holder, service.scheduler


def _note_admission(socket: WebSocket, holder: Holder) -> None:
    """Tell the stream below that the device has come in; under Ray's server there is no such stream."""
    admit: Callable[[str], None] | None = socket.scope.get("state", {}).get(ADMIT)
    if admit is not None:
        admit(holder.name)


def _still_loading() -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "this cloud is still loading its model")


def _answer(service: Service, refusal: Refusal) -> Response:
    code = _CODES[refusal.status]
    service.metrics.refused(code)
    log.warning("a request was refused: %s", refusal.sentence, extra={"facts": {"status": refusal.status.value}})
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status is HTTPStatus.UNAUTHORIZED else {}
    if code in (FaultCode.BUSY, FaultCode.LIMIT):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return PlainTextResponse(refusal.sentence, refusal.status, headers)
