"""What ends a command: one sentence on standard error and an exit status.

0: done. 1: something failed: a file, a model, a cloud. 2: a flag, an argument or a file of settings or keys is wrong,
whether click refuses it, the settings or the model. 3: a text ended early, and was printed as far as it goes. 130:
Ctrl-C. 141: nobody reads the output any more.
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
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
UNREAD = 141  # 128 + SIGPIPE
DEBUG_VARIABLE = "SKYDRAFT_DEBUG"
EXTRAS = {
    "fastapi": "cloud",
    "uvicorn": "cloud",
    "prometheus_client": "cloud",
    "opentelemetry": "otel",
    "ray": "ray",
    "soundfile": "audio",
    "soxr": "audio",
    "torch": "torch",
    "transformers": "torch",
    "safetensors": "torch",
}


@contextmanager
def guard(debug: bool) -> Iterator[None]:
    """Turn whatever ends a command into a sentence and a status.

    Args:
        debug: show tracebacks.
    Raises:
        click.exceptions.Exit: with the status.
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
    """One sentence for a person."""
    if isinstance(error, SkydraftError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
        package = str(error.name).partition(".")[0]
        return f"this needs the package {package}, which is not installed: pip install 'skydraft[{EXTRAS[package]}]'"
    if isinstance(error, MemoryError):
        return "the memory of this machine does not suffice: use a smaller model, fewer --slots or a shorter clip"
    return (
        f"skydraft failed in a way that it should not ({type(error).__name__}: {error}); please report it, "
        "with what --debug shows"
    )


def print_error(sentence: str) -> None:
    """Say on standard error what went wrong, in red on a terminal."""
    # With click and not rich, which takes a tenth of a second to import: most errors are typing errors.
    is_plain = not sys.stderr.isatty() or "NO_COLOR" in os.environ
    text = f"Error: {safe_line(sentence)}"
    click.echo(text if is_plain else click.style(text, fg="red"), err=True)


def _forget_stdout() -> None:
    """Send what is still to be flushed to nowhere, so that the interpreter does not complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
