"""The border of the device: every message to a cloud passes here, is compared with the share level, and is recorded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from skydraft.core import Evidence, SamplingParams, ShareLevel
from skydraft.errors import DisclosureError
from skydraft.protocol import codec, messages
from skydraft.protocol.limits import FrameLimits


@dataclass
class DisclosureRecord:
    """What crossed the border, for the user to see.

    up, down: payload bytes by kind.
    contents: what left, by kind: how many token ids, which tensors.
    """

    level: ShareLevel
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    contents: Counter[str] = field(default_factory=Counter)

    @property
    def has_evidence(self) -> bool:
        """Whether something that the device observed has left it."""
        return any(kind.startswith("evidence") for kind in self.contents)

    def add(self, other: DisclosureRecord) -> None:
        """Count what crossed it for another text too; the level is then the higher one."""
        self.level = max(self.level, other.level, key=list(ShareLevel).index)
        self.up += other.up
        self.down += other.down
        self.contents += other.contents


class Border:
    """Turns messages into bytes and back, for one session.

    Args:
        level: what may leave.
        evidence: when the level's evidence may; `unsure`: once it is released.
    """

    def __init__(self, level: ShareLevel, evidence: Evidence = Evidence.ALWAYS) -> None:
        self.record = DisclosureRecord(level)
        self._evidence = evidence
        self._limits = FrameLimits()

    def release_evidence(self) -> None:
        """The gate has found a block that the device is unsure of: the evidence may leave, as far as the level goes."""
        if self._evidence is Evidence.UNSURE:
            self._evidence = Evidence.ALWAYS

    def let_out(self, message: messages.EdgeMessage) -> bytes:
        """Encode a message that may leave.

        Raises:
            DisclosureError: the share level, or the rule of the evidence, keeps something in it on the device; nothing
                was sent.
        """
        level = self.record.level
        if level is ShareLevel.NONE:
            raise DisclosureError("share level none lets nothing leave the device, and a message was about to")
        if isinstance(message, messages.Open):
            if level is not ShareLevel.FEATURES:
                _require_no_evidence(message, f"share level {level.value}", "use share level features to send it")
            elif self._evidence is not Evidence.ALWAYS:
                _require_no_evidence(message, f"evidence {self._evidence.value}", "use evidence always to send it")
        data = codec.encode(message)
        up, contents = self.record.up, self.record.contents
        match message:
            case messages.Open():
                tensors = [segment for segment in message.segments if isinstance(segment, messages.WireTensor)]
                num_tensor_bytes = sum(len(tensor.data) for tensor in tensors)
                up["prompt"] += len(data) - num_tensor_bytes
                if tensors:
                    up["features"] += num_tensor_bytes
                for segment in message.segments:
                    contents[_content_of(segment)] += 1
                contents.update(_words_of(message.sampling))
            case messages.Offer():
                up["drafts"] += len(data)
                contents["drafts of the caption or text"] += 1
            case _:
                up["control"] += len(data)
        return data

    def let_in(self, data: bytes) -> messages.CloudMessage:
        """Decode what arrived.

        Raises:
            RemoteProtocolError: it is not a message.
        """
        message = codec.decode_cloud_message(data, self._limits)
        self.record.down[_DOWN_KINDS.get(type(message), "control")] += len(data)
        return message


_DOWN_KINDS = {messages.Verdict: "verdicts", messages.Tokens: "tokens"}


def _require_no_evidence(message: messages.Open, rule: str, way_out: str) -> None:
    for segment in message.segments:
        if isinstance(segment, messages.WireTensor):
            raise DisclosureError(
                f"{rule} keeps model inputs on the device, and {segment.name} of shape {list(segment.shape)} was about "
                f"to leave; {way_out}"
            )
        if segment.is_evidence:
            raise DisclosureError(
                f"{rule} keeps what the device observed there, and {len(segment.packed_ids)} bytes of such text were "
                f"about to leave; {way_out}"
            )


def _words_of(sampling: SamplingParams) -> dict[str, int]:
    """What the sampling says in words, by kind; it is instruction."""
    words = {"stop strings": len(sampling.stop), "grammar": int(sampling.grammar is not None)}
    return {kind: count for kind, count in words.items() if count}


def _content_of(segment: messages.WireTokens | messages.WireTensor) -> str:
    if isinstance(segment, messages.WireTensor):
        return f"evidence: {segment.name} {list(segment.shape)} {segment.dtype}"
    return "evidence as text" if segment.is_evidence else "instruction text"
