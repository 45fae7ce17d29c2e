"""A replica under Ray Serve: the service of one machine, served by Ray instead of uvicorn.

Ray calls its methods by name; nothing here imports Ray before a replica runs.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from fastapi import FastAPI

from skydraft.cloud.app import make_app
from skydraft.cloud.logs import configure_logs
from skydraft.cloud.metrics import Metrics
from skydraft.cloud.ray.scaling import QUEUE_S
from skydraft.cloud.serve import load_target, make_service
from skydraft.cloud.service import ServiceState
from skydraft.config import CloudSettings
from skydraft.errors import EngineError

REFRESH_PERIOD_S = 1.0
EXPORT_PERIOD_S = 5.0


class Replica:
    """One of several clouds behind Ray's router. Ray routes devices to it once its model is loaded.

    Raises:
        SkydraftError: why the model cannot be loaded, or the keys cannot be read.
    """

    async def __init__(self, settings: CloudSettings) -> None:  # type: ignore[misc]  # Ray waits for it
        configure_logs(
            settings.log_format, settings.log_level, sys.__stderr__ or sys.stderr
        )  # Ray may have replaced it
        loaded = asyncio.Event()
        self._service = make_service(settings)
        self._service.load(lambda: load_target(settings), loaded.set)
        await loaded.wait()
        if self._service.failure is not None:
            raise self._service.failure
        self._tasks = [
            asyncio.create_task(self._refresh_keys()),
            asyncio.create_task(_export(self._service.metrics, RayGauges())),
        ]

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The endpoints, which Ray serves; it stops them, and with them the service, when the texts have ended."""
        return make_app(self._service, start=lambda: None)

    def check_health(self) -> None:
        """Ray asks every few seconds, and replaces a replica that raises."""
        if self._service.state is ServiceState.FAILED:
            raise EngineError("the scheduler of this replica has failed; its log says why")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For `scaling`: how long work waited for its forward pass since Ray last asked, in seconds."""
        return {QUEUE_S: self._service.metrics.recent_queue_s()}

    async def _refresh_keys(self) -> None:
        while True:
            self._service.refresh_keys()
            await asyncio.sleep(REFRESH_PERIOD_S)


class RayGauges:
    """Ray's own metrics, which it exports for all replicas of a node at one port, with the replica as a label.

    They are gauges to Ray, whatever they count: names and values are those of `/metrics`, behind the prefix `ray_`.
    """

    def __init__(self) -> None:
        from ray.serve import metrics

        self._make = metrics.Gauge
        self._by_name: dict[str, Any] = {}

    def set(self, name: str, labels: dict[str, str], value: float) -> None:
        if name not in self._by_name:
            self._by_name[name] = self._make(name, tag_keys=tuple(labels))
        self._by_name[name].set(value, tags=labels)


async def _export(metrics: Metrics, gauges: RayGauges) -> None:
    while True:
        for sample in metrics.samples():
            gauges.set(sample.name, sample.labels, sample.value)
        await asyncio.sleep(EXPORT_PERIOD_S)
