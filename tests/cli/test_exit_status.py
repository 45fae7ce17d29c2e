import pytest
from click.exceptions import Exit

from skydraft.cli.exit_status import describe, guard
from skydraft.errors import ConfigError, ModelLoadError


def ends(error: BaseException, debug: bool = False) -> int:
    with pytest.raises(Exit) as end, guard(debug):
        raise error
    return end.value.exit_code


def test_an_error_is_one_sentence_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(ModelLoadError("the moon is\n\x1b[5mfull")) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "Error: the moon is  [5mfull\n")


def test_a_wrong_setting_is_status_2_as_wrong_usage_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(ConfigError("wrong")) == 2
    assert capsys.readouterr() == ("", "Error: wrong\n")


def test_ctrl_c_is_quiet_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "")


def test_the_unexpected_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(ZeroDivisionError("division by zero")) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in err
    assert "please report it" in err
    assert "Traceback" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("by_variable", [True, False])
def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    if by_variable:
        monkeypatch.setenv("SKYDRAFT_DEBUG", "1")
    assert ends(ModelLoadError("wrong\x1b[2J"), debug=not by_variable) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("\nError: wrong [2J\n")
    assert "\x1b" not in err


def test_a_status_passes() -> None:
    assert ends(Exit(3)) == 3


@pytest.mark.parametrize(("module", "extra"), [("ray.serve", "ray"), ("torch.nn", "torch")])
def test_a_missing_package_names_the_extra_that_brings_it(module: str, extra: str) -> None:
    sentence = describe(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert sentence.endswith(f"pip install 'skydraft[{extra}]'")


def test_another_missing_module_is_a_bug() -> None:
    assert "report" in describe(ModuleNotFoundError("No module named 'skydraft.nowhere'", name="skydraft.nowhere"))
