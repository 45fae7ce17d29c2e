import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from skydraft.engines.emulated.words import WordTokenizer, word_vocabulary
from skydraft.engines.load import load_tokenizer
from skydraft.errors import ModelLoadError
from skydraft.text.checkpoint import Checkpoint
from skydraft.text.tokenizer import FolderTokenizer, TextStream
from skydraft.text.vocabulary import Vocabulary
from tests.text.streamed import ids_of, stream


def byte_level() -> tokenizers.Tokenizer:
    """Tokens are bytes, as in GPT-2, Llama 3 and Qwen, and a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(["<s>", "<end>", *alphabet, "Ġw", "Ġwo"])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, [("Ġ", "w"), ("Ġw", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(["<s>", "<end>"])
    return tokenizer


def sentencepiece() -> tokenizers.Tokenizer:
    """Words begin with a marked space, and what is unknown falls back to bytes, as in Llama 2 and Gemma."""
    pieces = [
        "<s>",
        "<end>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁on",
        "ce",
        "▁▁",
        "a",
        "n",
        "o",
    ]
    tokenizer = tokenizers.Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "<end>"])
    return tokenizer


def folder_of(tokenizer: tokenizers.Tokenizer, folder: Path, **files: object) -> Path:
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    for name, content in {"config": {"vocab_size": 300}, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    return FolderTokenizer(Checkpoint.open(folder_of(byte_level(), tmp_path_factory.mktemp("bytes"))))


@pytest.fixture(scope="module")
def piece_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> FolderTokenizer:
    return FolderTokenizer(Checkpoint.open(folder_of(sentencepiece(), tmp_path_factory.mktemp("pieces"))))


@given(text=st.text())
def test_streamed_pieces_are_the_text(byte_tokenizer: FolderTokenizer, text: str) -> None:
    ids = byte_tokenizer.encode(text)
    assert "".join(stream(byte_tokenizer, ids)) == byte_tokenizer.decode(ids) == text


@given(text=st.text(), cut=st.integers(0, 20))
def test_a_text_that_continues_another_is_what_is_added(byte_tokenizer: FolderTokenizer, text: str, cut: int) -> None:
    ids = byte_tokenizer.encode(text)
    before = byte_tokenizer.decode(ids[:cut])
    if "\ufffd" not in before:
        assert before + "".join(stream(byte_tokenizer, ids[cut:], ids[:cut])) == text


@given(text=st.text(st.sampled_from("on ceañ€😀"), max_size=12))
def test_streamed_pieces_of_byte_fallback_are_the_text(piece_tokenizer: FolderTokenizer, text: str) -> None:
    ids = piece_tokenizer.encode("▁" + text.replace(" ", "▁"))
    assert "".join(stream(piece_tokenizer, ids)) == piece_tokenizer.decode(ids) == text


def test_bytes_that_never_become_a_character_are_not_held_for_ever(byte_tokenizer: FolderTokenizer) -> None:
    continuation = byte_tokenizer.encode("é")[1]
    pieces = stream(byte_tokenizer, (continuation,) * 20)
    assert pieces[:8] == [""] * 8
    assert pieces[8] == "\ufffd" * 9
    assert "".join(pieces) == "\ufffd" * 20


@given(ids=st.lists(st.integers(0, 299), max_size=40))
def test_any_ids_can_be_streamed(byte_tokenizer: FolderTokenizer, ids: list[int]) -> None:
    assert "".join(stream(byte_tokenizer, tuple(ids))).count("\ufffd") <= len(ids)


def test_a_character_is_held_until_it_is_whole(byte_tokenizer: FolderTokenizer) -> None:
    ids = byte_tokenizer.encode("a😀b")
    assert stream(byte_tokenizer, ids) == ["a", "", "", "", "😀", "b", ""]


def test_an_unfinished_character_comes_with_the_flush(byte_tokenizer: FolderTokenizer) -> None:
    ids = byte_tokenizer.encode("a😀")[:-1]
    assert stream(byte_tokenizer, ids) == ["a", "", "", "", "\ufffd"]


def test_the_space_before_a_word_is_kept_after_a_prompt_and_dropped_without(piece_tokenizer: FolderTokenizer) -> None:
    on, ce = ids_of(piece_tokenizer, "▁on", "ce")
    assert stream(piece_tokenizer, (on, ce, on)) == ["on", "ce", " on", ""]
    assert stream(piece_tokenizer, (on, ce, on), context=(on, ce)) == [" on", "ce", " on", ""]


def test_a_special_token_has_no_text_and_costs_the_next_word_no_space(piece_tokenizer: FolderTokenizer) -> None:
    on, end = ids_of(piece_tokenizer, "▁on", "<end>")
    assert stream(piece_tokenizer, (on, end, on)) == ["on", "", " on", ""]


def test_several_ids_at_once_give_the_same_text(byte_tokenizer: FolderTokenizer) -> None:
    text = TextStream(byte_tokenizer)
    ids = byte_tokenizer.encode("a wo😀b")
    assert text.feed(ids[:4]) + text.feed(ids[4:]) + text.flush() == "a wo😀b"


def test_special_tokens_are_added_when_asked_for(byte_tokenizer: FolderTokenizer) -> None:
    assert byte_tokenizer.encode("a", add_special=True) == (0, *byte_tokenizer.encode("a"))
    assert byte_tokenizer.encode("<end>") == (1,)


def test_the_vocabulary_has_the_rows_of_the_config_and_the_tokens_of_the_tokenizer(
    byte_tokenizer: FolderTokenizer,
) -> None:
    vocabulary = byte_tokenizer.vocabulary
    assert (vocabulary.size, vocabulary.num_tokens) == (300, 260)
    assert (vocabulary.token(0), vocabulary.token(259), vocabulary.token(260)) == ("<s>", "Ġwo", None)


@pytest.mark.parametrize(
    ("files", "end_ids"),
    [
        ({}, ()),
        ({"tokenizer_config": {"eos_token": "<end>"}}, (1,)),
        ({"tokenizer_config": {"eos_token": {"content": "<end>"}}}, (1,)),
        ({"config": {"eos_token_id": 7}, "tokenizer_config": {"eos_token": "<end>"}}, (7,)),
        ({"config": {"thinker_config": {"text_config": {"eos_token_id": 8}}}}, (8,)),
        ({"generation_config": {"eos_token_id": [5, 6]}, "config": {"eos_token_id": 7}}, (5, 6)),
        ({"generation_config": {}, "config": {"eos_token_id": 7}}, (7,)),
    ],
)
def test_end_ids_come_from_the_first_file_that_has_them(
    tmp_path: Path, files: dict[str, object], end_ids: tuple[int, ...]
) -> None:
    folder = folder_of(byte_level(), tmp_path, **files)
    assert FolderTokenizer(Checkpoint.open(folder)).vocabulary.end_ids == end_ids


def test_a_folder_without_tokenizer_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="has no tokenizer.json"):
        FolderTokenizer(Checkpoint.open(tmp_path))


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0", "model": {"type": "Unheard"}}'])
def test_a_tokenizer_that_is_none_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelLoadError, match="is not a tokenizer"):
        FolderTokenizer(Checkpoint.open(tmp_path))


def test_words_are_tokens_and_others_get_one() -> None:
    tokenizer = load_tokenizer("table:vocab=40,end=3", "draft")
    assert isinstance(tokenizer, WordTokenizer)
    ids = tokenizer.encode("bi be unheard")
    assert ids[:2] == (2, 1)
    assert 0 <= ids[2] < 40
    assert tokenizer.decode([2, 3, 1]) == "bi be"
    assert "".join(stream(tokenizer, (2, 1, 0), context=(5,))) == " bi be ba"


def test_a_hole_in_the_vocabulary_has_no_text() -> None:
    vocabulary = Vocabulary("m", (*word_vocabulary(3).tokens, None, "last"), 5)
    assert WordTokenizer(vocabulary).decode([0, 3, 4]) == "ba last"


def test_what_a_tidying_tokenizer_takes_back_costs_no_text() -> None:
    """It drops the space before a full stop, which is out already."""

    class Tidy:
        words = ("so ", "it ", ".", "é", " ")

        def decode(self, token_ids: list[int]) -> str:
            return "".join(self.words[index] for index in token_ids).replace(" .", ".")

    text = TextStream(Tidy())  # type: ignore[arg-type]
    assert [text.feed((index,)) for index in (0, 1, 2, 3, 4, 2)] == ["so ", "it ", ".", "é", " ", "."]


def test_bytes_that_end_no_character_do_not_repeat_the_one_before(piece_tokenizer: FolderTokenizer) -> None:
    """Byte fallback spells a whole run of bytes as U+FFFD where one of them is wrong."""
    ids = [piece_tokenizer.token_id(f"<0x{byte:02X}>") for byte in "é".encode() + b"\xf0"]
    assert None not in ids
    text = TextStream(piece_tokenizer)
    pieces = [text.feed((index,)) for index in ids if index is not None]
    assert [*pieces, text.flush()] == ["", "é", "", "\ufffd"]


def unmarked(folder: Path, **files: object) -> FolderTokenizer:
    """A tokenizer.json that flags nothing as special: <|end|> and <|user|> are entries like others."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_NAMES, *alphabet])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(["<tool>"])
    return FolderTokenizer(Checkpoint.open(folder_of(tokenizer, folder, **files)))


SPECIAL_NAMES = ["<s>", "<|end|>", "<|user|>", "<tool>"]


@pytest.mark.parametrize(
    "files",
    [
        {"special_tokens_map": {"eos_token": "<|end|>"}},
        {"special_tokens_map": {"eos_token": {"content": "<|end|>", "lstrip": False}}},
        {"special_tokens_map": {"additional_special_tokens": ["<|user|>", {"content": "<|end|>"}]}},
        {"tokenizer_config": {"pad_token": "<|end|>"}},
        {"tokenizer_config": {"extra_special_tokens": {"end_token": "<|end|>"}}},
        {"tokenizer_config": {"extra_special_tokens": ["<|end|>"]}},
        {"tokenizer_config": {"added_tokens_decoder": {"1": {"content": "<|end|>", "special": True}}}},
        {"generation_config": {"eos_token_id": [1]}},
        {"config": {"vocab_size": 300, "eos_token_id": 1}},
    ],
)
def test_a_token_that_any_file_calls_special_is_read_whole_and_not_shown(
    tmp_path: Path, files: dict[str, object]
) -> None:
    tokenizer = unmarked(tmp_path, **files)
    assert tokenizer.encode("a<|end|>")[1:] == (1,)
    assert tokenizer.decode([*tokenizer.encode("Bye."), 1]) == "Bye."


def test_a_token_that_no_file_calls_special_is_text(tmp_path: Path) -> None:
    tokenizer = unmarked(tmp_path, special_tokens_map={"eos_token": "<|gone|>"})
    assert len(tokenizer.encode("<|end|>")) == len("<|end|>")
    assert tokenizer.decode([3]) == "<tool>"


def test_what_a_person_writes_has_no_special_tokens(tmp_path: Path) -> None:
    tokenizer = unmarked(tmp_path, special_tokens_map={"eos_token": "<|end|>", "bos_token": "<s>"})
    plain = tokenizer.encode_plain("a<|end|><s>")
    assert len(plain) == len("a<|end|><s>")
    assert tokenizer.decode(plain) == "a<|end|><s>"
    assert tokenizer.encode_plain("a") == tokenizer.encode("a")


def saved(tokenizer: tokenizers.Tokenizer, folder: Path, **files: object) -> FolderTokenizer:
    return FolderTokenizer(Checkpoint.open(folder_of(tokenizer, folder, **files)))


def test_a_space_that_is_put_before_every_text_hides_no_special_token(tmp_path: Path) -> None:
    tokenizer = sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["normalized"] = True  # as older converters leave them
    found = saved(tokenizers.Tokenizer.from_str(json.dumps(content)), tmp_path)
    assert found.decode([*found.encode("a"), 1]) == "a"
    assert found.encode("a<end>")[-1] == 1
    assert 1 not in found.encode_plain("a<end>")


def test_the_end_of_a_real_story_is_read_and_shown_as_transformers_does(text_pair: Path) -> None:
    ours = load_tokenizer(str(text_pair / "target"), "target")
    theirs = AutoTokenizer.from_pretrained(text_pair / "target")
    (end_id,) = ours.vocabulary.end_ids
    written = "The end.<|end_story|>"
    assert list(ours.encode(written, add_special=True)) == theirs.encode(written)
    plain = ours.encode_plain(written)
    assert end_id not in plain
    for ids in (plain, (*plain, end_id)):
        assert ours.decode(ids) == theirs.decode(list(ids), skip_special_tokens=True)


def test_the_pieces_of_a_unigram_model_spell_no_special_token(tmp_path: Path) -> None:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((letter, -4.0) for letter in "▁abs</>")]
    tokenizer = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    found = saved(tokenizer, tmp_path)
    plain = found.encode_plain("a<s>b</s>")
    assert not {0, 1, 2}.intersection(plain)
    assert found.decode(plain) == "a<s>b</s>"
    assert found.encode("a<s>")[-1] == 1


def test_what_looks_like_a_control_token_is_one_to_nobody_but_a_template(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.add_tokens(["<\uff5cUser\uff5c>", "<tool>"])
    found = saved(tokenizer, tmp_path)
    user_id, tool_id = found.token_id("<\uff5cUser\uff5c>"), found.token_id("<tool>")
    assert found.encode("<\uff5cUser\uff5c>") == (user_id,)
    assert user_id not in found.encode_plain("a<\uff5cUser\uff5c>b")
    assert found.decode(found.encode_plain("a<\uff5cUser\uff5c>b")) == "a<\uff5cUser\uff5c>b"
    assert found.encode_plain("<tool>") == (tool_id,)


def test_a_line_break_that_ends_a_text_is_text(tmp_path: Path) -> None:
    tokenizer = byte_level()
    end_id = tokenizer.token_to_id("Ċ")
    found = saved(tokenizer, tmp_path, config={"vocab_size": 300, "eos_token_id": end_id})
    assert found.encode("a\nb") == tuple(tokenizer.encode("a\nb", add_special_tokens=False).ids)
    assert found.decode(found.encode("a\nb")) == "a\nb"


def test_a_text_that_begins_with_the_start_token_gets_no_second_one(tmp_path: Path) -> None:
    tokenizer = FolderTokenizer(Checkpoint.open(folder_of(byte_level(), tmp_path)))
    assert tokenizer.encode("wo", add_special=True) == tokenizer.encode("<s>wo", add_special=True)
    assert tokenizer.encode("<s>wo", add_special=True).count(0) == 1
    assert tokenizer.encode("", add_special=True) == (0,)
