"""From the fields of a request to settings of a text. What would change a text and cannot be done is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skydraft.config import DeviceSettings, with_flags
from skydraft.core import Evidence, Mode, ShareLevel
from skydraft.gateway.caps import OWN_FIELDS, refuse_more
from skydraft.gateway.distances import NO_DISTANCES, Distances
from skydraft.gateway.problems import BadRequest
from skydraft.gateway.requests import SamplingRequest
from skydraft.protocol.limits import MAX_VOCABULARY

MAX_STOPS = 4
TRACE = "trace"
ROUND_TRIP = "round_trip_ms"  # to an emulated distance of the cloud
TOLD_FIELDS = ("top_logprobs", TRACE)  # chosen as OWN_FIELDS are: what is told of a text, which changes nothing of it
CHOSEN_FIELDS = (*OWN_FIELDS, *TOLD_FIELDS, ROUND_TRIP)

# By the names of others, and the values that change nothing.
_CHANGE_TEXT: Mapping[str, Sequence[Any]] = {
    "best_of": (None, 1),
    "bad_words": (None, []),
    "echo": (None, False),
    "function_call": (None, "none"),
    "functions": (None, []),
    "grammar": (None, ""),
    "guided_choice": (None, []),
    "guided_grammar": (None, ""),
    "guided_json": (None, {}),
    "guided_regex": (None, ""),
    "ignore_eos": (None, False),
    "length_penalty": (None, 1),
    "min_tokens": (None, 0),
    "mirostat": (None, 0),
    "modalities": (None, ["text"]),
    "stop_token_ids": (None, []),
    "structured_outputs": (None, {}),
    "suffix": (None, ""),
    "typical_p": (None, 1),
    "use_beam_search": (None, False),
}


def refuse_unknown(fields: Mapping[str, Any]) -> None:
    """Refuse fields of other servers that would change the text.

    Raises:
        BadRequest: naming the first.
    """
    for name, harmless in _CHANGE_TEXT.items():
        if name in fields and fields[name] not in harmless:
            raise BadRequest(f"{name} would change the text and this gateway does not know it: leave it out", name)


def settings_for(
    settings: DeviceSettings,
    request: SamplingRequest,
    own: Mapping[str, str],
    distances: Distances = NO_DISTANCES,
    **more: object,
) -> DeviceSettings:
    """The settings of a text.

    Args:
        settings: of the device, which stand where the request says nothing.
        own: what headers choose of CHOSEN_FIELDS.
        distances: at which the text may have its cloud.
        more: settings that this kind of request says in its own way; None: it says nothing.
    Raises:
        BadRequest: it asks for what is not there, or for more than the configuration allows.
        ConfigError: a value is out of bounds.
    """
    changes: dict[str, object] = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": _top_k(request.top_k),
        "seed": _seed(request.seed),
        "max_tokens": request.max_tokens,
        "min_p": request.min_p,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "repetition_penalty": request.repetition_penalty,
        "logit_bias": _bias(request.logit_bias) or None,
        "stop": _stops(request.stop) or None,
    }
    changes |= {name: value for name, value in more.items() if value is not None}
    changes |= _own_choices(settings, {**own, **(request.skydraft or {})}, distances)
    chosen = with_flags(settings, **changes)
    refuse_more(settings, chosen)
    return chosen


def _top_k(top_k: int | None) -> int | None:
    is_all = top_k is not None and (top_k == -1 or top_k > MAX_VOCABULARY)  # -1 is vLLM's word for it
    return 0 if is_all else top_k


def _seed(seed: int | None) -> int | None:
    return None if seed is None else seed % 2**63  # OpenAI's may be negative


def _bias(bias: Mapping[str, float] | None) -> tuple[tuple[int, float], ...]:
    try:
        return tuple(sorted((int(token_id), value) for token_id, value in (bias or {}).items()))
    except ValueError as error:
        raise BadRequest(f"logit_bias names a token that is no number: {error}", "logit_bias") from error


def _stops(stop: str | Sequence[str] | None) -> tuple[str, ...] | None:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"{len(stops)} stop strings were given and {MAX_STOPS} are possible", "stop")
    return tuple(text for text in stops if text)


def _own_choices(settings: DeviceSettings, own: Mapping[str, Any], distances: Distances) -> dict[str, object]:
    for name in own:
        if name not in CHOSEN_FIELDS:
            sentence = f"unknown field {name!r} in skydraft; expected one of {', '.join(CHOSEN_FIELDS)}"
            raise BadRequest(sentence, "skydraft")
    changes: dict[str, object] = {name: value for name, value in own.items() if name not in (TRACE, ROUND_TRIP)}
    if "top_logprobs" in own:
        changes["top_logprobs"] = _number(own, "top_logprobs")
    if ROUND_TRIP in own:
        changes["cloud"] = _cloud_at(_number(own, ROUND_TRIP), distances)
    if own.get("share") in (ShareLevel.NONE, ShareLevel.TOKENS):
        changes.setdefault("evidence", Evidence.NEVER)
    elif own.get("mode") == Mode.CLOUD and settings.evidence is Evidence.UNSURE:
        changes.setdefault("evidence", Evidence.ALWAYS)  # as that mode has it
    return changes


def _number(own: Mapping[str, Any], name: str) -> int:
    try:
        return int(str(own[name]))
    except ValueError:
        raise BadRequest(f"{name} is {own[name]!r} and must be a number", "skydraft") from None


def _cloud_at(round_trip_ms: int, distances: Distances) -> str:
    """The address of the cloud at this distance."""
    if not distances:
        raise BadRequest(f"{ROUND_TRIP} is for a gateway that was started with --emulate-link", "skydraft")
    if round_trip_ms not in distances:
        known = ", ".join(map(str, distances))
        raise BadRequest(f"unknown {ROUND_TRIP} {round_trip_ms}; expected one of {known}", "skydraft")
    return distances[round_trip_ms]


def asks_for_trace(own: Mapping[str, str], request: SamplingRequest | None = None) -> bool:
    """Whether the answer is to say how the text came about. own: what headers choose."""
    chosen = {**own, **((request and request.skydraft) or {})}.get(TRACE)
    return str(chosen).lower() in ("true", "1")


def own_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What headers such as X-Skydraft-Share choose."""
    named = {name: headers.get(f"x-skydraft-{name.replace('_', '-')}") for name in CHOSEN_FIELDS}
    return {name: value for name, value in named.items() if value is not None}
