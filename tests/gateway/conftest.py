from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.running import Served, served


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with served() as running_gateway:
        yield running_gateway
