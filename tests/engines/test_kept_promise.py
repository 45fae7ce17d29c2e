"""A model is tested once for its files, settings, libraries and processor, and again when one of them changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from skydraft.engines import kept_promise, names
from skydraft.engines.base import RowPromise
from skydraft.engines.kept_promise import KeptPromise
from skydraft.engines.load import load_engine
from skydraft.engines.settings import EngineSettings
from tests.spy import spy_on

SETTINGS = EngineSettings(num_slots=2, self_test=True)
FOUND = RowPromise(False, "its self-test found other logits in trees", 0.25)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_what_was_found_is_found_again(model: Path) -> None:
    assert KeptPromise([model], SETTINGS).load() is None
    KeptPromise([model], SETTINGS).save(FOUND)
    assert KeptPromise([model], SETTINGS).load() == FOUND


def test_other_settings_files_libraries_and_processors_are_tested_anew(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KeptPromise([model], SETTINGS).save(FOUND)
    assert KeptPromise([model], replace(SETTINGS, num_threads=3)).load() is None
    with monkeypatch.context() as patch:
        patch.setattr(kept_promise, "_processor", lambda: "model name: another")
        assert KeptPromise([model], SETTINGS).load() is None
    with monkeypatch.context() as patch:
        patch.setattr(kept_promise, "LIBRARIES", ("numpy", "no such library"))
        assert KeptPromise([model], SETTINGS).load() is None
    with monkeypatch.context() as patch:
        patch.setattr(kept_promise, "_installed_ns", lambda _: 17)
        assert KeptPromise([model], SETTINGS).load() is None
    assert KeptPromise([model], SETTINGS).load() == FOUND
    os.utime(model, ns=(1, 1))
    assert KeptPromise([model], SETTINGS).load() is None


def test_what_cannot_be_read_or_written_is_tested_anew(model: Path, cache: Path) -> None:
    kept = KeptPromise([model], SETTINGS)
    kept.save(FOUND)
    (file,) = (cache / "skydraft" / "self-tests").iterdir()
    file.write_text("[true]")
    assert kept.load() is None
    file.unlink()
    file.mkdir()  # stands where the file should
    kept.save(FOUND)
    assert kept.load() is None


def test_nothing_is_kept_of_a_model_without_files(cache: Path) -> None:
    kept = KeptPromise([], SETTINGS)
    kept.save(FOUND)
    assert kept.load() is None
    assert not cache.exists()


def test_a_folder_that_others_can_write_to_is_not_trusted(model: Path, cache: Path) -> None:
    KeptPromise([model], SETTINGS).save(FOUND)
    (cache / "skydraft").chmod(0o777)
    assert KeptPromise([model], SETTINGS).load() is None


def test_a_model_is_tested_when_it_is_first_loaded_and_not_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = spy_on(monkeypatch, names, "hold_to_promise", lambda engine: engine.name)
    promises = [load_engine("embedded", "draft", SETTINGS).row_promise for _ in range(2)]
    assert len(tests) == 1
    assert promises[0] == promises[1]
    assert promises[0].gap_change is not None
    load_engine("table:vocab=8", "target", SETTINGS)  # a table has no files
    load_engine("table:vocab=8", "target", SETTINGS)
    assert len(tests) == 3
