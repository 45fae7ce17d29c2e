"""The settings of a device."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import msgspec

from skydraft.config.presets import PRESETS, Preset
from skydraft.config.shared import MODELS, DeviceName, Dtype, MaxLength, MaxPrefixBytes
from skydraft.core import (
    AcceptanceRule,
    Evidence,
    Exact,
    Mode,
    Objective,
    Rank,
    SamplingParams,
    Setting,
    ShareLevel,
    check_settings,
    parse_rule,
)
from skydraft.engines.settings import require_place
from skydraft.errors import ConfigError, require
from skydraft.policies.draft_length import MAX_DRAFT_LENGTH, UgsdDraftLength
from skydraft.policies.gate import AlwaysGate, EntropyGate, MarginGate
from skydraft.policies.gate_choice import UNSURE_CAPTIONS, parse_gate, require_gate_fits
from skydraft.policies.way import parse_way
from skydraft.transport.address import session_url

Offline = Literal["wait", "edge", "tunnel", "fail"]
AUTO_DRAFT = "auto"
LOOKUP_DRAFT = "lookup"
ADAPTIVE = UgsdDraftLength()


class DeviceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The settings of a device: table [device] of a settings file, and options of the commands that are a device."""

    mode: Annotated[
        Mode,
        Setting(
            "Where the text is generated. hybrid: the device drafts and the cloud verifies. edge: on the device alone. "
            "cloud: in the cloud alone. auto: whichever serves the objective best.",
            "--mode",
            group="How it is written",
        ),
    ] = Mode.HYBRID
    objective: Annotated[
        Objective,
        Setting(
            "What --mode auto and drafting optimise. latency: the earliest text. cost: the least work in the cloud. "
            "energy: the least work on the device. privacy: the least data that leaves the device.",
            "--objective",
            group="How it is written",
        ),
    ] = Objective.LATENCY
    cloud: Annotated[
        str | None,
        Setting(
            "Address of the cloud, HOST:PORT (with TLS unless it is this machine) or a URL.",
            "--cloud",
            "URL",
            unset="a cloud is started on this machine",
            envvar="SKYDRAFT_CLOUD",
        ),
    ] = None
    key: Annotated[str | None, Setting("API key of the cloud.", "--key", "KEY", envvar="SKYDRAFT_KEY")] = None
    draft: Annotated[
        str,
        Setting(
            f"The draft model, on the device: {MODELS}; {AUTO_DRAFT}: the smallest on this machine that has the tokens "
            f"of the cloud's model; {LOOKUP_DRAFT}: no model, drafts are looked up in the prompt and the text; "
            f"{LOOKUP_DRAFT}:MODEL: with the tokens of this model.",
            "--draft",
            "MODEL",
            envvar="SKYDRAFT_DRAFT",
        ),
    ] = "embedded"
    lookup: Annotated[
        bool,
        Setting(
            "Look drafts up in the prompt and the text too, beside the draft model, under the rule exact.",
            "--lookup",
            group="How it is written",
        ),
    ] = False
    history: Annotated[
        str | None,
        Setting(
            "File of your own texts, on this device: each prompt and its text is added. Drafts are looked up in it "
            "too, so that parts of earlier texts leave as guesses, and where nobody can write, a question that was "
            "answered before is answered again. Delete it to forget.",
            "--history",
            "FILE",
            unset="nothing is kept",
            group="How it is written",
        ),
    ] = None
    models: Annotated[
        str | None,
        Setting(
            f"Folder in which --draft {AUTO_DRAFT} looks for models, beside those fetched from Hugging Face.",
            "--models",
            "FOLDER",
            unset="none",
            envvar="SKYDRAFT_MODELS",
            group="This machine",
        ),
    ] = None
    target: Annotated[
        str,
        Setting("The target model, if a cloud is started on this machine.", "--target", "MODEL", alias="--model"),
    ] = "embedded"
    share: Annotated[
        ShareLevel,
        Setting(
            "What may leave the device. none: nothing (with --mode edge). tokens: token ids, but no evidence. "
            "features: model inputs too, from which speech can be reconstructed.",
            "--share",
        ),
    ] = ShareLevel.TOKENS
    evidence: Annotated[
        Evidence | None,
        Setting(
            "When the evidence leaves, where --share lets it. always: at once, and the whole text is the cloud's. "
            "unsure: where the gate finds a block that the device is unsure of; from there the cloud goes on. never.",
            "--evidence",
            unset="unsure; always with --mode cloud, --strict, --draft lookup or --gate always",
            group="How it is written",
        ),
    ] = None
    preset: Annotated[
        Preset | None,
        Setting(
            "Settings under a name, for what is not given. ugsd: uncertainty-guided speculative decoding, a cloud that "
            f"has not heard judges ({', '.join(f'{name} {value}' for name, value in PRESETS[Preset.UGSD].items())}).",
            "--preset",
            group="How it is written",
        ),
    ] = None
    accept: Annotated[
        str | None,
        Setting(
            "When a drafted token is accepted: exact, rejection:K,L, rank:R or prob:X.",
            "--accept",
            "RULE",
            unset=f"{Exact()}; {Rank()} if the cloud does not get the evidence",
            group="How it is written",
        ),
    ] = None
    gate: Annotated[
        str | None,
        Setting(
            "Which drafted blocks go to the cloud: entropy:NATS, margin:PROB, logprob:NATS, always or never. "
            "margin@20%: those of the least sure fifth of the texts, by the draft's calibration. emotion-margin@20%: "
            "by the word of the emotion alone.",
            "--gate",
            "GATE",
            unset=f"{AlwaysGate()}; {EntropyGate()} if the cloud does not get the evidence; with --evidence unsure "
            f"{UNSURE_CAPTIONS}, without a calibration {MarginGate()}",
            group="How it is written",
        ),
    ] = None
    temperature: Annotated[
        float,
        Setting(
            "Sampling temperature: 0 is greedy, 1 samples as the model predicts.",
            "--temperature",
            "T",
            group="The text",
        ),
    ] = 0.0
    top_k: Annotated[
        int, Setting("Sample from the K most probable tokens.", "--top-k", "K", unset="from all", group="The text")
    ] = 0
    top_p: Annotated[
        float,
        Setting("Sample from the fewest tokens that have probability P together.", "--top-p", "P", group="The text"),
    ] = 1.0
    min_p: Annotated[
        float,
        Setting(
            "Leave out tokens with less than P times the probability of the most probable one.",
            "--min-p",
            "P",
            group="The text",
        ),
    ] = 0.0
    presence_penalty: Annotated[
        float,
        Setting(
            "Take X off the logit of each token that the text holds, -2 to 2.",
            "--presence-penalty",
            "X",
            group="The text",
        ),
    ] = 0.0
    frequency_penalty: Annotated[
        float,
        Setting(
            "Take X off the logit of a token as often as the text holds it, -2 to 2.",
            "--frequency-penalty",
            "X",
            group="The text",
        ),
    ] = 0.0
    repetition_penalty: Annotated[
        float,
        Setting(
            "Divide the logit of each token that the text holds by X; multiply it where it is negative.",
            "--repetition-penalty",
            "X",
            group="The text",
        ),
    ] = 1.0
    logit_bias: Annotated[
        tuple[tuple[int, float], ...],
        Setting("Token ids, ascending, and what is added to the logit of each, -100 to 100.", unset="none"),
    ] = ()
    top_logprobs: Annotated[
        int | None,
        Setting(
            "Tell the target's own log-probability of each token, and of the N most probable ones, in --json.",
            "--top-logprobs",
            "N",
            group="The text",
        ),
    ] = None
    stop: Annotated[
        tuple[str, ...],
        Setting(
            "End the text before this string; up to 4 times.",
            "--stop",
            "TEXT",
            unset="none",
            group="The text",
        ),
    ] = ()
    seed: Annotated[
        int | None,
        Setting(
            "Random seed: the same seed gives the same text.",
            "--seed",
            "N",
            unset="drawn for each text or file; the summary and --json name it",
            group="The text",
        ),
    ] = None
    max_tokens: Annotated[
        int, Setting("Maximum number of tokens to generate.", "--max-tokens", "N", group="The text")
    ] = 128
    max_length: MaxLength = 0
    max_prefix_bytes: MaxPrefixBytes = 2**28
    num_slots: Annotated[
        int,
        Setting(
            "Texts that the draft model has a KV cache for at the same time; those beyond take turns.", bounds=(1, 256)
        ),
    ] = 4
    way: Annotated[
        str,
        Setting(
            "How drafts are made under the rule exact. auto: chosen by measurement. wait:N, pipelined:N, prepared:N: "
            "chains of N tokens. tree: trees, one after the other. free: trees, without waiting for an answer. cloud: "
            "no drafts.",
            "--way",
            "WAY",
            group="How it is written",
        ),
    ] = "auto"
    max_escalated: Annotated[
        float,
        Setting(
            "Maximum share of the tokens that go to the cloud under the rules rank and prob, 0 to 1.",
            "--max-escalated",
            "SHARE",
            bounds=(0, 1),
            group="How it is written",
        ),
    ] = 1.0
    block_length: Annotated[
        int,
        Setting(
            "Number of tokens in a drafted block.",
            "--block-length",
            "N",
            unset=f"{ADAPTIVE.base}, adapting between {ADAPTIVE.after_correction} and {ADAPTIVE.after_agreement}",
            bounds=(0, MAX_DRAFT_LENGTH),
            group="How it is written",
        ),
    ] = 0
    offline: Annotated[
        Offline,
        Setting(
            "What to do when the cloud cannot be reached. wait: try again and resume. edge: continue on the device "
            "until the cloud is back. tunnel: the same, as soon as the cloud is silent for a moment. fail: stop with "
            "an error.",
            "--offline",
            group="The connection",
        ),
    ] = "wait"
    offline_wait_s: Annotated[
        float,
        Setting(
            "How long --offline wait tries again.",
            "--offline-wait",
            "SECONDS",
            bounds=(0, 86400),
            group="The connection",
        ),
    ] = 30.0
    tunnel_wait_s: Annotated[
        float,
        Setting(
            "How long --offline tunnel waits for a cloud that has begun to write.",
            "--tunnel-wait",
            "SECONDS",
            bounds=(0.05, 60),
            group="The connection",
        ),
    ] = 0.25
    keep_home: Annotated[
        bool,
        Setting(
            "Write on the device alone where a prompt has something private in it: an e-mail address, the number of a "
            "phone, card or account, a password.",
            "--keep-home",
            group="The connection",
        ),
    ] = False
    private_patterns: Annotated[
        tuple[str, ...], Setting("Regular expressions of what else is private, for keep_home.")
    ] = ()
    pad: Annotated[
        bool,
        Setting(
            "Pad messages to a few sizes and send them at a fixed pace, so that an observer of the connection learns "
            "less: takes 5 kB/s in each direction and adds 50 ms to a round trip.",
            "--pad",
            group="The connection",
        ),
    ] = False
    strict: Annotated[
        bool,
        Setting(
            "Refuse a cloud that cannot promise its own text, token for token; for the rule exact.",
            "--strict",
            group="How it is written",
        ),
    ] = False
    num_threads: Annotated[
        int,
        Setting(
            "Threads that the model computes with.",
            "--threads",
            "N",
            unset="one per core; half as many if a cloud is started on this machine",
            bounds=(0, 1024),
            group="This machine",
        ),
    ] = 0
    device: DeviceName = "cpu"
    dtype: Dtype = "float32"
    quantize: Annotated[
        bool, Setting("Quantize the draft model to 8 bits: less memory, CPU only.", "--quantize", group="This machine")
    ] = False
    any_sound: Annotated[
        bool,
        Setting(
            "Caption sounds in which no speech was found too; else their caption is `No speech.`",
            "--any-sound",
            group="The text",
        ),
    ] = False
    any_voice: Annotated[
        bool,
        Setting(
            "Name an emotion of voices that are unlike those that the draft model knows, too; else their caption is "
            "what was measured of them.",
            "--any-voice",
            group="The text",
        ),
    ] = False
    raw: Annotated[
        bool,
        Setting(
            "Continue the prompt without the model's chat format; names of special tokens in it are read as such.",
            "--raw",
            group="The text",
        ),
    ] = False

    def __post_init__(self) -> None:
        check_settings(self, "device.")
        for name, value in PRESETS[self.preset].items() if self.preset is not None else ():
            if getattr(self, name) is None:
                msgspec.structs.force_setattr(self, name, value)
        for name in ("draft", "target"):
            require(bool(getattr(self, name)), f"device.{name}", "''", "the name of a model")
        require_place(self.device, self.dtype, self.quantize)
        self.sampling()
        parse_way(self.way)
        if self.gate is not None:
            parse_gate(self.gate)
        if self.accept is not None:
            require_rule_fits(self, parse_rule(self.accept))
        if self.cloud is not None:
            session_url(self.cloud)
        for pattern in self.private_patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"private pattern {pattern!r} is no regular expression: {error}") from None
        is_kept_together = self.mode in (Mode.HYBRID, Mode.CLOUD) and not (self.writes_on_offline or self.keep_home)
        if self.strict and not is_kept_together:
            raise ConfigError(
                f"strict asks for the cloud's own text, and with mode {self.mode.value} and offline {self.offline}"
                f"{' and keep_home' if self.keep_home else ''} the device may write alone: use mode hybrid or cloud "
                "and offline wait or fail, or leave strict out"
            )
        _require_evidence_fits(self)
        if self.has_only_lookup and (self.keeps_to_itself or self.writes_on_offline or self.keep_home):
            raise ConfigError(
                f"draft {self.draft} is no model, and with mode {self.mode.value}, share {self.share.value}, offline "
                f"{self.offline} and keep_home {str(self.keep_home).lower()} the device is to write by itself: name a "
                "model, or use mode hybrid and offline wait"
            )
        if self.has_only_lookup and self.way not in ("auto", "cloud"):
            raise ConfigError(f"way {self.way} is of drafts by a model and draft {self.draft} is none: leave way out")
        if self.share is ShareLevel.NONE and self.mode not in (Mode.EDGE, Mode.AUTO):
            raise ConfigError(
                f"share level none lets nothing leave the device, and mode {self.mode.value} needs a cloud: "
                "use mode edge, or share tokens or features"
            )

    def sampling(self, seed: int | None = None, end_ids: tuple[int, ...] = ()) -> SamplingParams:
        """How tokens are chosen, as far as the settings say.

        Args:
            seed: of a text; None: that of the settings, 0 where they have none.
            end_ids: of the model.
        """
        return SamplingParams(
            max_tokens=self.max_tokens,
            end_ids=end_ids,
            seed=(self.seed or 0) if seed is None else seed,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias=self.logit_bias,
            top_logprobs=self.top_logprobs,
            stop=self.stop,
        )

    @property
    def evidence_leaves(self) -> Evidence:
        """When the evidence of a text leaves the device."""
        if self.share is not ShareLevel.FEATURES:
            return Evidence.NEVER
        is_cloud_first = (
            self.mode is Mode.CLOUD or self.strict or self.has_only_lookup or self.gate == str(AlwaysGate())
        )
        return self.evidence or (Evidence.ALWAYS if is_cloud_first else Evidence.UNSURE)

    @property
    def shared_in_prompts(self) -> ShareLevel:
        """What of a text may be in the cloud's prompt, sooner or later."""
        is_kept = self.share is ShareLevel.FEATURES and self.evidence_leaves is Evidence.NEVER
        return ShareLevel.TOKENS if is_kept else self.share

    @property
    def captions_alone(self) -> bool:
        """Whether captions are the device's own: a cloud that cannot hear is no help, and is asked only if told to."""
        is_told = self.mode is Mode.CLOUD or self.strict or self.accept is not None or self.gate is not None
        return self.keeps_to_itself or (self.evidence_leaves is Evidence.NEVER and not is_told)

    @property
    def captions_are_clouds(self) -> bool:
        """Whether captions are promised to be the cloud's own from their first word, whatever the device knows."""
        is_whole = self.mode is Mode.CLOUD or self.strict or self.evidence_leaves is Evidence.ALWAYS
        return is_whole and not self.keeps_to_itself

    @property
    def writes_on_offline(self) -> bool:
        """Whether the device writes on by itself when the cloud is lost."""
        return self.offline in ("edge", "tunnel")

    @property
    def has_only_lookup(self) -> bool:
        """Whether there is no draft model, and drafts are looked up."""
        return self.draft.partition(":")[0] == LOOKUP_DRAFT

    @property
    def draft_model(self) -> str:
        """The draft model, or the model whose tokens are used without it."""
        return self.draft.removeprefix(f"{LOOKUP_DRAFT}:")

    @property
    def keeps_to_itself(self) -> bool:
        """Whether the device writes alone whatever happens, so that no cloud is asked anything."""
        is_private = self.mode is Mode.AUTO and self.objective is Objective.PRIVACY
        return self.mode is Mode.EDGE or self.share is ShareLevel.NONE or is_private


def _require_evidence_fits(settings: DeviceSettings) -> None:
    """Raises: ConfigError: what was said of the evidence cannot be."""
    evidence = settings.evidence
    if evidence in (Evidence.ALWAYS, Evidence.UNSURE) and settings.share is not ShareLevel.FEATURES:
        raise ConfigError(
            f"evidence {evidence.value} lets evidence leave the device, and share level {settings.share.value} does "
            "not: use share features, or leave evidence out"
        )
    if evidence is Evidence.UNSURE and (settings.mode is Mode.CLOUD or settings.strict):
        wanted = "mode cloud" if settings.mode is Mode.CLOUD else "strict"
        raise ConfigError(
            f"evidence unsure has the device begin the text, and {wanted} asks for the cloud's own: use evidence always"
        )
    if evidence is Evidence.UNSURE and settings.has_only_lookup:
        raise ConfigError(
            f"evidence unsure has the device begin the text, and draft {settings.draft} is no model that could: name a "
            "model, or use evidence always"
        )


def require_rule_fits(settings: DeviceSettings, rule: AcceptanceRule, evidence: Evidence | None = None) -> None:
    """Refuse a gate or a cap that would commit tokens unjudged under a rule that promises the cloud's text, a rule that
    tells more than the objective privacy allows, one that would let drafts get round the penalties, and one that does
    not promise what strict asks for.

    Args:
        evidence: when that of a text leaves; None: as the settings say for texts with evidence.
    Raises:
        ConfigError: naming both.
    """
    if settings.gate is not None:
        require_gate_fits(parse_gate(settings.gate), rule, evidence or settings.evidence_leaves)
    rule.check_sampling(settings.sampling())
    if settings.objective is Objective.PRIVACY and settings.mode is Mode.HYBRID and rule.draft_lattice is not None:
        raise ConfigError(
            f"the objective is privacy, and under the rule {rule} the device sends with each token what else it might "
            "have drafted: use the rule exact, or mode edge or cloud"
        )
    if settings.has_only_lookup and settings.mode is not Mode.CLOUD and not rule.merges_offers:
        raise ConfigError(
            f"draft {settings.draft} is no model, and the rule {rule} needs one: use the rule exact (with a private "
            "context that needs share features), or name a model"
        )
    if settings.strict and not rule.promises_cloud_tokens:
        raise ConfigError(
            f"strict asks for the cloud's own text and the rule {rule} does not promise it: use the rule exact, or "
            "leave strict out"
        )
    if settings.max_escalated < 1 and settings.mode is not Mode.EDGE and rule.promises_cloud_text:
        raise ConfigError(
            f"max_escalated is {settings.max_escalated:g}, and under the rule {rule} the cloud judges every token: "
            "use the rule rank:R or prob:X, or leave max_escalated out"
        )
