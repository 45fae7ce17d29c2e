"""What a client and each of its texts may be told: settings of a device (`config/device.py`), by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from skydraft.config import DeviceSettings, Offline, with_flags
from skydraft.core import Mode, Objective, ShareLevel


class TextOptions(TypedDict, total=False):
    """Of one text; what is not given is as the client's settings say."""

    mode: Mode | str
    objective: Objective | str
    share: ShareLevel | str
    accept: str
    gate: str
    way: str
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Sequence[tuple[int, float]]
    stop: Sequence[str]
    top_logprobs: int
    seed: int
    max_tokens: int
    max_escalated: float
    block_length: int
    lookup: bool
    keep_home: bool
    offline: Offline
    offline_wait_s: float
    tunnel_wait_s: float
    strict: bool
    any_sound: bool
    any_voice: bool
    evidence: str
    raw: bool


class ClientOptions(TextOptions, total=False):
    """Of a client, for all its texts."""

    cloud: str
    key: str
    draft: str
    models: str
    target: str
    preset: str
    history: str
    private_patterns: Sequence[str]
    max_length: int
    max_prefix_bytes: int
    num_slots: int
    pad: bool
    num_threads: int
    device: str
    dtype: str
    quantize: bool


def settings_of(settings: DeviceSettings, options: ClientOptions | TextOptions) -> DeviceSettings:
    """Settings with options over them.

    Raises:
        ConfigError: an option is unknown or wrong.
    """
    return with_flags(settings, **options) if options else settings
