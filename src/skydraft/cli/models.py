"""`skydraft models`: the models on this machine, in the cache of Hugging Face that all programs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from skydraft.cli.screen import Screen
from skydraft.cli.terminal_text import safe_line
from skydraft.errors import ConfigError, ModelLoadError, first_line
from skydraft.text.checkpoint import HUB_FILES

if TYPE_CHECKING:
    from huggingface_hub import CachedFileInfo, CachedRepoInfo

GGUF = ".gguf"


class FoundModel(NamedTuple):
    """A model. name: as --draft and --target take it."""

    name: str
    num_bytes: int


def run_list(folder: Path | None, is_json: bool) -> None:
    """Print the models of a folder and those that were fetched.

    Raises:
        ConfigError: there is no such folder.
    """
    screen, found = Screen(), sorted([*_in_folder(folder), *_fetched()])
    if is_json:
        for model in found:
            screen.json(model._asdict())
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for model in found:
        table.add_row(safe_line(model.name), f"{model.num_bytes / 1e9:.2f} GB")
    screen.show(table)
    if not found:
        screen.note("There are none; skydraft models pull NAME fetches one, and skydraft doctor proposes some.")


def run_pull(name: str) -> None:
    """Fetch a model, so that it is here when it is needed; says on standard error how far it has come.

    Raises:
        ConfigError: it is no name of Hugging Face.
        ModelLoadError: it cannot be fetched.
    """
    import huggingface_hub  # takes a while and is seldom needed

    repo, file = _split(name)
    try:
        if file:
            path = huggingface_hub.hf_hub_download(repo, file)
        else:
            path = huggingface_hub.snapshot_download(repo, allow_patterns=list(HUB_FILES))
    except (OSError, ValueError) as error:
        raise ModelLoadError(
            f"{name} cannot be fetched from Hugging Face ({first_line(error)}): check the name and the connection"
        ) from error
    Screen().text(str(path))


def run_remove(name: str) -> None:
    """Delete a model that was fetched.

    Raises:
        ConfigError: it was not.
    """
    repo, file = _split(name)
    for cached in _repos():
        if cached.repo_id == repo and not file:
            _delete(cached)
            return
        if cached.repo_id == repo and (places := [place for place in _files(cached) if place.file_name == file]):
            for place in places:  # links of several revisions may lead to one file
                place.file_path.unlink(missing_ok=True)
                place.blob_path.unlink(missing_ok=True)
            return
    raise ConfigError(f"{name} is not among the models that were fetched: skydraft models list names them")


def _split(name: str) -> tuple[str, str]:
    """OWNER/NAME and FILE, which is empty where all of a repository is meant.

    Raises:
        ConfigError: it is no such name.
    """
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    is_name = bool(owner and repo) and not name.startswith((".", "~", "/")) and (not file or file.endswith(GGUF))
    if not is_name:
        raise ConfigError(f"{name!r} is no name of Hugging Face: give OWNER/NAME or OWNER/NAME/FILE{GGUF}")
    return f"{owner}/{repo}", file


def _in_folder(folder: Path | None) -> Iterator[FoundModel]:
    if folder is None:
        return
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} to look for models in: name another with --models")
    for path in folder.iterdir():
        if path.suffix == GGUF and path.is_file():
            yield FoundModel(str(path), path.stat().st_size)
        elif (path / "config.json").is_file():
            yield FoundModel(str(path), sum(file.stat().st_size for file in path.iterdir() if file.is_file()))


def _fetched() -> Iterator[FoundModel]:
    """Those whose weights are here; a tokenizer alone is no model."""
    for repo in _repos():
        sizes = {file.file_name: file.size_on_disk for file in _files(repo)}
        yield from (FoundModel(f"{repo.repo_id}/{file}", sizes[file]) for file in sizes if file.endswith(GGUF))
        if any(file.endswith(".safetensors") for file in sizes):
            yield FoundModel(repo.repo_id, sum(size for file, size in sizes.items() if not file.endswith(GGUF)))


def _repos() -> Iterator[CachedRepoInfo]:
    import huggingface_hub
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = huggingface_hub.scan_cache_dir().repos
    except CacheNotFound:  # nothing was ever fetched
        return
    yield from (repo for repo in repos if repo.repo_type == "model")


def _files(repo: CachedRepoInfo) -> Iterator[CachedFileInfo]:
    for revision in repo.revisions:
        yield from revision.files


def _delete(repo: CachedRepoInfo) -> None:
    import huggingface_hub

    revisions = [revision.commit_hash for revision in repo.revisions]
    of_this_alone = dataclasses.replace(huggingface_hub.scan_cache_dir(), repos=frozenset({repo}))
    of_this_alone.delete_revisions(*revisions).execute()
