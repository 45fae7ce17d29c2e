"""Settings inside a model's name, such as `vocab=64,seed=3` in `table:vocab=64,seed=3`."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import msgspec

from skydraft.errors import ModelLoadError

Spec = TypeVar("Spec", bound=msgspec.Struct)


class NameSettings(NamedTuple):
    """A model's name, and what it should describe; both for error messages."""

    model: str
    what: str

    def read(self, settings: str, spec_type: type[Spec]) -> Spec:
        """Read `name=value,...`.

        Raises:
            ModelLoadError: a setting is unknown, missing or of the wrong type.
        """
        pairs = [item.partition("=") for item in settings.split(",") if item]
        try:
            # Numbers are read as JSON writes them: no blanks, underscores or digits of other scripts.
            return msgspec.convert({name: value for name, _, value in pairs}, spec_type, strict=False)
        except msgspec.ValidationError as error:
            raise self.refusal(str(error)) from error

    def require(self, condition: bool, name: str, value: object, allowed: str) -> None:
        """Refuse a value that is out of range.

        Raises:
            ModelLoadError: naming the value and what is allowed.
        """
        if not condition:
            raise self.refusal(f"{name} is {value} and must be {allowed}")

    def refusal(self, reason: str) -> ModelLoadError:
        return ModelLoadError(f"{self.model!r} does not describe {self.what}: {reason}")
