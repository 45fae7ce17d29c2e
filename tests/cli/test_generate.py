import json
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from skydraft.cli import run
from skydraft.cli.generate import Request, tell_review
from skydraft.cli.screen import Screen
from skydraft.config import CloudSettings, DeviceSettings
from skydraft.edge.device import Device
from tests.cloud.running import running
from tests.linked import table

NOWHERE = "a-model-that-nobody-has"
TABLE = "table:vocab=64,seed=3,order=2"


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


@pytest.mark.parametrize("draft", ["table:vocab=64,seed=3,order=8", "lookup", "lookup:table:vocab=64,seed=3,order=8"])
def test_a_prediction_and_drafts_without_a_model_change_no_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], draft: str
) -> None:
    target = "table:vocab=64,seed=3,order=8"
    flags = ["--target", target, "--max-tokens", "12"]
    assert run(["generate", "da", "--mode", "cloud", "--draft", target, *flags]) == 0
    path = tmp_path / "expected.txt"
    path.write_text(expected := capsys.readouterr().out)
    assert run(["generate", "da", "--draft", draft, "--prediction", str(path), *flags]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("given", "prompt"), [("da\n", "da"), ("da\r\n", "da"), ("da\n\n", "da\n"), ("da", "da"), (" da ", " da ")]
)
def test_a_prompt_on_standard_input_is_without_its_last_line_break(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str, prompt: str
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(given.encode())))
    assert run(["generate", "-", "--mode", "edge", "--draft", TABLE, "--max-tokens", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == prompt


def test_a_text_without_rounds_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--draft", f"paced:step_ms=400:{TABLE}", "--target", TABLE, "--max-tokens", "8", "--json")
    assert run(["generate", "da", *flags]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert (whole["rounds"], whole["undrafted"]) == (0, "slow_draft")


def test_a_stream_of_json_has_what_comes_as_it_comes_and_then_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--mode", "edge", "--draft", TABLE, "--max-tokens", "8", "--json-stream")
    assert run(["generate", "da", *flags]) == 0
    *batches, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert len(batches) > 1
    assert "".join(batch["text"] for batch in batches) == whole["text"]
    told = [token for batch in batches for token in batch["tokens"]]
    assert told == [{"id": token["id"], "origin": token["origin"]} for token in whole["tokens"]]
    assert (whole["prompt"], len(told)) == ("da", 8)


def test_a_tunnel_without_an_end_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--cloud", "ws://127.0.0.1:9", "--offline", "tunnel", "--max-tokens", "8")
    assert run(["generate", "da", "--draft", TABLE, *flags]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "the device goes on alone" in err
    assert "What the cloud would have written is not known: no cloud could be reached" in err


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (TABLE, "The cloud would have written tokens 1 to 8 too."),
        ("table:vocab=64,seed=4,order=2", "In place of tokens 1 to 8 the cloud would have written: "),
    ],
)
async def test_a_review_is_told_when_the_cloud_is_back(target: str, words: str) -> None:
    settings = DeviceSettings(draft=TABLE, cloud="ws://127.0.0.1:9", offline="tunnel", max_tokens=8)
    with Device.load(settings) as device:
        report = await device.generate("da")
    err = StringIO()
    with (
        running(CloudSettings(port=0), lambda: table(target)) as cloud,
        Device.load(replace(settings, cloud=cloud.address)) as device,
    ):
        await tell_review(device, Request("da", None, None, None), report, Screen(err=Console(file=err, width=300)))
    assert words in err.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file"),
        ("{nope", "is not JSON"),
        ("[1]", "is list and must be a JSON object"),
        ('{"type": "nope"}', "the json grammar cannot be used"),
    ],
)
def test_a_schema_that_is_none_is_refused_in_a_sentence(
    tmp_path: Path, content: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = tmp_path / "schema.json", "table:vocab=64"
    if content is not None:
        path.write_text(content)
    flags = ("--mode", "edge", "--draft", model, "--json-schema", str(path))
    assert run(["generate", "da", *flags]) == 2
    assert sentence in capsys.readouterr().err
