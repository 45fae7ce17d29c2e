"""Models that are tables of random logits: `table:name=value,...`."""

from __future__ import annotations

from skydraft.engines.base import Engine, EngineLimits
from skydraft.engines.emulated.table_spec import PREFIX, load_table, parse_table, spec_vocabulary
from skydraft.engines.emulated.words import LetterTokenizer, WordTokenizer
from skydraft.engines.log_mel import LogMel
from skydraft.engines.model_kind import Hear, ModelKind
from skydraft.engines.settings import EngineSettings
from skydraft.text.checkpoint import DEFAULT_MAX_LENGTH, Role
from skydraft.text.tokenizer import Tokenizer


def _load_engine(source: str, role: Role, settings: EngineSettings) -> Engine:
    return load_table(source, EngineLimits(settings.num_slots, _find_max_length(source, role, settings)))


def _load_tokenizer(source: str, role: Role) -> Tokenizer:
    spec = parse_table(source)
    make = LetterTokenizer if spec.letters else WordTokenizer
    return make(spec_vocabulary(spec, source))


def _load_ears(source: str, role: Role) -> Hear | None:
    return LogMel() if parse_table(source).tensors else None


def _find_max_length(source: str, role: Role, settings: EngineSettings) -> int:
    return settings.max_length or DEFAULT_MAX_LENGTH


TABLE = ModelKind(
    includes=lambda source: source.startswith(PREFIX),
    load_engine=_load_engine,
    load_tokenizer=_load_tokenizer,
    load_chat_format=lambda source, role: None,
    find_max_length=_find_max_length,
    load_ears=_load_ears,
)
