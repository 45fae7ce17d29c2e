"""Several replicas of a cloud by Ray Serve: on this machine (`skydraft cloud --ray N`) or on a cluster.

Sessions stick to a replica by consistent hash of the header that names a text (`x-session-id`), so that a device that
comes back finds its state. When a replica is gone, its devices come to another, which does not know their sessions and
says so; then they send prompt and text again. Needs the extra `ray`.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from skydraft.cloud.access.guard import certificate_of, keys_of, require_guards
from skydraft.cloud.ray.replica import Replica
from skydraft.cloud.serve import bind, url_of
from skydraft.config import CloudSettings, load_settings, with_flags
from skydraft.engines.settings import num_cores
from skydraft.errors import ConfigError, ModelLoadError

APPLICATION = "skydraft"
DEPLOYMENT = "Cloud"
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
QUIET = {"log_level": "ERROR", "enable_access_log": False}
OBJECT_STORE_BYTES = 2**27  # of memory that replicas would share; frames do not pass through it
TOKEN_BYTES = 32
NUM_TRIES = 1  # of loading a model that cannot be loaded
ERRORS = "skydraft.errors."


def make_application(args: Mapping[str, Any]) -> Any:
    """What a configuration of Ray Serve names as `import_path` (deploy/ray/serve.yaml).

    Args:
        args: settings of the table [cloud], by name; `config` names a TOML file that has others.
    Returns:
        A Ray Serve application of one deployment, `Cloud`, of which the configuration says how many replicas it has.
    Raises:
        ConfigError: a setting is wrong, or there are no keys: the ports of a cluster are open to other machines.
    """
    config = args.get("config")
    table = {name: value for name, value in args.items() if name != "config"}
    settings = with_flags(load_settings(Path(config) if config else None).cloud, **table)
    if settings.keys is None:
        raise ConfigError(
            "a cluster's ports are open to other machines and there are no API keys, so anybody could use the model: "
            "make one with 'skydraft cloud-key add NAME --keys FILE', put FILE on every node, and give it as keys"
        )
    return _deployment(settings).bind(settings)


def _deployment(settings: CloudSettings, **options: Any) -> Any:
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    return serve.deployment(
        serve.ingress()(Replica),
        name=DEPLOYMENT,
        # A connection is a request as long as it lasts. The service refuses those beyond with a reason, Ray without.
        max_ongoing_requests=settings.max_connections + 1,
        max_queued_requests=settings.max_connections,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=min(0.5, settings.drain_s),
        request_router_config=RequestRouterConfig(request_router_class=ROUTER),
        logging_config=QUIET,
        **options,
    )


class RayCluster:
    """Replicas on this machine, in a Ray of their own that is closed to others and ends with this process.

    Args:
        announce: called with the address once sessions are taken.
    Raises:
        ConfigError: the settings would leave the cloud open, the files of keys or TLS are wrong, the address cannot be
            had, or a GPU is named by number.
    """

    def __init__(self, settings: CloudSettings, num_replicas: int, announce: Callable[[str], None]) -> None:
        require_guards(settings)
        certificate_of(settings)
        keys_of(settings)
        if settings.device.startswith("cuda:"):
            raise ConfigError(
                f"each replica has a GPU of its own and sees no other: give --device cuda instead of {settings.device}"
            )
        with bind(settings) as listener:  # free until Ray takes it
            port = int(listener.getsockname()[1])
        os.environ.update(_surroundings())
        import ray.serve  # noqa: F401  # so that a missing Ray is an error before anything begins

        self._settings = replace(settings, port=port, num_threads=_num_threads(settings, num_replicas))
        self._num_replicas = num_replicas
        self._announce = announce

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; after SIGTERM texts under way may end within `drain_s`.

        Raises:
            ConfigError: there are fewer GPUs than replicas.
            ModelLoadError: no replica could load the model.
        """
        import ray

        ray.init(
            address="local",
            num_cpus=1,  # replicas ask for none
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
        )
        try:
            self._require_gpus(ray.cluster_resources())
            self._serve()
        finally:
            ray.shutdown()

    def _serve(self) -> None:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # there are no texts yet whose end to wait for
        settings = self._settings
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": settings.host,
                "port": settings.port,
                "ssl_certfile": settings.tls_cert,
                "ssl_keyfile": settings.tls_key,
            },
            logging_config=QUIET,
        )
        actor = {"num_cpus": 0, "num_gpus": 1 if self._needs_gpus else 0}
        options = {"num_replicas": self._num_replicas, "ray_actor_options": actor}
        deployment = _deployment(settings, max_constructor_retry_count=NUM_TRIES, **options)
        try:
            serve.run(deployment.bind(settings), name=APPLICATION)
        except RuntimeError as error:
            raise ModelLoadError(f"no replica started: {_reason(_said() or str(error))}") from error
        is_ended = _on_sigterm()
        self._announce(url_of(settings, settings.host, settings.port))
        is_ended.wait()
        serve.delete(APPLICATION)

    @property
    def _needs_gpus(self) -> bool:
        return self._settings.device == "cuda"

    def _require_gpus(self, resources: Mapping[str, float]) -> None:
        num_gpus = int(resources.get("GPU", 0))
        if self._needs_gpus and num_gpus < self._num_replicas:
            raise ConfigError(
                f"--ray {self._num_replicas} with --device cuda takes {self._num_replicas} GPUs and this machine has "
                f"{num_gpus}: ask for fewer replicas"
            )


def _surroundings() -> dict[str, str]:
    """Environment variables that Ray and its processes read."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: Ray's own ports, on loopback only
        "RAY_AUTH_MODE": "token",  # they run what they are told, and other users of this machine reach them
        "RAY_AUTH_TOKEN": secrets.token_hex(TOKEN_BYTES),
        "RAY_USAGE_STATS_ENABLED": "0",  # Ray tells its makers otherwise
        "RAY_SERVE_LOG_TO_STDERR": "0",  # its tracebacks stay in its own files
        "RAY_COLOR_PREFIX": "0",
    }


def _said() -> str:
    """Ray's message about the deployment."""
    from ray import serve

    deployments = serve.status().applications[APPLICATION].deployments
    return deployments[DEPLOYMENT].message if DEPLOYMENT in deployments else ""


def _num_threads(settings: CloudSettings, num_replicas: int) -> int:
    """As many as were asked for, or an equal share of the cores."""
    return settings.num_threads or max(1, num_cores() // num_replicas)


def _on_sigterm() -> threading.Event:
    """An event that the first SIGTERM sets; the second ends at once, as Ctrl-C does."""
    is_ended = threading.Event()

    def end(_: int, __: object) -> None:
        if is_ended.is_set():
            raise KeyboardInterrupt
        is_ended.set()

    signal.signal(signal.SIGTERM, end)
    return is_ended


def _reason(message: str) -> str:
    """The sentence of ours in what Ray says of a failure, or its last line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    ours = [line.partition(": ")[2] for line in lines if line.startswith(ERRORS)]
    return (ours or lines or ["Ray gives no reason"])[-1]
