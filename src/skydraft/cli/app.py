"""What can be typed. Bodies are imported when they run, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from skydraft import __version__
from skydraft.cli.exits import guard
from skydraft.cli.flags import CloudFlags, DebugFlag, DemoFlags, DoctorFlags, KeyFlags, WritingFlags, takes

app = typer.Typer(
    name="skydraft",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # help drawn by rich takes twice the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"skydraft {__version__}")
        raise typer.Exit


@app.callback()
def skydraft(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """A small model on a device drafts, a large model in a cloud judges: one text, written together.

    What the device heard or was told stays on it unless --share says otherwise. Begin with: skydraft demo
    """


@app.command()
@takes(DemoFlags)
def demo(flags: DemoFlags) -> None:
    """Caption a clip with a device and a cloud, and by each alone.

    Both run on this machine, as two processes that speak over loopback.
    """
    with guard(flags.debug):
        from skydraft.cli.demo import run_demo

        run_demo(flags)


@app.command()
@takes(CloudFlags)
def cloud(flags: CloudFlags) -> None:
    """Serve a large model to devices.

    Says where it listens, and serves until Ctrl-C.
    """
    with guard(flags.debug):
        from skydraft.cli.cloud import run_cloud

        run_cloud(flags)


cloud_key = typer.Typer(
    name="cloud-key", no_args_is_help=True, help="Make and take back API keys of a cloud.", rich_markup_mode=None
)
app.add_typer(cloud_key)


@cloud_key.command("add")
@takes(KeyFlags)
def add_key(
    flags: KeyFlags, name: Annotated[str, typer.Argument(help="Whose key: letters, digits, hyphens, underscores.")]
) -> None:
    """Make a key and print it, once: the file keeps its hash only.

    A running cloud takes it within seconds. A device gives it with --key or SKYDRAFT_KEY.
    """
    with guard(flags.debug):
        from skydraft.cli.cloud_key import run_add_key

        run_add_key(name, flags)


@cloud_key.command("remove")
def remove_key(
    name: Annotated[str, typer.Argument(help="Whose key.")],
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="The file of keys.")],
    debug: DebugFlag = False,
) -> None:
    """Take a key back; a running cloud closes its connections within seconds."""
    with guard(debug):
        from skydraft.cloud.keys import remove_key

        remove_key(keys, name)


@app.command()
@takes(WritingFlags)
def caption(
    flags: WritingFlags,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Sound files: WAV, FLAC, Ogg, MP3 or AIFF.")],
) -> None:
    """Say in a sentence how the voice in each sound file sounds.

    A clip over 30 s is captioned in windows. A file that cannot be read does not stop the others; the exit status is
    then 1.
    """
    with guard(flags.debug):
        from skydraft.cli.caption import run_caption

        raise typer.Exit(run_caption(files, flags))


@app.command()
@takes(WritingFlags)
def generate(
    flags: WritingFlags,
    prompt: Annotated[str, typer.Argument(help="What is to be continued; - reads it from standard input.")],
) -> None:
    """Continue a text.

    Device and cloud take any two language models that share a tokenizer.
    For example: skydraft generate "Once upon a time," --draft SMALL_MODEL --target LARGE_MODEL
    """
    with guard(flags.debug):
        from skydraft.cli.generate import run_generate

        run_generate(prompt, flags)


@app.command()
@takes(DoctorFlags)
def doctor(flags: DoctorFlags) -> None:
    """Look at this machine, its draft model and a cloud.

    Measures what drafting and judging take, for some seconds, and says what is wrong and what to do. The exit status
    is 1 where something is.
    """
    with guard(flags.debug):
        from skydraft.cli.doctor import run_doctor

        raise typer.Exit(run_doctor(flags))
