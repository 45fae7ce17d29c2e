"""The commands and what they take. Their bodies are imported when they run, so that --help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from skydraft import __version__
from skydraft.cli.exit_status import guard
from skydraft.cli.options import (
    CONFIG,
    JSON,
    KEYS,
    OTHER,
    HeadedOption,
    Number,
    cloud_settings,
    device_settings,
    gateway_settings,
    given,
    options_of,
)
from skydraft.cloud.access.keys import KeyGrant
from skydraft.config import CloudSettings, DeviceSettings, GatewaySettings
from skydraft.tasks.cues import CUE_FORMATS

FORMAT = click.option(
    "--format", "to", type=click.Choice([*CUE_FORMATS, "json"]), help="Format of the captions. [default: text]"
)
CHAT_TOKENS = 512  # of an answer: more than of a caption or a sentence that is continued
DEBUG = HeadedOption(
    ["--debug"], is_flag=True, heading=OTHER, help="Show the traceback of an error. Also SKYDRAFT_DEBUG=1."
)


class Command(click.Command):
    """A function that returns its exit status, or None for 0; errors end it as cli/exit_status says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(DEBUG)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under headings, those that most need first."""
        sections: dict[str, list[tuple[str, str]]] = {"": []}
        for option in self.get_params(ctx):
            if not isinstance(option, click.Option):
                continue
            heading = option.heading if isinstance(option, HeadedOption) else "" if option.is_eager is False else OTHER
            if record := option.get_help_record(ctx):
                sections.setdefault(heading, []).append(record)
        other = sections.pop(OTHER, [])
        for heading, records in [*sections.items(), (OTHER, other)]:
            if not records:
                continue
            with formatter.section(heading or "Options"):
                formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with a hint where an argument that begins with a dash may have been read as a flag."""
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            for argument in typed:
                if argument.startswith("-") and Path(argument).is_file():
                    raise click.UsageError(f"{argument} was read as a flag: name the file ./{argument}", ctx) from None
            takes_arguments = any(isinstance(param, click.Argument) for param in self.params)
            if error.option_name.startswith("--") or not takes_arguments:
                raise
            hint = f"{error.format_message()} A text or a file that begins with a dash goes after --, at the end."
            raise click.UsageError(hint, ctx) from None

    def invoke(self, ctx: click.Context) -> None:
        with guard(ctx.params.pop("debug")):
            ctx.exit(super().invoke(ctx) or 0)


class Group(click.Group):
    """Lists its commands in the order of this file: that in which a person may need them."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0: success. 1: something failed. 2: a flag, an argument or a settings file is wrong. 3: a "
    "text ended early because it reached a limit, and was printed so far. 130: Ctrl-C. 141: the reader of the output "
    "has closed it.",
)
@click.version_option(__version__, message="skydraft %(version)s")
def app() -> None:
    """Edge-cloud speculative decoding: a small model on a device drafts, a large model in a cloud verifies.

    The device's evidence stays on the device unless --share says otherwise. Start with: skydraft demo
    """


@app.command()
@click.option("--clip", type=Path, metavar="FILE", help="A sound file for the second act. [default: two of skydraft's]")
@click.option(
    "--round-trip",
    "round_trip_ms",
    type=Number(int, bounds=(0, 2000)),
    default=50,
    metavar="MS",
    help="Round trip of the emulated link. [default: 50]",
)
@click.option(
    "--cloud-step",
    "step_ms",
    type=Number(int, bounds=(1, 1000)),
    default=40,
    metavar="MS",
    help="Time that the cloud takes for a token, as a large model does. [default: 40]",
)
def demo(clip: Path | None, round_trip_ms: int, step_ms: int) -> None:
    """Show what drafting does to speed, and what leaves a device.

    A text is written by a cloud alone and with this device, side by side; then a voice is captioned on this device,
    which asks the cloud where it is unsure. All run on this machine; the link and the pace of the cloud are emulated.
    """
    from skydraft.cli.demo import Stage, run_demo

    run_demo(clip, Stage(round_trip_ms, step_ms))


@app.command()
@options_of(CloudSettings)
@click.option(
    "--ray",
    "num_replicas",
    type=Number(int, bounds=(1, 1024)),
    metavar="N",
    help="Serve N replicas of the model with Ray Serve on this machine; with --device cuda each has a GPU of its own. "
    "[default: one, without Ray]",
)
@CONFIG
@click.option("--with-stdin", is_flag=True, hidden=True, help="Stop when standard input closes.")
def cloud(num_replicas: int | None, with_stdin: bool, config: Path | None, **flags: Any) -> None:
    """Serve a large model to devices.

    Prints the address it listens on, and serves until Ctrl-C.
    """
    from skydraft.cli.cloud import run_cloud

    run_cloud(cloud_settings(config, flags), num_replicas, with_stdin)


@app.command()
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    help="Sound files: WAV, FLAC, Ogg, MP3, AIFF, and where ffmpeg is on the PATH all that it reads, films too; - is "
    "standard input.",
)
@click.option("-r", "--recursive", "is_recursive", is_flag=True, help="Take folders too: all sound files below them.")
@FORMAT
@click.option(
    "-o",
    "--output",
    type=Path,
    metavar="PATH",
    help="A file for the captions, or a folder, with a file in it for each sound file. [default: standard output]",
)
@options_of(DeviceSettings)
@CONFIG
@JSON
def caption(
    files: tuple[str, ...],
    is_recursive: bool,
    to: str | None,
    output: Path | None,
    config: Path | None,
    is_json: bool,
    **flags: Any,
) -> int:
    """Say in a sentence how the voice in each sound file sounds.

    A recording over 8 s is captioned in windows that are cut where the speaker pauses, with their times and a summary.
    If a file cannot be read, the others are captioned all the same; the exit status is then 1.
    """
    from skydraft.cli.caption import run_caption
    from skydraft.cli.caption_output import chosen_format

    return run_caption(files, device_settings(config, flags), chosen_format(to, is_json), output, is_recursive)


@app.command()
@click.option("--microphone", metavar="NAME", help="A part of its name, or its number. [default: the system's]")
@click.option(
    "--file", metavar="FILE", help="A recording in the place of the microphone; - is standard input. [default: none]"
)
@click.option(
    "--seconds",
    "duration_s",
    type=Number(float, bounds=(0, 86400)),
    default=0,
    metavar="S",
    help="How long to listen; 0: until Ctrl-C. [default: 0]",
)
@FORMAT
@click.option("-o", "--output", type=Path, metavar="FILE", help="A file for the captions. [default: standard output]")
@options_of(DeviceSettings)
@CONFIG
@JSON
def listen(
    microphone: str | None,
    file: str | None,
    duration_s: float,
    to: str | None,
    output: Path | None,
    config: Path | None,
    is_json: bool,
    **flags: Any,
) -> None:
    """Describe how the voice at the microphone sounds.

    Prints a line for each utterance, when it has ended. Needs the package sounddevice:
    pip install 'skydraft[microphone]'
    """
    from skydraft.cli.caption_output import chosen_format
    from skydraft.cli.listen import run_listen

    run_listen(file, microphone, duration_s, device_settings(config, flags), chosen_format(to, is_json), output)


@app.command()
@click.argument("prompt", help="The text to continue; - reads it from standard input.")
@options_of(DeviceSettings)
@click.option(
    "--context",
    type=Path,
    metavar="FILE",
    help="A text that the prompt refers to: the device reads it, the cloud only with --share features.",
)
@click.option(
    "--prediction",
    type=Path,
    metavar="FILE",
    help="What the text is expected to be, such as the text to correct: where it is right, the text is there sooner. "
    "Parts of it leave as guesses.",
)
@click.option(
    "--json-schema",
    type=Path,
    metavar="FILE",
    help="Write JSON of the schema in this file. The cloud is told the schema.",
)
@CONFIG
@JSON
@click.option(
    "--json-stream",
    "is_stream",
    is_flag=True,
    cls=HeadedOption,
    heading=OTHER,
    help="Print a JSON object for all tokens that come at once, as they come, and then what --json prints.",
)
def generate(
    prompt: str,
    context: Path | None,
    prediction: Path | None,
    json_schema: Path | None,
    config: Path | None,
    is_json: bool,
    is_stream: bool,
    **flags: Any,
) -> int:
    """Continue a text.

    Draft and target can be any two language models with the same tokenizer.
    For example: skydraft generate "Once upon a time," --draft SMALL_MODEL --target LARGE_MODEL
    """
    from skydraft.cli.generate import Printed, RequestFiles, run_generate

    files = RequestFiles(context, prediction, json_schema)
    printed = Printed.STREAM if is_stream else Printed.OBJECT if is_json else Printed.LIVE
    return run_generate(prompt, files, device_settings(config, flags), printed)


@app.command()
@options_of(DeviceSettings, unset={"max_tokens": str(CHAT_TOKENS)})
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation. [default: nothing]")
@CONFIG
def chat(system: str | None, config: Path | None, **flags: Any) -> None:
    """Converse with a model, in the terminal.

    The models stay loaded, and /help lists what one can type. From a pipe each line is a message, and the answers are
    printed: printf 'Hello.\\nAnd now?\\n' | skydraft chat --draft SMALL --target LARGE
    """
    from skydraft.cli.chat import run_chat

    run_chat(device_settings(config, flags, {"max_tokens": CHAT_TOKENS}), system)


@app.command()
@options_of(DeviceSettings)
@options_of(GatewaySettings)
@CONFIG
def serve(config: Path | None, **flags: Any) -> None:
    """Serve apps on this machine with OpenAI's API.

    Prints the address to give them as base URL, and serves until Ctrl-C. The draft model stays loaded.
    """
    from skydraft.cli.serve import run_serve

    own = {name: flags.pop(name) for name in GatewaySettings.__struct_fields__ if name in flags}
    run_serve(gateway_settings(config, own), device_settings(config, flags))


@app.command()
@options_of(
    DeviceSettings,
    *("cloud", "key", "draft", "num_threads", "device", "dtype", "quantize"),
    unset={"cloud": "no cloud is measured"},
)
@CONFIG
@JSON
def doctor(config: Path | None, is_json: bool, **flags: Any) -> int:
    """Measure this machine, its draft model and a cloud.

    Measures for some seconds how long drafting and verifying take, and says what is wrong and what to do about it.
    The exit status is 1 if something is wrong.
    """
    from skydraft.cli.doctor import run_doctor

    return run_doctor(device_settings(config, flags), is_json)


@app.command()
@CONFIG
@click.option("--all", "all_settings", is_flag=True, help="Show those with their defaults too.")
@JSON
def settings(config: Path | None, all_settings: bool, is_json: bool) -> None:
    """Show the settings, and where each comes from.

    Flags override environment variables, these a file named with --config, that one your own, and that the defaults.
    """
    from skydraft.cli.settings import run_settings

    run_settings(config, all_settings, is_json)


@app.group()
def models() -> None:
    """List, fetch and delete models on this machine."""


@models.command("list")
@options_of(DeviceSettings, "models")
@JSON
def list_models(is_json: bool, **flags: Any) -> None:
    """List the models in a folder and those that were fetched, as --draft and --target take them."""
    from skydraft.cli.models import run_list

    folder = device_settings(None, flags).models
    run_list(None if folder is None else Path(folder), is_json)


@models.command("pull")
@click.argument("name", help="OWNER/NAME, or OWNER/NAME/FILE.gguf, of Hugging Face.")
def pull_model(name: str) -> None:
    """Fetch a model from Hugging Face, and print where it is."""
    from skydraft.cli.models import run_pull

    run_pull(name)


@models.command("remove")
@click.argument("name", help="As skydraft models list names it.")
def remove_model(name: str) -> None:
    """Delete a model that was fetched."""
    from skydraft.cli.models import run_remove

    run_remove(name)


@app.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="The shell.")
def completion(shell: str) -> None:
    """Print a script for a shell to complete commands and flags.

    For bash, in ~/.bashrc: eval "$(skydraft completion bash)"
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    click.echo(found(app, {}, "skydraft", "_SKYDRAFT_COMPLETE").source())


@app.group("cloud-key")
def cloud_key() -> None:
    """Create, list and revoke API keys of a cloud."""


@cloud_key.command("add")
@click.argument("name", help="Name of the key: letters, digits, hyphens, underscores.")
@KEYS
@options_of(KeyGrant)
def add_key(name: str, keys: Path, **flags: Any) -> None:
    """Create a key and print it, once: the file stores only its hash.

    A running cloud accepts it within seconds. A device gives it with --key or SKYDRAFT_KEY.
    """
    from skydraft.cli.cloud_key import run_add_key

    run_add_key(name, keys, given(flags))


@cloud_key.command("list")
@KEYS
@JSON
def list_keys(keys: Path, is_json: bool) -> None:
    """List the names of the keys and their limits."""
    from skydraft.cli.cloud_key import run_list_keys

    run_list_keys(keys, is_json)


@cloud_key.command("remove")
@click.argument("name", help="Name of the key.")
@KEYS
def remove_key(name: str, keys: Path) -> None:
    """Revoke a key; a running cloud closes its connections within seconds."""
    from skydraft.cloud.access.keys import remove_key

    remove_key(keys, name)
