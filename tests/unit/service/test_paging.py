"""Pages: every item once, whatever comes and goes between them."""

from base64 import urlsafe_b64encode
from collections.abc import Sequence

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from chainrule.v1.training_service_pb2 import ListTrainingJobsRequest
from service.api.paging import DEFAULT_SIZE, LARGEST_BYTES, LARGEST_SIZE, page
from service.errors import InvalidArgument

names = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), unique=True, max_size=30)


def one_page(items: Sequence[str], size: int, token: str = "", newest_first: bool = False) -> tuple[list[str], str]:
    request = ListTrainingJobsRequest(page_size=size, page_token=token)
    found, following = page(items, str, lambda item: StringValue(value=item), request, newest_first=newest_first)
    return [item.value for item in found], following


def all_pages(items: Sequence[str], size: int, newest_first: bool = False) -> list[list[str]]:
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        found, token = one_page(items, size, token, newest_first)
        pages.append(found)
    return pages


@given(names, st.integers(1, 7), st.booleans())
def test_pages_are_the_whole_in_order(items: list[str], size: int, newest_first: bool) -> None:
    pages = all_pages(items, size, newest_first)
    assert [item for found in pages for item in found] == sorted(items, reverse=newest_first)
    assert [len(found) for found in pages[:-1]] == [size] * (len(pages) - 1)
    assert pages[-1] or not items


@given(names, names, st.sets(st.integers(0, 29)), st.integers(1, 5), st.booleans())
def test_items_that_come_and_go_shift_nothing(
    items: list[str], new: list[str], gone: set[int], size: int, newest_first: bool
) -> None:
    """Also if the very item is gone after which the next page begins."""
    first, token = one_page(items, size, newest_first=newest_first)
    later = sorted({*items, *new} - {items[place] for place in gone if place < len(items)})
    rest: list[str] = []
    while token:
        found, token = one_page(later, size, token, newest_first)
        rest += found
    seen = first + rest
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen, reverse=newest_first)
    if len(items) > size:
        assert set(first) | set(later) >= set(seen) >= set(items) & set(later)


def test_sizes() -> None:
    items = [f"{number:04}" for number in range(LARGEST_SIZE + 500)]
    for asked, got in ((0, DEFAULT_SIZE), (1, 1), (LARGEST_SIZE, LARGEST_SIZE), (LARGEST_SIZE + 1, LARGEST_SIZE)):
        assert len(one_page(items, asked)[0]) == got


def test_a_page_fits_into_a_message() -> None:
    """Fewer than asked for are given where they are large; one that is too large alone still comes."""
    items = [letter * (LARGEST_BYTES // 5) for letter in "abcdefgh"]
    assert [len(found) for found in all_pages(items, 100)] == [4, 4]
    huge = ["a", "b" * 2 * LARGEST_BYTES, "c"]
    assert [len(found) for found in all_pages(huge, 100)] == [1, 1, 1]


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_a_negative_size_is_refused(size: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"page_size: is {size}; must be 0 \(for {DEFAULT_SIZE}\) or more"):
        one_page("abc", size)


TOKENS = ("x", "====", "after:b", "b", "ä", "\0", urlsafe_b64encode(b"b").decode(), urlsafe_b64encode(b"\xff").decode())


@pytest.mark.parametrize("token", [*TOKENS, "A" * 100_000])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument, match=r"page_token: is .*; must be the next_page_token") as refused:
        one_page("abc", 1, token)
    assert len(str(refused.value)) < 500


@given(st.text())
def test_any_text_is_a_token_or_refused(token: str) -> None:
    try:
        one_page("abc", 1, token)
    except InvalidArgument:
        return
