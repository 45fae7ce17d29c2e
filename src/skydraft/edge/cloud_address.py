"""Where a cloud is."""

from __future__ import annotations

from typing import NamedTuple


class CloudAddress(NamedTuple):
    """url: as `transport.websocket.connect` takes it. key: the API key; None where the cloud asks for none."""

    url: str
    key: str | None = None
