from pathlib import Path

import pytest

import skydraft
from skydraft.cli import run
from skydraft.config import DeviceSettings
from skydraft.core import Mode, setting_fields

COMMANDS = ("demo", "cloud", "caption", "listen", "generate", "chat", "doctor")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n  {command} " in out for command in COMMANDS)
    assert "..." not in out.partition("Commands:")[2], "a command's first sentence is cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_a_help_text(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--help"]) == 0
    options = capsys.readouterr().out.partition("\nOptions:\n")[2].rstrip().split("\n  -")
    assert len(options) > (3 if command == "demo" else 10)
    assert all(len(option.split()) > 3 for option in options)
    assert "--with-stdin" not in "".join(options)


@pytest.mark.parametrize("command", ["models list", "models pull", "completion", "cloud-key add"])
def test_a_command_without_settings_has_a_help_text_too(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([*command.split(), "--help"]) == 0
    assert "\nOther:\n" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"skydraft {skydraft.__version__}\n"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence of wrong usage, without the line breaks of a terminal."""
    assert run(arguments) == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_file_that_begins_with_a_dash_is_told_how_to_be_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "'-v'. A text or a file that begins with a dash goes after --" in told(capsys, "caption", "-voice.wav")
    for name in ("-voice.wav", "--voice.wav", "-remix.wav"):
        Path(name).touch()
        assert f"{name} was read as a flag: name the file ./{name}" in told(capsys, "caption", "a.wav", name)


def test_hints_are_given_only_where_they_may_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert "goes after --" in told(capsys, "generate", "-5 degrees")
    assert "goes after --" not in told(capsys, "generate", "a", "--max-token", "5")
    assert "goes after --" not in told(capsys, "doctor", "-5")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fly"], "fly"),
        (["caption"], "Missing argument 'FILE"),
        (["caption", "a.wav", "--mode", "both"], "'both' is not one of 'hybrid', 'edge', 'cloud'"),
        (["generate", "a", "--seed", "x"], "--seed"),
        (["generate", "a", "b"], "b"),
        (["generate", "a", "--seed", "1_0"], "'1_0' is not a whole number"),
        (["generate", "a", "--max-tokens", " 5"], "' 5' is not a whole number"),
        (["generate", "a", "--block-length", "\u0665"], "is not a whole number"),
        (["generate", "a", "--temperature", "nan"], "'nan' is not a number"),
        (["generate", "a", "--accept", "rank: 5"], "acceptance rule 'rank: 5'"),
        (["cloud", "--ray", "1_0"], "'1_0' is not a whole number"),
        (["cloud", "--ray", "1025"], "1025 is not 1 to 1024"),
    ],
)
def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "a", "--temperature", "-2"],
        ["generate", "a", "--temperature", "warm"],
        ["generate", "a", "--gate", "x"],
        ["generate", "a", "--mode", "x"],
        ["generate", "a", "--config", "nowhere.toml"],
        ["caption", "a.wav", "--cloud", "ftp://x"],
        ["doctor", "--device", "the moon"],
        ["cloud", "--port", "70000"],
        ["cloud", "--port", "http"],
        ["cloud", "--host", "0.0.0.0"],
        ["cloud-key", "add", "a b", "--keys", "keys.toml"],
        ["cloud-key", "remove", "a", "--keys", "nowhere.toml"],
        ["cloud-key", "add", "a", "--keys", "keys.toml", "--max-sessions", "0"],
    ],
)
def test_a_wrong_value_is_status_2_whoever_refuses_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in err


def test_a_wrong_setting_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "a", "--temperature", "-2"]) == 2
    assert capsys.readouterr() == ("", "Error: temperature is -2.0 and must be 0 to 100\n")


def test_the_statuses_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    run(["--help"])
    assert "2: a flag, an argument or a settings file is wrong" in " ".join(capsys.readouterr().out.split())


def test_commands_get_their_arguments_and_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[str, ...], DeviceSettings, object]] = []

    def run_caption(files: tuple[str, ...], settings: DeviceSettings, *output: object) -> int:
        seen.append((files, settings, output))
        return 1

    monkeypatch.setattr("skydraft.cli.caption.run_caption", run_caption)
    assert run(["caption", "a.wav", "--mode", "edge", "--json", "b.wav", "--top-k", "4", "--offline-wait", "1.5"]) == 1
    [(files, settings, output)] = seen
    assert files == ("a.wav", "b.wav")
    assert output == ("json", None, False)
    assert (settings.mode, settings.top_k, settings.offline_wait_s, settings.seed) == (Mode.EDGE, 4, 1.5, None)


def test_flags_of_a_device_stand_under_headings_those_that_most_need_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["caption", "--help"]) == 0
    out = capsys.readouterr().out
    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith((" ", "Usage"))]
    assert headings[-1] == "Other:"
    assert {"Options:", "The text:", "How it is written:", "This machine:", "The connection:"} < set(headings)
    first = out.partition("\nOptions:\n")[2].partition("\n\n")[0]
    flags = [
        field.setting.flag for field in setting_fields(DeviceSettings) if field.setting and not field.setting.group
    ]
    flags = [flag for flag in flags if flag]
    assert flags == ["--cloud", "--key", "--draft", "--target", "--share"]
    assert all(f"\n  {flag} " in f"\n{first}".replace(", --model ", " ") for flag in flags)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_flags(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert run(["completion", shell]) == 0
    assert "_SKYDRAFT_COMPLETE" in capsys.readouterr().out


def test_a_shell_that_asks_is_given_what_may_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"_SKYDRAFT_COMPLETE": "bash_complete", "COMP_WORDS": "skydraft ge", "COMP_CWORD": "1"}.items():
        monkeypatch.setenv(name, value)
    run([])
    assert "plain,generate" in capsys.readouterr().out
