"""Checkpoints: every bit comes back, and there is always one to go on from."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.jobs.events import EpochCompleted, Reported, RolledBack
from service.training.checkpoints import Checkpoints
from service.training.state import TrainingState
from service.training.stopping import Streak
from tests.unit.service.full_disk import largest_file
from worker.gradient import Gradient, Sums


def state(step: int = 1, size: int = 5) -> TrainingState:
    vector = np.linspace(0, step, size, dtype=np.float32)
    sums = Sums(0.1 * step, {"accuracy": np.array([2.0, 3.0])}, step, step)
    return TrainingState(step, vector, {"m": vector * 2, "v": vector * 3}, sums)


def assert_same(one: TrainingState | None, other: TrainingState) -> None:
    assert one is not None
    changes: Any = {"params": None, "carried": {}, "pending": None}
    assert replace(one, **changes) == replace(other, **changes)
    assert (one.pending is None) == (other.pending is None)
    if one.pending and other.pending:
        assert one.pending.sums == other.pending.sums
        assert one.pending.vector.tobytes() == other.pending.vector.tobytes()
    for a, b in ((one.params, other.params), *((one.carried[n], other.carried[n]) for n in other.carried)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    assert one.carried.keys() == other.carried.keys()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def steps(directory: Path, kind: str = "step") -> list[int]:
    """The steps of the checkpoints of a kind, by their files' names."""
    return [int(name.split("-")[1]) for name in names(directory) if name.startswith(kind)]


def file_of(directory: Path, step: int) -> Path:
    (path,) = directory.glob(f"step-{step:012d}-*.safetensors")
    return path


vectors = arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32))
finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**12)
streaks = st.builds(Streak, finite | st.just(math.inf), counts)
epochs = st.builds(
    EpochCompleted, counts, counts, finite, finite | st.none(), finite, st.none(), finite, finite, counts
)
roll_backs = st.builds(RolledBack, counts, counts, finite, st.text(st.characters(codec="utf-8")))


@given(
    vectors,
    st.dictionaries(st.sampled_from(("velocity", "m", "v")), vectors),
    st.integers(0, 10**12 - 1),
    st.builds(
        Sums,
        finite,
        st.dictionaries(st.sampled_from(("accuracy", "other")), st.lists(st.floats(0, 1e9)).map(np.array)),
        st.integers(0, 10**15),
        finite,
    ),
    st.floats(0, 1),
    finite | st.just(math.inf),
    st.lists(epochs | roll_backs, max_size=4).map(tuple),
    epochs | st.none(),
    st.tuples(streaks, streaks, st.floats(0, 1)),
    st.none() | st.builds(Gradient, vectors, st.builds(Sums, finite, st.just({}), counts, finite)),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    params: object,
    carried: dict[str, object],
    step: int,
    epoch: Sums,
    rate_scale: float,
    best_loss: float,
    unacknowledged: tuple[Reported, ...],
    best_epoch: EpochCompleted | None,
    plateaus: tuple[Streak, Streak, float],
    pending: Gradient | None,
) -> None:
    told = (rate_scale, best_loss, unacknowledged, best_epoch, *plateaus)
    before = TrainingState(step, params, carried, epoch, *told, pending)  # type: ignore[arg-type]
    directory = tmp_path_factory.mktemp("job")
    Checkpoints(directory).save(before)
    assert_same(Checkpoints(directory).load(), before)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "job").load() is None
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_newest_is_loaded_and_so_many_are_kept(keep: int, tmp_path: Path) -> None:
    saved = [1, 9, 10, 11, 100]
    for number, step in enumerate(saved, start=1):
        Checkpoints(tmp_path, keep).save(state(step))
        assert_same(Checkpoints(tmp_path, keep).load(), state(step))
        assert steps(tmp_path) == saved[:number][-keep:]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    """Also with other content, as after going back: with half the rate."""
    Checkpoints(tmp_path).save(state(3))
    for scale in (1.0, 1.0, 0.5, 0.25, 0.125):
        Checkpoints(tmp_path).save(replace(state(4), rate_scale=scale))
        assert_same(Checkpoints(tmp_path).load(), replace(state(4), rate_scale=scale))
        assert steps(tmp_path) == [3, 4]


def test_the_best_is_kept_beside_them(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, keep_best=True)
    for step in (4, 8):
        checkpoints.save_best(state(step))
        checkpoints.save(state(step))
    for step in (12, 16, 20):
        checkpoints.save(state(step))
    assert (steps(tmp_path, "best"), steps(tmp_path)) == ([8], [16, 20])
    assert_same(checkpoints.load(), state(20))


def test_the_best_alone_is_nothing_to_go_on_from(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2, keep_best=True)
    checkpoints.save_best(state(8))
    assert checkpoints.load() is None


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off in the header": lambda data: data[:20],
    "cut off in the data": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "something else": lambda _: b"\x93NUMPY" * 50,
    "a header that is too long": lambda data: b"\xff" * 8 + data[8:],
    "no parameters": lambda data: data.replace(b'"params"', b'"others"'),
    "another step": lambda data: data.replace(b'"step":"2"', b'"step":"3"'),
}


def breaks(path: Path, change: Callable[[bytes], bytes]) -> None:
    data = path.read_bytes()
    assert change(data) != data
    path.write_bytes(change(data))


@pytest.mark.parametrize("how", BROKEN)
def test_one_that_is_broken_falls_back_to_the_one_before(how: str, tmp_path: Path) -> None:
    for step in (2, 12):
        Checkpoints(tmp_path).save(state(step))
    newest, before = file_of(tmp_path, 12), file_of(tmp_path, 2)
    newest.write_bytes(BROKEN[how](before.read_bytes()))
    assert_same(Checkpoints(tmp_path).load(), state(2))
    breaks(before, BROKEN[how])
    assert Checkpoints(tmp_path).load() is None


@given(st.data())
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("job")
    for step in (1, 2):
        Checkpoints(directory).save(state(step))
    path = file_of(directory, 2)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    assert_same(Checkpoints(directory).load(), state(1))


def test_a_whole_one_under_the_name_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(state(step))
    file_of(tmp_path, 2).write_bytes(file_of(tmp_path, 1).read_bytes())
    assert_same(Checkpoints(tmp_path).load(), state(1))


def test_what_a_damaged_one_leaves_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    """Gone on from the one before, the first new checkpoint is of an earlier step than the damaged one."""
    for step in (4, 9):
        Checkpoints(tmp_path).save(state(step))
    breaks(file_of(tmp_path, 9), BROKEN["empty"])
    assert_same(Checkpoints(tmp_path).load(), state(4))
    Checkpoints(tmp_path).save(state(5))
    assert_same(Checkpoints(tmp_path).load(), state(5))
    assert steps(tmp_path) == [4, 5]


def test_a_directory_under_its_name_falls_back_too(tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(state(step))
    newest = file_of(tmp_path, 2)
    newest.unlink()
    newest.mkdir()
    assert_same(Checkpoints(tmp_path).load(), state(1))


def test_what_a_crash_left_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    path = file_of(tmp_path, 1)
    part = f".{path.name.replace('01-', '02-')}.part"
    others = ("step-2.safetensors", f"{path.name}.bak", "step-000000000002.safetensors", "notes.txt")
    for name in (part, *others):
        (tmp_path / name).write_bytes(path.read_bytes())
    assert_same(Checkpoints(tmp_path).load(), state(1))
    Checkpoints(tmp_path).save(state(2))
    assert part not in names(tmp_path)
    assert set(others) <= set(names(tmp_path))  # which are not ours


def test_a_disk_error_is_raised_leaves_no_part_and_keeps_the_older_ones(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step))
    before = names(tmp_path)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        checkpoints.save(state(3))
    assert names(tmp_path) == before
    assert_same(checkpoints.load(), state(2))
    checkpoints.save(state(3))
    assert_same(checkpoints.load(), state(3))


def test_a_directory_that_cannot_be_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Checkpoints(tmp_path / "file" / "job").save(state())
