import io
import re

import pytest
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skydraft.cli.screen import Screen
from tests.cli.made_up import console, printed


def make_screen(is_out_terminal: bool = False, is_err_terminal: bool = False) -> Screen:
    return Screen(console(is_out_terminal, width=20), console(is_err_terminal, width=20))


def shown(screen: Screen) -> tuple[str, str]:
    return printed(screen.out), printed(screen.err)


def test_a_result_is_neither_wrapped_nor_read_as_markup() -> None:
    screen = make_screen()
    screen.text("[bold]a text[/bold] :smile: of more than twenty columns\x1b[2J")
    assert shown(screen) == ("[bold]a text[/bold] :smile: of more than twenty columns[2J\n", "")


def test_notes_go_to_standard_error_in_one_line() -> None:
    screen = make_screen()
    screen.note("a note of more than twenty\ncolumns")
    screen.warn("a [bold]warning[/bold] of more than twenty columns")
    assert shown(screen) == (
        "",
        "a note of more than twenty columns\nNote: a [bold]warning[/bold] of more than twenty columns\n",
    )


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_is_copied_from_a_terminal_has_no_padding(is_terminal: bool) -> None:
    screen = make_screen(is_terminal, is_terminal)
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row("a", Text("b"))
    table.add_row("[bold]long[/]", Text("longer", "underline"))
    screen.show(Padding(table, (1, 0, 1, 1)))
    screen.show()
    screen.note("words " * 6)
    out, err = (re.sub(r"\x1b\[[\d;]*m", "", text) for text in shown(screen))
    assert out == "\n a     b\n long  longer\n\n\n"
    assert all(line == line.rstrip() for line in err.splitlines())
    assert err.split() == ["words"] * 6


def test_progress_is_silent_where_nobody_watches() -> None:
    screen = make_screen()
    with screen.busy("loading"), screen.counting("captioning", 9) as count:
        count(3)
    assert shown(screen) == ("", "")


def test_progress_is_on_standard_error() -> None:
    screen = make_screen(is_err_terminal=True)
    with screen.busy("load \u202ea\x1b[2J"):
        pass
    with screen.counting("captioning", 9) as count:
        count(3)
    out, err = shown(screen)
    assert out == ""
    assert "load a [2J" in err
    assert "captioning" in err


def test_a_single_file_and_results_on_the_screen_need_no_bar() -> None:
    for screen, total in ((make_screen(True, True), 9), (make_screen(False, True), 1)):
        with screen.counting("captioning", total) as count:
            count(1)
        assert shown(screen) == ("", "")


def test_a_note_on_the_terminal_of_a_growing_text_has_a_line_of_its_own() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=40)
    screen = Screen(terminal, terminal)
    screen.append(("half", ""))
    screen.note("a note")
    screen.append((" a line", ""))
    screen.end_line()
    assert printed(terminal) == "half\na note\n a line\n"


def test_a_note_beside_a_pipe_does_not_break_its_line() -> None:
    screen = make_screen(is_err_terminal=True)
    screen.append(("half", ""))
    screen.note("a note")
    screen.append((" a line", ""))
    screen.end_line()
    assert shown(screen)[0] == "half a line\n"
