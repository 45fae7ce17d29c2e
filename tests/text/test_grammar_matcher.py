"""Grammars: which tokens may follow, over the nodes of a tree too, and where a text has ended."""

from __future__ import annotations

import builtins
import json
from collections.abc import Sequence
from typing import Any

import pytest

from skydraft.core import Grammar, SamplingParams, json_object, json_schema, tool_calls
from skydraft.errors import ConfigError
from skydraft.text.grammar_matcher import GrammarCompiler, GrammarMatcher
from skydraft.text.token_reader import TokenReader
from skydraft.text.vocabulary import Vocabulary

TOKENS = ("x", "{", "}", '"a"', ":", "true", "tr", "ue", " ", "1", "\n", "end")
END = TOKENS.index("end")
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "boolean"}},
    "required": ["a"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}


class Pieces:
    """A token is a piece of text; the last ends it where a vocabulary has an end."""

    def __init__(self, has_end: bool = True) -> None:
        self.vocabulary = Vocabulary("pieces", TOKENS, len(TOKENS), (END,) if has_end else ())

    def spelling(self) -> Sequence[bytes]:
        special = dict.fromkeys(self.vocabulary.end_ids, b"\xff")
        return [special.get(token_id, b"") + token.encode() for token_id, token in enumerate(TOKENS)]


def compiler(has_end: bool = True) -> GrammarCompiler:
    return GrammarCompiler(Pieces(has_end))  # type: ignore[arg-type]


def ids(*tokens: str) -> list[int]:
    return [TOKENS.index(token) for token in tokens]


def allowed(matcher: GrammarMatcher, *path: str) -> set[str] | None:
    (mask,) = matcher.masks([ids(*path)])
    return None if mask is None else {TOKENS[token_id] for token_id in mask.nonzero()[0]}


def test_masks_follow_the_text_and_each_path_of_a_tree() -> None:
    matcher = compiler().matcher(json_schema(SCHEMA))
    assert allowed(matcher) == {"{"}
    for token_id in ids("{", '"a"'):
        matcher.follow(token_id)
    for _ in range(2):  # what was looked at is not taken in
        assert allowed(matcher) == {":"}
        assert allowed(matcher, ":") == {"true", "tr"}
        assert allowed(matcher, ":", "tr") == {"ue"}
        assert allowed(matcher, ":", "true") == {"}"}
        assert allowed(matcher, ":", "1") is None  # no choice leads there
        assert allowed(matcher, ":", "true", "}") is None  # the text ends there
    assert not matcher.has_ended


@pytest.mark.parametrize("has_end", [False, True])
def test_a_text_ends_where_nothing_can_follow(has_end: bool) -> None:
    matcher = compiler(has_end).matcher(json_schema(SCHEMA))
    matcher.follow_text(ids("{", '"a"', ":"))
    matcher.follow_text(ids("{", '"a"', ":", "tr", "ue"))
    assert not matcher.has_ended
    matcher.follow(TOKENS.index("}"))
    assert matcher.has_ended
    assert matcher.masks([()]) == [None]
    matcher.follow(TOKENS.index("1"))
    assert matcher.has_ended
    assert not matcher.has_left


def test_where_a_grammar_may_end_or_go_on_the_end_tokens_may_follow() -> None:
    matcher = compiler().matcher(Grammar("regex", "(true)+"))
    matcher.follow(TOKENS.index("true"))
    assert allowed(matcher) == {"true", "tr", "end"}
    assert allowed(matcher, "end") is None
    assert allowed(matcher, "true") == {"true", "tr", "end"}
    without_end = compiler(has_end=False).matcher(Grammar("regex", "(true)+"))
    without_end.follow(TOKENS.index("true"))
    assert allowed(without_end) == {"true", "tr"}


def test_a_text_that_leaves_its_grammar_goes_on_without_one() -> None:
    matcher = compiler().matcher(json_schema(SCHEMA))
    matcher.follow_text(ids("{", "1", '"a"'))
    assert matcher.has_left
    assert matcher.masks([(), ids(":")]) == [None, None]
    assert not matcher.has_ended


def test_texts_of_one_grammar_do_not_disturb_each_other() -> None:
    made = compiler()
    first, second = made.matcher(json_schema(SCHEMA)), made.matcher(json_schema(SCHEMA))
    first.follow(TOKENS.index("{"))
    assert allowed(second) == {"{"}
    assert allowed(first) == {'"a"'}


@pytest.mark.parametrize(
    ("grammar", "begin"),
    [
        (json_object(), ["{"]),
        (json_schema({"type": "object"}), ["{"]),
        (tool_calls({"a": {}}, begin="x", end="x"), ["x", "{"]),
        (tool_calls({"a": {}, "b": {}}, begin="x", end="x"), ["x", "{"]),
    ],
)
def test_blanks_in_json_come_to_an_end(grammar: Grammar, begin: list[str]) -> None:
    matcher = compiler().matcher(grammar)
    assert {" ", "\n"} <= (allowed(matcher, *begin, "\n", *39 * [" "]) or set())
    left = allowed(matcher, *begin, "\n", *40 * [" "])
    assert left is not None
    assert not left & {" ", "\n"}


def test_a_schema_may_say_itself_what_stands_between_its_signs() -> None:
    matcher = compiler().matcher(json_schema({**SCHEMA, "x-guidance": {"whitespace_pattern": " *"}}))
    assert allowed(matcher, "{", *200 * [" "]) == {" ", '"a"'}


@pytest.mark.parametrize(
    ("grammar", "words"),
    [
        (Grammar("json", "{nope"), "the json grammar cannot be used: key must be a string"),
        (Grammar("json", '{"type": "nope"}'), "Invalid type"),
        (Grammar("lark", "start: foo"), 'the lark grammar cannot be used: .*unknown name: "foo"'),
        (Grammar("regex", "("), "the regex grammar cannot be used"),
    ],
)
def test_what_is_no_grammar_is_refused_in_a_sentence(grammar: Grammar, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compiler().matcher(grammar)


def test_without_llguidance_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "llguidance":
            raise ImportError(name)
        return imported(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'skydraft\[grammar\]'"):
        compiler().matcher(json_object())


def test_a_text_without_a_grammar_has_no_matcher() -> None:
    assert TokenReader(Pieces()).matcher(SamplingParams()) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("is_parallel", [False, True])
def test_tool_calls_have_a_name_and_arguments_of_its_schema(is_parallel: bool) -> None:
    tools = {"move": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}, "stop": {}}
    characters = [chr(code) for code in range(32, 127)] + ["\n"]
    reader = Pieces()
    reader.vocabulary = Vocabulary("characters", tuple(characters), len(characters))
    reader.spelling = lambda: [character.encode() for character in characters]  # type: ignore[method-assign]

    def is_whole(text: str) -> bool:
        matcher = GrammarCompiler(reader).matcher(tool_calls(tools, is_parallel))  # type: ignore[arg-type]
        for character in text:
            if matcher.has_ended:
                return False
            matcher.follow(characters.index(character))
        return not matcher.has_left and (matcher.has_ended or "\n" in {characters[i] for i in _allowed_ids(matcher)})

    def call(name: str, arguments: dict[str, Any]) -> str:
        return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"

    assert is_whole(call("move", {"x": 3}))
    assert is_whole(call("stop", {"at": "once"}))
    assert not is_whole(call("move", {}))
    assert not is_whole(call("turn", {"x": 3}))
    assert is_whole(call("move", {"x": 3}) + "\n" + call("stop", {})) == is_parallel


def _allowed_ids(matcher: GrammarMatcher) -> list[int]:
    (mask,) = matcher.masks([()])
    return [] if mask is None else mask.nonzero()[0].tolist()


def test_a_text_that_must_call_a_tool_and_has_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="name one or more tools"):
        tool_calls({})


def test_what_grammars_need_can_be_made_before_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = TokenReader(Pieces())  # type: ignore[arg-type]
    reader.warm_up()
    monkeypatch.setattr(Pieces, "spelling", lambda _: pytest.fail("it was made again"))
    assert reader.matcher(SamplingParams(grammar=json_object())) is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    TokenReader(Pieces()).warm_up()  # type: ignore[arg-type]
