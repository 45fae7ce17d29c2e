"""How a command ends: an exit status and, after a failure, one sentence on standard error.

0: success. 1: a file, a model or a cloud failed. 2: a flag, an argument or a file of settings or keys is wrong, no
matter whether click, the settings or the model find it. 3: a text ended early and was printed so far. 130: Ctrl-C.
141: the reader of the output has closed it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import click
from click.exceptions import Exit

from skydraft.cli.terminal_text import safe_line, safe_text
from skydraft.errors import ConfigError, SkydraftError

FAILED = 1
MISUSED = 2
ENDED_EARLY = 3
INTERRUPTED = 130  # 128 + SIGINT, as in shells
UNREAD = 141  # 128 + SIGPIPE
DEBUG_VARIABLE = "SKYDRAFT_DEBUG"
EXTRAS = {
    "opentelemetry": "otel",
    "ray": "ray",
    "torch": "torch",
    "transformers": "torch",
}


@contextmanager
def guard(debug: bool) -> Iterator[None]:
    """Turn an exception that ends a command into a sentence and an exit status.

    Args:
        debug: show tracebacks.
    Raises:
        click.exceptions.Exit: with the exit status.
    """
    try:
        yield
    except (Exit, GeneratorExit):
        raise
    except KeyboardInterrupt:
        raise Exit(INTERRUPTED) from None
    except BrokenPipeError:
        _forget_stdout()
        raise Exit(UNREAD) from None
    except Exception as error:
        if debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
            click.echo(safe_text(traceback.format_exc()), err=True, nl=False)
        print_error(describe(error))
        raise Exit(MISUSED if isinstance(error, ConfigError) else FAILED) from None


def describe(error: Exception) -> str:
    """Describe an error in one sentence for the user."""
    if isinstance(error, SkydraftError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
        package = str(error.name).partition(".")[0]
        return f"the package {package} is not installed: pip install 'skydraft[{EXTRAS[package]}]'"
    if isinstance(error, MemoryError):
        return "this machine is out of memory: use a smaller model, fewer --slots or a shorter clip"
    return f"internal error of skydraft ({type(error).__name__}: {error}); please report it with the output of --debug"


def print_error(sentence: str) -> None:
    """Print an error to standard error, in red on a terminal."""
    # click and not rich, whose import takes a tenth of a second: most errors are wrong flags.
    is_plain = not sys.stderr.isatty() or "NO_COLOR" in os.environ
    text = f"Error: {safe_line(sentence)}"
    click.echo(text if is_plain else click.style(text, fg="red"), err=True)


def _forget_stdout() -> None:
    """Discard buffered output, so that the interpreter does not report a broken pipe when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
