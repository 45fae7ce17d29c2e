from __future__ import annotations

from collections.abc import Iterator

import pytest

from skydraft.config import CloudSettings
from tests.cloud.running import running


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cloud on loopback, in a thread of this process."""
    with running(CloudSettings(port=0, max_frame_bytes=100_000)) as cloud:
        yield cloud.address
