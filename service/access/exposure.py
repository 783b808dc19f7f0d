"""Whether an address lets strangers in."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens at this host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def exposed(option: str, host: str, *, authenticates: bool, encrypts: bool) -> str:
    """What is wrong with listening at a host, for whoever starts the service; "" if nothing is.

    Beyond loopback, callers must prove who they are, and over TLS: a bearer token in the clear belongs to whoever reads
    along. `option` is the one that names the host, such as --listen.
    """
    if is_loopback(host) or (authenticates and encrypts):
        return ""
    missing = [
        *([] if authenticates else ["anyone could call (--auth-tokens, or --tls-client-ca, lets in whom you know)"]),
        *([] if encrypts else ["anyone could read along (--tls-cert and --tls-key encrypt)"]),
    ]
    return (
        f"{option} is {host}, which others than this machine reach, and {' and '.join(missing)}; "
        "if something else sees to that, say --allow-insecure"
    )
