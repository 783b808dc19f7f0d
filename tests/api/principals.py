"""Principals for tests: their tokens, and the file that lets them in."""

import hashlib
from pathlib import Path
from typing import TypeAlias

TOKENS = {name: f"chainrule_{name}-{'0123456789' * 4}" for name in ("reader", "alice", "bob", "root")}
Metadata: TypeAlias = tuple[tuple[str, str], ...]
SCOPES = {"reader": "read", "alice": "train", "bob": "train", "root": "admin"}


def line(name: str, scope: str, token: str) -> str:
    """A line of the tokens file."""
    return f"{name} {scope} {hashlib.sha256(token.encode()).hexdigest()}\n"


def write_tokens(directory: Path, *names: str) -> Path:
    """The file, of the principals that are named, or of all."""
    path = directory / "tokens"
    path.write_text("# Who may call\n\n" + "".join(line(name, SCOPES[name], TOKENS[name]) for name in names or TOKENS))
    path.chmod(0o600)
    return path


def bearer(name: str) -> Metadata:
    """The metadata that says who calls."""
    return (("authorization", f"Bearer {TOKENS[name]}"),)
