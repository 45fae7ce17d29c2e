"""What can be typed. Flags and bodies are imported when a command is asked for, so that --help is quick."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from skydraft import __version__
from skydraft.cli.exits import guard

if TYPE_CHECKING:
    from skydraft.cli.flags import (
        CloudFlags,
        DemoFlags,
        DoctorFlags,
        GenerateFlags,
        KeyFlags,
        RemoveKeyFlags,
        WritingFlags,
    )


class Command(click.Command):
    """A function `run(flags, **arguments) -> exit status or None` as a command; its docstring is the help.

    The annotation of `flags` names the class of cli/flags whose fields are the options.
    """

    def __init__(self, name: str, run: Callable[..., int | None], arguments: tuple[click.Argument, ...]) -> None:
        super().__init__(name, help=run.__doc__)
        self._run = run
        self._arguments = arguments

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from skydraft.cli.flags import options_of

        self.params = self.params or [*self._arguments, *options_of(self._flags_type)]
        return super().get_params(ctx)

    def invoke(self, ctx: click.Context) -> None:
        arguments = {argument.name: ctx.params.pop(argument.name) for argument in self._arguments if argument.name}
        flags = self._flags_type(**ctx.params)
        with guard(flags.debug):
            ctx.exit(self._run(flags, **arguments) or 0)

    @cached_property
    def _flags_type(self) -> type[Any]:
        from skydraft.cli import flags

        found: type[Any] = getattr(flags, self._run.__annotations__["flags"])
        return found


class Group(click.Group):
    """Lists its commands in the order in which a person may need them, which is that of this file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def command(group: click.Group, name: str, *arguments: click.Argument) -> Callable[[Callable[..., int | None]], None]:
    """Add the function that follows to a group."""
    return lambda run: group.add_command(Command(name, run, arguments))


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0, done; 1, something failed; 2, a flag, an argument or a file of settings is wrong; "
    "3, a text ended early for want of room, and was printed as far as it goes; 130, Ctrl-C; 141, nobody reads the "
    "output any more.",
)
@click.version_option(__version__, message="skydraft %(version)s")
def app() -> None:
    """A small model on a device drafts, a large model in a cloud judges: one text, written together.

    What the device heard or was told stays on it unless --share says otherwise. Begin with: skydraft demo
    """


@command(app, "demo")
def demo(flags: DemoFlags) -> None:
    """Caption a clip with a device and a cloud, and by each alone.

    Both run on this machine, as two processes that speak over loopback.
    """
    from skydraft.cli.demo import run_demo

    run_demo(flags)


@command(app, "cloud")
def cloud(flags: CloudFlags) -> None:
    """Serve a large model to devices.

    Says where it listens, and serves until Ctrl-C.
    """
    from skydraft.cli.cloud import run_cloud

    run_cloud(flags)


@command(
    app,
    "caption",
    click.Argument(
        ["files"], nargs=-1, required=True, metavar="FILE...", help="Sound files: WAV, FLAC, Ogg, MP3 or AIFF."
    ),
)
def caption(flags: WritingFlags, files: tuple[str, ...]) -> int:
    """Say in a sentence how the voice in each sound file sounds.

    A clip over 30 s is captioned in windows. A file that cannot be read does not stop the others; the exit status is
    then 1.
    """
    from skydraft.cli.caption import run_caption

    return run_caption(files, flags)


@command(app, "generate", click.Argument(["prompt"], help="What is to be continued; - reads it from standard input."))
def generate(flags: GenerateFlags, prompt: str) -> int:
    """Continue a text.

    Device and cloud take any two language models that share a tokenizer.
    For example: skydraft generate "Once upon a time," --draft SMALL_MODEL --target LARGE_MODEL
    """
    from skydraft.cli.generate import run_generate

    return run_generate(prompt, flags)


@command(app, "doctor")
def doctor(flags: DoctorFlags) -> int:
    """Look at this machine, its draft model and a cloud.

    Measures what drafting and judging take, for some seconds, and says what is wrong and what to do. The exit status
    is 1 where something is.
    """
    from skydraft.cli.doctor import run_doctor

    return run_doctor(flags)


@app.group("cloud-key", cls=Group)
def cloud_key() -> None:
    """Make and take back API keys of a cloud."""


@command(cloud_key, "add", click.Argument(["name"], help="Whose key: letters, digits, hyphens, underscores."))
def add_key(flags: KeyFlags, name: str) -> None:
    """Make a key and print it, once: the file keeps its hash only.

    A running cloud takes it within seconds. A device gives it with --key or SKYDRAFT_KEY.
    """
    from skydraft.cli.cloud_key import run_add_key

    run_add_key(name, flags)


@command(cloud_key, "remove", click.Argument(["name"], help="Whose key."))
def remove_key(flags: RemoveKeyFlags, name: str) -> None:
    """Take a key back; a running cloud closes its connections within seconds."""
    from skydraft.cloud.access.keys import remove_key

    remove_key(flags.keys, name)
