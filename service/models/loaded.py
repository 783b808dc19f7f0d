"""Models at hand to predict with: loaded once, and kept by least recent use within a limit on memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.data.features import FittedNumbers
from service.data.preparation import FittedPreparation, Table
from service.errors import InvalidArgument, ResourceExhausted
from service.models.registry import Model, Models, Stamp
from service.models.spreading import Ask, ask_nobody, spread
from worker.arrays import Array
from worker.network import Network
from worker.passes import Prediction
from worker.task import rows_at_once


@dataclass(frozen=True)
class LoadedModel:
    """A network with its parameters, (parameters,), in whose precision it computes."""

    model: Model
    network: Network
    params: Array
    stamp: Stamp
    preparation: FittedPreparation | None = None

    @cached_property
    def prediction(self) -> Prediction:
        """The network as a function, which others who are asked know for as long as the model is at hand."""
        return Prediction(self.network, self.params)

    def predict(self, rows: Array | Table, stop: threading.Event, ask: Ask = ask_nobody) -> Array:
        """What the network makes of some rows (rows, *input_shape), as (rows, *output_shape).

        Of a table, rows are prepared first; a standardised target is told in its own units.
        Nothing is dropped, and statistics are those kept. However many rows there are, memory is needed for one block
        of them beside the result; others may be asked for some of the blocks. Raises InvalidArgument if the network
        can't take the rows, Aborted soon after `stop`.
        """
        outputs: Array = np.empty((len(rows), *self.network.output_shape), self.params.dtype)
        size = rows_at_once(self.network)
        starts = range(0, len(rows), size)

        def block(start: int) -> Array:
            return finite(rows[start : start + size], self.params.dtype)

        try:
            for start, made in zip(starts, spread(self.prediction, starts, block, ask, stop), strict=True):
                outputs[start : start + size] = made
        except IndexError as error:  # such as a word that the network has no vector for
            raise InvalidArgument.of("inputs[0]", str(error)) from error
        if self.preparation and isinstance(self.preparation.target, FittedNumbers):
            target = self.preparation.target
            return target.undo(outputs.reshape(-1, target.width)).reshape(outputs.shape).astype(outputs.dtype)
        return outputs

    @property
    def names_classes(self) -> bool:
        """Whether its outputs stand for classes that have names: a number for each, or one for two."""
        shape, count = self.network.output_shape, len(self.model.classes)
        return count > 0 and (shape[-1:] == (count,) or (shape[-1:] == (1,) and count == 2))

    def named_classes(self, outputs: Array) -> Array:
        """The names of the most probable classes, (rows, ...), of outputs (rows, ..., numbers)."""
        found = outputs.argmax(axis=-1) if outputs.shape[-1] > 1 else (outputs[..., 0] > 0).astype(np.intp)
        names: Array = np.array(self.model.classes)[found]
        return names


def finite(rows: Array, dtype: np.dtype[np.floating]) -> Array:
    """The rows in another precision. Raises InvalidArgument if some numbers are none there."""
    with np.errstate(over="ignore", invalid="ignore"):
        converted: Array = rows.astype(dtype, copy=False)
    if not np.isfinite(converted).all():
        raise InvalidArgument.of(
            "inputs[0]",
            f"has numbers that are NaN, infinite, or beyond {dtype}, in which the network computes; "
            "it has learned from none, so leave such rows out or fill them in",
        )
    return converted


class LoadedModels:
    """The models at hand. May be used by any threads; `load` by one at a time."""

    def __init__(self, models: Models, network_of: Callable[[Model], Network], most_bytes: int) -> None:
        """All that are kept take at most `most_bytes`."""
        self._models = models
        self._network_of = network_of
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()
        """The one that was used last comes last."""
        self.loads = 0
        """How often a model was read from the disk."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._loaded)

    @property
    def bytes(self) -> int:
        """What they take."""
        with self._lock:
            return sum(loaded.params.nbytes for loaded in self._loaded.values())

    def at_hand(self, model_id: str) -> LoadedModel | None:
        """A model, if it needn't be read from the disk. Raises NotFound if it is not there any more."""
        stamp = self._stamp(model_id)
        with self._lock:
            loaded = self._loaded.get(model_id)
            if loaded is None or loaded.stamp != stamp:
                return None
            self._loaded.move_to_end(model_id)
            return loaded

    def load(self, model_id: str) -> LoadedModel:
        """A model, read from the disk if need be. Raises NotFound, or ResourceExhausted if it can't be kept."""
        if loaded := self.at_hand(model_id):
            return loaded
        stamp, model = self._stamp(model_id), self._models.get(model_id)
        size = self._models.parameter_bytes(model_id)
        if size > self._most_bytes:
            raise ResourceExhausted(
                f"{model.name} takes {size:,} bytes of memory, and there are {self._most_bytes:,} for models; "
                "start the coordinator with a larger --model-cache-bytes",
                reason="MODEL_TOO_LARGE",
            )
        self._make_room(size)
        network = self._network_of(model)
        loaded = LoadedModel(model, network, self._models.parameters(model_id, network), stamp, model.preparation)
        network.keep_views([loaded.params])
        with self._lock:
            self._loaded[model_id] = loaded
        self.loads += 1
        return loaded

    def _stamp(self, model_id: str) -> Stamp:
        try:
            return self._models.stamp(model_id)
        except Exception:
            with self._lock:
                self._loaded.pop(model_id, None)
            raise

    def _make_room(self, size: int) -> None:
        """Lets go of those that were not used for longest. One that is just predicting ends with that."""
        with self._lock:
            used = sum(loaded.params.nbytes for loaded in self._loaded.values())
            while self._loaded and used + size > self._most_bytes:
                _, oldest = self._loaded.popitem(last=False)
                used -= oldest.params.nbytes
