"""`skydraft models` with a cache made by hand, as huggingface_hub keeps it; nothing is fetched."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from skydraft.cli import run

REVISION = "a" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With owner/small (weights and configuration), owner/files (two GGUF files) and owner/tokens (no weights)."""
    folder = tmp_path / "hub"
    scan = huggingface_hub.scan_cache_dir
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", lambda: scan(folder))
    for name, files in {
        "small": {"config.json": 10, "model.safetensors": 1000},
        "files": {"a.gguf": 300, "b.gguf": 500},
        "tokens": {"tokenizer.json": 7},
    }.items():
        repo = folder / f"models--owner--{name}"
        snapshot = repo / "snapshots" / REVISION
        for path in (repo / "blobs", repo / "refs", snapshot):
            path.mkdir(parents=True)
        (repo / "refs" / "main").write_text(REVISION)
        for file, size in files.items():
            (repo / "blobs" / f"{name}-{file}").write_bytes(bytes(size))
            (snapshot / file).symlink_to(repo / "blobs" / f"{name}-{file}")
    return folder


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, int]:
    assert run(["models", "list", "--json", *arguments]) == 0
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    return {row["name"]: row["num_bytes"] for row in rows}


def test_models_with_weights_are_listed_as_flags_take_them(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched = {"owner/files/a.gguf": 300, "owner/files/b.gguf": 500, "owner/small": 1010}
    assert listed(capsys) == fetched
    folder = tmp_path / "models"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "config.json").write_bytes(bytes(5))
    (folder / "own.gguf").write_bytes(bytes(9))
    (folder / "notes.txt").write_text("no model")
    here = {str(folder / "mine"): 5, str(folder / "own.gguf"): 9}
    assert listed(capsys, "--models", str(folder)) == fetched | here


def test_a_person_reads_names_and_sizes(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    assert "owner/small" in (out := capsys.readouterr().out)
    assert "0.00 GB" in out


def test_where_nothing_was_fetched_a_person_is_told_how_to(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.rename(cache.with_name("elsewhere"))
    assert run(["models", "list"]) == 0
    out, err = capsys.readouterr()
    assert (out.strip(), "skydraft models pull NAME" in err) == ("", True)


def test_what_is_removed_is_gone_and_the_rest_stays(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "remove", "owner/files/a.gguf"]) == 0
    assert run(["models", "remove", "owner/small"]) == 0
    assert listed(capsys) == {"owner/files/b.gguf": 500}
    assert not list(cache.rglob("*small*"))
    assert not (cache / "models--owner--files" / "blobs" / "files-a.gguf").exists()


@pytest.mark.parametrize("name", ["owner/none", "owner/files/c.gguf"])
def test_what_was_not_fetched_cannot_be_removed(cache: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(["models", "remove", name]) == 2
    assert f"{name} is not among the models that were fetched" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["small", "./folder/x", "owner/name/file.bin", "/a/b", "owner/"])
def test_what_is_no_name_of_hugging_face_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run(["models", "pull", name]) == 2
    assert "is no name of Hugging Face" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_refused(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list", "--models", "/nowhere"]) == 2
    assert "there is no folder /nowhere" in capsys.readouterr().err


def test_a_model_is_fetched_whole_or_as_one_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[object] = []

    def fetch(repo: str, file: str = "", allow_patterns: object = None) -> str:
        asked.append((repo, file or allow_patterns))
        return "/file" if file else "/folder"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert run(["models", "pull", "owner/name"]) == 0
    assert run(["models", "pull", "owner/name/file.gguf"]) == 0
    assert capsys.readouterr().out == "/folder\n/file\n"
    assert asked[1] == ("owner/name", "file.gguf")
    assert "*.safetensors" in str(asked[0])


def test_what_cannot_be_fetched_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert run(["models", "pull", "owner/name"]) == 1
    assert "owner/name cannot be fetched from Hugging Face (no route)" in capsys.readouterr().err
