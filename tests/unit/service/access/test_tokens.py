"""The tokens file, and who is let in by it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from service.access.door import Door
from service.access.principals import EVERYONE, Principal, Scope
from service.access.tokens import MOST_TOKENS, read_tokens, watched_tokens
from service.access.watched import Watched
from service.errors import Unauthenticated


def sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str, mode: int = 0o600) -> Path:
        path = tmp_path / "tokens"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def test_tokens_are_known_by_their_hash(write: Callable[[str], Path]) -> None:
    text = (
        f"# people\n\nalice train {sha256('one')}\n  alice\tread  {sha256('two').upper()}\nbob admin {sha256('three')}"
    )
    tokens = read_tokens(write(text))
    assert tokens.principal("one") == Principal("alice", Scope.TRAIN)
    assert tokens.principal("two") == Principal("alice", Scope.READ)
    assert tokens.principal("three") == Principal("bob", Scope.ADMIN)
    for unknown in ("", "on", "onee", sha256("one"), "ö\0"):
        assert tokens.principal(unknown) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no token"),
        ("# nobody", "has no token"),
        (f"alice train {'0' * 64}\nbob", "line 2: must be NAME SCOPE SHA256"),
        (f"alice train {'0' * 64} more", "line 1: must be NAME SCOPE SHA256"),
        (f"alice everything {'0' * 64}", "the scope 'everything' must be one of read, train, admin"),
        (f"alice TRAIN {'0' * 64}", "the scope 'TRAIN' must be"),
        ("alice train secret", "must be the SHA-256 of a token"),
        (f"alice train {'0' * 63}g", "must be the SHA-256 of a token"),
        (f"-alice train {'0' * 64}", "the name '-alice' must be"),
        (f"{'a' * 101} train {'0' * 64}", "must be 1 to 100 letters"),
        (f"ålice train {'0' * 64}", "must be 1 to 100 letters"),
        (f"a train {'0' * 64}\n" * (MOST_TOKENS + 1), "has 1,001 tokens; there may be 1,000"),
        ("#" * (1 << 20) + "#", "more than 1,048,576 bytes"),
    ],
)
def test_what_is_no_tokens_file(text: str, message: str, write: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match=message) as error:
        read_tokens(write(text))
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_a_file_that_others_can_write(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"alice train {'0' * 64}")
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"mode {mode:o}.*run: chmod go-w"):
        read_tokens(path)
    for allowed in (0o600, 0o400, 0o640, 0o444):
        path.chmod(allowed)
        read_tokens(path)


def test_without_tokens_everyone_is_let_in() -> None:
    assert Door().principal([]) == Door().principal(["Bearer any"]) == EVERYONE


def test_the_door(write: Callable[[str], Path]) -> None:
    door = Door(watched_tokens(write(f"alice train {sha256('one')}")))
    for sent in ("Bearer one", "bearer one", "Bearer  one "):
        assert door.principal([sent]) == Principal("alice", Scope.TRAIN)
    for wrong in ([], [""], ["one"], ["Bearer"], ["Bearer two"], ["Basic one"], ["Bearer one", "Bearer one"]):
        with pytest.raises(Unauthenticated):
            door.principal(wrong)


def test_files_are_read_when_they_change_and_only_then(tmp_path: Path) -> None:
    path, reads = tmp_path / "file", 0
    path.write_text("1")

    def read() -> int:
        nonlocal reads
        reads += 1
        return int(path.read_text())

    watched = Watched([path], read)
    assert (watched.value(), watched.value(), reads) == (1, 1, 1)
    path.write_text("20")
    assert (watched.value(), watched.value(), reads) == (20, 20, 2)
    path.write_text("no number")
    assert (watched.value(), watched.value(), reads) == (20, 20, 3)
    path.unlink()
    assert (watched.value(), watched.value(), reads) == (20, 20, 4)
    (tmp_path / "new").write_text("3")
    (tmp_path / "new").replace(path)
    assert (watched.value(), reads) == (3, 5)


def test_what_cannot_be_read_at_first_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        watched_tokens(tmp_path / "none")
