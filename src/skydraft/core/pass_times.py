"""What forward passes take."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MAX_PASS_S = 3600.0


class PassTimes(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of a model that has nothing else to do, in seconds. The order of the fields is that of the wire.

    step_s: a pass over one position. node_s: each further one.
    """

    step_s: Annotated[float, Meta(gt=0, le=MAX_PASS_S)]
    node_s: Annotated[float, Meta(ge=0, le=MAX_PASS_S)]
