"""Runs the service under uvicorn: binds the port, loads the model, says where it listens, and ends in good order."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from skydraft.cloud.access.certificate import Certificate
from skydraft.cloud.access.guard import Guard, certificate_of, keys_of, require_guards
from skydraft.cloud.app import make_app
from skydraft.cloud.limits.listen import listen
from skydraft.cloud.limits.uvicorn_limits import GuardedHttp, GuardedSocket
from skydraft.cloud.logs import flush_logs
from skydraft.cloud.service import Service
from skydraft.cloud.tracing import make_metrics
from skydraft.config import CloudSettings, GatewaySettings
from skydraft.engines.base import Engine
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from skydraft.errors import TransportError
from skydraft.sampling.kernel import kernel

log = logging.getLogger("skydraft.cloud")

CLOSING_S = 5  # for goodbyes to all devices, before connections are ended by force
TICKS_PER_REFRESH = 10  # uvicorn ticks ten times a second


def bind(settings: CloudSettings | GatewaySettings) -> socket.socket:
    """Take the port; port 0 takes a free one.

    Raises:
        TransportError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise TransportError(
            f"nothing can listen on {settings.host} port {settings.port}: {error.strerror or error}; "
            "choose another with --host and --port (0 takes a free port)"
        ) from error
    return listener


def make_server(load: Callable[[], Engine], settings: CloudSettings, announce: Callable[[str], None]) -> Server:
    """The service, ready to `run(sockets=[listener])` until SIGINT, SIGTERM or `should_exit`.

    Health is answered from the start; sessions are taken when `load`, called in a thread, has given the engine.

    Args:
        announce: called with the address once sessions are taken.
    Raises:
        ConfigError: the settings would leave the cloud open, or the files of keys or TLS are wrong.
    """
    require_guards(settings)
    return Server(make_service(settings), load, announce, certificate_of(settings))


def make_service(settings: CloudSettings) -> Service:
    """What the endpoints share; its model is not loaded yet. Raises: as KeyRing."""
    return Service(settings, Guard(settings, keys_of(settings)), make_metrics(settings.otel_endpoint))


def load_target(settings: CloudSettings) -> Engine:
    """Load the target model.

    Raises:
        ModelLoadError: it cannot be loaded.
        ConfigError: a setting does not fit it.
    """
    engine_settings = EngineSettings(
        num_slots=settings.num_slots,
        max_length=settings.max_length,
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
        fast_math=settings.fast_math,
        self_test=not settings.skip_self_test,
    )
    engine = load_engine(settings.model, "target", engine_settings)
    if not engine.row_promise.is_invariant:
        log.info("texts may differ from the cloud's own: %s", engine.row_promise.reason)
    if kernel() is None:  # looked for now, for it may have to be compiled
        log.warning("choices are not compiled (is there a C compiler?): numpy makes them, which takes 40 times as long")
    return engine


def url_of(settings: CloudSettings, host: str, port: int) -> str:
    """The address for devices."""
    scheme = "wss" if settings.tls_cert else "ws"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Server(uvicorn.Server):
    """Announces the service when it is ready; SIGTERM lets running texts end before it ends."""

    def __init__(
        self,
        service: Service,
        load: Callable[[], Engine],
        announce: Callable[[str], None],
        certificate: Certificate | None,
    ) -> None:
        self.service = service
        self._load = load
        self._announce = announce
        self._certificate = certificate
        self._listeners: list[socket.socket] = []
        super().__init__(self._configuration())

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until the end.

        Raises:
            SkydraftError: what kept the model from being loaded.
        """
        self._listeners = sockets or []
        super().run(sockets)
        if self.service.failure is not None:
            raise self.service.failure

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen; not with uvicorn's listeners, which count a connection only after TLS."""
        await super().startup(sockets=[])
        settings = self.service.settings

        def make_protocol() -> GuardedHttp:
            return GuardedHttp(self.config, self.server_state, self.lifespan.state)

        tls, most = self._certificate.context if self._certificate else None, settings.max_frame_bytes
        listeners = listen(sockets or [], tls, settings.max_connections, most, make_protocol)
        self.servers.extend(listeners)  # type: ignore[arg-type]  # of which uvicorn asks close and wait_closed

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        flush_logs()  # a signal may end the process right after this

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS_PER_REFRESH == 0:
            self.service.refresh_keys()
            if self._certificate is not None:
                self._certificate.refresh()
        self.should_exit = self.should_exit or self.service.is_drained
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM and not self.service.is_draining:
            self._captured_signals.append(sig)
            self.service.begin_drain()
        else:
            super().handle_exit(sig, frame)

    def _configuration(self) -> uvicorn.Config:
        settings = self.service.settings
        config = uvicorn.Config(
            make_app(self.service, self._start),
            http=GuardedHttp,
            ws=GuardedSocket,
            ws_max_size=settings.max_frame_bytes,
            ws_per_message_deflate=False,  # ids do not compress, it takes time, and a small bomb could unpack
            proxy_headers=False,  # addresses are only used to know this machine's own, and headers can say anything
            server_header=False,
            log_config=None,
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=CLOSING_S,
        )
        config.load()
        return config

    def _start(self) -> None:
        self.service.load(self._load, self._loaded)

    def _loaded(self) -> None:
        if self.service.failure is not None:
            self.should_exit = True
            return
        for listener in self._listeners:
            self._announce(url_of(self.service.settings, *listener.getsockname()[:2]))
