"""The door that all ports share: whoever calls must prove who they are there."""

from collections.abc import Sequence

from service.access.principals import EVERYONE, Principal
from service.access.tokens import Tokens
from service.access.watched import Watched
from service.errors import Unauthenticated

HOW = "send one as `authorization: Bearer TOKEN`; our clients take it from CHAINRULE_TOKEN or CHAINRULE_TOKEN_FILE"


class Door:
    """Lets in those who have a token; everyone, where there are no tokens."""

    def __init__(self, tokens: Watched[Tokens] | None = None) -> None:
        self._tokens = tokens

    def principal(self, authorization: Sequence[str]) -> Principal:
        """Who calls with these headers of that name. Raises Unauthenticated."""
        if self._tokens is None:
            return EVERYONE
        if not authorization:
            raise Unauthenticated(f"this service wants a token: {HOW}", reason="TOKEN_MISSING")
        scheme, _, token = authorization[0].partition(" ")
        if len(authorization) > 1 or scheme.lower() != "bearer":
            raise Unauthenticated(f"the authorization must be one bearer token: {HOW}", reason="TOKEN_INVALID")
        if found := self._tokens.value().principal(token.strip()):
            return found
        raise Unauthenticated(
            "the token is none of this service's; whoever runs it can make one by `chainrule admin token`",
            reason="TOKEN_INVALID",
        )
