from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import asdict

from skydraft.cloud.access.keys import KeyGrant, KeyRing, add_key, read_keys, remove_key
from skydraft.errors import ConfigError
from tests.waiting import PATIENCE_S


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


def rewritten(path: Path, text: str) -> None:
    path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # a coarse clock must not hide the change


def test_a_key_that_was_made_is_known_with_its_limits(path: Path) -> None:
    grant = KeyGrant(max_sessions=2, tokens_per_minute=600, max_in_flight=3, sees_metrics=True)
    key = add_key(path, "phone", grant)
    holder = KeyRing(path).holder_of(key)
    assert holder is not None
    assert holder.name == "phone"
    assert asdict(grant).items() <= asdict(holder.grant).items()


def test_neither_the_key_nor_its_secret_is_in_the_file_and_only_the_owner_may_read_it(path: Path) -> None:
    key = add_key(path, "phone", KeyGrant())
    secret = key.removeprefix("skydraft.phone.")
    assert len(secret) == 43  # 256 bits in base64
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_keeps_the_mode_that_its_owner_gave_it(path: Path) -> None:
    add_key(path, "phone", KeyGrant())
    path.chmod(0o640)
    add_key(path, "laptop", KeyGrant())
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_two_keys_of_one_secret_would_have_two_hashes(path: Path) -> None:
    for name in ("a", "b"):
        add_key(path, name, KeyGrant())
    salts = {entry.salt for entry in read_keys(path).values()}
    assert len(salts) == 2
    assert all(len(bytes.fromhex(salt)) == 16 for salt in salts)


def test_what_is_not_the_key_is_nobodys(path: Path) -> None:
    key, other = (add_key(path, name, KeyGrant()) for name in ("phone", "laptop"))
    ring = KeyRing(path)
    secret = key.rpartition(".")[2]
    wrong = ["", ".", "..", secret, key[:-1], key + "a", f"skydraft.laptop.{secret}", f"skydraft.nobody.{secret}"]
    wrong += [f"other.phone.{secret}", "skydraft.phone.", "skydraft.nobody.", key.upper(), "skydraft.phone.\udcff"]
    assert [ring.holder_of(attempt) for attempt in wrong] == [None] * len(wrong)
    assert ring.holder_of(other) is not None


def test_the_hash_in_the_file_is_no_key(path: Path) -> None:
    add_key(path, "phone", KeyGrant())
    entry = read_keys(path)["phone"]
    for stolen in (entry.sha256, entry.salt, entry.salt + entry.sha256):
        assert KeyRing(path).holder_of(f"skydraft.phone.{stolen}") is None


def test_a_removed_key_is_nobodys_and_the_others_stay_as_they_were_written(path: Path) -> None:
    keys = {name: add_key(path, name, KeyGrant()) for name in ("a", "b", "c")}
    rewritten(path, path.read_text().replace("[c]\n", "# a note of the operator's\n[c] # and another\n"))
    ring = KeyRing(path)
    holders = {name: ring.holder_of(key) for name, key in keys.items()}
    remove_key(path, "b")
    assert ring.reload()
    assert [ring.holder_of(key) is not None for key in keys.values()] == [True, False, True]
    assert [ring.knows(holder) for holder in holders.values() if holder] == [True, False, True]
    remove_key(path, "c")
    assert list(read_keys(path)) == ["a"]


def test_a_key_made_anew_under_an_old_name_sends_the_old_ones_holder_away(path: Path) -> None:
    ring_key = add_key(path, "phone", KeyGrant())
    ring = KeyRing(path)
    holder = ring.holder_of(ring_key)
    assert holder is not None
    remove_key(path, "phone")
    add_key(path, "phone", KeyGrant())
    ring.reload()
    assert not ring.knows(holder)


def test_keys_are_read_again_only_when_the_file_changed(path: Path) -> None:
    add_key(path, "a", KeyGrant())
    ring = KeyRing(path)
    assert not ring.reload()
    added = add_key(path, "b", KeyGrant())
    assert ring.holder_of(added) is None
    assert ring.reload()
    assert ring.holder_of(added) is not None


@pytest.mark.parametrize("broken", ["[phone\n", "[phone]\nsalt = 3\n", None])
def test_a_file_that_became_wrong_leaves_the_keys_as_they_were(
    path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    key = add_key(path, "phone", KeyGrant())
    ring = KeyRing(path)
    path.unlink() if broken is None else rewritten(path, broken)
    with caplog.at_level(logging.ERROR):
        assert not ring.reload()
    assert "the keys stay as they were" in caplog.text
    assert ring.holder_of(key) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[phone\n", "is wrong: Expected"),
        ('[phone]\nsalt = "00"\n', "missing required field `sha256`"),
        ('[phone]\nsalt = "00"\nsha256 = "00"\nmax_sesions = 3\n', "unknown field `max_sesions`"),
        ('[phone]\nsalt = "00"\nsha256 = "00"\nmax_sessions = 0\n', "max_sessions"),
        ('["a b"]\nsalt = "00"\nsha256 = "00"\n', "'a b' is not"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        KeyRing(path)


def test_a_missing_file_is_refused_with_the_command_that_makes_it(path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read.*skydraft cloud-key add NAME --keys"):
        KeyRing(path)


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a]", "ä", "x" * 65])
def test_a_name_that_would_not_stand_in_a_key_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a key's name is 1 to 64"):
        add_key(path, name, KeyGrant())
    assert not path.exists()


def test_a_taken_name_and_an_unknown_one_are_refused(path: Path) -> None:
    add_key(path, "phone", KeyGrant())
    with pytest.raises(ConfigError, match="has a key 'phone' already"):
        add_key(path, "phone", KeyGrant())
    with pytest.raises(ConfigError, match="has no key 'laptop'"):
        remove_key(path, "laptop")


HAND_EDITED = """\
# Keys of the cloud in the cellar.

# Phones: Ann's
[phone]   # since March
max_sessions = 8    # a few
salt = "00"
# its hash
sha256 = "00"
# Bob's

# Laptops, which are slow
[laptop]
salt = '01'
sha256 = "01"

 [ "tablet" ]
salt = "02"
sha256 = "02"
# the end
"""


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("phone", '[phone]   # since March\nmax_sessions = 8    # a few\nsalt = "00"\n# its hash\nsha256 = "00"\n'),
        ("laptop", "[laptop]\nsalt = '01'\nsha256 = \"01\"\n\n"),
        ("tablet", ' [ "tablet" ]\nsalt = "02"\nsha256 = "02"\n'),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_of_a_hand_edited_file_a_removed_key_takes_its_own_lines_only(
    path: Path, name: str, cut: str, newline: str
) -> None:
    assert cut in HAND_EDITED
    path.write_text(HAND_EDITED, newline=newline)
    remove_key(path, name)
    assert path.read_bytes().decode() == HAND_EDITED.replace(cut, "").replace("\n", newline)


def test_a_hand_edited_file_keeps_every_line_when_a_key_is_added(path: Path) -> None:
    path.write_text(HAND_EDITED, newline="\r\n")
    add_key(path, "watch", KeyGrant())
    assert path.read_bytes().decode().startswith(HAND_EDITED.replace("\n", "\r\n").rstrip())
    assert list(read_keys(path)) == ["phone", "laptop", "tablet", "watch"]


@pytest.mark.parametrize(
    "text",
    [
        'phone = {salt = "00", sha256 = "00"}\n',
        'phone.salt = "00"\nphone.sha256 = "00"\n',
        '[laptop]\nsalt = """\n[phone]\n"""\nsha256 = ""\n[phone]\nsalt = ""\nsha256 = ""\n',
        '[phone]\nsha256 = ""\nsalt = """\n[a]\n#"""\n',
    ],
)
def test_a_table_written_in_another_way_is_not_cut_by_guessing(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match="remove it with an editor"):
        remove_key(path, "phone")
    assert path.read_text() == text


ADD_TEN = """
import sys
from pathlib import Path
from skydraft.cloud.access.keys import KeyGrant, add_key, remove_key
path, worker = Path(sys.argv[1]), sys.argv[2]
sys.stdin.readline()
for number in range(10):
    add_key(path, f"{worker}-{number}", KeyGrant())
remove_key(path, f"{worker}-0")
"""


def test_processes_that_change_the_file_at_once_lose_no_key(path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", ADD_TEN, path, str(worker)], stdin=subprocess.PIPE)
        for worker in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
    assert [worker.wait(PATIENCE_S) for worker in workers] == [0] * 4
    expected = {f"{worker}-{number}" for worker in range(4) for number in range(1, 10)}
    assert set(read_keys(path)) == expected


def test_a_reader_never_sees_a_part_of_the_file(path: Path) -> None:
    add_key(path, "first", KeyGrant())
    num_seen = []
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(lambda: [add_key(path, f"key-{number}", KeyGrant()) for number in range(30)])
        while not adding.done():
            num_seen.append(len(read_keys(path)))
    adding.result()
    assert num_seen == sorted(num_seen)
    assert len(read_keys(path)) == 31


def test_the_new_file_is_on_the_disk_before_it_takes_the_old_ones_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(path, "phone", KeyGrant())
    synced: list[tuple[int, int]] = []
    replaced: list[int] = []

    def fsync(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, len(replaced)))

    def replace(new: str, old: Path, real: Callable[[str, Path], None] = os.replace) -> None:
        replaced.append(os.stat(new).st_ino)
        real(new, old)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    remove_key(path, "phone")
    assert synced == [(path.stat().st_ino, 0), (path.parent.stat().st_ino, 1)]  # and its name after it
    assert replaced == [path.stat().st_ino]


def test_a_full_disk_leaves_the_file_as_it_was_and_nothing_beside_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    add_key(path, "phone", KeyGrant())
    before, listed = path.read_bytes(), sorted(os.listdir(path.parent))
    monkeypatch.setattr(os, "fsync", is_full)
    with pytest.raises(ConfigError, match=r"keys\.toml cannot be written: No space left on device"):
        add_key(path, "laptop", KeyGrant())
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == listed


def test_a_link_stays_a_link_and_its_file_gets_the_key(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    add_key(path, "phone", KeyGrant())
    add_key(link, "laptop", KeyGrant())
    assert link.is_symlink()
    assert list(read_keys(path)) == ["phone", "laptop"]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        add_key(tmp_path / "missing" / "keys.toml", "phone", KeyGrant())
