"""A device: settings and models made into texts. The class that an app developer uses."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from skydraft.audio.read import Clip
from skydraft.audio.speech import SpeechDetector
from skydraft.audio.windows import HasSpeech, Window, is_heard, split_windows
from skydraft.config import DeviceSettings, require_rule_fits
from skydraft.core import Calibration, Evidence, Exact, Mode, PassTimes, Rank, ShareLevel, parse_rule
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.patience import Patience
from skydraft.edge.report import Report, unwritten
from skydraft.edge.writer import Job, Notify, OnTokens, Writer
from skydraft.engines.base import Engine
from skydraft.engines.load import load_calibration, load_chat_format, load_ears, load_engine, load_tokenizer
from skydraft.engines.model_kind import Hear
from skydraft.engines.settings import EngineSettings
from skydraft.engines.time_passes import time_passes
from skydraft.errors import ConfigError
from skydraft.policies.gate_choice import DraftFacts, choose_gate
from skydraft.policies.way import parse_way
from skydraft.sampling.kernel import kernel
from skydraft.tasks.base import PromptPair
from skydraft.tasks.caption import INSTRUCTION, NO_SPEECH, caption_prompts, emotion_ids
from skydraft.tasks.chat import Conversation, Template, chat_prompts, conversation_prompts
from skydraft.text.tokenizer import Tokenizer

OnWindow = Callable[[Window], None]


class CaptionedWindow(NamedTuple):
    """A window of a clip and its caption: "No speech." where nobody speaks, which no model was asked about."""

    start_s: float
    end_s: float
    report: Report
    has_speech: bool = True


class Device:
    """Captions clips and continues texts as its settings say.

    Usable as `with Device.load(settings) as device: await device.caption(clip)`. Several texts may be under way at once
    (`asyncio.gather`): they share the draft model.

    Args:
        engine: the draft model; None where the cloud writes alone.
        hear: samples -> model input; None where the models have no ears.
        template: the model's chat format; None where it has none.
        draft_times: what the draft model's passes take; None: that is learnt from text.
        calibration: how unsure the draft model is as a rule; None: nobody has measured that.
        has_speech: which windows of a clip are captioned.
    """

    def __init__(
        self,
        settings: DeviceSettings,
        engine: Engine | None,
        tokenizer: Tokenizer,
        hear: Hear | None = None,
        template: Template | None = None,
        draft_times: PassTimes | None = None,
        calibration: Calibration | None = None,
        has_speech: HasSpeech = is_heard,
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self._hear = hear
        self._template = template
        self._facts = DraftFacts(calibration)
        self._caption_facts = DraftFacts(calibration, emotion_ids(tokenizer.encode) if hear is not None else ())
        self.has_speech = has_speech
        self._writer = Writer(engine, draft_times)

    @classmethod
    def load(cls, settings: DeviceSettings, tokenizer: Tokenizer | None = None) -> Device:
        """Load what the settings need: in mode cloud no more than a tokenizer.

        Args:
            tokenizer: of the draft model, where it is loaded already.
        Raises:
            ModelLoadError: the draft model cannot be loaded.
        """
        needs_draft = settings.mode is not Mode.CLOUD or settings.offline == "edge"
        if needs_draft:
            kernel()  # now rather than at the first guess: it may have to be compiled
        engine = load_engine(settings.draft, "draft", engine_settings(settings)) if needs_draft else None
        hear = load_ears(settings.draft, "draft")
        return cls(
            settings,
            engine,
            tokenizer or load_tokenizer(settings.draft, "draft"),
            hear,
            load_chat_format(settings.draft, "draft"),
            time_passes(engine) if engine is not None and settings.mode in (Mode.AUTO, Mode.HYBRID) else None,
            load_calibration(settings.draft, "draft"),
            is_heard if hear is None or settings.any_sound else SpeechDetector().has_speech,
        )

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    async def caption(
        self,
        clip: Clip,
        on_tokens: OnTokens = lambda _: None,
        notify: Notify = lambda _: None,
        on_window: OnWindow = lambda window: None,
        settings: DeviceSettings | None = None,
        instruction: str = INSTRUCTION,
    ) -> list[CaptionedWindow]:
        """Say how the voice in a clip sounds, window by window.

        Args:
            on_tokens: told the tokens as they come.
            notify: told in a sentence when the cloud is lost.
            on_window: told of each window before its tokens come; one without speech has none.
            settings: for this clip, in place of the device's; the models stay those that are loaded.
            instruction: what is to be said of it.
        Raises:
            SkydraftError: as `caption_window`.
        """
        captioned, seed = [], self.draw_seed(settings)
        for window in split_windows(clip.samples, self.has_speech):
            on_window(window)
            window_caption = self.caption_window(window, clip.name, seed, on_tokens, notify, settings, instruction)
            captioned.append(await window_caption)
        return captioned

    async def caption_window(
        self,
        window: Window,
        name: str,
        seed: int,
        on_tokens: OnTokens = lambda _: None,
        notify: Notify = lambda _: None,
        settings: DeviceSettings | None = None,
        instruction: str = INSTRUCTION,
    ) -> CaptionedWindow:
        """Say how the voice in one window sounds.

        Arguments otherwise as `caption`.

        Args:
            name: of the recording, for errors.
            seed: as `draw_seed` gave it.
        Raises:
            SkydraftError: as `Writer.write`; ConfigError where the draft model cannot hear.
        """
        settings = settings or self.settings
        if self._hear is None:
            raise ConfigError(
                f"the model {self.tokenizer.vocabulary.name} reads text only and cannot hear {name}: "
                "give --draft a Qwen2.5-Omni model, or leave it out"
            )
        if not window.has_speech:
            report = unwritten(NO_SPEECH, settings.mode, settings.share)
            return CaptionedWindow(window.start_s, window.end_s, report, has_speech=False)
        share = ShareLevel.NONE if settings.captions_alone else settings.shared_in_prompts
        prompts = caption_prompts(self.tokenizer.encode, self._hear(window.samples), share, instruction)
        report = await self._write(prompts, settings, self._caption_facts, seed, on_tokens, notify)
        return CaptionedWindow(window.start_s, window.end_s, report)

    async def generate(
        self,
        prompt: str,
        on_tokens: OnTokens = lambda _: None,
        notify: Notify = lambda _: None,
        context: str | None = None,
        settings: DeviceSettings | None = None,
    ) -> Report:
        """Answer a prompt in the model's chat format; continue it where there is none, or the settings say raw.

        Arguments and errors otherwise as `caption`.

        Args:
            prompt: the names of special tokens in it are ordinary text, unless the settings say raw.
            context: what the prompt is about, for example a document. It is evidence: the device reads it, and the
                cloud where the share level lets evidence leave.
        """
        settings, template = settings or self.settings, self._template
        render = None if template is None else lambda text: template.render([{"role": "user", "content": text}])
        share = settings.shared_in_prompts
        prompts = chat_prompts(self.tokenizer, prompt, share, render, context, settings.raw)
        return await self._write(prompts, settings, self._facts, self.draw_seed(settings), on_tokens, notify)

    async def chat(
        self,
        messages: Conversation,
        on_tokens: OnTokens = lambda _: None,
        notify: Notify = lambda _: None,
        settings: DeviceSettings | None = None,
    ) -> Report:
        """Say what comes next in a conversation. Arguments and errors otherwise as `caption`.

        Args:
            messages: with role and content, as the model's chat format takes them; where it has none their contents are
                one text, which is continued.
        Raises:
            PromptRejected: the chat format does not take them.
        """
        settings = settings or self.settings
        prompts = conversation_prompts(self.tokenizer, messages, settings.shared_in_prompts, self._template)
        return await self._write(prompts, settings, self._facts, self.draw_seed(settings), on_tokens, notify)

    @property
    def can_hear(self) -> bool:
        """Whether its models take sound."""
        return self._hear is not None

    def draw_seed(self, settings: DeviceSettings | None = None) -> int:
        """For a text, or for all windows of a clip: one seed is enough to have it again. A greedy one needs none."""
        settings = settings or self.settings
        if settings.seed is not None:
            return settings.seed
        return draw_seed() if settings.temperature else 0

    async def _write(
        self,
        prompts: PromptPair,
        settings: DeviceSettings,
        facts: DraftFacts,
        seed: int,
        on_tokens: OnTokens,
        notify: Notify,
    ) -> Report:
        vocabulary = self.tokenizer.vocabulary
        # A cloud that sees as much as the device decides; one that does not only vetoes what it finds unlikely.
        usual_rule = Exact() if prompts.does_cloud_see_all else Rank()
        rule = usual_rule if settings.accept is None else parse_rule(settings.accept)
        evidence, has_evidence = settings.evidence_leaves, prompts.edge.has_evidence
        if evidence is Evidence.UNSURE and (settings.keeps_to_itself or not has_evidence):
            evidence = Evidence.ALWAYS  # nothing is to be kept back
        require_rule_fits(settings, rule, evidence)
        job = Job(
            settings=settings,
            prompts=prompts,
            vocabulary=vocabulary,
            decode=self.tokenizer.decode,
            sampling=settings.sampling(seed, tuple(vocabulary.end_ids)),
            rule=rule,
            gate=choose_gate(settings.gate, rule, evidence, settings.objective, facts),
            patience=Patience(settings.offline, settings.offline_wait_s),
            evidence=evidence,
            way=parse_way(settings.way),
            address=CloudAddress(settings.cloud, settings.key) if settings.cloud and prompts.cloud else None,
        )
        return await self._writer.write(job, on_tokens, notify)


def engine_settings(settings: DeviceSettings) -> EngineSettings:
    """How the draft model is to be loaded."""
    return EngineSettings(
        num_slots=settings.num_slots,
        max_length=settings.max_length,
        device=settings.device,
        dtype=settings.dtype,
        num_threads=settings.num_threads,
        quantize=settings.quantize,
    )


def draw_seed() -> int:
    """A random seed, small enough that every reader of JSON keeps it exactly."""
    return secrets.randbelow(2**53)
