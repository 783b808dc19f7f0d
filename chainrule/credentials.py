"""What proves who calls, and whom to trust: given, or found in the environment."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from chainrule.errors import CredentialsError


@dataclass(frozen=True)
class Credentials:
    """A token, and certificates and a key in PEM; each of them may be missing."""

    token: str = field(default="", repr=False)
    ca: bytes | None = field(default=None, repr=False)
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)


def find_credentials(
    token: str | None = None, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
) -> Credentials:
    """What is given, and else what CHAINRULE_TOKEN, _TOKEN_FILE, _CA, _CERT and _KEY say. Raises CredentialsError."""
    found = Credentials(
        _token() if token is None else token, _content(ca, "CA"), _content(cert, "CERT"), _content(key, "KEY")
    )
    if (found.cert is None) != (found.key is None):
        raise CredentialsError("a certificate and its key come together: CHAINRULE_CERT and CHAINRULE_KEY")
    if not (found.token.isascii() and found.token.isprintable()) or " " in found.token:
        raise CredentialsError("the token has characters that no token has; CHAINRULE_TOKEN must be the token alone")
    return found


def _token() -> str:
    if token := os.environ.get("CHAINRULE_TOKEN", ""):
        return token.strip()
    return (_content(None, "TOKEN_FILE") or b"").decode(errors="replace").strip()


def _content(path: Path | None, variable: str) -> bytes | None:
    """What is in a file, or in the one that an environment variable names."""
    named = os.environ.get(f"CHAINRULE_{variable}", "")
    if path is None and not named:
        return None
    file = path or Path(named)
    try:
        return file.read_bytes()
    except OSError as error:
        where = f"CHAINRULE_{variable}: " if path is None else ""
        raise CredentialsError(f"{where}can't read {file}: {error.strerror}") from error
