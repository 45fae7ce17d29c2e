"""A device with its models loaded and a cloud to work with: the one in the settings, or one started on this machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TypeVar

from msgspec.structs import replace

from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Mode
from skydraft.edge.device import Device
from skydraft.edge.draft_choice import choose_draft
from skydraft.edge.local_cloud import local_cloud
from skydraft.edge.preflight import check_models, meet_cloud
from skydraft.engines.load import load_tokenizer
from skydraft.engines.names import parse_name
from skydraft.engines.settings import num_cores
from skydraft.errors import ConfigError
from skydraft.text.tokenizer import Tokenizer
from skydraft.transport.address import exposure

_Result = TypeVar("_Result")


@asynccontextmanager
async def ready_device(
    settings: DeviceSettings,
    warn: Callable[[str], None] = lambda _: None,
    busy: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
    is_alone: bool = False,
) -> AsyncIterator[Device]:
    """Load the device's models and at the same time start a cloud, if one is needed, after checking that they fit.

    Args:
        warn: told in a sentence what the user should know.
        busy: told what takes a while, for as long as it does.
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
            warn(warning)
        await meet_cloud(settings)
        settings = await choose_draft(settings)
        target = f", starting a cloud with {settings.target}" if starts_cloud(settings) else ""
        with busy(f"Loading {settings.draft}{target} ..."):
            tokenizer = await _in_thread(lambda: load_tokenizer(settings.draft_model, "draft"))
            await check_models(settings, tokenizer.vocabulary)
            device = await _load(settings, tokenizer, stack)
        device.settings = replace(device.settings, mode=mode)
        stack.enter_context(device)
        yield device


def require_language_models(settings: DeviceSettings) -> None:
    """Refuse the embedded models, which are trained to caption audio only.

    Raises:
        ConfigError: one of them would generate text.
    """
    if parse_name(settings.draft_model).is_embedded:
        raise ConfigError(
            "the embedded models can only caption audio: give --draft MODEL and --target MODEL, two language models "
            "with the same tokenizer, such as Qwen/Qwen2.5-0.5B-Instruct and Qwen/Qwen2.5-1.5B-Instruct, or `stories` "
            "for both, which comes with skydraft (--cloud URL in place of --target if a cloud is running)"
        )
    if starts_cloud(settings) and parse_name(settings.target).is_embedded:
        raise ConfigError(
            f"the draft model {settings.draft} has no target: give --target MODEL with the same tokenizer, --cloud URL "
            "if a cloud is running, or --mode edge to generate without one"
        )


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
    """The flags of a cloud on this machine that serves one device, with a slot for each that it has."""
    places = ["--device", settings.device, "--dtype", settings.dtype, "--threads", str(settings.num_threads)]
    length = ["--max-length", str(settings.max_length)] if settings.max_length else []
    memory = ["--slots", str(settings.num_slots), "--prefix-cache", str(settings.max_prefix_bytes)]
    return [*memory, *length, *places]


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
