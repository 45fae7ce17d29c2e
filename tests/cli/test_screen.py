import io

from rich.console import Console

from skydraft.cli.live import LiveText
from skydraft.cli.results import result_of_text
from skydraft.cli.screen import Screen
from skydraft.core import Token
from tests.cli.made_up import ACCEPTED, EDGE, TOKENIZER, report


def make_screen(is_out_terminal=False, is_err_terminal=False):
    return Screen(
        *(Console(file=io.StringIO(), force_terminal=is_it, width=20) for is_it in (is_out_terminal, is_err_terminal))
    )


def shown(screen):
    return screen.out.file.getvalue(), screen.err.file.getvalue()


def test_a_result_is_neither_wrapped_nor_read_as_markup():
    screen = make_screen()
    screen.text("[bold]a text[/bold] :smile: of more than twenty columns\x1b[2J")
    assert shown(screen) == ("[bold]a text[/bold] :smile: of more than twenty columns[2J\n", "")


def test_notes_go_to_standard_error_in_one_line():
    screen = make_screen()
    screen.note("a note of more than twenty\ncolumns")
    screen.warn("a [bold]warning[/bold] of more than twenty columns")
    assert shown(screen) == (
        "",
        "a note of more than twenty columns\nNote: a [bold]warning[/bold] of more than twenty columns\n",
    )


def test_progress_is_silent_where_nobody_watches():
    screen = make_screen()
    with screen.busy("loading"), screen.counting("captioning", 9) as count:
        count(3)
    assert shown(screen) == ("", "")


def test_progress_is_on_standard_error():
    screen = make_screen(is_err_terminal=True)
    with screen.busy("loading"):
        pass
    with screen.counting("captioning", 9) as count:
        count(3)
    out, err = shown(screen)
    assert out == ""
    assert "loading" in err
    assert "captioning" in err


def test_a_single_file_and_results_on_the_screen_need_no_bar():
    for screen, total in ((make_screen(True, True), 9), (make_screen(False, True), 1)):
        with screen.counting("captioning", total) as count:
            count(1)
        assert shown(screen) == ("", "")


def test_a_live_text_is_shown_once_and_whole_where_nobody_watches():
    screen = make_screen()
    result = result_of_text(report((1, 2, 3)), TOKENIZER)
    with LiveText(screen.out, TOKENIZER, indent=2) as live:
        live.add(report((1, 2, 3)).tokens)
        assert shown(screen)[0] == ""
        live.finish(result)
    assert shown(screen)[0].strip() == result.text


def test_a_live_text_grows_on_a_terminal():
    screen = make_screen(is_out_terminal=True)
    with LiveText(screen.out, TOKENIZER) as live:
        live.add([Token(1, EDGE)])
        first = shown(screen)[0]
        live.add([Token(2, ACCEPTED)])
        live.finish(result_of_text(report((1, 2), (EDGE, ACCEPTED)), TOKENIZER))
    assert "be" in first
    assert "bi" not in first
    assert "bi" in shown(screen)[0]
