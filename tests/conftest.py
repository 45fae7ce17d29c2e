"""Where the real data are, and tests that are skipped with a sentence where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # environments of single engines do without
    pass
else:  # the machine may be slow, or busy with other things
    settings.register_profile("skydraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("skydraft")

SHARED = Path(__file__).parents[2] / "shared"

# Touch every room in half a minute: `make quick`.
QUICK = (
    *("test_architecture.py", "test_config.py", "core/", "protocol/test_offers.py", "protocol/test_page.py"),
    *("sampling/test_choice.py", "sampling/test_draft_tree.py", "sampling/test_lattice.py", "policies/", "tasks/"),
    *("decoding/test_offer_merging.py", "decoding/test_losses.py", "scheduling/test_batcher.py", "text/"),
    *("engines/test_slots.py", "engines/test_table.py", "audio/test_windows.py", "transport/test_address.py"),
    *("edge/test_border.py", "edge/test_tree_reader.py", "cloud/test_session_registry.py", "cloud/test_app.py"),
    *("cli/test_options.py", "cli/test_summaries.py", "bench/test_claims.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(here)).startswith(QUICK):
            item.add_marker("quick")


@pytest.fixture(scope="session")
def unseen_clips() -> list[Path]:
    """The clips of the actors that the embedded pair has never heard."""
    labels = SHARED / "speech" / "labels.jsonl"
    if not labels.is_file():
        pytest.skip(f"needs the recordings in {labels.parent}")
    from bench import identity  # the torch extra

    return identity.unseen_clips(labels.parent)


@pytest.fixture(scope="session")
def text_pair() -> Path:
    """A folder with a real text target and drafts of it."""
    folder = SHARED / "text"
    if not (folder / "target" / "config.json").is_file():
        pytest.skip(f"needs the text pair in {folder}")
    return folder


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The settings of whoever runs the tests are not theirs."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "no-settings"))
    for name in ("SKYDRAFT_CONFIG", "SKYDRAFT_CLOUD", "SKYDRAFT_DRAFT", "SKYDRAFT_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """Two cores are shared by a cloud, a device and the tests."""
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)
