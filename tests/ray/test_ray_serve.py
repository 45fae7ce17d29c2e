"""Replicas behind Ray's router, as `skydraft cloud --ray N` starts them. Most tests share three, which take half a
minute to start; the one that kills a replica comes after the others.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from skydraft.cloud.access.keys import KeyGrant, add_key
from skydraft.config import DeviceSettings
from skydraft.core import Exact, Mode, SamplingParams, TextPiece, tokens_of
from skydraft.decoding.edge_session import EdgeSession
from skydraft.edge.device import Device
from skydraft.edge.report import Report
from skydraft.protocol import codec, messages
from skydraft.transport.address import is_loopback_host
from tests.linked import PROMPT, cloud_only, table
from tests.ray.installed import require_ray
from tests.ray.replicas import commands, replicas
from tests.system.processes import Process, running_cloud, skydraft
from tests.waiting import PATIENCE_S, until

require_ray()

import grpc  # noqa: E402  # comes with Ray

NUM_REPLICAS = 3
NUM_SESSIONS = 12
NUM_RECONNECTS = 3
NUM_TOKENS = 150
NUM_BEFORE = 6  # tokens that most devices have when a replica dies
TARGET = "table:vocab=64,seed=3,order=2"
SLOW = f"paced:step_ms=20:{TARGET}"


def test_a_model_that_cannot_be_loaded_is_one_sentence() -> None:
    ended = skydraft("cloud", "--ray", "1", "--model", "table:vocab=none", "--port", "0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch("Error: no replica started: .*table:vocab=none.*\n", ended.stderr)


class Cloud(NamedTuple):
    """process: the one that was started, whose descendants are Ray."""

    address: str
    key: str
    process: Process

    @property
    def process_id(self) -> int:
        return self.process.pid

    @property
    def http(self) -> str:
        return self.address.replace("ws://", "http://")

    def connect(self, session_id: str | None = None, key: str | None = None) -> ClientConnection:
        headers = {"Authorization": f"Bearer {key or self.key}"} | ({"x-session-id": session_id} if session_id else {})
        return connect(f"{self.address}/v1/session", additional_headers=headers, compression=None)


@contextmanager
def serving(folder: Path, num_replicas: int) -> Iterator[Cloud]:
    key = add_key(folder / "keys.toml", "phone", KeyGrant())
    flags = ("--ray", str(num_replicas), "--keys", str(folder / "keys.toml"))
    with running_cloud(SLOW, 0, *flags) as (process, address):
        yield Cloud(address, key, process)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with serving(tmp_path_factory.mktemp("keys"), NUM_REPLICAS) as cloud:
        yield cloud
        cloud.process.terminate()
        said = list(cloud.process.stderr)
        assert cloud.process.wait(PATIENCE_S) == 0
    ours = [line for line in said if "ServeReplica" in line]  # Ray's proxy has things to say of its own
    assert all("WARNING skydraft.cloud: a request was refused: " in line for line in ours), ours


def new_session(seed: int) -> EdgeSession:
    sampling = SamplingParams(temperature=1.0, seed=seed, max_tokens=NUM_RECONNECTS + 2)
    return EdgeSession(table(TARGET).vocabulary, PROMPT, sampling, Exact())


def hear(socket: ClientConnection) -> messages.CloudMessage:
    return codec.decode_cloud_message(socket.recv(timeout=PATIENCE_S, decode=False))


def go_on(cloud: Cloud, session: EdgeSession, session_id: str | None) -> bool:
    """Connect, have one more token written and break off; returns whether the replica knew the session."""
    is_new = not session.token_ids
    with cloud.connect(session_id) as socket:
        socket.send(codec.encode(session.open()))
        opened = hear(socket)
        assert isinstance(opened, messages.Opened)
        if opened.resume_key:
            session.receive(opened)
            session.give_credit(len(session.token_ids) + 1)
            for message in session.to_send():
                socket.send(codec.encode(message))
            session.receive(hear(socket))
        session.disconnect()
        socket.socket.close()  # without a goodbye, as a cut does it
    return is_new or bool(opened.resume_key)


def test_sessions_find_their_replica_again_by_their_id_after_every_cut(cloud: Cloud) -> None:
    assert len(replicas(cloud.process_id)) == NUM_REPLICAS
    sessions = [(new_session(seed), secrets.token_hex(16)) for seed in range(NUM_SESSIONS)]
    for _ in range(1 + NUM_RECONNECTS):
        were_known = [go_on(cloud, session, session_id) for session, session_id in sessions]
        assert all(were_known)
    for session, _ in sessions:
        whole = cloud_only(table(TARGET), session.sampling)
        assert list(session.token_ids) == whole[: 1 + NUM_RECONNECTS]


def test_without_an_id_sessions_are_spread_and_most_meet_another_replica(cloud: Cloud) -> None:
    # All 12 at home by chance: 3 ** -12.
    sessions = [new_session(seed) for seed in range(NUM_SESSIONS)]
    for session in sessions:
        go_on(cloud, session, None)
    were_known = [go_on(cloud, session, None) for session in sessions]
    assert not all(were_known)


def test_guards_work_behind_rays_proxy(cloud: Cloud) -> None:
    with pytest.raises(InvalidStatus) as refused, cloud.connect(key="skydraft.phone.wrong"):
        pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.body == b"nobody has this API key"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(
            urllib.request.Request(f"{cloud.http}/metrics", headers={"X-Forwarded-For": "127.0.0.1"}),
            timeout=PATIENCE_S,
        )


def ports(process_id: int) -> dict[int, bool]:
    """Ports that a process listens on, and whether other machines reach them."""
    connections = psutil.Process(process_id).net_connections("tcp")
    listening = [connection.laddr for connection in connections if connection.status == psutil.CONN_LISTEN]
    return {address.port: not is_loopback_host(address.ip) for address in listening}


def test_other_machines_reach_nothing_of_ray_but_a_port_of_each_replica(cloud: Cloud) -> None:
    open_to = [number for number in commands(cloud.process_id) if any(ports(number).values())]
    assert set(open_to) <= set(replicas(cloud.process_id))


def test_rays_own_ports_answer_nobody_without_its_token(cloud: Cloud) -> None:
    server = next(number for number, command in commands(cloud.process_id).items() if "gcs_server" in command[0])
    gcs = [(port, "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo") for port in ports(server)]
    own = [
        (port, "/ray.serve.ASGIService/HandleRequest")
        for number in replicas(cloud.process_id)
        for port, is_open in ports(number).items()
        if is_open
    ]
    assert len(own) == NUM_REPLICAS
    refused = [refusal(port, method) for port, method in gcs + own]
    assert refused.count(grpc.StatusCode.UNAUTHENTICATED) >= NUM_REPLICAS + 1
    assert set(refused) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE}  # metrics are no gRPC


def refusal(port: int, method: str) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(method)(b"", timeout=PATIENCE_S)
    return refused.value.code()


def test_health_and_metrics_are_answered(cloud: Cloud) -> None:
    for path, words in (("/healthz", b'"ok":true'), ("/readyz", b'"ready"'), ("/metrics", b"skydraft_queue_seconds")):
        with urllib.request.urlopen(cloud.http + path, timeout=PATIENCE_S) as response:
            assert words in response.read()


async def write(cloud: Cloud, seed: int, mode: Mode, counts: list[int] | None = None) -> Report:
    settings = DeviceSettings(
        draft=f"{TARGET},noise=0.8",
        cloud=cloud.address,
        key=cloud.key,
        mode=mode,
        max_tokens=NUM_TOKENS,
        temperature=1.0,
        seed=seed,
        offline_wait_s=PATIENCE_S,
    )

    def count(pieces: Sequence[TextPiece]) -> None:
        if counts is not None:
            counts[seed] += len(tokens_of(pieces))

    with Device.load(settings) as device:
        return await device.generate("ba de fi", count)


def busy_s(process_id: int) -> float:
    times = psutil.Process(process_id).cpu_times()
    return times.user + times.system


async def test_a_replica_that_is_killed_loses_nobodys_text(cloud: Cloud) -> None:
    counts = [0] * NUM_SESSIONS
    modes = (Mode.HYBRID, Mode.CLOUD) * (NUM_SESSIONS // 2)
    writing = [asyncio.create_task(write(cloud, seed, mode, counts)) for seed, mode in enumerate(modes)]
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: sorted(counts)[NUM_SESSIONS // 4] >= NUM_BEFORE)
        os.kill(max(replicas(cloud.process_id), key=busy_s), signal.SIGKILL)
        reports = await asyncio.gather(*writing)
        truths = await asyncio.gather(*(write(cloud, seed, Mode.CLOUD) for seed in range(NUM_SESSIONS)))
    assert [ids(report) for report in reports] == [ids(report) for report in truths]
    assert sum(report.reconnects for report in reports) >= 1
    assert not any(report.is_alone for report in reports)


async def test_sigterm_lets_texts_under_way_end(tmp_path: Path) -> None:
    counts = [0] * NUM_SESSIONS
    with serving(tmp_path, 1) as cloud:
        async with asyncio.timeout(PATIENCE_S):
            writing = [asyncio.create_task(write(cloud, seed, Mode.CLOUD, counts)) for seed in range(NUM_SESSIONS)]
            await until(lambda: all(counts))
            cloud.process.terminate()
            assert min(counts) < NUM_TOKENS
            reports = await asyncio.gather(*writing)
        assert [report.reconnects for report in reports] == [0] * NUM_SESSIONS
        cloud.process.stderr.read()
        assert cloud.process.wait(PATIENCE_S) == 0


def test_no_replica_outlives_a_command_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, 1) as cloud:
        left = [psutil.Process(number) for number in replicas(cloud.process_id)]
        cloud.process.kill()
        _, alive = psutil.wait_procs(left, timeout=PATIENCE_S)
    assert left
    assert alive == []


def ids(report: Report) -> list[int]:
    return [token.token_id for token in report.tokens]
