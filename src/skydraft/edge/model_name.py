"""What the model whose text a device writes is called."""

from __future__ import annotations

from skydraft.config import DeviceSettings
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.cloud_http import HEALTH_PATH, CloudFacts, inquire
from skydraft.engines.load import load_tokenizer
from skydraft.errors import TransportError


async def name_of_model(settings: DeviceSettings) -> str:
    """The cloud's model, as the cloud calls it; the draft model where it writes alone, or the cloud does not say."""
    if settings.cloud is not None and not settings.keeps_to_itself:
        try:
            facts = await inquire(CloudAddress(settings.cloud, settings.key), HEALTH_PATH, CloudFacts)
        except TransportError:
            facts = CloudFacts()
        if facts.model is not None:
            return facts.model
    return load_tokenizer(settings.draft, "draft").vocabulary.name
