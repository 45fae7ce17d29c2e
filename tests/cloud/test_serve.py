"""How a cloud begins and ends, and its TLS."""

from __future__ import annotations

import logging
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from skydraft.cloud import serve
from skydraft.cloud.serve import bind, load_target, make_server
from skydraft.config import CloudSettings
from skydraft.engines.base import Engine
from skydraft.errors import ConfigError, ModelLoadError
from skydraft.protocol import messages
from skydraft.protocol.messages import FaultCode
from tests.cloud.running import (
    MODEL,
    SAMPLING,
    Running,
    counted,
    get,
    hear,
    hear_fault,
    new_session,
    open_session,
    running,
    tell,
    tell_due,
    the_websocket,
)
from tests.linked import cloud_only, table
from tests.waiting import PATIENCE_S, wait_until

SETTINGS = CloudSettings(port=0, drain_s=86400)  # so that nothing ends for its time


def terminate(cloud: Running) -> None:
    cloud.server.handle_exit(signal.SIGTERM, None)


def is_over(cloud: Running) -> bool:
    return cloud.server.should_exit


# Begin


@pytest.fixture
def loaded() -> threading.Event:
    return threading.Event()


@pytest.fixture
def loading(loaded: threading.Event) -> Iterator[Running]:
    """A cloud whose model is loaded once the event is set, as it is in the end."""

    def load() -> Engine:
        assert loaded.wait(PATIENCE_S)
        return table(MODEL)

    with running(SETTINGS, load, is_ready=False) as cloud:
        yield cloud
    loaded.set()


def test_while_the_model_loads_the_cloud_lives_and_is_not_ready(loading: Running, loaded: threading.Event) -> None:
    assert get(loading.address, "/healthz").status == 200
    assert get(loading.address, "/readyz")[:2] == (503, '{"state":"loading"}')
    assert get(loading.address, "/v1/vocabulary").status == 503
    with pytest.raises(InvalidStatus) as caught, connect(loading.address + "/v1/session"):
        pass
    assert caught.value.response.status_code == 503
    assert caught.value.response.headers["Retry-After"] == "1"
    assert caught.value.response.body == b"this cloud is still loading its model"
    assert loading.announced.empty()
    loaded.set()
    assert loading.announced.get(timeout=PATIENCE_S) == loading.address
    assert get(loading.address, "/readyz")[:2] == (200, '{"state":"ready"}')


def test_a_model_that_cannot_be_loaded_ends_the_cloud_with_its_error() -> None:
    def load() -> Engine:
        raise ModelLoadError("no such model")

    announced: list[str] = []
    server = make_server(load, SETTINGS, announced.append)
    with pytest.raises(ModelLoadError, match="no such model"):
        server.run(sockets=[bind(SETTINGS)])
    assert announced == []


def test_a_cloud_can_be_ended_while_its_model_loads(loading: Running) -> None:
    terminate(loading)
    wait_until(lambda: is_over(loading))


# End


def test_draining_lets_a_running_text_end_and_takes_no_other() -> None:
    session = new_session()
    with running(SETTINGS) as cloud, connect(cloud.address + "/v1/session") as socket:
        open_session(socket, session)
        with connect(cloud.address + "/v1/session") as other:
            terminate(cloud)
            assert get(cloud.address, "/readyz")[:2] == (503, '{"state":"draining"}')
            assert get(cloud.address, "/healthz").status == 200
            tell(other, new_session(3).open())
            fault = hear_fault(other)
            assert (fault.code, fault.session, fault.retry_after_s) == (FaultCode.BUSY, 3, 1.0)
        session.give_credit(20)
        tell_due(socket, session)
        while not session.is_complete:
            session.receive(hear(socket))
        assert not cloud.server.service.is_drained
        assert not is_over(cloud)
        tell(socket, session.close())
        with pytest.raises(ConnectionClosed, match="1012"):
            socket.recv(timeout=PATIENCE_S)
    assert list(session.token_ids) == cloud_only(table(MODEL), SAMPLING)


def test_draining_ends_at_its_limit_with_texts_under_way() -> None:
    with running(CloudSettings(port=0, drain_s=0.5)) as cloud, connect(cloud.address + "/v1/session") as socket:
        open_session(socket, new_session())
        began_s = time.monotonic()
        terminate(cloud)
        with pytest.raises(ConnectionClosed, match="1012"):
            socket.recv(timeout=PATIENCE_S)
        assert time.monotonic() - began_s >= 0.5


def test_draining_does_not_wait_for_connections_without_a_text() -> None:
    with running(SETTINGS) as cloud, connect(cloud.address + "/v1/session") as socket:
        terminate(cloud)
        with pytest.raises(ConnectionClosed, match="1012"):
            socket.recv(timeout=PATIENCE_S)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(second: signal.Signals) -> None:
    with running(SETTINGS) as cloud, connect(cloud.address + "/v1/session") as socket:
        open_session(socket, new_session())
        terminate(cloud)
        assert not is_over(cloud)
        cloud.server.handle_exit(second, None)
        with pytest.raises(ConnectionClosed, match="1012"):
            socket.recv(timeout=PATIENCE_S)


def test_a_device_that_is_just_leaving_does_not_spoil_the_end() -> None:
    with running(SETTINGS) as cloud, connect(cloud.address + "/v1/session"):
        wait_until(lambda: cloud.server.service.connections)
        the_websocket(cloud).conn.send_close(1000)  # as the reply to its close frame, before the connection is gone
        terminate(cloud)
        wait_until(lambda: is_over(cloud))
        wait_until(lambda: not cloud.server.server_state.connections)


def test_a_cloud_whose_scheduler_died_is_neither_well_nor_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(SETTINGS) as cloud, connect(cloud.address + "/v1/session") as socket:
        scheduler = cloud.server.service.scheduler
        assert scheduler is not None
        open_session(socket, new_session())

        def fail(*_: object) -> None:
            raise OSError("the text of an error")

        monkeypatch.setattr(scheduler, "_handle", fail)
        tell(socket, messages.Generate(5))
        fault = hear_fault(socket)
        assert (fault.code, fault.session) == (FaultCode.INTERNAL, None)
        assert counted(cloud.server.service.metrics)["skydraft_faults_total:internal"] == 1
        wait_until(lambda: not scheduler.is_alive)
        assert get(cloud.address, "/healthz").status == 503
        assert get(cloud.address, "/readyz")[:2] == (503, '{"state":"failed"}')
        with pytest.raises(InvalidStatus, match="503"), connect(cloud.address + "/v1/session"):
            pass
        tell(socket, messages.Generate(6))
        assert hear_fault(socket).code is FaultCode.INTERNAL
        with pytest.raises(ConnectionClosed, match="1011"):
            socket.recv(timeout=PATIENCE_S)


# TLS


def write_certificate(authority: trustme.CA, folder: Path) -> CloudSettings:
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return CloudSettings(port=0, tls_cert=str(folder / "cert.pem"), tls_key=str(folder / "key.pem"))


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_over_tls_a_session_opens_and_a_renewed_certificate_is_taken_up(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    with running(write_certificate(first, tmp_path)) as cloud:
        assert cloud.address.startswith("wss://")
        with connect(cloud.address + "/v1/session", ssl=trusting(first)) as socket:
            assert socket.socket.version() in ("TLSv1.2", "TLSv1.3")  # type: ignore[attr-defined]
            open_session(socket, new_session())
            write_certificate(second, tmp_path)
            wait_until(lambda: is_trusted(cloud, second))
            tell(socket, messages.Close(0))
        assert not is_trusted(cloud, first)


def is_trusted(cloud: Running, authority: trustme.CA) -> bool:
    try:
        with connect(cloud.address + "/v1/session", ssl=trusting(authority)):
            return True
    except ssl.SSLCertVerificationError:
        return False


def test_a_renewal_that_went_wrong_leaves_the_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    with running(write_certificate(authority, tmp_path)) as cloud, caplog.at_level(logging.ERROR):
        (tmp_path / "cert.pem").write_text("half a cert")
        wait_until(lambda: "the certificate stays as it was" in caplog.text)
        assert is_trusted(cloud, authority)


def test_without_tls_nothing_passes_where_tls_is_on(tmp_path: Path) -> None:
    with running(write_certificate(trustme.CA(), tmp_path)) as cloud, pytest.raises((OSError, EOFError)):
        get(cloud.address.replace("wss", "ws"), "/healthz")


@pytest.mark.parametrize("what", ["missing", "text", "another's key", "a password"])
def test_a_wrong_certificate_is_one_sentence(tmp_path: Path, what: str) -> None:
    settings = write_certificate(trustme.CA(), tmp_path)
    key = tmp_path / "key.pem"
    if what == "missing":
        key.unlink()
    elif what == "text":
        key.write_text("not a key")
    elif what == "another's key":
        trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(key)
    else:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        locked = serialization.BestAvailableEncryption(b"secret")
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        key.write_bytes(private.private_bytes(*form, locked))
    with pytest.raises(ConfigError, match="the certificate .* with the key .* cannot be used: .*PEM files"):
        make_server(lambda: table(MODEL), settings, print)


def test_a_cloud_tests_its_model_when_it_loads_it_unless_it_is_told_not_to() -> None:
    for model in ("table:vocab=64", "paced:step_ms=60000:table:vocab=64"):  # which waits for no pace
        assert load_target(CloudSettings(model=model)).row_promise.gap_change == 0.0
        assert load_target(CloudSettings(model=model, skip_self_test=True)).row_promise.gap_change is None


@pytest.mark.parametrize(("kernel", "num_warnings"), [(object(), 0), (None, 1)])
def test_a_cloud_whose_choices_are_not_compiled_says_so(
    kernel: object, num_warnings: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve, "kernel", lambda: kernel)
    with caplog.at_level(logging.WARNING, logger="skydraft.cloud"):
        assert load_target(CloudSettings(model="table:vocab=64")).vocabulary.size == 64
    warnings = [record.getMessage() for record in caplog.records]
    assert [text.startswith("choices are not compiled") for text in warnings] == [True] * num_warnings
