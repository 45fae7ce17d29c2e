"""deploy/ray/serve.yaml, with another model, on Ray: replicas come when work waits, and go when none does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import yaml

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.cloud.ray.serve import _surroundings
from skydraft.config import DeviceSettings
from skydraft.core import Mode
from skydraft.edge.device import Device
from tests.ray.installed import require_ray
from tests.ray.replicas import replicas
from tests.system.processes import free_port
from tests.waiting import PATIENCE_S, wait_until

require_ray()

CONFIG = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
TARGET = "table:vocab=64,seed=3,order=2"
SOON = {"metrics_interval_s": 0.5, "look_back_period_s": 1.0, "upscale_delay_s": 0.0, "downscale_delay_s": 0.0}


def small_config(keys: Path, port: int) -> str:
    config = yaml.safe_load(CONFIG.read_text())
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"] |= {"model": f"paced:step_ms=20:{TARGET}", "device": "cpu", "dtype": "float32"}
    application["args"] |= {"keys": str(keys), "num_slots": 1}
    (deployment,) = application["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 0}
    deployment["autoscaling_config"] |= SOON | {"min_replicas": 1, "max_replicas": 2}
    deployment["autoscaling_config"]["policy"]["policy_kwargs"] = {"target_s": 0.001}
    text: str = yaml.safe_dump(config)
    return text


@contextmanager
def deployed(config: Path) -> Iterator[int]:
    """Serve as the file says; gives the id of the process that does."""
    command = [str(Path(sys.executable).with_name("serve")), "run", str(config)]
    surroundings = os.environ | _surroundings() | {"RAY_ADDRESS": "local"}
    with subprocess.Popen(command, env=surroundings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            left = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(PATIENCE_S)
            psutil.wait_procs(left, 30)


async def test_replicas_come_when_work_waits_and_go_when_none_does(tmp_path: Path) -> None:
    port, config = free_port(), tmp_path / "serve.yaml"
    key = add_key(tmp_path / "keys.toml", "phone", KeyGrant())
    config.write_text(small_config(tmp_path / "keys.toml", port))
    settings = DeviceSettings(
        draft=TARGET, cloud=f"127.0.0.1:{port}", key=key, mode=Mode.CLOUD, max_tokens=100, offline_wait_s=100
    )
    with deployed(config) as process_id, Device.load(settings) as device:
        wait_until(lambda: len(replicas(process_id)) == 1, "one replica")
        text = (await device.generate("ba de fi")).text
        while len(replicas(process_id)) == 1:
            assert (await device.generate("ba de fi")).text == text
        wait_until(lambda: len(replicas(process_id)) == 1, "one replica again")
