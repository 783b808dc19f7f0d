"""Predictions, evaluations and aliases: by the client, and by the command line."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chainrule import Client, DatasetFileError, InvalidRequest, NotFound
from chainrule.rows import read_columns, read_rows
from tests.unit.client.fakes import FakeService
from tests.unit.client.test_cli import lines, run

ROWS = np.array([[1, 2], [-3, 1], [0.5, 0.25]], np.float32)
OUTPUTS = [[3, 0, 1], [-2, 0, 1], [0.75, 0, 1]]


def npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# The client


def test_rows_of_any_type(service: FakeService) -> None:
    with Client(service.address) as client:
        for rows in (ROWS, ROWS.tolist(), ROWS.astype(float)[:, ::-1]):
            np.testing.assert_array_equal(client.predict("m1", rows), OUTPUTS)
        assert client.predict("m1", np.empty((0, 2))).shape == (0, 3)


def test_many_rows_go_in_messages_that_the_service_takes(service: FakeService) -> None:
    rows = np.random.default_rng(0).standard_normal((1_000_000, 2)).astype(np.float32)
    with Client(service.address) as client:
        found = client.predict("models/m1", rows)
    np.testing.assert_array_equal(found[:, 0], rows.sum(axis=1))
    assert len(service.inference.batches) == 3
    assert sum(service.inference.batches) == len(rows)


@pytest.mark.parametrize("rows", [["a"], [[1], [1, 2]], [None]])
def test_rows_that_are_no_numbers(service: FakeService, rows: Any) -> None:
    if rows == [None]:
        rows = [object()]
    with Client(service.address) as client, pytest.raises(DatasetFileError, match="must be numbers"):
        client.predict("m1", rows)


@pytest.mark.parametrize("rows", [3.0, [1.0, 2.0], np.zeros((4, 3))])
def test_rows_of_another_shape_are_the_services_to_refuse(service: FakeService, rows: Any) -> None:
    with Client(service.address) as client, pytest.raises(InvalidRequest) as error:
        client.predict("m1", rows)
    assert error.value.violations[0].field == "inputs[0].shape"


def test_aliases(service: FakeService) -> None:
    with Client(service.address) as client:
        assert client.set_model_alias("staging", "m2").name == "models/m2"
        assert list(client.set_model_alias("@production", "@staging").aliases) == ["production", "staging"]
        assert client.get_model("@production").name == client.get_model("models/@production").name == "models/m2"
        np.testing.assert_array_equal(client.predict("@production", ROWS), OUTPUTS)
        client.delete_model_alias("models/@production")
        with pytest.raises(NotFound):
            client.get_model("@production")


def test_what_is_asked_of_an_evaluation(service: FakeService) -> None:
    with Client(service.address) as client:
        found = client.evaluate_model("m1", "cats", target_column="z")
    (request,) = service.models.evaluations
    assert (request.name, request.dataset, request.target_column) == ("models/m1", "datasets/cats", "z")
    assert not request.HasField("loss")
    assert (found.model, found.loss, found.scores["accuracy"]) == ("models/m1", 0.25, 0.972)


# Files


def test_files_that_have_rows() -> None:
    archive = io.BytesIO()
    np.savez(archive, x=ROWS, y=[1, 2, 3])
    files = [
        npy(ROWS),
        archive.getvalue(),
        b"1,2\n-3,1\n.5,.25",
        b"\xef\xbb\xbfa,b\r\n1,2\r\n\r\n-3,1\r\n5e-1,0.25\r\n",
    ]
    for data in files:
        np.testing.assert_array_equal(read_rows(data, "file", "x", (2,)), ROWS)
    np.testing.assert_array_equal(read_rows(b"1,2,3,4", "file", "x", (2, 2)), [[[1, 2], [3, 4]]])
    assert read_rows(b"", "file", "x", (2,)).shape == (0, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1,2\n3", r"rows\.csv has 1 columns in row 2; the model takes rows of 2 numbers"),
        (b"a,b\n1,2,3", "has 3 columns in row 1"),
        (b"1,2\nx,3", r"rows\.csv: .*could not convert string to float"),
        (b"\xff\xfe1,2", r"rows\.csv: .*can't decode"),
        (npy(ROWS)[:-1], r"rows\.csv: "),
        (b"PK\x03\x04nothing", r"rows\.csv: "),
        (b"\x93NUMPY", r"rows\.csv: "),
    ],
)
def test_files_that_have_none(data: bytes, message: str) -> None:
    with pytest.raises(DatasetFileError, match=message):
        read_rows(data, "rows.csv", "x", (2,))


def test_files_that_have_columns() -> None:
    archive = io.BytesIO()
    np.savez(archive, legs=[2.0, np.nan], colour=["r", "g,g"], more=[0])
    table = b'colour, legs ,animal\r\nr,2,ape\r\n"g,g",,bee\r\n'
    for data in (archive.getvalue(), table):
        found = read_columns(data, "file", {"legs": False, "colour": True})
        assert list(found) == ["legs", "colour"]
        np.testing.assert_array_equal(found["legs"], [2, np.nan])
        assert found["colour"].tolist() == ["r", "g,g"]
    windows = read_columns(b"n,t\n1,a\n2,b\n3,c", "file", {"n": False, "t": True}, 2)
    assert windows["n"].tolist() == [[1, 2], [2, 3]]
    assert windows["t"].tolist() == [["a", "b"], ["b", "c"]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a,b\n1,2", r"rows\.csv: has no column 'n' in its header"),
        (b"", r"rows\.csv: has no column 'n' in its header"),
        (b"n,t\n1,a\n2", r"rows\.csv: has 1 columns in row 2; its header has 2"),
        (b"n,t\nx,a", r"rows\.csv: 'n' must hold numbers: could not convert string to float: 'x'"),
        (b"n,t\n1,a", r"rows\.csv: has 1 rows; the model takes windows of 2"),
        (npy(ROWS), r"rows\.csv: has one array; the model takes a column each of 'n', 't'"),
    ],
)
def test_files_that_lack_columns(data: bytes, message: str) -> None:
    with pytest.raises(DatasetFileError, match=message):
        read_columns(data, "rows.csv", {"n": False, "t": True}, 2)


def test_archives_without_the_input_and_pickles() -> None:
    archive = io.BytesIO()
    np.savez(archive, images=ROWS)
    with pytest.raises(DatasetFileError, match=r"has no array 'x', which the model takes; it has 'images'"):
        read_rows(archive.getvalue(), "rows.npz", "x", (2,))
    file = io.BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DatasetFileError, match="pickle"):
        read_rows(file.getvalue(), "rows.npy", "x", (2,))


# The command line


@pytest.fixture
def file(tmp_path: Path) -> str:
    np.save(tmp_path / "rows.npy", ROWS)
    return str(tmp_path / "rows.npy")


def test_classes_are_shown_with_their_probability(service: FakeService, file: str) -> None:
    result = run("predict", "m1", "--input", file, CHAINRULE_SERVER=service.address)
    assert result.exit_code == 0
    shown = [line.split() for line in result.stdout.splitlines()]
    assert shown[0] == ["ROW", "CLASS", "PROBABILITY"]
    assert shown[-3:] == [["0", "0", "84.4", "%"], ["1", "2", "70.5", "%"], ["2", "2", "46.6", "%"]]


def test_outputs_are_shown_where_there_are_no_classes(service: FakeService, file: str) -> None:
    service.models.loss = "mean_squared_error"
    result = run("predict", "m1", "--input", file, CHAINRULE_SERVER=service.address)
    assert result.stdout.splitlines()[-1].split() == ["2", "0.75,", "0,", "1"]


def test_predictions_for_programs(service: FakeService, file: str) -> None:
    found = lines(run("predict", "m1", "-i", file, "--json", CHAINRULE_SERVER=service.address))
    assert [line["output"] for line in found] == OUTPUTS
    assert [line["class"] for line in found] == [0, 2, 2]
    assert found[0]["probability"] == pytest.approx(np.exp(3) / (np.exp(3) + 1 + np.exp(1)))


@pytest.mark.parametrize("name", ["out.npy", "out", "out.csv"])
def test_predictions_in_a_file(service: FakeService, file: str, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    result = run("predict", "m1", "-i", file, "-o", str(out), CHAINRULE_SERVER=service.address)
    assert (result.stdout, result.stderr) == ("", f"{out}: 3 rows from models/m1\n")
    found = np.loadtxt(out, delimiter=",") if name.endswith("csv") else np.load(out)
    np.testing.assert_array_equal(found, OUTPUTS)


def test_many_rows_are_not_all_shown(service: FakeService, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("1,2\n" * 60)
    result = run("predict", "m1", "-i", str(tmp_path / "rows.csv"), CHAINRULE_SERVER=service.address)
    assert len(result.stdout.splitlines()) == 52
    assert result.stderr == "and 10 more rows: --json shows all, -o writes them to a file\n"


def test_predictions_that_cannot_be_made(service: FakeService, file: str, tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text("1,2,3")
    for model, source, message in (
        ("nobody", file, "there is no models/nobody"),
        ("m1", str(tmp_path / "wide.csv"), "has 3 columns in row 1; the model takes rows of 2 numbers"),
    ):
        result = run("predict", model, "-i", source, CHAINRULE_SERVER=service.address)
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr
    assert run("predict", "m1", "-i", str(tmp_path / "none"), CHAINRULE_SERVER=service.address).exit_code == 2


def test_an_evaluation_is_told(service: FakeService) -> None:
    result = run("evaluate", "m1", "cats", "--loss", "mean_squared_error", CHAINRULE_SERVER=service.address)
    assert result.stdout.splitlines() == [
        "models/m1: 1,797 rows of cats in 0.5 s",
        "  loss      0.25",
        "  accuracy  97.2 %",
        "  f1        0.5",
    ]
    assert service.models.evaluations[0].loss.WhichOneof("kind") == "mean_squared_error"
    (found,) = lines(run("evaluate", "m1", "cats", "--json", CHAINRULE_SERVER=service.address))
    assert (found["model"], found["scores"]) == ("models/m1", {"accuracy": 0.972, "f1": 0.5})


def test_aliases_are_given_listed_and_taken(service: FakeService) -> None:
    given = run("models", "alias", "production", "m2", CHAINRULE_SERVER=service.address)
    assert given.stdout == "@production stands for models/m2\n"
    (found,) = lines(run("models", "alias", "staging", "@production", "--json", CHAINRULE_SERVER=service.address))
    assert found["aliases"] == ["production", "staging"]
    listed = run("models", "list", CHAINRULE_SERVER=service.address).stdout.splitlines()
    assert listed[-2:] == ["@production stands for models/m2", "@staging stands for models/m2"]
    taken = run("models", "unalias", "production", "@staging", CHAINRULE_SERVER=service.address)
    assert taken.stderr == "@production removed\n@staging removed\n"
    assert "@" not in run("models", "list", CHAINRULE_SERVER=service.address).stdout
    assert run("models", "unalias", "production", CHAINRULE_SERVER=service.address).exit_code == 1
    assert json.dumps(service.models.aliases) == "{}"
