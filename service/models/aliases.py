"""Names that stand for a model and can be made to stand for another: production, staging.

Whoever asks "models/@production" need not know which model that is today. An alias begins with "@" where a model's name
is expected, so that it is never mistaken for an id. "@latest" is the service's own: always the newest model.
"""

import json
import threading
from pathlib import Path

from service.errors import InvalidArgument, NotFound, ResourceExhausted
from service.files import write_atomically
from service.models.registry import Models

LATEST = "latest"
MOST_ALIASES = 1_000


class Aliases:
    """The aliases, in a file that changes as a whole."""

    def __init__(self, path: Path, models: Models) -> None:
        self._path = path
        self._models = models
        self._lock = threading.Lock()
        self._aliases: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        """Replaced and never changed, so that it can be read without the lock."""

    def resolve(self, reference: str) -> str:
        """The id that a reference stands for: itself, or what the alias after its "@" does. Raises NotFound.

        Of an id it is not known yet whether there is such a model. "@latest" may take the disk's time.
        """
        if not reference.startswith("@"):
            return reference
        alias = reference.removeprefix("@")
        if alias == LATEST:
            found = self._models.newest()
        elif found := self._aliases.get(alias):
            try:
                self._models.stamp(found)
            except NotFound:
                raise NotFound(f"models/{reference}: it stood for models/{found}, which was deleted") from None
        if found is None:
            raise NotFound(f"models/{reference}")
        return found

    def of(self, model_id: str) -> list[str]:
        """The aliases that stand for a model, by name."""
        return sorted(alias for alias, of in self._aliases.items() if of == model_id)

    def set(self, alias: str, reference: str) -> str:
        """Has an alias stand for a model from now on, and returns the model's id. Durable when it returns.

        Raises NotFound if there is no such model, InvalidArgument for an alias that is the service's own,
        ResourceExhausted if there are too many.
        """
        if alias == LATEST:
            raise InvalidArgument.of("alias", f"is {LATEST!r}, which is kept by the service: always the newest model")
        with self._lock:
            model_id = self.resolve(reference)
            self._models.stamp(model_id)
            if alias not in self._aliases and len(self._aliases) >= MOST_ALIASES:
                raise ResourceExhausted(
                    f"there are {len(self._aliases):,} aliases, as many as there may be; delete some",
                    reason="TOO_MANY_ALIASES",
                )
            self._write({**self._aliases, alias: model_id})
        return model_id

    def delete(self, alias: str) -> None:
        """Removes an alias; its model stays. Raises NotFound."""
        with self._lock:
            if alias not in self._aliases:
                raise NotFound(f"models/@{alias}")
            self._write({name: of for name, of in self._aliases.items() if name != alias})

    def _write(self, aliases: dict[str, str]) -> None:
        write_atomically(self._path, json.dumps(aliases).encode())
        self._aliases = aliases
