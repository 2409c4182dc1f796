"""API keys, and signatures that stand for one in a link."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import InvalidOption, StorageError
from orchestrator.files import storage_error, written_once

MIN_KEY_CHARACTERS = 16
"""Shorter keys can be guessed."""

SECRET_BYTES = 32
"""Length of what links are signed with: with an empty secret, as a power cut may leave it, anybody could."""


class ApiKeys:
    """The keys that are accepted. Without any, everybody is let in, as the owner ""."""

    def __init__(self, owners_by_key: Mapping[str, str]) -> None:
        self._owners = [(_digest(key), owner) for key, owner in owners_by_key.items()]

    @classmethod
    def load(cls, text: str, file: Path | None = None) -> "ApiKeys":
        """Read keys from NAME:KEY entries in a setting and a file.

        Raises:
            InvalidOption: there is no key where keys are said to be, an entry is malformed, or a key is too short or given twice.
        """
        given = {"LIPSYNC_API_KEYS": text.split(",")} if text else {}
        if file is not None:
            where = f"LIPSYNC_API_KEYS_FILE, {file},"
            try:
                given[where] = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
            except (OSError, UnicodeDecodeError) as exc:
                raise InvalidOption(f"{where} cannot be read as text; check its path and owner.") from exc
        owners: dict[str, str] = {}
        for where, entries in given.items():
            found = [entry.strip() for entry in entries if entry.strip()]
            if not found:  # who writes down where the keys are does not mean to let everybody in
                raise InvalidOption(f"{where} has no key in it; write keys as NAME:KEY, or unset it.")
            for entry in found:
                name, colon, key = (part.strip() for part in entry.partition(":"))
                if not colon or not name:
                    raise InvalidOption(f"{where} has a key without a name; write keys as NAME:KEY.")
                if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
                    raise InvalidOption(
                        f"{where} has a key of {name!r} that cannot be used; use {MIN_KEY_CHARACTERS} or more printable ASCII characters."
                    )
                if key in owners:
                    raise InvalidOption(f"{where} has the same key for {owners[key]!r} and {name!r}; give each its own.")
                owners[key] = name
        return cls(owners)

    def __bool__(self) -> bool:
        """Whether a key is needed."""
        return bool(self._owners)

    def owner_of(self, key: str | None) -> str | None:
        """Return whose key it is, None if nobody's. Takes the same time whichever key is wrong, and how."""
        if not self._owners:
            return ""
        digest, found = _digest(key or ""), None
        for known, owner in self._owners:
            if hmac.compare_digest(known, digest):
                found = owner
        return found


class LinkSigner:
    """Signs paths, so that a link in an answer works where no header can be set: a download, a video element, a player."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def load(cls, folder: Path) -> "LinkSigner":
        """Read the secret that lies in a folder, made at the first call, so that links outlive a restart.

        Raises:
            StorageError: it cannot be read or written, or is none.
        """
        path = folder / "link.secret"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            secret = written_once(path, secrets.token_bytes(SECRET_BYTES))
        except OSError as exc:
            raise storage_error(exc, f"The secret {path} cannot be used", "check the data folder, its owner and the free space") from exc
        if len(secret) != SECRET_BYTES:
            raise StorageError(f"The secret {path} is damaged; delete it, and another one is made. Links that were given out end with it.")
        return cls(secret)

    def query(self, scope: str, valid_s: float) -> str:
        """Return the query that lets a reader in to a scope (a path and everything below it) for some time."""
        expires = int(time.time() + valid_s)
        return f"expires={expires}&signature={self._signature(scope, expires)}"

    def allows(self, path: str, expires: str, signature: str) -> bool:
        """Tell whether a signature made for this path, or for one above it, is genuine and still valid."""
        if not expires.isascii() or not expires.isdigit() or len(expires) > 12 or int(expires) < time.time() or not signature.isascii():
            return False
        parts = path.split("/")
        scopes = ["/".join(parts[:count]) for count in range(2, len(parts) + 1)]
        return any(hmac.compare_digest(self._signature(scope, int(expires)), signature) for scope in scopes)

    def _signature(self, scope: str, expires: int) -> str:
        return hmac.new(self._secret, f"{expires}.{scope}".encode(), hashlib.sha256).hexdigest()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
