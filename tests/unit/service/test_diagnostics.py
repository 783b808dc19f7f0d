"""What is wrong with a training, from its events alone: never without cause, once, and the same after any restart."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.jobs.events import EpochCompleted, Event, Failed, RolledBack, Running, Starting, StateChanged, Succeeded
from service.jobs.health import Diagnosed, Diagnosis, HealthSampled, LayerHealth, Recovered, Trouble
from service.jobs.job import Job, advance, is_no_news
from service.jobs.past import MOST_EPOCHS, MOST_LOOKS, Past
from service.jobs.spec import JobSpec
from service.training.diagnostics import CHECKS, told
from service.training.diagnostics.finding import number, percent
from service.training.optimizers import Sgd
from service.training.regularization import Regularization
from service.training.schedules import CosineDecay, Schedule
from tests.unit.service.examples import NOON, job, jobs_in, spec
from worker.policy import Environment

OF = spec(epochs=100, batch_size=32, optimizer=Sgd(), learning_rate=0.1)
RUNNING = (StateChanged(Starting()), StateChanged(Running()))


def look(
    step: int,
    first: float = 0.1,
    last: float = 0.1,
    update: float = 1e-3,
    dead: float = 0.1,
    saturated: float = 0.1,
    straggler: float | None = None,
    dead_layer: str = "layers.1",
) -> HealthSampled:
    """A look at a network of four layers."""
    layers = (
        LayerHealth("layers.0", "dense", 0.0, 1.0, first, 2.0, update),
        LayerHealth(dead_layer, "relu", 0.3, 1.0, dead_ratio=dead),
        LayerHealth("layers.2", "tanh", 0.3, 1.0, saturated_ratio=saturated),
        LayerHealth("layers.3", "dense", 0.0, 1.0, last, 2.0, update),
    )
    return HealthSampled(step, 1.0, layers, straggler)


def epoch(
    number: int,
    training: float,
    validation: float | None = None,
    accuracy: float = 0.85,
    f1: float = 0.8,
    rate: float = 0.1,
) -> EpochCompleted:
    scores = {"accuracy": 0.85, "f1": f1}
    validation = training if validation is None else validation
    return EpochCompleted(number, 4 * number, training, accuracy, validation, 0.85, rate, 1.0, validation_scores=scores)


def epochs(training: Iterable[float], validation: Iterable[float] = (), **fields: float) -> list[EpochCompleted]:
    """Epochs from the first on, with these losses."""
    training = list(training)
    both = zip(training, list(validation) or training, strict=True)
    return [epoch(number, *losses, **fields) for number, losses in enumerate(both, 1)]


def story(*events: Event, of: JobSpec = OF) -> tuple[Job, list[Diagnosed | Recovered]]:
    """The job that some events leave, and what was found on the way."""
    made, found = job(*RUNNING, of=of), []
    for event in events:
        if not is_no_news(made, event):
            for each in told(made, event):
                made = advance(made, each, NOON)
                found += [each] if isinstance(each, Diagnosed | Recovered) else []
    return made, found


def names(found: Sequence[Diagnosed | Recovered]) -> list[str]:
    """What is found in short: "PLATEAU", and "-PLATEAU" when it is over."""
    return [each.diagnosis.trouble.value if isinstance(each, Diagnosed) else f"-{each.trouble}" for each in found]


def looks(count: int = 5, first_step: int = 10, **fields: Any) -> list[HealthSampled]:
    return [look(first_step + number, **fields) for number in range(count)]


ILL: dict[Trouble, list[Event]] = {
    Trouble.VANISHING_GRADIENT: [*looks(first=1e-5, update=1e-5)],
    Trouble.EXPLODING_GRADIENT: [*looks(first=300.0, last=20.0)],
    Trouble.DEAD_UNITS: [*looks(dead=0.7)],
    Trouble.SATURATION: [*looks(saturated=0.9)],
    Trouble.STRAGGLERS: [*looks(straggler=2.5)],
    Trouble.LEARNING_RATE_TOO_HIGH: [*looks(update=0.2), *epochs([1.0, 1.3, 0.9, 1.4])],
    Trouble.LEARNING_RATE_TOO_LOW: [*looks(update=1e-6), *epochs([1.0, 0.999, 0.998])],
    Trouble.OVERFITTING: [*epochs([1.0, 0.5, 0.3, 0.2, 0.1], [1.0, 0.6, 0.9, 1.0, 1.1])],
    Trouble.UNDERFITTING: [*epochs([1.0] * MOST_EPOCHS, accuracy=0.4)],
    Trouble.PLATEAU: [*epochs([1.0, *[0.5] * MOST_EPOCHS])],
    Trouble.DIVERGENCE: [*epochs([1.0, 0.9, 3.0, 4.0])],
    Trouble.CLASS_IMBALANCE: [*epochs([1.0, 0.8, 0.7], f1=0.3)],
}


@pytest.mark.parametrize("trouble", Trouble)
def test_each_trouble_is_told_by_itself_once_and_with_its_figures(trouble: Trouble) -> None:
    made, found = story(*ILL[trouble])
    assert names(found) == [trouble]
    diagnosis = made.diagnoses[trouble]
    assert found == [Diagnosed(diagnosis)]
    assert any(letter.isdigit() for letter in diagnosis.evidence)
    assert diagnosis.advice
    newest = ILL[trouble][-1]
    assert isinstance(newest, HealthSampled | EpochCompleted)
    assert diagnosis.step == newest.step


def test_evidence_names_layers_and_lengths() -> None:
    made, _ = story(*ILL[Trouble.VANISHING_GRADIENT])
    diagnosis = made.diagnoses[Trouble.VANISHING_GRADIENT]
    assert diagnosis.layer == "layers.0"
    assert diagnosis.evidence == (
        "the gradient of layers.0 (1e-5) is 1/10,000 of that of layers.3 (0.10), in the last 5 looks (steps 10 to 14)"
    )


shares = st.floats(0, 0.4)
healthy_looks = st.builds(
    look,
    st.just(0),
    first=st.floats(0.02, 0.5),
    last=st.floats(0.02, 0.5),
    update=st.floats(1e-3, 0.05),
    dead=shares,
    saturated=shares,
    straggler=st.none() | st.floats(1, 1.9),
)


@settings(max_examples=40)
@given(
    st.lists(healthy_looks, max_size=25),
    st.lists(st.tuples(st.floats(0.5, 0.95), st.floats(0.95, 1.15)), max_size=25),
    st.floats(1e-3, 1e3),
)
def test_a_healthy_job_is_left_in_peace(
    seen: list[HealthSampled], falls: list[tuple[float, float]], scale: float
) -> None:
    """Losses that fall, whatever their unit, and validation losses that are about the same."""
    events: list[Event] = [replace(each, step=step) for step, each in enumerate(seen, 1)]
    training = scale
    for count, (fall, beside) in enumerate(falls, 1):
        training *= fall
        events.insert(2 * count, replace(epoch(count, training, training * beside), step=count))
    assert story(*events)[1] == []


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from((0.0, 1e-12, 0.1, 1.0, 1e9))
sizes = numbers.map(abs)
maybe = st.none() | sizes
layer_healths = st.builds(
    LayerHealth,
    st.sampled_from(("layers.0", "layers.1", "layers.2")),
    st.sampled_from(("dense", "relu", "tanh", "batch_norm")),
    *(numbers, sizes, maybe, maybe, maybe, maybe, maybe),
)
any_events: st.SearchStrategy[Event] = st.one_of(
    st.builds(HealthSampled, st.integers(1, 60), sizes, st.lists(layer_healths, max_size=4).map(tuple), maybe),
    st.builds(
        EpochCompleted,
        *(st.integers(1, 30), st.integers(1, 60), numbers, st.none() | st.floats(0, 1), st.none() | numbers),
        *(st.none() | st.floats(0, 1), st.floats(0, 1), sizes, st.just(0)),
        validation_scores=st.dictionaries(st.sampled_from(("f1", "r2", "accuracy")), st.floats(0, 1)),
    ),
    st.builds(RolledBack, st.integers(1, 60), st.integers(0, 60), st.floats(1e-9, 0.05), st.text(max_size=5)),
    st.sampled_from([event for events in ILL.values() for event in events]),
)
stories = st.lists(any_events, max_size=40).map(
    lambda events: sorted(events, key=lambda event: event.step if isinstance(event, HealthSampled) else 0)
)
ends = st.sampled_from(
    (
        Failed("TRAINING_DIVERGED", "the loss is NaN"),
        Succeeded("", 0.1, None, None, None, 1.0, confusion=((90.0, 0.0), (10.0, 0.0))),
    )
)


@settings(max_examples=50)
@given(stories, ends)
def test_whatever_happens_something_can_be_said_and_little_is_remembered(events: list[Event], end: Failed) -> None:
    made, found = story(*events)
    assert len(made.past.looks) <= MOST_LOOKS
    assert len(made.past.epochs) <= MOST_EPOCHS
    for each in found:
        assert not isinstance(each, Diagnosed) or (each.diagnosis.evidence and each.diagnosis.advice)
    ended, _ = story(*events, StateChanged(end))
    assert ended.past == Past()
    assert ended.has_ended


@settings(max_examples=25)
@given(stories, st.lists(st.integers(1, 9), min_size=40, max_size=40), st.sets(st.integers(0, 20)))
def test_batches_and_restarts_do_not_show(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], sizes: list[int], restarts: set[int]
) -> None:
    directory, expected = tmp_path_factory.mktemp("jobs"), story(*events)
    with ExitStack() as stack:
        jobs = stack.enter_context(jobs_in(directory))
        made = jobs.create(OF, 30, "a job", "")
        jobs.record(made.id, *RUNNING)
        rest = list(events)
        for number, size in enumerate(sizes):
            batch, rest = rest[:size], rest[size:]
            jobs.record(made.id, *batch, *(batch if number % 2 else ()))  # steps that are taken again
            if number in restarts:
                jobs = stack.enter_context(jobs_in(directory))
        told_of = [record.event for record in jobs.events(made.id, 0, -1)]
        assert [event for event in told_of if isinstance(event, Diagnosed | Recovered)] == expected[1]
        assert (jobs.get(made.id).diagnoses, jobs.get(made.id).past) == (expected[0].diagnoses, expected[0].past)


def test_what_is_found_follows_what_showed_it() -> None:
    events = ILL[Trouble.DEAD_UNITS]
    made, _ = story(*events[:-1])
    first, second = told(made, events[-1])
    assert first == events[-1]
    assert isinstance(second, Diagnosed)


def test_what_a_jobs_end_shows_comes_before_it() -> None:
    end = StateChanged(Failed("TRAINING_DIVERGED", "the loss is NaN or infinite in step 7"))
    made, _ = story(*looks())
    first, second = told(made, end)
    assert second == end
    assert isinstance(first, Diagnosed)
    assert first.diagnosis.trouble is Trouble.DIVERGENCE
    assert told(made, StateChanged(Failed("INTERNAL", "it broke"))) == (StateChanged(Failed("INTERNAL", "it broke")),)


@pytest.mark.parametrize(
    ("confusion", "never"),
    [
        (((50.0, 0.0), (6.0, 0.0)), "class 1, which 6 of 56 held-out rows have, is told of none"),
        (((50.0, 0.0), (5.0, 1.0)), ""),  # told of one
        (((50.0, 0.0), (4.0, 0.0)), ""),  # too few to say
        (((30.0, 0.0), (20.0, 0.0)), ""),  # of equal size, nearly: it is that nothing was learned
        ((), ""),
    ],
    ids=["never", "once", "few", "equal", "no matrix"],
)
def test_a_class_that_is_never_told(confusion: tuple[tuple[float, ...], ...], never: str) -> None:
    end = StateChanged(Succeeded("", 0.1, 0.9, 0.1, 0.9, 1.0, confusion=confusion))
    *found, last = told(story()[0], end)
    assert last == end
    evidence = [each.diagnosis.evidence for each in found if isinstance(each, Diagnosed)]
    assert evidence == ([never] if never else [])


def test_it_takes_all_looks_to_be_found_and_all_to_be_over() -> None:
    """Around either bound nothing comes and goes."""
    shares = [0.7, 0.7, 0.7, 0.3, 0.7, 0.7, 0.7, 0.7, 0.7, 0.45, 0.3, 0.45, 0.3, 0.3, 0.3, 0.3, 0.3, 0.7, 0.7]
    _, found = story(*(look(step, dead=dead) for step, dead in enumerate(shares, 10)))
    assert [
        (name, each.step if isinstance(each, Recovered) else each.diagnosis.step)
        for name, each in zip(names(found), found, strict=True)
    ] == [
        ("DEAD_UNITS", 18),
        ("-DEAD_UNITS", 26),
    ]


def test_it_is_told_again_when_it_is_twice_as_bad_or_elsewhere() -> None:
    _, found = story(*looks(straggler=2.5), *looks(first_step=20, straggler=4.0), *looks(first_step=30, straggler=6.0))
    assert names(found) == ["STRAGGLERS", "STRAGGLERS"]
    elsewhere = [look(20 + number, dead=0.7, dead_layer="layers.5") for number in range(6)]
    _, found = story(*looks(dead=0.7), *elsewhere)
    assert [each.diagnosis.layer for each in found if isinstance(each, Diagnosed)] == ["layers.1", "layers.5"]


def test_the_first_steps_do_not_count() -> None:
    assert story(*looks(13, first_step=1, dead=0.9))[1] == []
    assert names(story(*looks(14, first_step=1, dead=0.9))[1]) == ["DEAD_UNITS"]


def test_effects_are_not_told_beside_their_causes() -> None:
    flat = epochs([1.0] * 12, accuracy=0.3)
    assert names(story(*looks(first=1e-5, update=1e-6, dead=0.9), *flat)[1]) == ["DEAD_UNITS"]
    for trouble, check in CHECKS.items():
        assert trouble not in check.unless


def test_after_a_rollback_it_is_told_and_later_that_it_is_over() -> None:
    before, after = epochs([1.0, 0.9]), epochs([1.0, 0.9, 0.8, 0.7, 0.6])[2:]
    undone = RolledBack(11, 8, 0.05, "the loss is NaN or infinite in step 12")
    made, found = story(*before, *looks(4, first_step=6), undone)
    assert names(found) == ["DIVERGENCE"]
    assert "went back to step 8" in made.diagnoses[Trouble.DIVERGENCE].evidence
    assert [each.step for each in made.past.looks] == [6, 7, 8]
    again = replace(undone, diverged_step=13, learning_rate=0.025)
    assert names(story(*before, undone, again, *after)[1]) == ["DIVERGENCE", "DIVERGENCE", "-DIVERGENCE"]


@pytest.mark.parametrize(
    ("trouble", "of"),
    [
        (Trouble.EXPLODING_GRADIENT, replace(OF, regularization=Regularization(clip_norm=1.0))),
        (Trouble.DEAD_UNITS, replace(OF, batch_size=8)),
        (Trouble.PLATEAU, replace(OF, loss=None, environment=Environment("CartPole-v1", 100))),
        (Trouble.LEARNING_RATE_TOO_LOW, replace(OF, initial_model="a")),
    ],
    ids=["clipped", "few rows", "episodes", "refined"],
)
def test_where_it_is_no_trouble(trouble: Trouble, of: JobSpec) -> None:
    assert story(*ILL[trouble], of=of)[1] == []


def test_a_schedule_that_has_come_down_means_the_loss_to_stay() -> None:
    of = replace(OF, schedule=Schedule(CosineDecay()))
    assert story(*epochs([1.0] * 12, accuracy=0.4, rate=0.001), of=of)[1] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.05, "0.050"),
        (1.2e-6, "1.2e-6"),
        (40123.0, "40,000"),
        (2.5, "2.5"),
        (1e300, "1e300"),
        (12.0, "12"),
    ],
)
def test_figures_have_two_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_are_percent() -> None:
    assert [percent(share) for share in (0.0, 1.5e-6, 0.004, 0.5, 1.0)] == ["0%", "1.5e-4%", "0.40%", "50%", "100%"]


def test_a_diagnosis_of_an_older_version_is_read() -> None:
    """Before there was a measure."""
    made, _ = story()
    older = advance(made, Diagnosed(Diagnosis(Trouble.DEAD_UNITS, 3, "half are 0", "wait", "layers.1")), NOON)
    assert names([each for each in told(older, look(20)) if isinstance(each, Diagnosed | Recovered)]) == []
