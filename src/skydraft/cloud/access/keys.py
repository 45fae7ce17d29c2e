"""API keys: which may use a cloud, and how much of it.

A key is `skydraft.NAME.SECRET`; the secret is 256 random bits, made here and never by a person. So one SHA-256 of it
with a salt is kept and not a slow hash: nobody can guess 256 bits, and a slow hash would let strangers keep the cloud
busy. The file is TOML, one table for each key; limits may be edited by hand.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from skydraft.cloud.access.file_stamp import stamp
from skydraft.core import Setting
from skydraft.errors import ConfigError

log = logging.getLogger("skydraft.cloud")

SECRET_BYTES = 32
SALT_BYTES = 16
HEADER = "# API keys of a skydraft cloud. `skydraft cloud-key` adds and removes them; edit their limits here.\n"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeyGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device with a key may do: the limits in the file of keys, and options of `skydraft cloud-key add`."""

    max_sessions: Annotated[
        int,
        Setting("Sessions at the same time, with those of disconnected devices.", "--max-sessions", "N"),
        Meta(ge=1, le=2**16),
    ] = 64
    tokens_per_minute: Annotated[
        int, Setting("Tokens of text per minute.", "--tokens-per-minute", "N", unset="no limit"), Meta(ge=0, le=2**31)
    ] = 0
    max_in_flight: Annotated[
        int,
        Setting("Offers that wait to be judged, over all sessions.", "--max-in-flight", "N"),
        Meta(ge=1, le=2**20),
    ] = 128
    sees_metrics: Annotated[bool, Setting("The key can read /metrics.", "--sees-metrics")] = False


class KeyEntry(KeyGrant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the file has it. salt, sha256: hexadecimal; of salt and secret together."""

    salt: str
    sha256: str


class Holder(NamedTuple):
    """The holder of a key.

    name: of the key, for logs; it is no secret.
    sha256: of the key; empty where no key was asked for.
    """

    name: str
    grant: KeyGrant
    sha256: str = ""


# The holder of every request where no keys are configured.
LOCAL_USER = Holder("", KeyGrant(max_sessions=2**16, max_in_flight=2**20, sees_metrics=True))

_NOBODY = KeyEntry(salt="", sha256="")  # compared with where a name is unknown, so that both cases take the same time


class KeyRing:
    """The keys of a file.

    Raises:
        ConfigError: the file cannot be read or is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = stamp(path)
        self._entries = read_keys(path)

    def __len__(self) -> int:
        return len(self._entries)

    def holder_of(self, key: str) -> Holder | None:
        """The holder of a key; None: the key is unknown."""
        prefix, _, rest = key.partition(".")
        name, _, secret = rest.partition(".")
        entry = self._entries.get(name, _NOBODY)
        is_right = hmac.compare_digest(_hash(entry.salt, secret), entry.sha256)
        return Holder(name, entry, entry.sha256) if is_right and prefix == "skydraft" else None

    def knows(self, holder: Holder) -> bool:
        """Whether the key of this holder is still good."""
        entry = self._entries.get(holder.name)
        return entry is not None and entry.sha256 == holder.sha256

    def reload(self) -> bool:
        """Read the file again if it has changed; where the file is wrong, the keys stay.

        Returns:
            Whether the keys are new.
        """
        if (found := stamp(self._path)) == self._stamp:
            return False
        self._stamp = found
        try:
            self._entries = read_keys(self._path)
        except ConfigError as error:
            log.error("the keys stay as they were: %s", error)
            return False
        log.info("keys read again", extra={"facts": {"num_keys": len(self)}})
        return True


def read_keys(path: Path) -> dict[str, KeyEntry]:
    """The keys of a file, by name.

    Raises:
        ConfigError: it cannot be read, is not TOML, or an entry is wrong.
    """
    try:
        entries = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), dict[str, KeyEntry])
    except OSError as error:
        raise ConfigError(
            f"the file of keys {path} cannot be read ({error.strerror}); "
            f"make it with: skydraft cloud-key add NAME --keys {path}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(f"the file of keys {path} is wrong: {error}") from error
    for name in entries:
        _require_name(name)
    return entries


def add_key(path: Path, name: str, grant: KeyGrant) -> str:
    """Make a key and put its hash at the end of the file, which is made where there is none.

    Returns:
        The key; it is not kept anywhere.
    Raises:
        ConfigError: the name is taken or is no name, or the file is wrong or cannot be written.
    """
    _require_name(name)
    secret, salt = secrets.token_urlsafe(SECRET_BYTES), secrets.token_hex(SALT_BYTES)
    with _changing(path) as file:
        if file.exists() and name in read_keys(path):
            raise ConfigError(
                f"the file of keys {path} has a key {name!r} already; remove it first, or take another name"
            )
        text = _text(file) if file.exists() else HEADER
        _replace(file, f"{text.rstrip()}\n\n{_table(name, grant, salt, _hash(salt, secret))}")
    return f"skydraft.{name}.{secret}"


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file; a running cloud closes its connections within seconds.

    Comments outside of its table stay, those above it too: they may be about more than this key.

    Raises:
        ConfigError: there is no such key, or the file is wrong or cannot be written.
    """
    with _changing(path) as file:
        entries = read_keys(path)
        if name not in entries:
            raise ConfigError(f"the file of keys {path} has no key {name!r}")
        text = _without_table(_text(file), name)
        if not _says(text, {other: entry for other, entry in entries.items() if other != name}):
            raise ConfigError(
                f"the key {name!r} is not written as a table of its own in {path}; remove it with an editor"
            )
        _replace(file, text)


def _without_table(text: str, name: str) -> str:
    """Cut from the table's header to its last entry, and the empty lines after it."""
    lines = text.splitlines(keepends=True)
    start = next((index for index, line in enumerate(lines) if _is_header(line, name)), len(lines))
    end = next((index for index in range(start + 1, len(lines)) if _is_any_header(lines[index])), len(lines))
    while end > start + 1 and lines[end - 1].lstrip()[:1] in ("", "#"):  # these may belong to the next key
        end -= 1
    while end < len(lines) and not lines[end].strip():
        end += 1
    return "".join(lines[:start] + lines[end:])


def _is_any_header(line: str) -> bool:
    return line.lstrip().startswith("[")


def _is_header(line: str, name: str) -> bool:
    try:
        return _is_any_header(line) and tomllib.loads(line) == {name: {}}
    except tomllib.TOMLDecodeError:
        return False


def _says(text: str, entries: dict[str, KeyEntry]) -> bool:
    """Whether a file with this text has these keys."""
    try:
        return msgspec.convert(tomllib.loads(text), dict[str, KeyEntry]) == entries
    except (tomllib.TOMLDecodeError, msgspec.ValidationError):
        return False


def _table(name: str, grant: KeyGrant, salt: str, sha256: str) -> str:
    facts = msgspec.structs.asdict(grant) | {"salt": salt, "sha256": sha256}
    # Strings, whole numbers and booleans: what JSON and TOML write alike.
    return f"[{name}]\n" + "".join(
        f"{field} = {msgspec.json.encode(value).decode()}\n" for field, value in facts.items()
    )


@contextmanager
def _changing(path: Path) -> Iterator[Path]:
    """Let no other process change the file meanwhile; gives the file itself where the path is a link."""
    import fcntl  # not on Windows, where keys cannot be made

    try:
        file = path.resolve()
        # The lock is a file of its own, which stays: the file of keys is replaced, and a lock on it would go with it.
        with open(os.open(file.with_name(f".{file.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield file
    except OSError as error:
        raise ConfigError(f"the file of keys {path} cannot be written: {error.strerror}") from error


def _text(file: Path) -> str:
    return file.read_bytes().decode()  # line endings as they are


def _replace(file: Path, text: str) -> None:
    """Replace the file as a whole: no reader sees half of it, and no power cut leaves half of it behind.

    A new one is for its owner's eyes only.
    """
    descriptor, beside = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with open(descriptor, "wb") as new:
            if file.exists():  # the cloud may run as another user than the one who makes keys
                status = file.stat()
                os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
                os.fchown(descriptor, status.st_uid, status.st_gid)
            new.write(text.encode())
            new.flush()
            os.fsync(descriptor)
        os.replace(beside, file)
    except BaseException:
        os.unlink(beside)
        raise
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a key's name is 1 to 64 letters, digits, hyphens or underscores, and {name!r} is not")


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode(errors="surrogatepass")).hexdigest()
