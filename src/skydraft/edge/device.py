"""A device: settings and models made into texts. The class that an app developer uses."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from msgspec.structs import replace

from skydraft.audio.read import Clip
from skydraft.audio.speech import SpeechDetector
from skydraft.audio.windows import HasSpeech, Window, is_heard, split_windows
from skydraft.config import DeviceSettings, require_rule_fits
from skydraft.core import (
    Calibration,
    Evidence,
    Exact,
    Grammar,
    Mode,
    Origin,
    PassTimes,
    Rank,
    ShareLevel,
    TextPiece,
    Token,
    parse_rule,
)
from skydraft.decoding.lookup import LookupSources
from skydraft.edge import ears
from skydraft.edge.border import DisclosureRecord
from skydraft.edge.captioned_window import CaptionedWindow
from skydraft.edge.cloud_address import CloudAddress
from skydraft.edge.in_thread import in_thread
from skydraft.edge.job import Job, Notify, OnText
from skydraft.edge.kept_agreement import KeptAgreement
from skydraft.edge.kept_connection import KeptConnection
from skydraft.edge.kept_texts import KeptText
from skydraft.edge.own_texts import OwnTexts
from skydraft.edge.patience import Patience
from skydraft.edge.ready_prompt import ReadyPrompt
from skydraft.edge.report import Report, unwritten
from skydraft.edge.review import Review, review
from skydraft.edge.text_pace import TextPace
from skydraft.edge.writer import Writer
from skydraft.engines.base import Engine
from skydraft.engines.load import load_calibration, load_chat_format, load_ears, load_engine, load_tokenizer
from skydraft.engines.model_kind import Hear
from skydraft.engines.settings import EngineSettings
from skydraft.engines.time_passes import time_passes
from skydraft.errors import CloudFault, ConfigError, DisclosureError, TransportError, is_for_now
from skydraft.policies.gate_choice import DraftFacts, choose_gate
from skydraft.policies.way import parse_way
from skydraft.sampling.kernel import kernel
from skydraft.tasks.base import PromptPair
from skydraft.tasks.caption import INSTRUCTION, NO_SPEECH, caption_prompts, emotion_tokens
from skydraft.tasks.chat import Conversation, Template, Tools, chat_prompts, conversation_prompts, text_kind
from skydraft.text.private_text import private_kinds, words_in
from skydraft.text.token_reader import TokenReader
from skydraft.text.tokenizer import Tokenizer

LONG_CHARS = 2**13  # some 15 ms of a tokenizer in Python

OnWindow = Callable[[Window], None]


class Device:
    """Captions clips and continues texts as its settings say.

    Usable as `with Device.load(settings) as device: await device.caption(clip)`. Several texts may be under way at once
    (`asyncio.gather`): they share the draft model.

    Args:
        engine: the draft model; None where the cloud writes alone.
        hear: samples -> model input; None where the models have no ears.
        template: the model's chat format; None where it has none.
        draft_times: what the draft model's passes take; None: that is learnt from text.
        calibration: how sure the draft model may be of what; None: nobody has measured that.
        has_speech: which windows of a clip are captioned.
        agreement: of the draft model with its cloud, learnt before; None: it is not known, and not kept.
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
        agreement: KeptAgreement | None = None,
    ) -> None:
        self.settings = settings
        self.tokenizer = tokenizer
        self._hear = hear
        self._template = template
        self._facts = DraftFacts(calibration)
        names = emotion_tokens(tokenizer.encode) if hear is not None else {}
        self._caption_facts = DraftFacts(calibration, names)
        self._emotion_tokens = names if calibration is not None and calibration.confidence is not None else {}
        self.has_speech = has_speech
        self._writer = Writer(engine, draft_times, agreement, settings.max_prefix_bytes)
        self._reader = TokenReader(tokenizer)
        self._has_draft = engine is not None
        self._kept: KeptConnection | None = None
        self._history = None if settings.history is None else OwnTexts(Path(settings.history), self._kept_ids)

    @classmethod
    def load(cls, settings: DeviceSettings, tokenizer: Tokenizer | None = None) -> Device:
        """Load what the settings need: in mode cloud, and where drafts are looked up, no more than a tokenizer.

        Args:
            tokenizer: of the draft model, where it is loaded already.
        Raises:
            ModelLoadError: the draft model cannot be loaded.
        """
        may_write = settings.mode is not Mode.CLOUD or settings.writes_on_offline or settings.keep_home
        needs_draft, model = may_write and not settings.has_only_lookup, settings.draft_model
        if needs_draft:
            kernel()  # now rather than at the first guess: it may have to be compiled
        engine = load_engine(model, "draft", engine_settings(settings)) if needs_draft else None
        hear = load_ears(model, "draft")
        return cls(
            settings,
            engine,
            tokenizer or load_tokenizer(model, "draft"),
            hear,
            load_chat_format(model, "draft"),
            time_passes(engine) if engine is not None and settings.mode in (Mode.AUTO, Mode.HYBRID) else None,
            load_calibration(model, "draft"),
            is_heard if hear is None or settings.any_sound else SpeechDetector().has_speech,
            None if engine is None else KeptAgreement.of(model, settings.cloud or settings.target),
        )

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._kept is not None:
            self._kept.close()
        self._writer.close()

    def keep_connection(self) -> None:
        """From now on texts go over the connection of the one before where they can: they are of one conversation.

        The cloud then knows that they are; of texts that each have a connection it does not.
        """
        self._kept = self._kept or KeptConnection()

    async def caption(
        self,
        clip: Clip,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        on_window: OnWindow = lambda window: None,
        settings: DeviceSettings | None = None,
        instruction: str = INSTRUCTION,
        pace: TextPace | None = None,
    ) -> list[CaptionedWindow]:
        """Say how the voice in a clip sounds, window by window.

        Args:
            on_text: told the text as it comes.
            notify: told in a sentence when the cloud is lost.
            on_window: told of each window before its text comes; one without speech has none.
            settings: for this clip, in place of the device's; the models stay those that are loaded.
            instruction: what is to be said of it.
            pace: whether its text may grow at the moment; None: always.
        Raises:
            SkydraftError: as `caption_window`.
        """
        captioned, seed = [], self.draw_seed(settings)
        for window in split_windows(clip.samples, self.has_speech):
            on_window(window)
            window_caption = self.caption_window(window, clip.name, seed, on_text, notify, settings, instruction, pace)
            captioned.append(await window_caption)
        return captioned

    async def caption_window(
        self,
        window: Window,
        name: str,
        seed: int,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        settings: DeviceSettings | None = None,
        instruction: str = INSTRUCTION,
        pace: TextPace | None = None,
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
        features = self._hear(window.samples)
        is_sure = ears.knows(self._facts.calibration, features)
        if is_sure is False and not (settings.any_voice or settings.captions_are_clouds):
            report = ears.measured(window.samples, settings)
            on_text(report.pieces)
            return CaptionedWindow(window.start_s, window.end_s, report, is_sure=False)
        share = ShareLevel.NONE if settings.captions_alone else settings.shared_in_prompts
        prompts = caption_prompts(self.tokenizer.encode, features, share, instruction)
        job = self._job(prompts, settings, self._caption_facts, seed, pace, kind="caption")
        if is_sure is not False:
            job = dataclasses.replace(job, emotion_tokens=self._emotion_tokens)
        report = await self._writer.write(job, on_text, notify)
        confidence = ears.confidence(self._facts.calibration, report.emotion_word)
        return CaptionedWindow(window.start_s, window.end_s, report, is_sure=is_sure, confidence=confidence)

    async def generate(
        self,
        prompt: str,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        context: str | None = None,
        settings: DeviceSettings | None = None,
        prediction: str | None = None,
        grammar: Grammar | None = None,
    ) -> Report:
        """Answer a prompt in the model's chat format; continue it where there is none, or the settings say raw.

        Arguments and errors otherwise as `caption`.

        Args:
            prompt: the names of special tokens in it are ordinary text, unless the settings say raw.
            context: what the prompt is about, for example a document. It is evidence: the device reads it, and the
                cloud where the share level lets evidence leave.
            prediction: what the text is expected to be, such as a file that is to be corrected: one more guess, which
                leaves the device as others do. Where it is right, the text is there sooner.
            grammar: that the text follows; the cloud is told it.
        Raises:
            DisclosureError: the prompt is to stay on the device, which has no draft model to write with.
        """
        settings = settings or self.settings
        ready = await self.ready_prompt(prompt, settings, context, prediction, grammar)
        return await self.write_ready(ready, settings, on_text, notify)

    async def chat(
        self,
        messages: Conversation,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        settings: DeviceSettings | None = None,
        prediction: str | None = None,
        grammar: Grammar | None = None,
        tools: Tools = (),
    ) -> Report:
        """Say what comes next in a conversation. Arguments and errors otherwise as `generate`.

        Args:
            messages: with role and content, as the model's chat format takes them; where it has none their contents are
                one text, which is continued.
            grammar: that the text follows; the cloud is told it.
            tools: that the model may call, as OpenAI's API has them: its chat format tells it of them.
        Raises:
            PromptRejected: the chat format does not take them.
        """
        settings = settings or self.settings
        ready = await self.ready_chat(messages, settings, prediction, grammar, tools)
        return await self.write_ready(ready, settings, on_text, notify)

    async def ready_prompt(
        self,
        prompt: str,
        settings: DeviceSettings,
        context: str | None = None,
        prediction: str | None = None,
        grammar: Grammar | None = None,
    ) -> ReadyPrompt:
        """What `generate` does before the text begins: once for all texts that answer the same. Arguments as there.

        Args:
            settings: of the texts, which may differ in their seeds.
        Raises:
            ConfigError: the grammar is none.
        """
        told = context if settings.shared_in_prompts is ShareLevel.FEATURES else None
        words = [text for text in (prompt, told, prediction) if text]
        return await self._ready(
            lambda: ReadyPrompt(
                self._prompts(prompt, settings, context),
                self._private_kinds(words, settings, grammar),
                question=None if context or grammar else prompt,
                expected_ids=self._expected_ids(prediction),
                grammar=grammar,
                kind="about a context" if context else "",
            ),
            [*words, context],
            grammar,
        )

    async def ready_chat(
        self,
        messages: Conversation,
        settings: DeviceSettings,
        prediction: str | None = None,
        grammar: Grammar | None = None,
        tools: Tools = (),
    ) -> ReadyPrompt:
        """What `chat` does before the text begins, otherwise as `ready_prompt`.

        Raises:
            ConfigError: the grammar is none. PromptRejected: the chat format does not take the messages.
        """
        is_question = [message.get("role") for message in messages] == ["user"] and not grammar and not tools
        words, share = [*words_in([*messages, *tools]), prediction or ""], settings.shared_in_prompts
        return await self._ready(
            lambda: ReadyPrompt(
                conversation_prompts(self.tokenizer, messages, share, self._template, tools),
                self._private_kinds(words, settings, grammar),
                question=str(messages[0].get("content") or "") if is_question else None,
                expected_ids=self._expected_ids(prediction),
                grammar=grammar,
                kind=text_kind(messages, tools),
            ),
            words,
            grammar,
        )

    async def write_ready(
        self,
        ready: ReadyPrompt,
        settings: DeviceSettings,
        on_text: OnText = lambda _: None,
        notify: Notify = lambda _: None,
        pace: TextPace | None = None,
    ) -> Report:
        """Write a text: at home, where something private would leave, and where nobody can write, the one of before.

        Arguments and errors otherwise as `generate`.

        Args:
            ready: made with these settings, but for their seed.
            pace: whether the text may grow at the moment; None: always.
        """
        if ready.private_kinds:
            return await self._write_at_home(ready, settings, on_text, notify, pace)
        shown: list[TextPiece] = []

        def show(pieces: Sequence[TextPiece]) -> None:
            shown.extend(pieces)
            on_text(pieces)

        seed = self.draw_seed(settings)
        told = ready.expected_ids, ready.grammar, ready.kind
        job = self._job(ready.prompts, settings, self._facts, seed, pace, *told)
        history, question = self._history, ready.question
        try:
            report = await self._writer.write(job, show, notify)
        except (TransportError, CloudFault) as error:
            answer = history.answer(question) if history and question and is_for_now(error) and not shown else None
            if answer is None:
                raise
            notify(f"{error}; this is how the same question was answered before")
            return self._repeat(answer, settings, on_text)
        # What no cloud has seen is not to leave later either.
        if history and question and report.ended_early is None and not settings.keeps_to_itself:
            history.add(question, report.text)
        return report

    @property
    def can_hear(self) -> bool:
        """Whether its models take sound."""
        return self._hear is not None

    @property
    def has_draft(self) -> bool:
        """Whether it has a model to write with."""
        return self._has_draft

    @property
    def has_chat_format(self) -> bool:
        """Whether its models take conversations; what is said to others they continue."""
        return self._template is not None

    @property
    def disclosed(self) -> DisclosureRecord:
        """What has left it for all texts that have ended, those that were broken off too."""
        return self._writer.disclosed

    def draw_seed(self, settings: DeviceSettings | None = None) -> int:
        """For a text, or for all windows of a clip: one seed is enough to have it again. A greedy one needs none."""
        settings = settings or self.settings
        if settings.seed is not None:
            return settings.seed
        return draw_seed() if settings.temperature else 0

    async def review(self, prompt: str, report: Report, context: str | None = None) -> list[Review]:
        """Say what the cloud would have written where the device wrote alone; the text does not change.

        Args:
            prompt, context: as they were given for the text. report: of it.
        Raises:
            TransportError, CloudFault: the cloud cannot be reached, or refuses.
            ConfigError: as `edge.review.review`.
        """
        prompts = self._prompts(prompt, self.settings, context)
        return await review(self._job(prompts, self.settings, self._facts, report.seed or 0), report.tokens)

    def _prompts(self, prompt: str, settings: DeviceSettings, context: str | None = None) -> PromptPair:
        template, share = self._template, settings.shared_in_prompts
        render = None if template is None else lambda text: template.render([{"role": "user", "content": text}])
        return chat_prompts(self.tokenizer, prompt, share, render, context, settings.raw)

    def _expected_ids(self, prediction: str | None) -> Sequence[int]:
        return self.tokenizer.encode_plain(prediction) if prediction else ()

    def _private_kinds(self, words: Sequence[str], settings: DeviceSettings, grammar: Grammar | None) -> Sequence[str]:
        """What of these, which would leave, is to stay; nothing where it does not leave, or may."""
        if not settings.keep_home or settings.keeps_to_itself:
            return ()
        words = [*words, *settings.stop, "" if grammar is None else grammar.source]
        return private_kinds("\n".join(words), settings.private_patterns)

    async def _ready(
        self, make: Callable[[], ReadyPrompt], texts: Sequence[str | None], grammar: Grammar | None
    ) -> ReadyPrompt:
        """What is made of texts; of long ones in a thread, so that other texts go on meanwhile."""
        num_chars = sum(len(text or "") for text in texts)
        ready = make() if num_chars < LONG_CHARS else await in_thread(make)
        if grammar is not None:  # compiled once for all texts that follow it, which may take long
            await in_thread(lambda: self._reader.compile(grammar))
        return ready

    async def _write_at_home(
        self,
        ready: ReadyPrompt,
        settings: DeviceSettings,
        on_text: OnText,
        notify: Notify,
        pace: TextPace | None,
    ) -> Report:
        """On the device alone, whatever the mode.

        Raises:
            DisclosureError: it has no draft model.
        """
        why = f"the prompt has something private in it ({', '.join(ready.private_kinds)}) and is not sent"
        if not self._has_draft:
            raise DisclosureError(f"{why}, and the device has no model to write with: name one with --draft")
        notify(f"{why}: the device writes by itself")
        at_home = replace(settings, mode=Mode.EDGE, share=ShareLevel.NONE, evidence=None, accept=None, gate=None)
        prompts = PromptPair(ready.prompts.edge, None)
        job = self._job(prompts, at_home, self._facts, self.draw_seed(settings), pace, grammar=ready.grammar)
        return await self._writer.write(job, on_text, notify)

    def _repeat(self, answer: str, settings: DeviceSettings, on_text: OnText) -> Report:
        """The report of a text that nobody wrote now."""
        tokens = tuple(Token(token_id, Origin.EDGE) for token_id in self.tokenizer.encode_plain(answer))
        pieces = (TextPiece(answer, tokens),)
        on_text(pieces)
        report = unwritten(answer, settings.mode, settings.share)
        return dataclasses.replace(report, pieces=pieces, is_alone=True, is_repeated=True)

    def _kept_ids(self, kept: KeptText) -> Sequence[int]:
        """A kept text behind its prompt, as the cloud's model sees them."""
        prompt = self._prompts(kept.prompt, self.settings).edge
        return (*prompt.token_ids, *self.tokenizer.encode_plain(kept.text))

    def _job(
        self,
        prompts: PromptPair,
        settings: DeviceSettings,
        facts: DraftFacts,
        seed: int,
        pace: TextPace | None = None,
        expected_ids: Sequence[int] = (),
        grammar: Grammar | None = None,
        kind: str = "",
    ) -> Job:
        """Raises: ConfigError: the rule does not go with the settings."""
        vocabulary = self.tokenizer.vocabulary
        # A cloud that sees as much as the device decides; one that does not only vetoes what it finds unlikely.
        usual_rule = Exact() if prompts.does_cloud_see_all else Rank()
        rule = usual_rule if settings.accept is None else parse_rule(settings.accept)
        evidence, has_evidence = settings.evidence_leaves, prompts.edge.has_evidence
        if evidence is Evidence.UNSURE and (settings.keeps_to_itself or not has_evidence):
            evidence = Evidence.ALWAYS  # nothing is to be kept back
        require_rule_fits(settings, rule, evidence)
        sampling = replace(settings.sampling(seed, tuple(vocabulary.end_ids)), grammar=grammar)
        rule.check_sampling(sampling)
        return Job(
            settings=settings,
            prompts=prompts,
            vocabulary=vocabulary,
            reader=self._reader,
            sampling=sampling,
            rule=rule,
            gate=choose_gate(settings.gate, rule, evidence, settings.objective, facts),
            patience=Patience.of(settings),
            evidence=evidence,
            kept=self._kept,
            way=parse_way(settings.way),
            address=CloudAddress(settings.cloud, settings.key) if settings.cloud and prompts.cloud else None,
            sources=self._lookup_sources(settings, expected_ids),
            kind=kind,
            pace=pace or TextPace(),
        )

    def _lookup_sources(self, settings: DeviceSettings, expected_ids: Sequence[int]) -> LookupSources | None:
        is_wanted = settings.lookup or settings.has_only_lookup or self._history or expected_ids
        if settings.way == "cloud" or not is_wanted:
            return None
        return LookupSources(expected_ids, self._history.index if self._history else None)


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
