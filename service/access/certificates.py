"""The service's certificate, its key, and whose certificates it trusts, for all ports that speak TLS."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from service.access.watched import Watched


@dataclass(frozen=True)
class Certificates:
    """What the files held, in PEM, and the same as a context of the standard library."""

    chain: bytes
    key: bytes
    client_ca: bytes | None
    """None where clients needn't show a certificate."""
    context: ssl.SSLContext


def watched_certificates(cert: Path, key: Path, client_ca: Path | None) -> Watched[Certificates]:
    """The certificates of some files. Raises OSError or ValueError, with what is wrong and how to mend it."""
    paths = [cert, key, *([client_ca] if client_ca else [])]
    return Watched(paths, lambda: read_certificates(cert, key, client_ca))


def read_certificates(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    """Reads the files. Raises OSError, or ValueError if they aren't what they should be."""
    chain, secret = cert.read_bytes(), key.read_bytes()
    trusted = client_ca.read_bytes() if client_ca else None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password Python would ask for one at the terminal.
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        raise ValueError(
            f"{cert} and {key} must be a certificate and its private key without a password, in PEM ({_why(error)})"
        ) from error
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise ValueError(f"{client_ca} must be certificates in PEM ({_why(error)})") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return Certificates(chain, secret, trusted, context)


def renewed_context(certificates: Watched[Certificates]) -> ssl.SSLContext:
    """A context for a server that lives long: every connection gets the certificate as it is by then."""

    def renew(connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        connection.context = certificates.value().context

    context = certificates.value().context
    context.sni_callback = renew
    return context


def _no_password() -> bytes:
    raise ValueError("the private key must have no password: nobody would be there to type it")


def _why(error: ssl.SSLError) -> str:
    return (error.reason or "it can't be read").lower().replace("_", " ")
