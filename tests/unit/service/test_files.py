"""Files and directories that appear whole or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from service.files import new_directory, remove_directory, sweep, why_unusable, write_atomically


class Crash(BaseException):
    """Whatever ends a process in the middle."""


def make(path: Path, file: str) -> None:
    with new_directory(path) as directory:
        (directory / file).touch()


def write_and_raise(directory: Path, error: type[BaseException]) -> None:
    (directory / "a").write_text("a")
    raise error


def tree(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for data in (b"old", b"", b"new" * 10_000):
        write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert tree(tmp_path) == ["file"]


def test_an_error_while_writing_keeps_the_old_content(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    (tmp_path / ".file.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert tree(tmp_path) == ["file"]


def test_a_new_directory_appears_when_it_is_whole(tmp_path: Path) -> None:
    with new_directory(tmp_path / "new") as directory:
        (directory / "a").write_text("a")
        (directory / "deep").mkdir()
        (directory / "deep" / "b").write_text("b")
        assert not (tmp_path / "new").exists()
    assert tree(tmp_path) == ["new", "new/a", "new/deep", "new/deep/b"]


@pytest.mark.parametrize("error", [OSError, Crash])
def test_an_error_leaves_no_directory(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), new_directory(tmp_path / "new") as directory:
        write_and_raise(directory, error)
    assert tree(tmp_path) == []


def test_a_directory_is_never_replaced(tmp_path: Path) -> None:
    """Also if it was made in the meantime."""
    with pytest.raises(FileExistsError), new_directory(tmp_path / "new"):
        make(tmp_path / "new", "fast")
    assert tree(tmp_path) == ["new", "new/fast"]


def test_removing(tmp_path: Path) -> None:
    for _ in range(2):
        with new_directory(tmp_path / "old") as directory:
            (directory / "a").touch()
        remove_directory(tmp_path / "old")
        assert tree(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        remove_directory(tmp_path / "old")


def test_removing_goes_on_where_a_crash_left_it(tmp_path: Path) -> None:
    (tmp_path / ".old.deleted" / "deep").mkdir(parents=True)
    (tmp_path / "old").mkdir()
    remove_directory(tmp_path / "old")
    assert tree(tmp_path) == []


LEFT: dict[str, Callable[[Path], object]] = {
    "a file": lambda root: (root / ".upload-1").write_text("x"),
    "a part of a file": lambda root: (root / ".a.part").write_text("x"),
    "a directory": lambda root: (root / ".new.1" / "deep").mkdir(parents=True),
    "a doomed directory": lambda root: (root / ".old.deleted").mkdir(),
    "a link that leads nowhere": lambda root: (root / ".link").symlink_to("nowhere"),
}


@pytest.mark.parametrize("left", LEFT)
def test_sweeping_removes_what_a_crash_left_and_nothing_else(left: str, tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    sweep(root)
    (root / "kept").mkdir()
    (root / "kept" / ".hidden").touch()
    LEFT[left](root)
    sweep(root)
    assert tree(root) == ["kept", "kept/.hidden"]


def test_whose_a_directory_is_that_may_not_be_used(tmp_path: Path) -> None:
    theirs = tmp_path if os.getuid() == 0 else Path("/")
    if theirs == tmp_path:
        os.chown(theirs, 12_345, -1)
    owner, user = theirs.stat().st_uid, os.getuid()
    denied = PermissionError(errno.EACCES, "Permission denied", str(theirs / "lock"))
    assert why_unusable(theirs, denied) == (
        f"Permission denied: {theirs} belongs to user {owner}, and this runs as user {user} "
        f"(as root: chown -R {user} {theirs})"
    )
    assert why_unusable(theirs, OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
