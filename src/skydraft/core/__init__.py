"""The nouns that everything shares."""

from skydraft.core.acceptance import (
    AcceptanceRule,
    Exact,
    Lattice,
    MinProb,
    Rank,
    Rejection,
    parse_rule,
)
from skydraft.core.calibration import (
    CALIBRATION_FILE,
    Calibration,
    EmotionConfidence,
    Familiarity,
    LinearScore,
    Subspace,
    read_calibration,
)
from skydraft.core.draft import Draft, LatticeDistribution
from skydraft.core.grammar import Grammar, json_object, json_schema, tool_calls
from skydraft.core.modes import Evidence, Mode, Objective, ShareLevel
from skydraft.core.numbers import read_float, read_int
from skydraft.core.pass_times import PassTimes
from skydraft.core.prompt import (
    DTYPE_BYTES,
    Prompt,
    Segment,
    SegmentKind,
    TensorSegment,
    TokenSegment,
)
from skydraft.core.setting import Setting, SettingField, check_settings, setting_fields
from skydraft.core.text import Finish, Origin, SamplingParams, TextPiece, Token, TokenLogprobs, TokenSignals, tokens_of
from skydraft.core.tree_shape import TreeShape

__all__ = [
    "CALIBRATION_FILE",
    "DTYPE_BYTES",
    "AcceptanceRule",
    "Calibration",
    "Draft",
    "EmotionConfidence",
    "Evidence",
    "Exact",
    "Familiarity",
    "Finish",
    "Grammar",
    "Lattice",
    "LatticeDistribution",
    "LinearScore",
    "MinProb",
    "Mode",
    "Objective",
    "Origin",
    "PassTimes",
    "Prompt",
    "Rank",
    "Rejection",
    "SamplingParams",
    "Segment",
    "SegmentKind",
    "Setting",
    "SettingField",
    "ShareLevel",
    "Subspace",
    "TensorSegment",
    "TextPiece",
    "Token",
    "TokenLogprobs",
    "TokenSegment",
    "TokenSignals",
    "TreeShape",
    "check_settings",
    "json_object",
    "json_schema",
    "parse_rule",
    "read_calibration",
    "read_float",
    "read_int",
    "setting_fields",
    "tokens_of",
    "tool_calls",
]
