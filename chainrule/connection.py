"""A connection to a coordinator: how a call is made, how long it may take, and what it raises."""

import time
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc

from chainrule.channel import open_channel
from chainrule.credentials import find_credentials
from chainrule.errors import Unavailable, from_rpc_error

DEFAULT_TIMEOUT = 30.0
SLOWEST_TRANSFER = 1024 * 1024  # bytes a second: what a link has to manage for a file to arrive within its deadline

AGAIN_SECONDS = 0.5
"""How long to wait before a coordinator that went away is asked again."""

Request = TypeVar("Request")
Response = TypeVar("Response")


class Connection:
    """What the calls of every service have in common."""

    def __init__(
        self,
        address: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        token: str | None = None,
        ca: Path | None = None,
        cert: Path | None = None,
        key: Path | None = None,
    ) -> None:
        """For the service at `address`, ``host:port``, or ``grpcs://host:port`` for TLS; a call may take `timeout` s.

        The transfer of a file may take as long again as 1 MiB a second needs. Nothing is connected before the first
        call. `token` proves who calls, `ca` has the certificates that are trusted instead of the system's, `cert` and
        `key` are this side's own; find_credentials tells what is taken for those that are not given. A token is sent
        over TLS or within this machine, and never else. Raises CredentialsError.
        """
        self.address = address
        self._timeout = timeout
        self._channel = open_channel(address, find_credentials(token, ca, cert, key))
        self._answered = False
        """Whether there ever was a coordinator: if not, the address may be wrong."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call that is under way."""
        self._channel.close()

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        timeout: float | None = None,
    ) -> Response:
        try:
            response = method(request, timeout=timeout or self._timeout)
        except grpc.RpcError as error:
            told = from_rpc_error(error, self.address)
            self._answered = self._answered or bool(told.reason)
            raise told from error
        self._answered = True
        return response

    def _call_again(self, method: "grpc.UnaryUnaryMultiCallable[Request, Response]", request: Request) -> Response:
        """As `_call`, for what does no more when it is done twice: a coordinator that was there is waited for.

        The channel's own attempts are over in a second; one that stops, and the next that starts, take longer.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                return self._call(method, request, until - time.monotonic())
            except Unavailable:
                if not self._answered or time.monotonic() + AGAIN_SECONDS >= until:
                    raise
            time.sleep(AGAIN_SECONDS)

    def _transfer_timeout(self, size: int) -> float:
        """Seconds that the transfer of `size` bytes may take."""
        return self._timeout + size / SLOWEST_TRANSFER
