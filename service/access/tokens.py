"""The tokens file: who may call, with what scope, and the SHA-256 of the token that proves it.

A line for each token, `NAME SCOPE SHA256`, as `chainrule admin token` prints it; empty lines, and those that begin
with #, are for people. A principal may have several tokens, as while one replaces another. The file holds no token,
so that whoever reads it can't call; but whoever writes it can let anyone in.
"""

import hashlib
import hmac
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from service.access.principals import Principal, Scope
from service.access.watched import Watched

LARGEST_FILE = 1 << 20
MOST_TOKENS = 1_000
"""Each call is compared with all of them."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
FORBIDDEN = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class Tokens:
    """The principals, each with the hash of a token."""

    entries: tuple[tuple[bytes, Principal], ...]

    def principal(self, token: str) -> Principal | None:
        """Whose token this is.

        All hashes are compared, each in full, so that the time tells nothing of where a token is like another.
        """
        given = hashlib.sha256(token.encode()).digest()
        found = None
        for sha256, principal in self.entries:
            if hmac.compare_digest(sha256, given):
                found = principal
        return found


def watched_tokens(path: Path) -> Watched[Tokens]:
    """The tokens of a file. Raises OSError or ValueError, with what is wrong and how to mend it."""
    return Watched([path], lambda: read_tokens(path))


def read_tokens(path: Path) -> Tokens:
    """Reads a file. Raises OSError, or ValueError, which names the line."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & FORBIDDEN:
            raise ValueError(f"others may write {path} (mode {mode:03o}); run: chmod go-w {path}")
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path} has more than {LARGEST_FILE:,} bytes")
    entries = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        words = line.split()
        if words and not words[0].startswith("#"):
            try:
                entries.append(_entry(words))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    if len(entries) > MOST_TOKENS:
        raise ValueError(f"{path} has {len(entries):,} tokens; there may be {MOST_TOKENS:,}")
    if not entries:
        raise ValueError(f"{path} has no token, so that nobody could call; `chainrule admin token` prints lines for it")
    return Tokens(tuple(entries))


def _entry(words: list[str]) -> tuple[bytes, Principal]:
    scopes = {scope.name.lower(): scope for scope in Scope}
    if len(words) != 3:
        raise ValueError("must be NAME SCOPE SHA256, as `chainrule admin token` prints it")
    name, scope, sha256 = words
    if not NAME.fullmatch(name):
        raise ValueError(f"the name {name[:100]!r} must be 1 to 100 letters, digits and . _ @ -, the first no sign")
    if scope not in scopes:
        raise ValueError(f"the scope {scope[:100]!r} must be one of {', '.join(scopes)}")
    if not SHA256.fullmatch(sha256):
        raise ValueError("the last word must be the SHA-256 of a token: 64 hexadecimal digits")
    return bytes.fromhex(sha256), Principal(name, scopes[scope])
