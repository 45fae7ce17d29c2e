"""A GGUF file's tokenizer says what the tokenizer.json of the same model says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skydraft.config import DeviceSettings
from skydraft.edge.draft_choice import choose_draft
from skydraft.engines.load import load_chat_format, load_engine, load_tokenizer
from skydraft.engines.settings import EngineSettings
from skydraft.errors import ModelLoadError
from skydraft.text.tokenizer import FolderTokenizer, Tokenizer
from skydraft.text.vocabulary import fit
from tests.llamacpp.installed import require_llamacpp
from tests.spy import spy_on
from tests.text.streamed import ids_of, stream

require_llamacpp()

Written = Callable[..., Path]
TEXTS = st.text(st.sampled_from("on ceañ€😀 tent\n"), max_size=16)


@pytest.fixture(scope="module")
def pieces(written: Written) -> Tokenizer:
    return load_tokenizer(str(written()), "draft")


@pytest.fixture(scope="module")
def of_twin(twin: Path) -> Tokenizer:
    return load_tokenizer(str(twin), "target")


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    from tests.llamacpp import files

    tokens = files.byte_tokens()
    path = tmp_path_factory.mktemp("bytes") / "bytes.gguf"
    return load_tokenizer(str(files.write_gguf(path, files.random_weights(0, len(tokens.pieces)), tokens)), "draft")


def test_the_vocabulary_is_that_of_the_tokenizer_json(pieces: Tokenizer, of_twin: Tokenizer) -> None:
    assert isinstance(of_twin, FolderTokenizer)
    assert pieces.vocabulary.tokens == of_twin.vocabulary.tokens
    assert pieces.vocabulary.digest() == of_twin.vocabulary.digest()
    assert fit(pieces.vocabulary, of_twin.vocabulary) == pieces.vocabulary.size
    assert pieces.vocabulary.end_ids == of_twin.vocabulary.end_ids == (2,)


def test_a_row_without_a_token_is_a_hole(of_bytes: Tokenizer) -> None:
    vocabulary = of_bytes.vocabulary
    assert (vocabulary.size, vocabulary.num_tokens) == (261, 260)
    assert (vocabulary.token(0), vocabulary.token(259), vocabulary.token(260)) == ("<|endoftext|>", "Ġwo", None)
    assert vocabulary.end_ids == (0, 1)


@given(text=TEXTS)
def test_ids_and_text_are_those_of_the_tokenizer_json(pieces: Tokenizer, of_twin: Tokenizer, text: str) -> None:
    ids = pieces.encode(text)
    assert ids == of_twin.encode(text)
    assert pieces.decode(ids) == of_twin.decode(ids)


@given(text=TEXTS)
def test_streamed_pieces_are_the_text(pieces: Tokenizer, text: str) -> None:
    ids = pieces.encode(text)
    assert "".join(stream(pieces, ids)) == pieces.decode(ids) == text


@given(text=st.text())
def test_streamed_bytes_are_the_text(of_bytes: Tokenizer, text: str) -> None:
    ids = of_bytes.encode(text)
    assert "".join(stream(of_bytes, ids)) == of_bytes.decode(ids) == text


@given(ids=st.lists(st.integers(-1, 300), max_size=40))
def test_any_ids_can_be_streamed(of_bytes: Tokenizer, ids: list[int]) -> None:
    assert "".join(stream(of_bytes, tuple(ids))).count("\ufffd") <= len(ids)


def test_a_character_is_held_until_it_is_whole(of_bytes: Tokenizer) -> None:
    assert stream(of_bytes, of_bytes.encode("a😀b")) == ["a", "", "", "", "😀", "b", ""]


def test_a_special_token_has_no_text_and_costs_the_next_word_no_space(pieces: Tokenizer) -> None:
    on, end = ids_of(pieces, "▁on", "</s>")
    assert stream(pieces, (on, end, on)) == ["on", "", " on", ""]
    assert pieces.decode((1, on)) == "on"


def test_special_tokens_are_read_in_a_text_and_added_when_asked_for(pieces: Tokenizer, of_bytes: Tokenizer) -> None:
    assert pieces.encode("on", add_special=True) == (1, *pieces.encode("on"))
    assert of_bytes.encode("a", add_special=True) == of_bytes.encode("a")
    assert of_bytes.encode("<|im_end|>") == (1,)
    assert pieces.token_id("unheard") is None


def test_half_a_surrogate_pair_is_a_question_mark(pieces: Tokenizer) -> None:
    assert pieces.decode(pieces.encode("a\ud800")) == "a?"


def test_characters_that_a_vocabulary_cannot_spell_are_unknown(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(without_bytes(tmp_path / "few.gguf", "<0x")), "draft")
    on, ce = tokenizer.encode("on"), tokenizer.encode("ce")
    assert tokenizer.encode("oné😀ce") == (*on, 0, 0, *ce)  # llama.cpp puts a space after a special token
    assert tokenizer.decode(tokenizer.encode("a\n")) == "a"


def test_a_vocabulary_that_cannot_spell_a_space_is_refused(tmp_path: Path) -> None:
    path = without_bytes(tmp_path / "none.gguf", ("<0x", "▁"))
    with pytest.raises(ModelLoadError, match=f"{path} has a SentencePiece vocabulary without a space"):
        load_tokenizer(str(path), "draft")


def without_bytes(path: Path, prefixes: str | tuple[str, ...]) -> Path:
    """A file whose vocabulary has holes for the tokens that begin so."""
    from gguf import TokenType

    from tests.llamacpp import files

    tokens = files.sentencepiece_tokens()
    is_hole = [piece.startswith(prefixes) for piece in tokens.pieces]
    holes = tokens._replace(
        pieces=[f"[PAD{i}]" if is_hole[i] else piece for i, piece in enumerate(tokens.pieces)],
        types=[TokenType.UNUSED if is_hole[i] else kind for i, kind in enumerate(tokens.types)],
    )
    return files.write_gguf(path, files.random_weights(0, len(tokens.pieces)), holes)


def test_the_chat_template_of_the_file_is_used(written: Written) -> None:
    template = load_chat_format(str(written()), "draft")
    assert template is not None
    assert template.render([{"role": "user", "content": "on"}]) == "<s>[on]"


@pytest.mark.text
def test_a_real_vocabulary_gives_the_ids_and_texts_of_its_tokenizer_json(text_pair: Path, tmp_path: Path) -> None:
    from tests.llamacpp import files

    ours = load_tokenizer(str(files.convert_folder(text_pair / "draft-d32", tmp_path / "d32.gguf")), "draft")
    theirs = load_tokenizer(str(text_pair / "draft-d32"), "draft")
    assert ours.vocabulary.digest() == theirs.vocabulary.digest()
    for line in (text_pair / "prompts.jsonl").read_text().splitlines():
        prompt = json.loads(line)["prompt"]
        ids = ours.encode(prompt, add_special=True)
        assert ids == theirs.encode(prompt, add_special=True)
        assert ours.decode(ids[1:]) == theirs.decode(ids[1:]) == prompt
        written = f"{prompt}<|end_story|>"
        assert ours.encode(written) == theirs.encode(written) == (*ids[1:], 2)
        assert ours.encode_plain(written) == theirs.encode_plain(written)
        assert 2 not in ours.encode_plain(written)


def test_what_a_person_writes_has_no_control_tokens(of_bytes: Tokenizer, pieces: Tokenizer) -> None:
    text = "on<|endoftext|>ce"
    assert 0 in of_bytes.encode(text)
    plain = of_bytes.encode_plain(text)
    assert 0 not in plain
    assert of_bytes.decode(plain) == text
    assert pieces.encode_plain("once") == pieces.encode("once")


def test_a_text_that_begins_with_the_start_token_gets_no_second_one(pieces: Tokenizer) -> None:
    start = pieces.vocabulary.token(1)
    whole = pieces.encode("once", add_special=True)
    assert whole[0] == 1
    again = pieces.encode(f"{start}once", add_special=True)
    assert again.count(1) == 1
    assert again[0] == 1


def test_a_device_opens_a_file_twice_and_reads_its_vocabulary_once(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    import llama_cpp

    path = written(seed=7)
    opened = spy_on(monkeypatch, llama_cpp, "llama_model_load_from_file", lambda path, *_: path)
    spelled = spy_on(monkeypatch, llama_cpp, "llama_vocab_get_text", lambda _, token_id: token_id)
    tokenizer = load_tokenizer(str(path), "draft")
    engine = load_engine(str(path), "draft", EngineSettings(num_threads=1))
    num_spelled = len(spelled)
    template = load_chat_format(str(path), "draft")
    assert len(opened) == 2  # without weights, to be compared with the cloud's, and with them
    assert num_spelled == tokenizer.vocabulary.size
    assert engine.vocabulary is tokenizer.vocabulary
    assert template is not None


def test_a_file_that_was_written_again_is_read_again(tmp_path: Path) -> None:
    from tests.llamacpp import files

    def load(tokens: files.Tokens) -> Tokenizer:
        files.write_gguf(tmp_path / "model.gguf", files.random_weights(0, len(tokens.pieces)), tokens)
        return load_tokenizer(str(tmp_path / "model.gguf"), "draft")

    before, after = load(files.byte_tokens()), load(files.sentencepiece_tokens())
    assert before.vocabulary.num_tokens == 260
    assert after.vocabulary.tokens == tuple(files.sentencepiece_tokens().pieces)


async def test_auto_takes_the_gguf_file_that_has_the_tokens_of_the_clouds_model(
    written: Written, twin: Path, tmp_path: Path
) -> None:
    from tests.llamacpp import files

    tokens = files.byte_tokens()
    files.write_gguf(tmp_path / "a-smaller-one.gguf", files.random_weights(0, len(tokens.pieces)), tokens)
    for kind in ("F32", "Q8_0"):
        (tmp_path / f"{kind}.gguf").symlink_to(written(kind))
    settings = DeviceSettings(draft="auto", models=str(tmp_path), target=str(twin))
    assert (await choose_draft(settings)).draft == str(tmp_path / "Q8_0.gguf")
