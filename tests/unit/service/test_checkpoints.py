"""Checkpoints: every bit comes back, and there is always one to go on from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.training.checkpoints import KEPT, Checkpoints
from service.training.state import TrainingState
from worker.gradient import Sums


def state(step: int = 1, size: int = 5) -> TrainingState:
    vector = np.linspace(0, step, size, dtype=np.float32)
    return TrainingState(step, vector, {"m": vector * 2, "v": vector * 3}, Sums(0.1 * step, {"accuracy": 2.0}, step))


def assert_same(one: TrainingState | None, other: TrainingState) -> None:
    assert one is not None
    assert (one.step, one.epoch) == (other.step, other.epoch)
    for a, b in ((one.params, other.params), *((one.optimizer[n], other.optimizer[n]) for n in other.optimizer)):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    assert one.optimizer.keys() == other.optimizer.keys()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


vectors = arrays.arrays(np.float32, st.integers(1, 20), elements=st.floats(width=32))


@given(
    vectors,
    st.dictionaries(st.sampled_from(("velocity", "m", "v")), vectors),
    st.integers(0, 10**12 - 1),
    st.builds(
        Sums,
        st.floats(allow_nan=False, allow_infinity=False),
        st.dictionaries(st.sampled_from(("accuracy", "other")), st.floats(0, 1e9)),
        st.integers(0, 10**15),
    ),
)
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory, params: object, optimizer: dict[str, object], step: int, epoch: Sums
) -> None:
    before = TrainingState(step, params, optimizer, epoch)  # type: ignore[arg-type]
    directory = tmp_path_factory.mktemp("job")
    Checkpoints(directory).save(before)
    assert_same(Checkpoints(directory).load(), before)


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "job").load() is None
    assert not (tmp_path / "job").exists()


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "job")
    for step in (1, 9, 10, 11, 100):
        checkpoints.save(state(step))
        assert_same(Checkpoints(tmp_path / "job").load(), state(step))
        assert len(names(tmp_path / "job")) <= KEPT
    assert names(tmp_path / "job") == ["step-000000000011.safetensors", "step-000000000100.safetensors"]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    for _ in range(3):
        Checkpoints(tmp_path).save(state(4))
    assert names(tmp_path) == ["step-000000000004.safetensors"]


NEWEST = "step-000000000002.safetensors"

BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off in the header": lambda data: data[:20],
    "cut off in the data": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "something else": lambda _: b"\x93NUMPY" * 50,
    "a header that is too long": lambda data: b"\xff" * 8 + data[8:],
    "no parameters": lambda data: data.replace(b'"params"', b'"others"'),
    "no step": lambda data: data.replace(b'"step"', b'"stop"'),
    "a step that is no number": lambda data: data.replace(b'"step":"2"', b'"step":"x"'),
    "an epoch that is none": lambda data: data.replace(b'"epoch":"{', b'"epoch":"['),
}


@pytest.mark.parametrize("breaks", BROKEN)
def test_one_that_is_broken_falls_back_to_the_one_before(breaks: str, tmp_path: Path) -> None:
    for step in (1, 2):
        Checkpoints(tmp_path).save(state(step))
    data = (tmp_path / NEWEST).read_bytes()
    broken = BROKEN[breaks](data)
    assert broken != data
    (tmp_path / NEWEST).write_bytes(broken)
    assert_same(Checkpoints(tmp_path).load(), state(1))
    (tmp_path / "step-000000000001.safetensors").write_bytes(broken)
    assert Checkpoints(tmp_path).load() is None


def test_a_directory_under_its_name_falls_back_too(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    (tmp_path / NEWEST).mkdir()
    assert_same(Checkpoints(tmp_path).load(), state(1))


def test_what_a_crash_left_is_no_checkpoint(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(state(1))
    whole = (tmp_path / "step-000000000001.safetensors").read_bytes()
    for name in (f".{NEWEST}.part", "step-2.safetensors", f"{NEWEST}.bak", "notes.txt"):
        (tmp_path / name).write_bytes(whole)
    assert_same(Checkpoints(tmp_path).load(), state(1))
    Checkpoints(tmp_path).save(state(2))
    assert f".{NEWEST}.part" not in names(tmp_path)


def test_a_disk_error_is_raised_and_keeps_the_older_ones(tmp_path: Path) -> None:
    """The place where the part would be written is taken by a directory."""
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        checkpoints.save(state(step))
    before = names(tmp_path)
    (tmp_path / ".step-000000000003.safetensors.part").mkdir()
    with pytest.raises(OSError, match=r"step-000000000003"):
        checkpoints.save(state(3))
    assert [name for name in names(tmp_path) if not name.startswith(".")] == before
    assert_same(checkpoints.load(), state(2))


def test_a_directory_that_cannot_be_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Checkpoints(tmp_path / "file" / "job").save(state())


def test_a_full_disk_leaves_no_part(tmp_path: Path) -> None:
    """The part is written to a device on which there is never room."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(1))
    (tmp_path / f".{NEWEST}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(state(2))
    assert names(tmp_path) == ["step-000000000001.safetensors"]
    checkpoints.save(state(2))
    assert_same(checkpoints.load(), state(2))
