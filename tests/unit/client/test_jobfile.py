"""Job files: what they mean, and what is said about their mistakes."""

import json
from pathlib import Path

import pytest

from chainrule import JobFileError
from chainrule.jobfile import job_file_text, read_job_file
from chainrule.v1.training_data_pb2 import TrainingData
from chainrule.v1.training_job_pb2 import TrainingJobSpec

EXAMPLES = Path(__file__).parents[3] / "examples"
DATA = "data: {dataset: digits}\n"


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_is_the_demo() -> None:
    job = read_job_file(EXAMPLES / "digits.yaml").job
    assert (EXAMPLES.parent / "chainrule" / "demo.yaml").read_text() == (EXAMPLES / "digits.yaml").read_text()
    assert job.spec.data.dataset == "datasets/digits"
    assert [layer.WhichOneof("kind") for layer in job.spec.network.layers] == ["dense", "relu", "dense"]
    assert (job.spec.epochs, job.spec.shards, job.spec.workers) == (30, 4, 2)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_can_be_read(path: Path) -> None:
    assert read_job_file(path).job.display_name


def test_yaml_and_json_in_both_spellings_are_the_same_job(tmp_path: Path) -> None:
    snake = {"display_name": "a", "data": {"dataset": "digits", "input_column": "x"}, "batch_size": 8}
    camel = {"displayName": "a", "data": {"dataset": "datasets/digits", "inputColumn": "x"}, "batchSize": "8"}
    texts = {"a.yaml": json.dumps(snake), "b.json": json.dumps(camel), "c.yml": json.dumps(camel)}
    jobs = [read_job_file(write(tmp_path, text, name)).job for name, text in texts.items()]
    assert jobs[0] == jobs[1] == jobs[2]
    assert jobs[0].spec == TrainingJobSpec(data=TrainingData(dataset="datasets/digits", input_column="x"), batch_size=8)


def test_a_job_may_have_labels(tmp_path: Path) -> None:
    text = DATA + "labels: {team: blue, purpose: 'the 2nd'}"
    assert dict(read_job_file(write(tmp_path, text)).job.labels) == {"team": "blue", "purpose": "the 2nd"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_what_is_written_down_is_read_as_the_same_job(tmp_path: Path, path: Path) -> None:
    job = read_job_file(path).job
    job.labels.update({"team": "blue", "version": "1", "ok": "yes", "nothing": ""})
    job.display_name = "Blumen: 花 # 2"
    job.spec.seed = (1 << 32) - 1
    if not job.spec.HasField("environment") and not job.spec.data.dataset.startswith("datasets/"):
        job.spec.data.dataset = "datasets/uploaded"
    assert read_job_file(write(tmp_path, job_file_text(job))).job == job


def test_what_is_left_out_stays_unset(tmp_path: Path) -> None:
    spec = read_job_file(write(tmp_path, DATA + "optimizer: {learning_rate: 1e-3}\nepochs:\n")).job.spec
    assert spec.optimizer.learning_rate == 0.001  # YAML takes 1e-3 for text
    assert not spec.HasField("epochs")


def test_a_dataset_can_be_a_file_beside_the_job(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "cars.npz").write_bytes(b"npz")
    job_file = read_job_file(write(tmp_path / "jobs", "data: {dataset: ../cars.npz}"))
    assert job_file.dataset_file is not None
    assert job_file.dataset_file.read_bytes() == b"npz"


# A mistake, and what is said about it.
MISTAKES = [
    (
        DATA + "network: {layers: [{dense: {units: 3}}, {relu: {}}, {dens: {units: 1}}]}",
        'network.layers[2]: has no field "dens"; did you mean dense?',
    ),
    (
        DATA + "network: {layers: [{dense: {unit: 3}}]}",
        'network.layers[0].dense: has no field "unit"; did you mean units?',
    ),
    (
        DATA + "network: {layers: [{perceptron: {}}]}",
        'network.layers[0]: has no field "perceptron"; there are dense, relu, tanh, sigmoid',
    ),
    (
        DATA + "network: {layers: [{relu: {slope: 1}}]}",
        'network.layers[0].relu: has no field "slope"; it has no fields',
    ),
    (DATA + "network: {layers: [{relu: }]}", "network.layers[0].relu: is empty; relu with nothing but defaults"),
    (DATA + "network: {layers: [relu]}", "network.layers[0]: must be a mapping of fields, not text; write relu: {}"),
    (DATA + "network: {layers: [3]}", "network.layers[0]: must be a mapping of fields, not 3; its fields are dense,"),
    (DATA + "network: {layers: {relu: {}}}", "network.layers: must be a list, not a mapping"),
    (
        DATA + "network: {layers: [{conv2d: {kernel_size: 3}}]}",
        "network.layers[0].conv2d.kernel_size: must be a list, as [3], not 3",
    ),
    (
        DATA + "network: {layers: [{dense: {units: 3, initializer: HE}}]}",
        "network.layers[0].dense.initializer: HE is not a value of it; there are GLOROT_UNIFORM,",
    ),
    (
        DATA + "loss: {softmax_cross_entropy: {}, meanSquaredError: {}}",
        "loss: has both softmax_cross_entropy and mean_squared_error; only one of them can be",
    ),
    (DATA + "epoch: 3", 'has no field "epoch"; did you mean epochs?'),
    (DATA + "1: 3", 'has no field "1"'),
    (DATA + "epochs: many", "epochs: must be a whole number, not many"),
    (DATA + "epochs: 1.5", "epochs: must be a whole number, not 1.5"),
    (DATA + "epochs: true", "epochs: must be a whole number, not true"),
    (DATA + "epochs: [3]", "epochs: must be a whole number, not a list"),
    (DATA + "epochs: .inf", "epochs: must be a whole number, not inf"),
    (DATA + "epochs: 3000000000", "epochs: must be -2147483648 to 2147483647, not 3000000000"),
    (DATA + "seed: -1", "seed: must be 0 to 4294967295, not -1"),
    (DATA + "optimizer: {learning_rate: fast}", "optimizer.learning_rate: must be a number, not fast"),
    (DATA + "display_name: 7", 'display_name: must be text, not 7; put it in quotes: "7"'),
    (DATA + "labels: blue", "labels: must be a mapping, not the text blue"),
    (DATA + "labels: {team: 7}", 'labels[team]: must be text, not 7; put it in quotes: "7"'),
    (DATA + "labels: {team: }", "labels[team]: is empty"),
    (DATA + "labels: {7: a}", 'labels: has a key that must be text, not 7; put it in quotes: "7"'),
    ("data: {dataset: 7}", 'data.dataset: must be text, not 7; put it in quotes: "7"'),
    ("data: digits", "data: must be a mapping of fields, not the text digits; its fields are dataset,"),
    ("epochs: 3", "data.dataset: is missing"),
    ("data: {dataset: none.npz}", "data.dataset: there is no file"),
    (DATA + "epochs: 3\nepochs: 4", 'line 3: has "epochs" twice'),
    ("epochs: 3\n  data: [", "line 2: mapping values are not allowed here"),
    ("- a", "must be a mapping with the fields data, network, loss and so on"),
    ("", "must be a mapping"),
    ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ("x: &a [*a]", 'has no field "x"'),
    ("[" * 100_000, "cannot be parsed"),
    ("#" * 1_100_000, "a job file has at most 1 MiB"),
]


@pytest.mark.parametrize(("text", "complaint"), MISTAKES, ids=[complaint[:50] for _, complaint in MISTAKES])
def test_a_mistake_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(JobFileError) as refused:
        read_job_file(path)
    assert complaint in str(refused.value)
    assert str(path) in str(refused.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(JobFileError) as refused:
        read_job_file(write(tmp_path, "epochs: x\nshards: y\nlos: {}"))
    assert [violation.field for violation in refused.value.violations] == ["epochs", "shards", ""]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(JobFileError, match="is not a text file"):
        read_job_file(tmp_path / "job.yaml")
    with pytest.raises(JobFileError, match="No such file"):
        read_job_file(tmp_path / "none.yaml")
    with pytest.raises(JobFileError, match="line 2: Expecting value"):
        read_job_file(write(tmp_path, '{"epochs":\n}', "job.json"))
