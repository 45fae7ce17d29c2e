from pathlib import Path

import pytest

from skydraft.cli import run

NOWHERE = "a-model-that-nobody-has"


def refusal(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert run(["generate", "Once upon a time,", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--mode", "edge"),
        ("--target", NOWHERE),
        ("--cloud", "ws://127.0.0.1:9"),
        ("--draft", "embedded"),
        ("--draft", "paced:step_ms=9:embedded"),
    ],
)
def test_the_captioning_models_continue_no_text(capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]) -> None:
    assert "give --draft MODEL and --target MODEL, two language models" in refusal(capsys, *flags)


@pytest.mark.parametrize("flags", [(), ("--mode", "cloud"), ("--mode", "auto"), ("--target", "embedded")])
def test_a_draft_without_a_target_is_told_what_to_give(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...]
) -> None:
    sentence = refusal(capsys, "--draft", NOWHERE, *flags)
    assert f"{NOWHERE} has no target: give --target MODEL" in sentence
    assert "--cloud URL" in sentence
    assert "--mode edge" in sentence


def test_a_text_too_long_is_refused_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skydraft.edge.device.Device.load", lambda *_: pytest.fail("something was loaded"))
    flags = ("--draft", "table:vocab=64", "--target", "table:vocab=64", "--max-tokens", "100000")
    assert "a text of 100,000 tokens was asked for" in refusal(capsys, *flags)
    assert "holds 100 of a text" in refusal(capsys, *flags, "--max-length", "100")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff\xfe\x00", "is not UTF-8 text (byte 0)"),
        (b" \n", "is blank: leave --context out"),
        ("é".encode() * (2**21 + 1), "has more than 4194304 bytes"),
    ],
)
def test_a_context_that_is_no_text_is_refused_before_anything_is_loaded(
    tmp_path: Path, content: bytes | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.txt"
    if content is not None:
        path.write_bytes(content)
    assert run(["generate", "hi", "--draft", "/gone", "--target", "/gone", "--context", str(path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_cloud_that_writes_without_the_context_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = tmp_path / "notes.txt", "table:vocab=64"
    path.write_text("ba be bi bo bu")
    flags = ("--mode", "cloud", "--draft", model, "--target", model, "--max-tokens", "2", "--context", str(path))
    sentence = "the cloud writes without having read the context; --share features lets it read it"
    for more, is_said in ([], True), (["--share", "features"], False):
        assert run(["generate", "da", *flags, *more]) == 0
        assert (sentence in capsys.readouterr().err) == is_said


def test_the_device_reads_a_context_and_its_text_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, model = tmp_path / "notes.txt", "table:vocab=64,seed=3,order=8"
    path.write_text("ba be bi bo bu")
    texts = []
    for more in ([], ["--context", str(path)]):
        assert run(["generate", "da", "--mode", "edge", "--draft", model, "--max-tokens", "8", *more]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] != texts[1]
