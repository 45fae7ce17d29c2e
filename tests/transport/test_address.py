import pytest

from skydraft.config import CloudSettings
from skydraft.errors import ConfigError
from skydraft.transport.address import DEFAULT_PORT, exposure, session_url
from skydraft.transport.link.pipe import Address


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("localhost:8471", "ws://localhost:8471/v1/session"),
        ("cloud.example", "wss://cloud.example:8471/v1/session"),
        ("localhost", "ws://localhost:8471/v1/session"),
        ("[fe80::1]", "wss://[fe80::1]:8471/v1/session"),
        ("cloud.example/base", "wss://cloud.example/base/v1/session"),
        ("10.0.0.7:1", "wss://10.0.0.7:1/v1/session"),
        ("127.0.0.1:1", "ws://127.0.0.1:1/v1/session"),
        ("[::1]:8471", "ws://[::1]:8471/v1/session"),
        ("ws://h:1", "ws://h:1/v1/session"),
        ("ws://h:1/", "ws://h:1/v1/session"),
        ("wss://h", "wss://h/v1/session"),
        ("http://h:1", "ws://h:1/v1/session"),
        ("https://h/", "wss://h/v1/session"),
        ("HTTPS://h", "wss://h/v1/session"),
        ("https://h/skydraft", "wss://h/skydraft/v1/session"),
        ("wss://h/v1/session", "wss://h/v1/session"),
        ("wss://h/v1/session/", "wss://h/v1/session"),
        ("h:1/base", "wss://h:1/base/v1/session"),
        ("localhost/base", "ws://localhost/base/v1/session"),
    ],
)
def test_addresses_become_session_urls(address: str, url: str) -> None:
    assert session_url(address) == url


@pytest.mark.parametrize(
    "address", ["", "ftp://h", "ws://", "h:port", "h:99999", "h:0", "ws://[::1", "a b", "h\n:1", "ws:///path", ":8471"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="unknown form of a cloud's address"):
        session_url(address)


@pytest.mark.parametrize("address", ["ws://user:secret@h:1", "ws://h?key=secret", "ws://h#secret"])
def test_an_address_with_more_in_it_is_refused_and_not_quoted(address: str) -> None:
    with pytest.raises(ConfigError, match="key on its own") as caught:
        session_url(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["cloud.example", "10.0.0.7:1", "wss://h", "https://h", "ws://localhost:1", "[::1]:1"]
)
def test_a_key_crosses_no_network_unencrypted_unless_that_is_spelled_out(address: str) -> None:
    assert exposure(address, has_key=True) is None


@pytest.mark.parametrize("address", ["ws://10.0.0.7:1", "http://10.0.0.7:1", "ws://10.0.0.7:1/v1/session"])
@pytest.mark.parametrize(("has_key", "what"), [(True, "the key and the text"), (False, "the text")])
def test_an_unencrypted_way_is_said_with_what_is_read_on_it(address: str, has_key: bool, what: str) -> None:
    assert exposure(address, has_key) == (
        f"{address} is not encrypted: whoever is on the way reads {what}; use wss://10.0.0.7:1 if the cloud has TLS"
    )


@pytest.mark.parametrize("port", ["", " 80", "8_0", "\u0668\u0660", "+80", "-1", "65536"])
def test_a_port_is_ascii_digits_of_its_range(port: str) -> None:
    with pytest.raises(ConfigError, match="is not HOST:PORT"):
        Address.parse(f"127.0.0.1:{port}")
    assert Address.parse("[::1]:80") == ("::1", 80)


def test_a_cloud_listens_where_an_address_without_a_port_leads() -> None:
    assert CloudSettings().port == DEFAULT_PORT
