"""What can be typed. Bodies are imported when they run, so that --help is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from skydraft import __version__
from skydraft.cli.exits import guard
from skydraft.cli.flags import CloudFlags, DemoFlags, WritingFlags, takes

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
    """Caption a clip with a device and a cloud, and with either alone.

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
