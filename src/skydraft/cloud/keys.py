"""API keys: who may use a cloud, and how much of it.

A key is `skydraft.NAME.SECRET`; the secret is 256 random bits, made here and never by a person. So one SHA-256 of it
with a salt is kept and not a slow hash: there is nothing to guess, and a slow hash would let strangers keep the cloud
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
import tomllib
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from skydraft.cloud.files import stamp
from skydraft.errors import ConfigError

log = logging.getLogger("skydraft.cloud")

SECRET_BYTES = 32
SALT_BYTES = 16
HEADER = "# API keys of a skydraft cloud. `skydraft cloud-key` adds and removes them; edit their limits here.\n"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeyGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the holder of a key may do; defaults of `skydraft cloud-key add`.

    max_sessions: at once, those whose devices are away included.
    tokens_per_minute: of text; 0: no limit.
    max_in_flight: offers that wait to be judged, of all sessions together.
    sees_metrics: it may read /metrics.
    """

    max_sessions: Annotated[int, Meta(ge=1, le=2**16)] = 64
    tokens_per_minute: Annotated[int, Meta(ge=0, le=2**31)] = 0
    max_in_flight: Annotated[int, Meta(ge=1, le=2**20)] = 128
    sees_metrics: bool = False


class KeyEntry(KeyGrant, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key as the file has it. salt, sha256: hexadecimal; of salt and secret together."""

    salt: str
    sha256: str


class Holder(NamedTuple):
    """Who has come in.

    name: of the key, for logs; no secret.
    sha256: of the key that it came with; empty where none was asked for.
    """

    name: str
    grant: KeyGrant
    sha256: str = ""


# Who comes where no keys are configured: this machine's own user.
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
        """Whose key this is; None: nobody's."""
        prefix, _, rest = key.partition(".")
        name, _, secret = rest.partition(".")
        entry = self._entries.get(name, _NOBODY)
        is_right = hmac.compare_digest(_hash(entry.salt, secret), entry.sha256)
        return Holder(name, entry, entry.sha256) if is_right and prefix == "skydraft" else None

    def knows(self, holder: Holder) -> bool:
        """Whether the key that somebody came with is still good."""
        entry = self._entries.get(holder.name)
        return entry is not None and entry.sha256 == holder.sha256

    def reload(self) -> bool:
        """Read the file again if it has changed; a file that is wrong leaves the keys as they were.

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
        entries = msgspec.convert(tomllib.loads(path.read_text()), dict[str, KeyEntry])
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
    """Make a key and put its hash into the file, which is made where there is none.

    Returns:
        The key; it is not kept anywhere.
    Raises:
        ConfigError: the name is taken or none, or the file is wrong or cannot be written.
    """
    _require_name(name)
    if path.exists() and name in read_keys(path):
        raise ConfigError(f"the file of keys {path} has a key {name!r} already; remove it first, or take another name")
    secret, salt = secrets.token_urlsafe(SECRET_BYTES), secrets.token_hex(SALT_BYTES)
    text = path.read_text() if path.exists() else HEADER
    _write(path, f"{text.rstrip()}\n\n{_table(name, grant, salt, _hash(salt, secret))}")
    return f"skydraft.{name}.{secret}"


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file; a running cloud closes its connections within seconds.

    Raises:
        ConfigError: there is no such key, or the file is wrong or cannot be written.
    """
    if name not in read_keys(path):
        raise ConfigError(f"the file of keys {path} has no key {name!r}")
    table = rf"^\[{re.escape(name)}\][^\n]*\n(?:(?!\[)[^\n]*\n?)*"
    text, num_cut = re.subn(table, "", path.read_text(), flags=re.MULTILINE)
    if num_cut != 1:
        raise ConfigError(f"the key {name!r} is written in {path} in a way of its own; take it out with an editor")
    _write(path, text)


def _table(name: str, grant: KeyGrant, salt: str, sha256: str) -> str:
    facts = msgspec.structs.asdict(grant) | {"salt": salt, "sha256": sha256}
    # Strings, whole numbers and booleans: what JSON and TOML write alike.
    return f"[{name}]\n" + "".join(
        f"{field} = {msgspec.json.encode(value).decode()}\n" for field, value in facts.items()
    )


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole, so that no reader sees half of it; a new one is for its owner's eyes only."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            if path.exists():  # the cloud may run as another user than the one who makes keys
                status = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(text)
        beside.replace(path)
    except OSError as error:
        raise ConfigError(f"the file of keys {path} cannot be written: {error.strerror}") from error


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(f"a key's name is 1 to 64 letters, digits, hyphens or underscores, and {name!r} is not")


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(f"{salt}{secret}".encode(errors="surrogatepass")).hexdigest()
