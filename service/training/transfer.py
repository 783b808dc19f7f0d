"""What a job that starts from a model takes over from it.

It is read when the job is created and written beside the job's checkpoints, so that what was acknowledged can start,
and start again with the same bits, whatever becomes of the model.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from service.errors import InvalidArgument, NotFound, Violations
from service.jobs.jobs import Jobs
from service.jobs.spec import JobSpec
from service.models.registry import Models
from service.training.checkpoints import Checkpoints
from worker.arrays import Array, Shape
from worker.layers import LAYERS, Layer
from worker.network import Network, Slot


def matches(network: Network, model: Network, path: str) -> list[tuple[Slot, Slot]]:
    """What goes where: each slot of a network that takes over the parameter in one of the model's.

    A layer with a name takes those of the layer of that name; one without, those of the layer at its place. Raises
    InvalidArgument, naming below `path` each layer that finds one unlike itself; or all, if nothing is taken.
    """
    violations = Violations()
    named = {traits.name: index for index, traits in enumerate(model.traits) if traits.name}
    found: list[tuple[Slot, Slot]] = []
    for index, layer in enumerate(network.layers):
        traits, slots = network.traits_of(index), _slots(network, index)
        source = named.get(traits.name) if traits.name else index
        if traits.fresh or not slots or source is None or source >= len(model.layers):
            continue
        theirs = _slots(model, source)
        if problem := _unlike(layer, slots, model.layers[source], theirs):
            violations.add(
                f"{path}.network.layers[{index}]",
                f"would take the parameters of the model's layer {traits.name or source}, but {problem}; "
                "set fresh to start it anew, or give it a name of its own",
            )
        else:
            found += [(slot, theirs[key]) for key, slot in slots.items()]
    violations.raise_any()
    if not found:
        raise InvalidArgument.of(
            f"{path}.initial_model",
            "has no layer that this network takes over: give layers the names that they have in the model, or leave "
            "out fresh",
        )
    return found


@dataclass(frozen=True)
class Transfer:
    """Starts jobs from models."""

    models: Models
    jobs: Jobs
    directory: Path
    """Below which each job has its checkpoints."""
    read: Callable[[str, Shape], Network]
    """Makes a network of a model's layers in JSON and its input shape."""
    resolve: Callable[[str], str]
    """Tells the id that an alias ("@production") stands for, or an id as it is. Raises NotFound."""

    def resolved(self, spec: JobSpec, path: str) -> JobSpec:
        """The same with the id of the model that it starts from. Raises InvalidArgument."""
        try:
            return replace(spec, initial_model=self.resolve(spec.initial_model))
        except NotFound as error:
            raise _no_model(error, path) from None

    def taken(self, spec: JobSpec, network: Network, path: str) -> Mapping[str, Array]:
        """The parameters that a job takes over, by its own names for them. Raises InvalidArgument."""
        if not spec.initial_model:
            return {}
        try:
            model = self.models.get(spec.initial_model)
            pairs = matches(network, self.read(model.layers_json, model.input_shape), path)
            tensors = self.models.tensors(model.id, {theirs.name for _, theirs in pairs})
        except NotFound as error:
            raise _no_model(error, path) from None
        return {slot.name: tensors[theirs.name] for slot, theirs in pairs}

    @contextmanager
    def kept(self, job_id: str, tensors: Mapping[str, Array]) -> Iterator[None]:
        """Writes down what a job starts with; it goes again if there is no such job when the context is left."""
        try:
            if tensors:
                Checkpoints(self.directory / job_id).save_initial(tensors)
            yield
        finally:
            if tensors and not self.jobs.has(job_id):
                self._forget(job_id)

    def sweep(self) -> None:
        """Removes what was written down for jobs that a crash kept from being created."""
        for path in self.directory.glob("*/*initial-*"):
            if not self.jobs.has(path.parent.name):
                self._forget(path.parent.name)

    def _forget(self, job_id: str) -> None:
        shutil.rmtree(self.directory / job_id, ignore_errors=True)


def _no_model(error: NotFound, path: str) -> InvalidArgument:
    return InvalidArgument.of(
        f"{path}.initial_model", f"{error.message}; train or upload it first", reason=error.reason
    )


def _slots(network: Network, layer: int) -> dict[str, Slot]:
    return {slot.key: slot for slot in network.slots if slot.layer == layer}


def _unlike(layer: Layer, slots: Mapping[str, Slot], other: Layer, theirs: Mapping[str, Slot]) -> str:
    """What keeps a layer from taking another's parameters; "" if nothing does."""
    if type(layer) is not type(other):
        return f"is {_kind(layer)}, and that is {_kind(other)}"
    for key in {**slots, **theirs}:
        ours, its = (found[key].parameter.shape if key in found else None for found in (slots, theirs))
        if ours != its:
            return f"its {key} {_has(ours)}, and there it {_has(its)}"
    return ""


def _has(shape: Shape | None) -> str:
    return "is missing" if shape is None else f"has shape {shape}"


def _kind(layer: Layer) -> str:
    return next(kind for kind, cls in LAYERS.items() if type(layer) is cls)
