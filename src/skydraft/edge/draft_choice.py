"""`--draft auto`: the smallest model on this machine whose tokens are those of the cloud's model.

The smallest, because a device drafts as fast as it reads weights, and a cloud does not say how large its own model is.
`--draft lookup` takes no more of a model than its tokens, so there it may be the cloud's own.
Nothing is fetched: what could be is named, with its size and licence, for the user to choose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from msgspec.structs import replace

from skydraft.config import AUTO_DRAFT, LOOKUP_DRAFT, DeviceSettings
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import HEALTH_PATH, CloudFacts, inquire
from skydraft.edge.preflight import ask_terms
from skydraft.engines.load import load_tokenizer
from skydraft.errors import ConfigError, ModelLoadError, VocabularyMismatch
from skydraft.policies.known_models import KnownModel, known_drafts, known_families
from skydraft.text.vocabulary import Vocabulary, fit

WEIGHTS = ("*.safetensors", "*.gguf")

Shares: TypeAlias = Callable[[Vocabulary], Coroutine[Any, Any, bool]]


class _Target(NamedTuple):
    """The model that judges. shares: whether a vocabulary's ids mean the same to it."""

    name: str
    shares: Shares


class _Candidate(NamedTuple):
    """A model on this machine. name: as --draft takes it. num_bytes: of its weights."""

    num_bytes: int
    name: str


async def choose_draft(settings: DeviceSettings) -> DeviceSettings:
    """Put a model's name in place of `auto`, and behind `lookup`; other settings are returned as they are.

    Raises:
        ConfigError: there is no cloud whose tokens could be asked for, or no such model here; with the known ones.
        TransportError: the cloud does not say which tokens it has.
        ModelLoadError: the cloud's model, where it is to be started here, cannot be read.
    """
    is_lookup = settings.draft == LOOKUP_DRAFT
    if is_lookup and settings.cloud is None:
        return replace(settings, draft=f"{LOOKUP_DRAFT}:{settings.target}")
    if settings.draft != AUTO_DRAFT and not is_lookup:
        return settings
    if settings.keeps_to_itself:
        raise ConfigError(
            f"--draft {AUTO_DRAFT} takes a model that has the cloud's tokens, and with --mode edge, --share none or "
            "--mode auto --objective privacy no cloud is asked: name a model"
        )
    target = await (_running_target(settings) if settings.cloud else asyncio.to_thread(_own_target, settings.target))
    candidates, unread = sorted(_candidates(settings)), list[str]()
    for candidate in candidates:
        try:
            vocabulary = (await asyncio.to_thread(load_tokenizer, candidate.name, "draft")).vocabulary
        except ModelLoadError as error:
            unread.append(str(error))
            continue
        if (is_lookup or vocabulary.name != target.name) and await target.shares(vocabulary):
            return replace(settings, draft=f"{LOOKUP_DRAFT}:{candidate.name}" if is_lookup else candidate.name)
    raise ConfigError(_refusal(target.name, settings, len(candidates), unread))


async def _running_target(settings: DeviceSettings) -> _Target:
    address = CloudAddress(settings.cloud or "", settings.key)
    facts = await inquire(address, HEALTH_PATH, CloudFacts)

    async def shares(vocabulary: Vocabulary) -> bool:
        return (await ask_terms(address, vocabulary)).are_met_by(vocabulary)

    return _Target(facts.model or f"of the cloud at {address.url}", shares)


def _own_target(model: str) -> _Target:
    """Of a cloud that the command will start on this machine."""
    theirs = load_tokenizer(model, "target").vocabulary

    async def shares(vocabulary: Vocabulary) -> bool:
        try:
            return fit(vocabulary, theirs) > 0
        except VocabularyMismatch:
            return False

    return _Target(theirs.name, shares)


def _candidates(settings: DeviceSettings) -> Iterable[_Candidate]:
    """GGUF files and model folders in the settings' folder, and the known drafts that were fetched before."""
    if settings.models is not None:
        folder = Path(settings.models).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}, in which --draft {AUTO_DRAFT} is to look for models")
        for path in (folder, *folder.iterdir()):
            if path.suffix == ".gguf" and path.is_file():
                yield _Candidate(path.stat().st_size, str(path))
            elif (path / "config.json").is_file():
                yield _Candidate(_num_bytes(path), str(path))
    for family in known_families():
        for model in family.models:
            if model.file and (fetched := _fetched(model)):
                yield _Candidate(_num_bytes(fetched), model.file)


def _num_bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for pattern in WEIGHTS for file in path.glob(pattern))


def _fetched(model: KnownModel) -> Path | None:
    """Where a known draft is in Hugging Face's cache; None where it is not."""
    import huggingface_hub  # takes a while and is seldom needed

    owner, name, *file = model.file.split("/")
    found = huggingface_hub.try_to_load_from_cache(f"{owner}/{name}", file[0] if file else "config.json")
    if not isinstance(found, str):
        return None
    return Path(found) if file else Path(found).parent


def _refusal(target: str, settings: DeviceSettings, num_candidates: int, unread: list[str]) -> str:
    """Says that no model here fits, and which would."""
    where = f"in {settings.models}" if settings.models else "fetched from Hugging Face (--models names a folder)"
    sentence = f"none of {num_candidates} models {where} shares the token ids of the cloud's model {target}"
    if unread:
        sentence += f"; {len(unread)} of them cannot be read ({unread[0]})"
    if settings.draft == LOOKUP_DRAFT:
        return f"{sentence}: name one that does, as --draft {LOOKUP_DRAFT}:MODEL; of it no more than its tokens is read"
    drafts = [pair.draft for pair in known_drafts(target)]
    known = [f"--draft {draft.file} ({draft.size_gb:g} GB, {draft.licence})" for draft in drafts]
    if not known:
        return f"{sentence}, and no published one is known that does: name one with --draft"
    return f"{sentence}; published models that do, and are fetched when they are named: {', '.join(known)}"
