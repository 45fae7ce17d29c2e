"""How well a draft model agrees with a cloud, by kind of text, kept in the user's cache: a new device begins with it.

What is kept are numbers. Clouds, models and kinds of text are in it as hashes only.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated

import msgspec

from skydraft.core.cache_folder import cache_folder
from skydraft.policies.confidence import LEAST_MISS, LEAST_SHARPNESS, MOST_MISS, MOST_SHARPNESS, Confidence

MAX_KEPT = 256


class Agreement(msgspec.Struct, frozen=True):
    """As in `policies.confidence.Confidence`."""

    sharpness: Annotated[float, msgspec.Meta(ge=LEAST_SHARPNESS, le=MOST_SHARPNESS)]
    miss: Annotated[float, msgspec.Meta(ge=LEAST_MISS, le=MOST_MISS)]
    agreement: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class KeptAgreement:
    """Of one draft model with one cloud.

    Args:
        draft: names the draft model on this machine.
        cloud: where the cloud is, or its model, if it is started on this machine and has another address each time.
        folder: where it is kept; None: nowhere.
    """

    def __init__(self, draft: str, cloud: str, folder: Path | None) -> None:
        self._pair = f"{cloud}\n{draft}"
        self._path = None if folder is None else folder / "agreement.json"
        self._kept = self._load()
        self._new: dict[str, Agreement] = {}

    @classmethod
    def of(cls, draft: str, cloud: str) -> KeptAgreement:
        """In the user's cache."""
        return cls(draft, cloud, cache_folder())

    def find(self, kind: str) -> Confidence | None:
        """What was learnt last; None: this kind of text was never written with this cloud."""
        key = self._key(kind)
        known = self._new.get(key) or self._kept.get(key)
        return None if known is None else Confidence(known.sharpness, known.miss, known.agreement)

    def note(self, kind: str, confidence: Confidence) -> None:
        """A text of this kind has ended."""
        key = self._key(kind)
        self._new.pop(key, None)  # the last is the newest
        self._new[key] = Agreement(confidence.sharpness, confidence.miss, confidence.agreement)

    def save(self) -> None:
        """Beside what other devices of this user have learnt meanwhile. A cache that cannot be written to is left."""
        if self._path is None or not self._new:
            return
        kept = {key: known for key, known in self._load().items() if key not in self._new} | self._new
        newest = list(kept.items())[-MAX_KEPT:]
        new = self._path.with_suffix(f".{os.getpid()}")  # another device may do the same now
        try:
            new.write_bytes(msgspec.json.encode(dict(newest)))
            new.replace(self._path)
        except OSError:
            pass

    def _load(self) -> dict[str, Agreement]:
        """Nothing where nothing was kept, or what was cannot be read."""
        try:
            text = b"{}" if self._path is None else self._path.read_bytes()
            return msgspec.json.decode(text, type=dict[str, Agreement])
        except (OSError, msgspec.DecodeError):
            return {}

    def _key(self, kind: str) -> str:
        return hashlib.sha256(f"{self._pair}\n{kind}".encode()).hexdigest()[:24]
