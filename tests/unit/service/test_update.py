"""The two passes of a step: average, check, apply. However they are cut, the bits are the same."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.training.optimizers import Adam, Momentum, Optimizer, Sgd
from service.training.state import Diverged, TrainingState, check_state, no_sums
from service.training.update import SHARED_FROM, SLICE, Mean, Update, check_finite
from tests.unit.service.examples import DATA, ROWS, task
from worker.arrays import Array
from worker.blocks import Block, merge
from worker.gradient import Gradient, Sums, gradient, tree_sum
from worker.network import Segment

TASK = task()
NETWORK = TASK.network
PARAMS = NETWORK.initial(seed=3).astype(np.float64)
LARGE = SHARED_FROM + SLICE // 2
"""So many parameters that two threads share the work, and the last slice is short."""


def of_rows(rows: Array) -> Gradient:
    return gradient(NETWORK, TASK.loss, PARAMS, DATA.take(rows, PARAMS.dtype))


def average(terms: list[Gradient]) -> Mean:
    vector = terms[0].vector
    blocks = [Block(shard, 1, Gradient(term.vector.copy(), term.sums)) for shard, term in enumerate(terms)]
    return Update(len(vector), vector.dtype).average(blocks, len(terms))


def mean_of(vector: Array, loss: float = 1.0) -> Mean:
    with np.errstate(over="ignore"):
        return Mean(vector, Sums(loss, {"accuracy": np.zeros(2)}, 1, 1), float(np.dot(vector, vector)))


@settings(deadline=None)
@given(st.lists(st.integers(0, ROWS), max_size=8), st.permutations(range(ROWS)))
def test_any_split_averages_to_the_whole_batch(cuts: list[int], order: list[int]) -> None:
    """Shards of any sizes, also empty ones."""
    shards = np.split(np.array(order), sorted(cuts))
    mean, whole = average([of_rows(shard) for shard in shards]), of_rows(np.array(order))
    np.testing.assert_allclose(mean.vector, whole.vector / ROWS, rtol=1e-12, atol=1e-15)
    assert mean.sums == replace(whole.sums, loss=mean.sums.loss)
    assert mean.sums.loss == pytest.approx(whole.sums.loss, rel=1e-12)
    assert mean.squared_norm == pytest.approx(float(mean.vector @ mean.vector), rel=1e-12)


def test_a_row_weighs_the_same_in_a_small_shard() -> None:
    one = Gradient(np.array([3.0]), Sums(3.0, {}, 1, 1))
    three = Gradient(np.array([5.0]), Sums(5.0, {}, 3, 3))
    assert average([one, three]).vector == 2.0


def test_what_is_kept_follows_the_rows_and_not_the_loss() -> None:
    """Rows that weigh 0 count in statistics all the same, and the optimizer has no say in them."""
    terms = [Gradient(np.array([6.0, 4.0]), Sums(1.0, {}, 4, 1.0)), Gradient(np.array([3.0, 8.0]), Sums(1.0, {}, 2, 2))]
    update = Update(2, np.dtype(np.float64), learned=1)
    mean = update.average([Block(shard, 1, term) for shard, term in enumerate(terms)], 2)
    np.testing.assert_array_equal(mean.vector, [(6 + 3) / (1 + 2), (4 + 8) / (4 + 2)])
    assert mean.squared_norm == 9.0
    params = np.array([10.0, 10.0])
    update.apply(Sgd(), params, mean, {}, 0.5, 0)
    np.testing.assert_array_equal(params, [10 - 0.5 * 3, 10 + 2])


def test_rows_that_weigh_nothing_change_nothing() -> None:
    mean = average([Gradient(np.array([0.0]), Sums(0.0, {}, 4, 0.0))])
    assert mean.vector == 0.0


def test_average_keeps_the_type() -> None:
    terms = [Gradient(np.full(3, value, np.float32), Sums(1.0, {}, 2, 2)) for value in (1, 2, 3)]
    mean = average(terms)
    assert mean.vector.dtype == np.float32
    np.testing.assert_array_equal(mean.vector, 1.0)


def gradients(parameters: int, shards: int) -> list[Gradient]:
    """Of very different sizes, so that another order of additions would show."""
    random = np.random.default_rng(shards)
    return [
        Gradient((random.random(parameters, np.float32) - np.float32(0.5)) * np.float32(10.0**exponent), sums)
        for exponent, sums in zip(
            random.integers(-4, 4, shards), (Sums(0.1 * s, {}, s + 1, s + 1) for s in range(shards)), strict=True
        )
    ]


def cut(terms: list[Gradient], owners: list[int]) -> list[Block]:
    """What workers send who added up what they own, in no particular order."""
    blocks: list[Block] = []
    for owner in sorted(set(owners), reverse=True):
        own = [shard for shard, by in enumerate(owners) if by == owner]
        mine = [Block(shard, 1, Gradient(terms[shard].vector.copy(), terms[shard].sums)) for shard in own]
        blocks += merge(mine, len(terms))
    return blocks


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_however_the_sum_is_cut_the_mean_has_the_same_bits(owners: list[int]) -> None:
    terms = gradients(7, len(owners))
    whole = tree_sum(terms)
    mean = Update(7, np.dtype(np.float32)).average(cut(terms, owners), len(terms))
    assert mean.vector.tobytes() == (whole.vector * np.float32(1 / whole.sums.count)).tobytes()
    assert mean.sums == whole.sums


@pytest.mark.parametrize("optimizer", [Sgd(), Momentum(), Adam()], ids=str)
def test_slices_and_threads_do_not_show(optimizer: Optimizer) -> None:
    """Against the whole vectors at once, without slices: with two threads, and, on the first half of them, with one."""
    terms = gradients(LARGE, 3)
    start = gradients(LARGE, 1)[0].vector
    for parameters, owners in ((LARGE, [0, 0, 1]), (LARGE // 2, [1, 0, 0])):
        part = [Gradient(term.vector[:parameters], term.sums) for term in terms]
        update = Update(parameters, np.dtype(np.float32))
        params, whole = start[:parameters].copy(), start[:parameters].copy()
        carried, of_whole = ({name: np.zeros(parameters, np.float32) for name in optimizer.carries} for _ in range(2))
        for step in range(2):
            mean = update.average(cut(part, owners), 3)
            update.apply(optimizer, params, mean, carried, 0.01, step)
            total = tree_sum(part)
            gradient = total.vector * np.float32(1 / total.sums.count)
            optimizer.update(whole, gradient, of_whole, 0.01, step, np.empty_like(whole))
        assert params.tobytes() == whole.tobytes()
        for name in optimizer.carries:
            assert carried[name].tobytes() == of_whole[name].tobytes()


@pytest.mark.parametrize("parameters", [7, LARGE], ids=["a slice", "two threads"])
def test_what_is_pending_is_part_of_the_mean(parameters: int) -> None:
    """The sums of two steps before and of this one, divided once: by weights what is learned, by rows what is kept."""
    learned = parameters - 3
    update = Update(parameters, np.dtype(np.float32), learned)
    of_steps = [
        [
            Gradient(term.vector, replace(term.sums, weight=term.sums.count / 2))
            for term in gradients(parameters, shards)
        ]
        for shards in (3, 2, 4)
    ]
    pending = Gradient(np.zeros(parameters, np.float32), Sums(0.0, {}, 0, 0.0))
    for terms in of_steps[:2]:
        total = update.accumulate(cut(terms, [0] * len(terms)), len(terms), pending)
        pending = Gradient(pending.vector, pending.sums + total.sums)
        assert total.sums == tree_sum([term.sums for term in terms])
        assert total.squared_norm == pytest.approx(np.square(pending.vector.astype(float)).sum(), rel=1e-4)
    mean = update.average(cut(of_steps[2], [0, 1, 0, 1]), 4, pending)
    first, second, last = map(tree_sum, of_steps)
    whole = last.vector + (first.vector + second.vector)
    rows = first.sums.count + second.sums.count + last.sums.count
    whole[:learned] *= np.float32(2 / rows)
    whole[learned:] *= np.float32(1 / rows)
    assert mean.vector.tobytes() == whole.tobytes()
    assert mean.sums == last.sums
    assert not pending.vector.any()


@pytest.mark.parametrize("optimizer", [Sgd(), Momentum(), Adam()], ids=str)
@pytest.mark.parametrize("parameters", [40, LARGE])
def test_segments_have_rates_of_their_own_and_what_is_frozen_stays(optimizer: Optimizer, parameters: int) -> None:
    first, second = parameters // 4, parameters // 2
    segments = (Segment(0, first, 0.5), Segment(first, second), Segment(parameters - 3, parameters, kept=True))
    terms = gradients(parameters, 3)
    params = gradients(parameters, 1)[0].vector
    before, expected = params.copy(), params.copy()
    carried, of_expected = ({name: np.zeros(parameters, np.float32) for name in optimizer.carries} for _ in range(2))
    update = Update(parameters, np.dtype(np.float32), parameters - 3, segments=segments)
    for step in range(2):
        mean = update.average(cut(terms, [0, 1, 0]), 3)
        total = tree_sum(terms)
        gradient = total.vector * np.float32(1 / total.sums.count)
        assert mean.squared_norm == pytest.approx(float(np.sum(np.square(gradient[:second], dtype=np.float64))), 1e-5)
        update.apply(optimizer, params, mean, carried, 0.01, step)
        expected[-3:] += gradient[-3:]
        for segment in segments[:2]:
            place = slice(segment.start, segment.stop)
            its = {name: vector[place] for name, vector in of_expected.items()}
            scratch = np.empty_like(gradient[place])
            optimizer.update(expected[place], gradient[place], its, 0.01 * segment.scale, step, scratch)
    assert params.tobytes() == expected.tobytes()
    assert params[second:-3].tobytes() == before[second:-3].tobytes()
    for name in optimizer.carries:
        assert carried[name].tobytes() == of_expected[name].tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("layer", "name"), [(0, "layers.0.weight"), (1, "layers.0.bias"), (3, "layers.2.bias")])
def test_a_broken_gradient_names_the_layer_from_which_it_goes_back(value: float, layer: int, name: str) -> None:
    vector = np.zeros(NETWORK.size, np.float32)
    vector[: NETWORK.slots[layer].offset + 1] = value
    mean = average([Gradient(vector, Sums(1.0, {}, 1, 1)), Gradient(np.zeros_like(vector), Sums(1.0, {}, 1, 1))])
    with pytest.raises(Diverged, match=rf"the gradient of {name} is NaN or infinite in step 5 .*not applied"):
        check_finite(mean, NETWORK, step=4)


def test_infinities_of_both_signs_are_found(recwarn: pytest.WarningsRecorder) -> None:
    vector = np.zeros(NETWORK.size, np.float32)
    vector[:2] = np.inf, -np.inf
    for terms in ([vector], [vector, -vector]):
        with pytest.raises(Diverged, match=r"layers\.0\.weight"):
            check_finite(average([Gradient(term, Sums(1.0, {}, 1, 1)) for term in terms]), NETWORK, step=0)
    assert not recwarn


def test_a_broken_loss_is_named_too() -> None:
    with pytest.raises(Diverged, match=r"the loss is NaN or infinite in step 1 \(the mean loss there: inf\)"):
        check_finite(mean_of(np.zeros(NETWORK.size), np.inf), NETWORK, step=0)


def state_with(optimizer: Optimizer, params: Array) -> TrainingState:
    carried = {name: np.zeros_like(params) for name in optimizer.carries}
    return TrainingState(0, params, carried, no_sums(TASK.training_scores))


def test_what_is_finite_passes() -> None:
    """Also where its square isn't."""
    check_finite(mean_of(np.full(NETWORK.size, 3e38, np.float32), 1e300), NETWORK, step=0)
    check_state(state_with(Adam(), np.full(NETWORK.size, 3e38, np.float32)), NETWORK)


@pytest.mark.parametrize(
    ("optimizer", "value", "rate"),
    [(Sgd(), 1e30, 1e30), (Sgd(), 1.0, 1e300), (Momentum(), 3e38, 1.0), (Adam(), 1e25, 0.001), (Adam(), 1.0, 1e300)],
    ids=str,
)
@pytest.mark.parametrize("parameters", [NETWORK.size, LARGE])
def test_a_step_that_overflows_makes_no_warning_and_is_found(
    optimizer: Optimizer, value: float, rate: float, parameters: int
) -> None:
    """On any thread. Adam's square overflows where the gradient doesn't: from then on it would never move again."""
    update = Update(parameters, np.dtype(np.float32))
    state = state_with(optimizer, np.zeros(parameters, np.float32))
    for step in range(3):
        blocks = [Block(0, 1, Gradient(np.full(parameters, value, np.float32), Sums(1.0, {}, 1, 1)))]
        update.apply(optimizer, state.params, update.average(blocks, 1), state.carried, rate, step)
    broken = [v for v in (state.params, *state.carried.values()) if not np.isfinite(v).all()]
    assert broken
    for vector in broken:
        assert not np.isfinite(vector).any()  # in every slice
    if parameters == NETWORK.size:
        with pytest.raises(
            Diverged, match=r"step 0 made layers\.0\.weight infinite; the last checkpoint is from before"
        ):
            check_state(state, NETWORK)


def test_sums_that_overflow_make_no_warning() -> None:
    """In the average, on any thread."""
    largest = np.finfo(np.float32).max
    for parameters, shards in itertools.product((5, LARGE), (1, 2)):
        terms = [Gradient(np.full(parameters, largest, np.float32), Sums(1.0, {}, 1, 1)) for _ in range(shards)]
        mean = average(terms)
        assert np.isfinite(mean.vector).all() == (shards == 1)
        assert mean.squared_norm == np.inf
