"""Imports: what lies below a root comes in, and nothing else does, however it is asked for."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from service.data.importing import Imports
from service.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

DATA, SECRET = b"a,b\n1,2\n", b"secret"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some files, and beside it what nobody may see."""
    base = tmp_path_factory.mktemp("imports")
    (base / "in" / "deep").mkdir(parents=True)
    (base / "in" / "deep" / "cars.csv").write_bytes(DATA)
    (base / "in" / "100 %.csv").write_bytes(DATA)
    (base / "in" / "empty").touch()
    (base / "inside").mkdir()
    (base / "inside" / "secret").write_bytes(SECRET)
    (base / "in" / "link").symlink_to(base / "inside" / "secret")
    (base / "in" / "folder").symlink_to(base / "inside")
    (base / "in" / "good-link").symlink_to("deep/cars.csv")
    os.mkfifo(base / "in" / "pipe")
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/data/cars.csv", DATA)
    store.pipe("/bucket/database", SECRET)
    store.pipe("/bucket/secret", SECRET)
    return base / "in"


@pytest.fixture
def imports(root: Path) -> Imports:
    return Imports([str(root), "memory://bucket/data/"], 1000)


@pytest.mark.parametrize(
    "uri",
    [
        lambda root: f"file://{root}/deep/cars.csv",
        lambda root: f"file://localhost{root}/deep/cars.csv",
        lambda root: f"FILE://{root}/deep//cars.csv",
        lambda root: f"file://{root}/100%20%25.csv",
        lambda root: f"file://{root}/good-link",
        lambda _: "memory://bucket/data/cars.csv",
    ],
)
def test_what_is_below_a_root(uri: Callable[[Path], str], root: Path, imports: Imports, tmp_path: Path) -> None:
    assert imports.fetch(uri(root), tmp_path / "file") == (hashlib.sha256(DATA).hexdigest(), len(DATA))
    assert (tmp_path / "file").read_bytes() == DATA


OUTSIDE = "must be below a place that the coordinator imports from: file://"

WRONG: dict[str, tuple[str, str]] = {
    "nothing": ("", "must be an address of up to 2,000 printable characters"),
    "too long": ("file:///" + "a" * 2000, "must be an address of up to 2,000 printable characters"),
    "a line break": ("file://{root}/deep/cars.csv\n", "must be an address of up to 2,000 printable"),
    "a path": ("{root}/deep/cars.csv", "must begin with a scheme, such as file:// or s3://"),
    "a relative path": ("deep/cars.csv", "must begin with a scheme"),
    "another folder": ("file:///etc/passwd", OUTSIDE),
    "a folder beside": ("file://{root}side/secret", OUTSIDE),
    "dots": ("file://{root}/../inside/secret", "must have no . or .. between slashes"),
    "dots in disguise": ("file://{root}/%2e%2e/inside/secret", "must have no . or .. between slashes"),
    "dots in two disguises": ("file://{root}/%252e%252e/inside/secret", "must have no . or .. between slashes"),
    "slashes in disguise": ("file://{root}/deep%2f..%2f..%2finside/secret", "must have no . or .."),
    "a link out": ("file://{root}/link", OUTSIDE),
    "a folder that is a link out": ("file://{root}/folder/secret", OUTSIDE),
    "a file that is none, outside": ("file:///etc/none", OUTSIDE),
    "a file that is none": ("file://{root}/none", "there is no such file"),
    "a folder": ("file://{root}/deep", "is not a file"),
    "the root itself": ("file://{root}", "is not a file"),
    "a pipe": ("file://{root}/pipe", "is not a file"),
    "an empty file": ("file://{root}/empty", "the file is empty"),
    "another machine": ("file://host{root}/deep/cars.csv", "must be file:/// and the full path"),
    "a zero byte": ("file://{root}/deep/cars.csv%00", "must be file:/// and the full path"),
    "a question": ("file://{root}/deep/cars.csv?a=1", "must have none of ? #"),
    "a chain": ("memory://bucket/data/x::file:///etc/passwd", "must have none of ? # :: \\ *"),
    "a chain to begin with": ("simplecache::memory://bucket/data/cars.csv", "must begin with a scheme"),
    "another store": ("s3://bucket/data/cars.csv", OUTSIDE),
    "another bucket": ("memory://other/data/cars.csv", OUTSIDE),
    "beside the prefix": ("memory://bucket/database", OUTSIDE),
    "out of the prefix": ("memory://bucket/data/../secret", "must have no . or .. between slashes"),
    "out of the prefix in disguise": ("memory://bucket/data/%2E%2E/secret", "must have no . or .. between slashes"),
    "local files": ("local:///etc/passwd", "local:// can't be imported from"),
    "a web server, which may send on to others": ("https://bucket/data/cars.csv", "https:// can't be imported from"),
    "a server of files, which may have links": ("sftp://bucket/data/cars.csv", "sftp:// can't be imported from"),
    "a code host": ("github://org:repo@main/x", "github:// can't be imported from"),
    "an object that is none": ("memory://bucket/data/none", "there is no such file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_refused(name: str, root: Path, imports: Imports, tmp_path: Path) -> None:
    uri, told = WRONG[name]
    with pytest.raises(InvalidArgument) as refused:
        imports.fetch(uri.replace("{root}", str(root)), tmp_path / "file")
    (violation,) = refused.value.violations
    assert violation.field == "uri"
    assert told in violation.description
    assert len(violation.description) < 1000


PIECES = ["/", "..", "%2e", ".", "deep", "link", "folder", "secret", "%2f", "inside", "cars.csv", "\\"]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(PIECES)))
def test_no_way_leads_out(pieces: list[str]) -> None:
    with TemporaryDirectory() as directory:
        base = Path(directory)
        (base / "in" / "deep").mkdir(parents=True)
        (base / "in" / "deep" / "cars.csv").write_bytes(DATA)
        (base / "inside").mkdir()
        (base / "inside" / "secret").write_bytes(SECRET)
        (base / "in" / "link").symlink_to(base / "inside" / "secret")
        (base / "in" / "folder").symlink_to(base / "inside")
        imports = Imports([str(base / "in")], 1000)
        for joined in ("".join(pieces), "/".join(pieces)):
            try:
                imports.fetch(f"file://{base}/in/{joined}", base / "out")
            except InvalidArgument:
                continue
            assert (base / "out").read_bytes() == DATA


@pytest.mark.parametrize("uri", ["file://{root}/deep/cars.csv", "memory://bucket/data/cars.csv"])
def test_what_is_too_large(uri: str, root: Path, tmp_path: Path) -> None:
    imports = Imports([str(root), "memory://bucket/data"], len(DATA) - 1)
    with pytest.raises(ResourceExhausted, match="has more than 7 bytes, which is the most that a dataset may have"):
        imports.fetch(uri.replace("{root}", str(root)), tmp_path / "file")


def test_nothing_is_imported_by_default(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="imports from nowhere; start it with --import-root") as refused:
        Imports([], 1000).fetch("file:///etc/passwd", tmp_path / "file")
    assert refused.value.reason == "IMPORT_NOT_CONFIGURED"


def test_a_store_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="can't read abfs://; install fsspec's implementation of it there"):
        Imports(["abfs://bucket"], 1000).fetch("abfs://bucket/x", tmp_path / "file")


class StoreError(Exception):
    """What a store's library raises: no OSError, with a text for nobody else."""


class Away(AbstractFileSystem):  # type: ignore[misc]
    """A store that can't be reached, or that breaks off."""

    def _open(self, path: str, *_: object, **__: object) -> "Broken":
        if "whole" in path:
            raise StoreError("no credentials in /root/secret")
        return Broken(DATA)


class Broken(io.BytesIO):
    """A file that ends in an error."""

    def read(self, size: int | None = -1) -> bytes:
        if data := super().read(size):
            return data
        raise StoreError("no credentials in /root/secret")


@pytest.mark.parametrize("name", ["whole", "half"])
def test_a_store_that_is_away(name: str, tmp_path: Path) -> None:
    fsspec.register_implementation("b2", Away, clobber=True)
    uri = f"b2://bucket/{name}.csv"
    with pytest.raises(FailedPrecondition) as failed:
        Imports(["b2://bucket"], 1000).fetch(uri, tmp_path / "file")
    assert failed.value.reason == "IMPORT_UNREADABLE"
    assert uri in failed.value.message
    assert "secret" not in failed.value.message


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("/none/there", "--import-root /none/there: there is no such folder"),
        ("local:///etc", "local:// can't be imported from"),
        ("http://127.0.0.1/data", "http:// can't be imported from; give a folder, or the address of an object store"),
        ("HTTPS://example.org", "HTTPS:// can't be imported from"),
        ("memory://bucket/../x", "must have no . or .. between slashes"),
    ],
)
def test_a_root_that_is_none(given: str, told: str) -> None:
    with pytest.raises(ValueError, match="--import-root") as refused:
        Imports([given], 1000)
    assert told in str(refused.value)
