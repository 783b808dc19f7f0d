"""Resource names, which become parts of paths."""

import pytest

from service.errors import InvalidArgument
from service.wire.names import is_id, require_id, require_name

IDS = ("a", "a1", "a-", "a" * 63, "job-2026-01-01")
NO_IDS = ("", "A", "1a", "-a", "a" * 64, "a/b", "a.b", "..", "a_b", "a b", "a\n", "ä", "a\0", "a/", "../etc/passwd")


@pytest.mark.parametrize("text", IDS)
def test_names(text: str) -> None:
    assert is_id(text)
    assert (require_id(text, "id"), require_name(f"jobs/{text}", "jobs")) == (text, text)


@pytest.mark.parametrize("text", NO_IDS)
def test_what_is_no_name(text: str) -> None:
    assert not is_id(text)
    with pytest.raises(InvalidArgument, match=r"^place: is .*; must "):
        require_id(text, "place")
    with pytest.raises(InvalidArgument, match=r"^name: is .*; must "):
        require_name(f"jobs/{text}", "jobs")


NO_NAMES = ("", "jobs", "jobs/", "/a", "a", "datasets/a", "jobs/a/b", "JOBS/a", "jobs//a", "x" * 10**6)


@pytest.mark.parametrize("name", NO_NAMES, ids=lambda name: name[:20])
def test_a_name_has_its_collection(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r'must be "jobs/<id>"') as refused:
        require_name(name, "jobs")
    assert len(str(refused.value)) < 400
