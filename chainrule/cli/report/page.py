"""The page: its sections, in the order in which a reader asks."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata, resources
from xml.etree.ElementTree import Element

from google.protobuf.timestamp_pb2 import Timestamp

from chainrule.cli.health import trouble_name
from chainrule.cli.plain import describe
from chainrule.cli.report.chart import Chart, Mark
from chainrule.cli.report.element import Child, document, element, table
from chainrule.cli.report.history import Finding, History
from chainrule.cli.report.layers import confusion_table, gradient_map, layer_table
from chainrule.cli.text import number, optional, score, seconds, size, state_name
from chainrule.jobfile import job_file_text
from chainrule.resources import ENDED
from chainrule.v1.training_event_pb2 import EpochCompleted, TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJob

MOST_ROWS = 500
"""Of what happened, and of what was found: the newest."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Nothing is fetched and nothing runs, whatever the names in the page may be."""


def render(history: History, now: datetime | None = None) -> str:
    """The whole file. `now` is what the reader is told as the time of the report."""
    job = history.job
    title = job.display_name or job.name
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("link", {"rel": "icon", "href": "data:,"}),
        element("title", {}, f"{title} · Chainrule"),
        element("style", {}, resources.files("chainrule.cli.report").joinpath("report.css").read_text("utf-8")),
    )
    made = f"Made {_utc(now or datetime.now(UTC))} by Chainrule {metadata.version('chainrule')}"
    main = element("main", {}, *_summary(history), *_diagnoses(history), *_curves(history), *_layers(history))
    main.extend([*_confusion(history), *_happenings(history), *_lineage(history)])
    body = element("body", {}, main, element("footer", {}, made + "."))
    return document(element("html", {"lang": "en"}, head, body))


def _section(title: str, *content: Child) -> list[Element]:
    """A section with its heading; none without content."""
    found = [part for part in content if part is not None]
    return [element("section", {}, element("h2", {}, title), *found)] if found else []


def _facts(facts: Iterable[tuple[str, Child]]) -> Element:
    """Names and values; those without a value are left out."""
    pairs = [(element("dt", {}, name), element("dd", {}, value)) for name, value in facts if value not in (None, "")]
    return element("dl", {}, *(element("div", {}, *pair) for pair in pairs))


def _summary(history: History) -> list[Element]:
    job, progress = history.job, history.job.progress
    state = state_name(job)
    title = element("h1", {}, element("bdi", {}, job.display_name or job.name))
    standing = element(
        "p", {"class": "standing"}, element("strong", {"class": f"state {state.lower()}"}, state), " ", _why(job)
    )
    scores = {**progress.validation_scores, **job.result.validation_scores}
    facts: list[tuple[str, Child]] = [
        ("Job", job.name),
        ("Duration", _duration(job)),
        ("Epochs", f"{progress.epoch:,} of {job.spec.epochs:,}" if job.spec.epochs else f"{progress.epoch:,}"),
        ("Steps", f"{progress.step:,} of {progress.total_steps:,}"),
        ("Training loss", number(job.result.training_loss or progress.training_loss) if progress.step else None),
        ("Validation loss", _measured(optional(progress, "validation_loss"))),
        *((f"Validation {name.replace('_', ' ')}", score(name, scores[name])) for name in sorted(scores)),
        ("Dataset", job.spec.data.dataset),
        ("Model", job.result.model),
        ("Workers lost", f"{progress.worker_failures:,}" if progress.worker_failures else None),
    ]
    return [element("header", {}, title, standing, _facts(facts))]


def _measured(value: float | None) -> str | None:
    return None if value is None else number(value)


def _why(job: TrainingJob) -> str:
    if job.state == TrainingJob.FAILED:
        return f"{job.error.message} ({job.error.reason})"
    return job.state_reason


def _duration(job: TrainingJob) -> str | None:
    if job.result.duration_seconds:
        return seconds(job.result.duration_seconds)
    if job.state in ENDED and job.HasField("start_time"):
        return seconds((_time(job.end_time) - _time(job.start_time)).total_seconds())
    return None


def _diagnoses(history: History) -> list[Element]:
    found = history.findings
    if not found:
        nothing = "Nothing was found wrong with the training." if history.epochs else None
        return _section("Diagnoses", element("p", {}, nothing) if nothing else None)
    return _section("Diagnoses", *map(_finding, found[-MOST_ROWS:]))


def _finding(finding: Finding) -> Element:
    """Not a row of a table: sentences beside figures leave no room for each other on a narrow page."""
    diagnosis, until = finding.diagnosis, finding.until
    where = f" in {diagnosis.layer}" if diagnosis.layer else ""
    when = f"Since step {diagnosis.step:,}" if until is None else f"From step {diagnosis.step:,} to {until:,}"
    return element(
        "div",
        {"class": "finding" if until is None else "finding over"},
        element("h3", {}, f"{trouble_name(diagnosis.trouble).capitalize()}{where}"),
        element("p", {"class": "when"}, when),
        *(element("p", {}, f"{text[:1].upper()}{text[1:]}") for text in (diagnosis.evidence, diagnosis.advice)),
    )


def _curves(history: History) -> list[Element]:
    epochs, marks = history.epochs, [mark for event in history.events if (mark := _mark(event))]
    losses = [
        ("training", [(epoch.step, epoch.training_loss) for epoch in epochs]),
        ("validation", [(e.step, e.validation_loss) for e in epochs if e.HasField("validation_loss")]),
    ]
    rates = [("learning rate", [(epoch.step, epoch.learning_rate) for epoch in epochs])]
    lengths = [("whole gradient", [(look.step, look.gradient_norm) for look in history.looks])]
    charts = [Chart("Loss", losses, marks), *_scores(epochs, marks), Chart("Learning rate", rates, marks)]
    charts.append(Chart("Gradient norm", lengths, marks))
    return _section("Curves", *(chart.draw() for chart in charts), _numbers(epochs))


def _scores(epochs: Sequence[EpochCompleted], marks: Sequence[Mark]) -> list[Chart]:
    """One chart for all scores that are shares, and one for each other: they have axes of their own."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for epoch in epochs:
        for kind, scores in (("training", epoch.training_scores), ("validation", epoch.validation_scores)):
            for name in sorted(scores):
                curves.setdefault(f"{kind} {name.replace('_', ' ')}", []).append((epoch.step, scores[name]))
    shares = {name: points for name, points in curves.items() if all(0 <= value <= 1 for _, value in points)}
    others = [Chart(f"Score: {name}", [(name, curves[name])], marks) for name in curves if name not in shares]
    return [Chart("Scores", list(shares.items()), marks), *others]


def _mark(event: TrainingEvent) -> Mark | None:
    match event.WhichOneof("kind"):
        case "diagnosed":
            found = event.diagnosed.diagnosis
            return Mark(found.step, f"{trouble_name(found.trouble)}: {found.evidence}")
        case "rolled_back":
            return Mark(event.rolled_back.diverged_step, f"rolled back: {event.rolled_back.reason}")
        case "learning_rate_changed":
            changed = event.learning_rate_changed
            return Mark(changed.step, f"learning rate {changed.learning_rate:g} from here on")
        case "worker_lost":
            return Mark(event.worker_lost.step, f"worker {event.worker_lost.worker} lost: {event.worker_lost.reason}")
        case _:
            return None


def _numbers(epochs: Sequence[EpochCompleted]) -> Element | None:
    """What the curves show, for those who would rather read it."""
    if not epochs:
        return None
    names = sorted({name for epoch in epochs for name in epoch.validation_scores})
    columns = [
        "Epoch",
        "Step",
        "Training loss",
        "Validation loss",
        *(f"Validation {n.replace('_', ' ')}" for n in names),
    ]
    columns += ["Learning rate", "Seconds"]
    rows = [
        [
            f"{epoch.epoch:,}",
            f"{epoch.step:,}",
            number(epoch.training_loss),
            number(optional(epoch, "validation_loss")),
            *(score(name, epoch.validation_scores[name]) if name in epoch.validation_scores else "-" for name in names),
            number(epoch.learning_rate),
            f"{epoch.duration_seconds:.3g}",
        ]
        for epoch in epochs
    ]
    summary = element("summary", {}, f"The numbers of {len(epochs):,} epochs")
    return element("details", {}, summary, table("Every epoch that was told of", columns, rows, range(1, len(columns))))


def _layers(history: History) -> list[Element]:
    return _section("Layers", gradient_map(history.looks), layer_table(history.looks))


def _confusion(history: History) -> list[Element]:
    counts = [list(row.counts) for row in history.job.result.confusion]
    if not counts:
        return []
    given = list(history.job.spec.data.target.classes.names)
    names = given if len(given) == len(counts) else [str(index) for index in range(len(counts))]
    return _section("Confusion", confusion_table(counts, names))


def _happenings(history: History) -> list[Element]:
    told: list[list[Child]] = [
        [f"{event.number:,}", element("span", {"class": "whole"}, _utc(_time(event.time))), line]
        for event in history.events
        if not event.HasField("epoch_completed") and (line := describe(history.job, event))
    ]
    left = f"; {len(told) - MOST_ROWS:,} earlier ones are left out" if len(told) > MOST_ROWS else ""
    rows = told[-MOST_ROWS:]
    return _section("Events", table(f"What happened{left}", ["Number", "Time", "Event"], rows) if rows else None)


def _lineage(history: History) -> list[Element]:
    job, dataset, model = history.job, history.dataset, history.model
    sha256 = dataset.sha256 if dataset else model.dataset_sha256 if model else ""
    gone = " (no longer there, or not yours to see)" if job.spec.data.dataset and not dataset else ""
    facts: list[tuple[str, Child]] = [
        ("Dataset", job.spec.data.dataset + gone),
        ("Dataset's SHA-256", _code(sha256)),
        ("Rows", f"{dataset.rows:,}" if dataset else None),
        ("Seed", str(job.spec.seed)),
        ("Initial model", job.spec.initial_model),
        ("Model", job.result.model),
        ("Parameters", f"{model.parameter_count:,}" if model else None),
        ("Parameters' SHA-256", _code(job.result.parameters_sha256)),
        ("Model file", size(model.size_bytes) if model else None),
        ("Model file's SHA-256", _code(model.sha256 if model else "")),
        ("Created", _utc(_time(job.create_time)) if job.HasField("create_time") else None),
        ("Started", _utc(_time(job.start_time)) if job.HasField("start_time") else None),
        ("Ended", _utc(_time(job.end_time)) if job.HasField("end_time") else None),
    ]
    source = element("pre", {"tabindex": "0", "aria-label": "Job file"}, element("code", {}, job_file_text(job)))
    note = element("p", {}, "With the dataset, this job file trains the same bits again.")
    return _section("Lineage", _facts(facts), note, source)


def _code(text: str) -> Child:
    return element("code", {}, text) if text else None


def _time(time: Timestamp) -> datetime:
    return time.ToDatetime(UTC)


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
