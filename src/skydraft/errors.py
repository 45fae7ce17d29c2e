"""The exception tree.

SkydraftError
├── ConfigError            a setting, a flag or a file of settings or keys is wrong
├── ProtocolError
│   ├── LocalProtocolError     we misused the protocol: a bug on this side
│   └── RemoteProtocolError    the peer sent something that the protocol does not allow
│       └── VersionMismatch        the peer speaks another version
├── TransportError         the connection could not be made, or was lost; an address cannot be listened on
│   └── CloudBusy              something answers there and takes nobody for now
├── CloudFault             the cloud refused, in its own words
├── EngineError
│   ├── ModelLoadError         a model folder or name cannot be loaded
│   ├── VocabularyMismatch     a draft and a target do not share their token ids
│   ├── NoPromise              a cloud cannot promise its own text, and --strict asks for it
│   ├── PromptRejected         the engine cannot take this prompt
│   └── CacheOverflow          no slot, or no room in a slot
├── AudioError             a clip cannot be read or has nothing in it
│   └── SilentAudio            it can be read, and nothing is to be heard in it
└── DisclosureError        something was about to leave the device that its share level keeps

An error stores its facts and builds its text from them: one sentence that names both values and the way out.
"""

from __future__ import annotations


class SkydraftError(Exception):
    """Base of all errors that skydraft raises on purpose; its text is one sentence for a person."""


class ConfigError(SkydraftError):
    """A setting is wrong."""


class ProtocolError(SkydraftError):
    """The protocol was broken."""


class LocalProtocolError(ProtocolError):
    """This side misused the protocol."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol does not allow."""


class VersionMismatch(RemoteProtocolError):
    """The peer speaks another version of the protocol."""

    def __init__(self, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        older = "this side" if ours < theirs else "the other side"
        super().__init__(
            f"this side speaks version {ours} of the skydraft protocol and the other side version {theirs}: "
            f"update {older}"
        )


class TransportError(SkydraftError):
    """The connection could not be made, or was lost."""


class CloudBusy(TransportError):
    """A cloud answers there and takes nobody for now: it has no room, or is not up yet."""


class CloudFault(SkydraftError):
    """The cloud refused; `code` is one of protocol.messages.FaultCode."""

    def __init__(self, code: str, sentence: str, retry_after_s: float | None = None) -> None:
        self.code = code
        self.sentence = sentence
        self.retry_after_s = retry_after_s
        retry = "" if retry_after_s is None else f" (try again in {retry_after_s:g} s)"
        super().__init__(f"the cloud refused: {sentence}{retry}")


def is_for_now(error: TransportError | CloudFault) -> bool:
    """Whether the same may go well later: the cloud could not be reached, or says when to try again."""
    return isinstance(error, TransportError) or error.retry_after_s is not None


class EngineError(SkydraftError):
    """A model cannot do what was asked of it."""


class ModelLoadError(EngineError):
    """A model cannot be loaded."""


class VocabularyMismatch(EngineError):
    """A draft and a target do not share their token ids."""

    def __init__(self, draft_name: str, target_name: str, differences: list[tuple[int, str, str]]) -> None:
        self.draft_name = draft_name
        self.target_name = target_name
        self.differences = differences
        shown = "; ".join(
            f"id {index} is {ours!r} in the draft and {theirs!r} in the target" for index, ours, theirs in differences
        )
        facts = f": {shown}" if shown else ""
        super().__init__(
            f"the draft model {draft_name} and the target model {target_name} do not share a vocabulary{facts}; "
            "use two models with the same tokenizer"
        )


class NoPromise(EngineError):
    """A cloud's model does not promise its own text."""

    def __init__(self, model: str, gap_change: float | None) -> None:
        self.model = model
        self.gap_change = gap_change
        seen = "this was not measured" if gap_change is None else f"by up to {gap_change:.2g} when it was measured"
        super().__init__(
            f"the cloud cannot promise its own text, as --strict asks: logits of {model} differ with what else is "
            f"computed ({seen}); serve it by an engine that promises it and without --fast-math, or leave --strict out"
        )


class PromptRejected(EngineError):
    """The engine cannot take this prompt."""


class CacheOverflow(EngineError):
    """No slot is free, or a slot has no room for more tokens."""


class AudioError(SkydraftError):
    """A clip cannot be read, or has nothing in it."""


class SilentAudio(AudioError):
    """Nothing is to be heard in a clip."""


class DisclosureError(SkydraftError):
    """Something was about to leave the device that its share level keeps there."""


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a setting that is out of range.

    Raises:
        ConfigError: naming the value and what is allowed.
    """
    if not condition:
        raise ConfigError(f"{name} is {value} and must be {allowed}")


def first_line(error: Exception) -> str:
    """The first line of an error of another library, to be quoted in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
