"""A device with its models loaded and a cloud to work with: the one in the settings, or one started on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from msgspec.structs import replace

from skydraft.cli.screen import Screen
from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Evidence, Mode, ShareLevel, parse_rule
from skydraft.edge.device import Device
from skydraft.edge.draft_choice import choose_draft
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.preflight import check_models, meet_cloud
from skydraft.engines.load import load_tokenizer
from skydraft.engines.settings import num_cores
from skydraft.text.tokenizer import Tokenizer
from skydraft.transport.address import exposure

_Result = TypeVar("_Result")


@asynccontextmanager
async def ready_device(settings: DeviceSettings, screen: Screen, is_alone: bool = False) -> AsyncIterator[Device]:
    """Load the device's models and at the same time start a cloud, if one is needed, after checking that they fit.

    Args:
        is_alone: no cloud is needed, though the settings could do with one.
    Raises:
        VocabularyMismatch, ConfigError: as `check_models`, before weights are loaded.
        ConfigError, ModelLoadError, TransportError: as `choose_draft`.
        ModelLoadError: a model cannot be loaded.
        TransportError, CloudFault: the cloud does not start, or as `meet_cloud`.
    """
    mode = settings.mode
    if is_alone:
        settings = replace(settings, mode=Mode.EDGE)
    async with AsyncExitStack() as stack:
        if warning := None if settings.cloud is None else exposure(settings.cloud, has_key=bool(settings.key)):
            screen.warn(warning)
        await meet_cloud(settings)
        settings = await choose_draft(settings)
        target = f", starting a cloud with {settings.target}" if starts_cloud(settings) else ""
        with screen.busy(f"Loading {settings.draft}{target} ..."):
            tokenizer = await _in_thread(lambda: load_tokenizer(settings.draft, "draft"))
            await check_models(settings, tokenizer.vocabulary)
            device = await _load(settings, tokenizer, stack)
        device.settings = replace(device.settings, mode=mode)
        stack.enter_context(device)
        yield device


def deaf_cloud(settings: DeviceSettings, has_seen: str, see: str) -> str | None:
    """What to say where a text is the word of a cloud that does not have the evidence.

    Args:
        has_seen: what it has not done, for example "heard the clip".
        see: how one does that.
    """
    if settings.evidence_leaves is not Evidence.NEVER or settings.keeps_to_itself:
        return None
    is_of_level = settings.share is ShareLevel.TOKENS
    kept, way_out = ("--share tokens", "--share features") if is_of_level else ("--evidence never", "--evidence unsure")
    if settings.mode is Mode.CLOUD:
        way_out = way_out if is_of_level else "--evidence always"
        return f"with {kept} the cloud writes without having {has_seen}; {way_out} lets it {see}"
    if settings.accept is not None and parse_rule(settings.accept).promises_cloud_text:
        return (
            f"with {kept} and --accept {settings.accept} the text is that of a cloud that has not {has_seen}; "
            f"use {way_out}, or --accept rank:20"
        )
    return None


async def _load(settings: DeviceSettings, tokenizer: Tokenizer, stack: AsyncExitStack) -> Device:
    if not starts_cloud(settings):
        return await _in_thread(lambda: Device.load(settings, tokenizer))
    settings = _sharing_cores(settings)
    loading = _in_thread(lambda: Device.load(settings, tokenizer))
    cloud = local_cloud(settings.target, *_cloud_arguments(settings))
    starting = asyncio.create_task(stack.enter_async_context(cloud))
    try:
        device, address = await asyncio.gather(loading, starting)
    except BaseException:
        starting.cancel()
        await asyncio.wait({starting})
        raise
    device.settings = with_flags(settings, cloud=address)
    return device


def starts_cloud(settings: DeviceSettings) -> bool:
    """Whether a cloud is started on this machine."""
    return settings.cloud is None and not settings.keeps_to_itself


def _sharing_cores(settings: DeviceSettings) -> DeviceSettings:
    """Give device and cloud half of the cores each: two processes with a thread per core slow each other down."""
    return settings if settings.num_threads else replace(settings, num_threads=max(1, num_cores() // 2))


def _cloud_arguments(settings: DeviceSettings) -> list[str]:
    """The flags of a cloud on this machine that serves one device."""
    places = ["--device", settings.device, "--dtype", settings.dtype, "--threads", str(settings.num_threads)]
    length = ["--max-length", str(settings.max_length)] if settings.max_length else []
    return ["--slots", "1", *length, *places]


def _in_thread(call: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Run a call in a daemon thread, so that Ctrl-C ends the process while a large model is loaded."""
    future: Future[_Result] = Future()

    def work() -> None:
        future.set_running_or_notify_cancel()
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="skydraft-load").start()
    return asyncio.wrap_future(future)
