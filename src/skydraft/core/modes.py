"""What a user chooses: who writes, for what, and what may leave the device."""

from __future__ import annotations

import enum


class Mode(enum.StrEnum):
    """Who writes."""

    HYBRID = "hybrid"  # the device drafts, the cloud judges
    EDGE = "edge"  # the draft model alone
    CLOUD = "cloud"  # the target model alone
    AUTO = "auto"  # one of these, chosen for each text and again during it


class Objective(enum.StrEnum):
    """What a mode, a way to draft and a gate are chosen for."""

    LATENCY = "latency"  # the soonest text
    COST = "cost"  # the least work of the cloud
    ENERGY = "energy"  # the least of the device's battery
    PRIVACY = "privacy"  # little that leaves the device


class ShareLevel(enum.StrEnum):
    """What may leave the device."""

    NONE = "none"  # nothing
    TOKENS = "tokens"  # token ids and control; the cloud does not see the evidence
    FEATURES = "features"  # model inputs too, for example log-mel, which can be inverted to intelligible speech


class Evidence(enum.StrEnum):
    """When the evidence leaves the device, where the share level lets it."""

    ALWAYS = "always"  # with the first message about a text
    UNSURE = "unsure"  # where the device is unsure of its own text
    NEVER = "never"
