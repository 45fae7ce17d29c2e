import pytest

from skydraft.cli import run
from skydraft.cli.cloud import require_loopback
from skydraft.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "::1", "localhost"])
def test_this_machine_needs_no_keys(host):
    require_loopback(host, is_waived=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "cloud.example", ""])
def test_other_machines_are_kept_out_until_somebody_says_otherwise(host):
    with pytest.raises(ConfigError, match="knows no API keys yet.*--insecure-without-keys"):
        require_loopback(host, is_waived=False)
    require_loopback(host, is_waived=True)


def test_a_cloud_for_the_whole_world_is_refused_before_its_model_is_loaded(capsys):
    assert run(["cloud", "--model", "a-model-that-nobody-has", "--host", "0.0.0.0"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: host 0.0.0.0 is open to other machines")
    assert err.count("\n") == 1
