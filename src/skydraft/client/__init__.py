"""skydraft from Python: what `from skydraft import ...` gives."""

from skydraft.client.async_client import AsyncClient, Caption
from skydraft.client.pipeline import TextGeneration, pipeline
from skydraft.client.started_cloud import Cloud
from skydraft.client.streamed_text import AsyncStreamedText
from skydraft.client.sync_client import Client, StreamedText

__all__ = [
    "AsyncClient",
    "AsyncStreamedText",
    "Caption",
    "Client",
    "Cloud",
    "StreamedText",
    "TextGeneration",
    "pipeline",
]
