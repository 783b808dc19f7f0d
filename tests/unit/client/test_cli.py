"""The command line, in this process: against a fake service, and with a fake coordinator of its own."""

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from chainrule import InvalidRequest, Violation
from chainrule.cli import main
from chainrule.cli.program import explain
from chainrule.cli.run import Launch
from chainrule.cli.serve import serve_options
from chainrule.v1.dataset_service_pb2 import Dataset
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.unit.client.fakes import MODEL_FILE, SHA256, FakeService, story

EXAMPLE = str(Path(__file__).parents[3] / "examples" / "digits.yaml")
NOBODY = "127.0.0.1:1"  # a port that only root may open, and nobody does


def run(*arguments: str, behaviour: str = "well", **environment: str) -> Result:
    """Runs a command; an embedded coordinator behaves as asked."""
    launch = Launch((sys.executable, "-m", "tests.unit.client.fake_coordinator", behaviour))
    clean = {"CHAINRULE_SERVER": None, "CHAINRULE_DEBUG": None} | environment
    return CliRunner().invoke(main, arguments, obj=launch, env=clean)


def lines(result: Result) -> list[dict[str, Any]]:
    """Standard output, which must be JSON and nothing else."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def write_job(folder: Path, more: str = "") -> str:
    (folder / "job.yaml").write_text(f"data: {{dataset: cats}}\n{more}")
    return str(folder / "job.yaml")


def test_help_has_an_example_for_each_command() -> None:
    for command in ("train", "serve", "jobs", "datasets", "models", "predict", "evaluate"):
        assert f"    chainrule {command} " in run(command, "--help").stdout
    assert run("--version").stdout.startswith("chainrule, version ")


def test_training_on_a_server_is_followed(service: FakeService, tmp_path: Path) -> None:
    result = run("train", write_job(tmp_path, "epochs: 2"), "--server", service.address)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "jobs/j1 QUEUED",
        "jobs/j1 RUNNING",
        "epoch 1/2: loss 1, validation accuracy 50.0 %, f1 0.5 (0.0 s)",
        "epoch 2/2: loss 0.5, validation accuracy 97.0 %, f1 0.97 (0.0 s)",
        "jobs/j1 SUCCEEDED",
        "jobs/j1 SUCCEEDED in 1.5 s",
        "  validation  accuracy 97.0 %, loss 0.2",
        "              f1 0.9683, top 5 accuracy 99.9 %",
        "  confusion   a row for each true class, a column for each it was taken for",
        "                  0    1",
        "              0  12    .",
        "              1   1  2.5",
        "  training    accuracy 99.0 %, loss 0.1",
        "  model       models/m1",
        f"  sha256      {SHA256}",
    ]


def test_training_tells_programs_in_json(service: FakeService, tmp_path: Path) -> None:
    result = run("train", write_job(tmp_path), "--json", CHAINRULE_SERVER=service.address)
    *events, last = lines(result)
    assert [event["event"]["number"] for event in events] == ["1", "2", "3", "4", "5"]
    assert events[2]["event"]["epoch_completed"]["validation_accuracy"] == 0.5
    assert last == {
        "job": "jobs/j1",
        "state": "SUCCEEDED",
        "training_loss": 0.1,
        "training_accuracy": 0.99,
        "validation_loss": 0.2,
        "validation_accuracy": 0.97,
        "validation_scores": {"accuracy": 0.97, "f1": 0.9683, "top_5_accuracy": 0.999},
        "confusion": [[12, 0], [1, 2.5]],
        "parameters_sha256": SHA256,
        "model": "models/m1",
        "duration_seconds": 1.5,
    }


@pytest.mark.parametrize(
    ("end", "complaint"),
    [
        (TrainingJob.FAILED, "chainrule: jobs/j1 failed: the loss is infinite at step 3 (TRAINING_DIVERGED)\n"),
        (TrainingJob.CANCELLED, "chainrule: jobs/j1 was cancelled\n"),
    ],
)
def test_a_job_that_does_not_succeed(
    service: FakeService, tmp_path: Path, end: TrainingJob.State.ValueType, complaint: str
) -> None:
    service.training.events = story(end=end)
    plain = run("train", write_job(tmp_path), "--server", service.address)
    assert (plain.exit_code, plain.stderr) == (1, complaint)
    result = run("jobs", "watch", "j1", "--server", service.address, "--json")
    assert result.exit_code == 1
    assert lines(result)[-1]["state"] == TrainingJob.State.Name(end)
    error = {"reason": "TRAINING_DIVERGED", "message": "the loss is infinite at step 3"}
    assert lines(result)[-1].get("error") == (error if end == TrainingJob.FAILED else None)


def test_detaching_prints_the_name(service: FakeService, tmp_path: Path) -> None:
    job = write_job(tmp_path)
    assert run("train", job, "--server", service.address, "--detach").stdout == "jobs/j1\n"
    result = run("train", job, "--server", service.address, "--detach", "--json")
    assert lines(result) == [{"job": "jobs/j2", "state": "QUEUED"}]


def test_workers_override_the_file(service: FakeService) -> None:
    run("train", EXAMPLE, "--server", service.address, "--workers", "3", "--json")
    (request,) = service.training.created
    assert request.training_job.spec.workers == 3
    assert "datasets/digits" in service.datasets.files


def test_a_refused_job_is_explained_in_terms_of_its_file(service: FakeService, tmp_path: Path) -> None:
    result = run("train", write_job(tmp_path, "epochs: 666"), "--server", service.address, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "chainrule: 2 fields are wrong",
        "epochs: must be 1 to 665",
        "shards: must be above 0",
    ]


def test_nothing_is_said_twice() -> None:
    violation = Violation("training_job.spec.epochs", "is 0; must be above 0")
    error = InvalidRequest(f"wrong: {violation}", grpc.StatusCode.INVALID_ARGUMENT, violations=[violation])
    assert explain(error) == (["the request was refused", "epochs: is 0; must be above 0"], 1)


def test_a_wrong_job_file_is_explained(tmp_path: Path) -> None:
    result = run("train", write_job(tmp_path, "epoch: 3\nshards: x"))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"chainrule: {tmp_path}/job.yaml is not a job that can run",
        'has no field "epoch"; did you mean epochs?',
        "shards: must be a whole number, not x",
    ]


def test_a_coordinator_of_its_own(tmp_path: Path) -> None:
    result = run("train", write_job(tmp_path), "--data-dir", str(tmp_path / "run"))
    assert result.exit_code == 0, result.stderr
    assert f"  model       {tmp_path}/run/job.safetensors\n" in result.stdout
    assert "  metrics     http://127.0.0.1:9/metrics (while it ran)\n" in result.stdout
    assert (tmp_path / "run" / "job.safetensors").read_bytes() == MODEL_FILE


def test_every_run_has_its_own_folder(tmp_path: Path) -> None:
    assert run("train", write_job(tmp_path), "--json", XDG_DATA_HOME=str(tmp_path)).exit_code == 0
    (folder,) = (tmp_path / "chainrule" / "runs").iterdir()
    assert folder.name.endswith("-job")
    assert {path.name for path in folder.iterdir()} == {"coordinator.log", "job.safetensors"}


@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ("dies", "chainrule: the coordinator did not start: {} is in use by another coordinator\n"),
        ("dies-later", "chainrule: the coordinator died: the disk is full\n"),
        ("failing", "chainrule: jobs/j1 failed: the loss is infinite at step 3 (TRAINING_DIVERGED)\n"),
    ],
)
def test_a_coordinator_that_fails(tmp_path: Path, behaviour: str, complaint: str) -> None:
    result = run("train", write_job(tmp_path), "--data-dir", str(tmp_path / "run"), "--json", behaviour=behaviour)
    assert result.exit_code == 1
    if behaviour == "failing":
        assert lines(result)[-1]["error"]["reason"] == "TRAINING_DIVERGED"
    else:
        assert result.stderr == complaint.format(tmp_path / "run")


def test_the_demo(tmp_path: Path) -> None:
    result = run("demo", XDG_DATA_HOME=str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "Handwritten digits SUCCEEDED in 1.5 s\n  validation  accuracy 97.0 %" in result.stdout
    assert f"  model       {tmp_path}/chainrule/demo/digits.safetensors\n" in result.stdout


def test_a_demo_that_learns_too_little(tmp_path: Path) -> None:
    result = run("demo", "--data-dir", str(tmp_path), behaviour="inaccurate")
    assert result.exit_code == 1
    assert "chainrule: the validation accuracy is 0.900; this job should reach 0.95\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train"], "Missing argument 'JOB.yaml'"),
        (["train", "x.yaml", "--detach"], "--detach needs --server"),
        (["train", "x.yaml", "--server", "a:1", "--data-dir", "b"], "--data-dir is for a run without a server"),
        (["train", "x.yaml", "--workers", "0"], "0 is not in the range x>=1"),
        (["jobs", "list", "--server", "localhost"], "must be HOST:PORT"),
        (["datasets", "upload", "a", "none.npz"], "there is no file none.npz"),
        (["datasets", "upload", "a", "x=none.idx"], "there is no file none.idx"),
        (["datasets", "upload", "a", "."], ". is not a file"),
        (["datasets", "upload", "a"], "Missing argument 'FILE | COLUMN=FILE...'"),
        (["datasets", "upload", "a", EXAMPLE, f"y={EXAMPLE}"], "must be COLUMN=FILE where there are several"),
        (["datasets", "upload", "a", f"y={EXAMPLE}", f"y={EXAMPLE}"], "there are two files for the column 'y'"),
        (["datasets", "upload", "a", EXAMPLE, "--group", "x"], "'x' must be NAME=COLUMN,COLUMN,... or NAME=*"),
        (["datasets", "upload", "a", EXAMPLE, "--group", "x=b", "--group", "x=c"], "'x' is given twice"),
        (["datasets", "upload", "a", EXAMPLE, "--format", "xls"], "'xls' is not one of 'npz', 'csv', 'idx'"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], complaint: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", EXAMPLE],
        ["jobs", "list"],
        ["jobs", "show", "x"],
        ["jobs", "watch", "x"],
        ["jobs", "cancel", "x"],
        ["datasets", "upload", "a", EXAMPLE],
        ["models", "download", "x"],
    ],
)
def test_a_server_that_is_away(arguments: list[str]) -> None:
    result = run(*arguments, "--server", NOBODY)
    hint = ", or leave --server out to train with a coordinator of this run's own" if arguments[0] == "train" else ""
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"chainrule: no coordinator answers at {NOBODY}; start one with `chainrule serve`{hint}\n"


def test_jobs_are_listed_and_shown(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    assert run("jobs", "list", *server).stderr == "there are no jobs yet; chainrule train creates one\n"
    for _ in range(3):
        run("train", write_job(tmp_path, "epochs: 2\nshards: 3"), *server, "--detach")
    run("jobs", "watch", "j2", *server)
    table = run("jobs", "list", *server).stdout.splitlines()
    assert table[0].split() == ["JOB", "STATE", "EPOCH", "LOSS", "ACCURACY", "CREATED"]
    assert [line.split()[:3] for line in table[2:]] == [
        ["j1", "QUEUED", "0/2"],
        ["j2", "SUCCEEDED", "0/2"],
        ["j3", "QUEUED", "0/2"],
    ]
    assert max(map(len, table)) <= 80
    assert [job["name"] for job in lines(run("jobs", "list", *server, "--limit", "2", "--json"))] == [
        "jobs/j1",
        "jobs/j2",
    ]
    assert "shards: 3\n" in run("jobs", "show", "j1", *server).stdout
    assert "jobs/j2 SUCCEEDED in 1.5 s" in run("jobs", "show", "j2", *server).stdout
    assert lines(run("jobs", "show", "j1", *server, "--json"))[0]["spec"]["shards"] == 3


def test_jobs_are_cancelled_and_deleted(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    for _ in range(2):
        run("train", write_job(tmp_path), *server, "--detach")
    assert run("jobs", "pause", "j1", "j2", *server).stdout == "jobs/j1 PAUSED\njobs/j2 PAUSED\n"
    assert run("jobs", "resume", "j1", "j2", *server).stdout == "jobs/j1 QUEUED\njobs/j2 QUEUED\n"
    assert run("jobs", "cancel", "j1", "j2", *server).stdout == "jobs/j1 CANCELLED\njobs/j2 CANCELLED\n"
    again = run("jobs", "cancel", "j1", *server)
    assert (again.exit_code, again.stderr) == (1, "chainrule: jobs/j1 has ended\n")
    assert lines(run("jobs", "delete", "j1", "j2", "--json", *server)) == [{"deleted": "j1"}, {"deleted": "j2"}]
    assert service.training.jobs == {}
    assert run("jobs", "show", "j1", *server).stderr == "chainrule: there is no jobs/j1\n"


def test_datasets_come_and_go(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    (tmp_path / "cats.npz").write_bytes(b"npz")
    result = run("datasets", "upload", "cats", str(tmp_path / "cats.npz"), *server)
    assert result.stdout == "datasets/cats: 3 rows of x float32[64], y int64\n"
    assert "cats" in run("datasets", "list", *server).stdout
    assert lines(run("datasets", "list", "--json", *server))[0]["name"] == "datasets/cats"
    assert run("datasets", "delete", "cats", *server).stderr == "cats deleted\n"
    assert service.datasets.files == {}


def test_datasets_of_tables_and_of_several_files(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    (tmp_path / "wine.csv").write_text("kind,a,b\n1,2,3\n")
    run("datasets", "upload", "wine", str(tmp_path / "wine.csv"), "--group", "y=kind", "--group", "x=a,b", *server)
    header = service.datasets.headers[-1]
    assert [(group.name, list(group.columns)) for group in header.groups] == [("y", ["kind"]), ("x", ["a", "b"])]
    (tmp_path / "x.idx").write_bytes(b"\0\0\x08\x01\0\0\0\x01\x07")
    (tmp_path / "y=.idx").write_bytes(b"\0\0\x08\x01\0\0\0\x01\x07")
    columns = [f"x={tmp_path / 'x.idx'}", f"y={tmp_path / 'y=.idx'}"]
    assert lines(run("datasets", "upload", "two", *columns, "--json", *server))[0]["name"] == "datasets/two"
    with zipfile.ZipFile(io.BytesIO(service.datasets.files["datasets/two"])) as archive:
        assert archive.namelist() == ["x.idx", "y.idx"]
    wrong = run("datasets", "upload", "three", f"x={tmp_path / 'wine.csv'}", *server)
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "a column's own file must be .npy or IDX" in wrong.stderr


def test_datasets_are_imported_and_shown(service: FakeService) -> None:
    server = ["--server", service.address]
    result = run("datasets", "import", "cars", "file:///srv/cars.csv", "--format", "csv", "--group", "x=*", *server)
    assert result.stdout == "datasets/cars: 3 rows of x float32[64], y int64\n"
    (asked,) = service.datasets.imports
    assert (asked.dataset_id, asked.uri, asked.format) == ("cars", "file:///srv/cars.csv", Dataset.CSV)
    table = run("datasets", "show", "cars", *server).stdout.splitlines()
    assert table[0] == "datasets/cars: 3 rows, 0 B"
    assert max(map(len, table)) <= 80
    assert [line.split() for line in table if line.startswith(("x", "y"))] == [
        ["x", "float32[64]", "0", "16", "4.9", "6", ">", "1,000", "0"],
        ["y", "int64", "0", "9", "0", "0", "10", "0"],
    ]
    assert lines(run("datasets", "show", "cars", "--json", *server))[0]["columns"][1]["distinct_count"] == "10"


def test_models_are_listed_and_downloaded(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    table = run("models", "list", *server).stdout.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["m1", "m2", "m3"]
    target = tmp_path / "a.safetensors"
    assert run("models", "download", "m1", "-o", str(target), *server).stdout == f"{target}\n"
    assert target.read_bytes() == MODEL_FILE
    assert lines(run("models", "download", "m1", "-o", str(target), "--json", *server))[0]["path"] == str(target)
    (tmp_path / "file").touch()
    result = run("models", "download", "m1", "-o", str(tmp_path / "file" / "x"), *server)
    assert (result.exit_code, result.stderr) == (1, f"chainrule: {tmp_path}/file: File exists\n")


def test_models_are_brought_shown_and_removed(service: FakeService, tmp_path: Path) -> None:
    server = ["--server", service.address]
    file, network = tmp_path / "a.safetensors", tmp_path / "network.yaml"
    file.write_bytes(b"tensors")
    assert run("models", "upload", str(file), "--id", "own", *server).stdout == "models/own: 4,810 parameters\n"
    network.write_text("layers: [{name: body, dense: {units: 3}}]")
    assert lines(
        run("models", "upload", str(file), "--network", str(network), "--input-shape", "8,2", *server, "--json")
    )
    header, data = service.models.uploads["models/made"]
    assert (data, header.network.layers[0].name, list(header.input_shape)) == (b"tensors", "body", [8, 2])
    network.write_text("layers: [{dense: {unit: 3}}]")
    result = run("models", "upload", str(file), "--network", str(network), *server)
    assert "layers[0].dense" in result.stderr
    assert "did you mean units?" in result.stderr
    assert run("models", "upload", str(file), "--input-shape", "8,x", *server).exit_code == 2
    assert "parameter_count: '4810'\n" in run("models", "show", "own", *server).stdout
    assert lines(run("models", "show", "own", "--json", *server))[0]["name"] == "models/own"
    assert run("models", "delete", "own", "made", *server).exit_code == 0
    assert run("models", "show", "own", *server).stderr == "chainrule: there is no models/own\n"


def test_models_are_downloaded_as_onnx(service: FakeService, tmp_path: Path) -> None:
    result = run("models", "download", "m1", "--format", "onnx", "-o", str(tmp_path), "--server", service.address)
    assert result.stdout == f"{tmp_path / 'm1.onnx'}\n"
    assert (tmp_path / "m1.onnx").read_bytes() == b"onnx"


def test_the_service_gets_the_options_that_were_given() -> None:
    always = ["--listen", "a:1", "--metrics-listen", "b:2"]
    assert serve_options("a:1", "b:2", None, None) == always
    more = ["--data-dir", "/x", "--ray-address", "c:3"]
    assert serve_options("a:1", "b:2", Path("/x"), "c:3") == always + more
    assert serve_options("a:1", "b:2", None, None, "d:4") == [*always, "--web-listen", "d:4"]
