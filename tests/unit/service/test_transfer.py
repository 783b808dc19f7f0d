"""What a job takes over from a model, and where that is kept."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.errors import InvalidArgument
from service.models.registry import Models
from service.training.checkpoints import Checkpoints
from service.training.transfer import Transfer, matches
from service.wire.network import model_json, model_network
from tests.unit.service.examples import DATA, NOON, jobs_in, spec, task
from tests.unit.service.training_run import Run
from tests.unit.service.unreliable import UnreliableWorkers
from worker.layers import Dense, ReLU, Tanh
from worker.network import Network, Traits

PLAIN, FRESH, FROZEN = Traits(), Traits(fresh=True), Traits(frozen=True)
MODEL = Network((Dense(5), ReLU(), Dense(3)), (4,), traits=(Traits("body"), PLAIN, Traits("head")))


def network(*layers: Dense | ReLU | Tanh, traits: tuple[Traits, ...] = ()) -> Network:
    return Network(layers, (4,), traits=traits)


TAKEN: list[tuple[Network, list[tuple[int, int]]]] = [
    (network(Dense(5), ReLU(), Dense(3)), [(0, 0), (2, 2)]),
    (network(Dense(5), ReLU(), Dense(7), traits=(PLAIN, PLAIN, FRESH)), [(0, 0)]),
    (network(Dense(5), ReLU(), Dense(7), traits=(PLAIN, PLAIN, Traits("other"))), [(0, 0)]),
    (network(Dense(5), Tanh(), Dense(3)), [(0, 0), (2, 2)]),
    (network(Dense(5), ReLU(), Dense(3), Dense(9)), [(0, 0), (2, 2)]),
    (network(Tanh(), Dense(5), Dense(3), traits=(PLAIN, Traits("body"), Traits("new"))), [(1, 0)]),
    (network(Dense(5), Dense(3), traits=(Traits("body"), Traits("head"))), [(0, 0), (1, 2)]),
]


@pytest.mark.parametrize(("of", "layers"), TAKEN)
def test_layers_take_what_has_their_name_or_their_place(of: Network, layers: list[tuple[int, int]]) -> None:
    pairs = [(slot.layer, slot.key, theirs.layer, theirs.key) for slot, theirs in matches(of, MODEL, "spec")]
    assert sorted(pairs) == sorted((ours, key, its, key) for ours, its in layers for key in ("weight", "bias"))


REFUSED = [
    (
        network(Dense(6), ReLU(), Dense(3)),
        {
            "spec.network.layers[0]": "would take the parameters of the model's layer 0, but its weight has shape "
            "(4, 6), and there it has shape (4, 5); set fresh to start it anew, or give it a name of its own",
            "spec.network.layers[2]": "would take the parameters of the model's layer 2, but its weight has shape "
            "(6, 3), and there it has shape (5, 3); set fresh to start it anew, or give it a name of its own",
        },
    ),
    (
        network(Dense(5), Dense(3), traits=(Traits("head"), FRESH)),
        {"spec.network.layers[0]": "layer head, but its weight has shape (4, 5), and there it has shape (5, 3)"},
    ),
    (network(Dense(5), Dense(3)), {"spec.network.layers[1]": "is dense, and that is relu"}),
    (
        network(Dense(5), traits=(FRESH,)),
        {"spec.initial_model": "has no layer that this network takes over"},
    ),
    (network(Dense(5), traits=(Traits("x"),)), {"spec.initial_model": "has no layer that this network takes over"}),
]


@pytest.mark.parametrize(("of", "wrong"), REFUSED)
def test_what_does_not_fit_is_named(of: Network, wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        matches(of, MODEL, "spec")
    assert [violation.field for violation in refused.value.violations] == list(wrong)
    for violation, text in zip(refused.value.violations, wrong.values(), strict=True):
        assert text in violation.description


FROM = spec(initial_model="model-a", traits=(FROZEN, PLAIN, PLAIN))


def tensors() -> dict[str, np.ndarray]:
    """Of the first layer."""
    params = task().network.initial(seed=77)
    return {slot.name: slot.view(params) for slot in task().network.slots if slot.layer == 0}


def test_what_is_kept_for_a_job_goes_unless_there_is_one(tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    with jobs_in(tmp_path) as jobs:
        transfer = Transfer(Models(tmp_path / "models"), jobs, root, model_network, str)
        with transfer.kept("job-a", tensors()):
            jobs.create(FROM, 30, "", "", job_id="job-a")
        with transfer.kept("job-b", tensors()):
            assert (root / "job-b").exists()
        with pytest.raises(ZeroDivisionError), transfer.kept("job-c", tensors()):
            raise ZeroDivisionError
        with transfer.kept("job-d", {}):
            pass
        assert [path.name for path in root.iterdir()] == ["job-a"]
        Checkpoints(root / "job-e").save_initial(tensors())  # and here the coordinator was killed
        (root / "job-f").mkdir()
        (root / "job-f" / ".initial-0.safetensors.part").touch()  # or here
        (root / "job-g").mkdir()
        (root / "job-g" / "step-000000000003-00000000.safetensors").touch()  # which is not ours to remove
        transfer.sweep()
        assert sorted(path.name for path in root.iterdir()) == ["job-a", "job-g"]
    taken = Checkpoints(root / "job-a").load_initial()
    assert {name: array.tobytes() for name, array in taken.items()} == {
        name: array.tobytes() for name, array in tensors().items()
    }


def test_a_model_is_read_by_name(tmp_path: Path) -> None:
    models = Models(tmp_path / "models")
    params = MODEL.initial(seed=6)
    text = model_json(MODEL.layers, None, MODEL.traits)
    models.add("model-a", MODEL, text, params, (None, None, {}), NOON)
    assert model_network(text, (4,)) == MODEL
    of = network(Dense(3), Dense(5), traits=(Traits("neck"), Traits("body")))
    with jobs_in(tmp_path) as jobs:
        transfer = Transfer(models, jobs, tmp_path, model_network, str)
        assert transfer.taken(replace(FROM, initial_model=""), of, "spec") == {}
        with pytest.raises(InvalidArgument, match=r"layers\[1\]: .* its weight has shape \(3, 5\)"):
            transfer.taken(FROM, of, "spec")
        of = network(Tanh(), Dense(5), traits=(PLAIN, Traits("body")))
        taken = transfer.taken(FROM, of, "spec")
        with pytest.raises(InvalidArgument, match="there is no model models/nobody; train or upload it first"):
            transfer.taken(replace(FROM, initial_model="nobody"), of, "spec")
    weight, bias = MODEL.views(params)[0].values()
    assert list(taken) == ["layers.1.weight", "layers.1.bias"]
    assert [array.tobytes() for array in taken.values()] == [weight.tobytes(), bias.tobytes()]


def test_a_job_starts_with_what_was_kept(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save_initial(tensors())
    params = np.frombuffer(Run(tmp_path, of=FROM).train(), np.float32)
    for slot in task().network.slots:
        if slot.layer == 0:
            assert slot.view(params).tobytes() == tensors()[slot.name].tobytes()
        else:
            assert slot.view(params).tobytes() != slot.view(task().network.initial(FROM.seed)).tobytes()
    again = tmp_path / "again"
    Checkpoints(again).save_initial(tensors())
    several = UnreliableWorkers(task(FROM), DATA, 3, {5: [1], 9: [0, 2]})
    assert Run(again, of=FROM).train(several) == params.tobytes()
    assert Run(tmp_path / "none", of=spec(traits=FROM.traits), data=DATA).train() != params.tobytes()


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_a_start_that_is_not_there_is_not_made_up(tmp_path: Path, damage: str) -> None:
    Checkpoints(tmp_path).save_initial(tensors())
    (path,) = tmp_path.iterdir()
    path.unlink() if damage == "gone" else path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match=re.escape("that the job starts with are not there, or damaged")):
        Run(tmp_path, of=FROM).train()
