"""What can be told before weights are loaded: that the two models share a vocabulary, and that the text will fit."""

from __future__ import annotations

import asyncio

import msgspec

from skydraft.config import DeviceSettings
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import inquire
from skydraft.edge.device import engine_settings
from skydraft.edge.mismatch import explain_mismatch
from skydraft.engines.load import find_max_length, load_tokenizer
from skydraft.engines.names import parse_name
from skydraft.engines.settings import EngineSettings
from skydraft.errors import CloudBusy, ConfigError, TransportError
from skydraft.text.vocabulary import Vocabulary, fit
from skydraft.transport.websocket import connect

TERMS_PATH = "/v1/terms"
ANSWER_S = 5.0  # a cloud that says nothing for so long is asked again once the model is loaded
WAY_OUT = "lower --max-tokens, or raise --max-length where the model takes more"


class CloudTerms(msgspec.Struct):
    """What /v1/terms answers: the digest of the first num_tokens ids, in hexadecimal, and the longest text."""

    num_tokens: int
    digest: str
    max_tokens: int

    def are_met_by(self, ours: Vocabulary) -> bool:
        """Whether those ids mean the same to us."""
        return 0 < self.num_tokens <= ours.num_tokens and ours.digest(self.num_tokens).hex() == self.digest


async def ask_terms(address: CloudAddress, ours: Vocabulary) -> CloudTerms:
    """Ask a cloud for its terms, as far as our vocabulary goes.

    Raises:
        TransportError: it does not say.
    """
    return await inquire(address, f"{TERMS_PATH}?num_tokens={ours.num_tokens}", CloudTerms, ANSWER_S)


async def meet_cloud(settings: DeviceSettings) -> None:
    """Knock at the cloud, so that a wrong address, path or key is told before a model is loaded and patience begins.

    One that is not needed for certain is not asked, nor one that the device can do without for now.

    Raises:
        ConfigError, CloudFault, TransportError: as `transport.websocket.connect`; but the device waits later for a
            cloud that takes no one for now, where the settings say so.
    """
    if settings.cloud is None or settings.keeps_to_itself or settings.writes_on_offline or settings.history:
        return
    try:
        connection = await connect(settings.cloud, token=settings.key)
    except CloudBusy:
        if settings.offline == "fail":
            raise
    else:
        await connection.close()


async def check_models(settings: DeviceSettings, ours: Vocabulary) -> None:
    """Refuse what would be refused when the models are loaded.

    Args:
        ours: the draft model's vocabulary.
    Raises:
        VocabularyMismatch: the models do not share their token ids.
        ConfigError: the text is longer than the model that writes it takes.
        ModelLoadError: there is no such model.
    """
    if settings.keeps_to_itself:
        _require_room(settings, settings.draft, find_max_length(settings.draft, "draft", engine_settings(settings)))
    elif settings.cloud is None:
        await asyncio.to_thread(_check_target, settings, ours)
    else:
        await _check_cloud(settings, CloudAddress(settings.cloud, settings.key), ours)


def _check_target(settings: DeviceSettings, ours: Vocabulary) -> None:
    """Of a cloud that the command will start on this machine."""
    target, target_settings = settings.target, EngineSettings(max_length=settings.max_length)
    _require_room(settings, target, find_max_length(target, "target", target_settings))
    if not parse_name(target).kind.is_remote:
        fit(ours, load_tokenizer(target, "target").vocabulary)


async def _check_cloud(settings: DeviceSettings, address: CloudAddress, ours: Vocabulary) -> None:
    """Of one that runs. Whether it can be reached is not told here: patience may be asked for, or the device alone."""
    try:
        terms = await ask_terms(address, ours)
    except TransportError:
        return
    if not terms.are_met_by(ours):
        raise await explain_mismatch(address, ours)
    _require_room(settings, f"of the cloud at {address.url}", terms.max_tokens, "lower --max-tokens")


def _require_room(settings: DeviceSettings, model: str, most: int | None, way_out: str = WAY_OUT) -> None:
    if most is not None and settings.max_tokens > most:
        raise ConfigError(
            f"a text of {settings.max_tokens:,} tokens was asked for and the model {model} holds {most:,} of a text "
            f"and its prompt: {way_out}"
        )
