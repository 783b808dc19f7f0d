"""What the command line tells of a job: what happened to it, what is wrong, how its layers fare."""

from pathlib import Path

from tests.unit.client.fakes import FakeService
from tests.unit.client.histories import eventful
from tests.unit.client.test_cli import lines, run, write_job


def told(service: FakeService, tmp_path: Path) -> list[str]:
    """A job that has taken its course, with all that can be told of it; what its server is called."""
    history = eventful()
    service.training.events = list(history.events)
    server = ["--server", service.address]
    run("train", write_job(tmp_path), *server)
    service.training.jobs["jobs/j1"].diagnoses.extend(history.job.diagnoses)
    return server


def test_what_is_wrong_is_told_in_lines(service: FakeService, tmp_path: Path) -> None:
    server = told(service, tmp_path)
    watched = run("jobs", "watch", "j1", *server).stdout.splitlines()
    happened = run("jobs", "events", "j1", *server).stdout.splitlines()
    assert [line.partition("  ")[2] for line in happened] == watched[: len(happened)]
    assert happened[0].startswith("2026-09-2")
    for line in (
        "overfitting at step 100: the validation loss rose. Stop early",
        "no more vanishing gradient after step 105",
        "worker 1 lost at step 30: its process ended",
    ):
        assert line in watched
    assert watched[-3:] == [
        "  diagnoses   overfitting at step 100",
        "                the validation loss rose",
        "                Stop early",
    ]
    events = lines(run("jobs", "events", "j1", *server, "--json"))
    assert [event["number"] for event in events] == [str(number) for number in range(1, len(events) + 1)]
    assert events[2]["health_sampled"]["layers"][0]["update_ratio"] == 0.00125
    assert events[15]["diagnosed"]["diagnosis"]["trouble"] == "OVERFITTING"


def test_a_job_is_shown_with_its_diagnoses_and_its_layers(service: FakeService, tmp_path: Path) -> None:
    server = told(service, tmp_path)
    shown = run("jobs", "show", "j1", *server).stdout
    assert "  diagnoses   overfitting at step 100\n                the validation loss rose\n" in shown
    assert "  layers      as of step 110; the whole gradient 0.375\n" in shown
    table = [line.split() for line in shown.splitlines() if "layers." in line]
    assert table[:2] == [
        ["layers.0", "dense", "3e-06", "4", "0.00125", "-", "-", "0.5", "+-", "1.5"],
        ["layers.1", "relu", "-", "-", "-", "25.0", "%", "-", "1", "+-", "2"],
    ]
    (job,) = lines(run("jobs", "show", "j1", *server, "--json"))
    assert job["diagnoses"][0]["advice"] == "Stop early"


def test_a_report_is_written(service: FakeService, tmp_path: Path) -> None:
    server = told(service, tmp_path)
    path = tmp_path / "report.html"
    result = run("jobs", "report", "j1", "-o", str(path), *server)
    assert (result.exit_code, result.stderr) == (0, f"{path} is written\n")
    assert "the validation loss rose" in path.read_text()
    nowhere = run("jobs", "report", "j1", "-o", str(tmp_path / "none" / "report.html"), *server)
    assert (nowhere.exit_code, nowhere.stderr) == (
        1,
        f"chainrule: {tmp_path}/none/report.html: No such file or directory\n",
    )
    assert run("jobs", "report", "j9", "-o", str(path), *server).stderr == "chainrule: there is no jobs/j9\n"
