"""Elements of HTML and SVG. Whatever is put into one is text, and never markup: names may be hostile."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias
from xml.etree.ElementTree import Element, tostring

Child: TypeAlias = Element | str | None

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def element(tag: str, attributes: Mapping[str, object] | None = None, *children: Child) -> Element:
    """An element with these children in order. Control characters are left out of text, and so is None."""
    made = Element(tag, {name: _text(value) for name, value in (attributes or {}).items()})
    for child in children:
        if isinstance(child, str):
            if len(made):
                made[-1].tail = (made[-1].tail or "") + _text(child)
            else:
                made.text = (made.text or "") + _text(child)
        elif child is not None:
            made.append(child)
    return made


def table(
    caption: str, columns: Iterable[str], rows: Iterable[Iterable[Child]], numeric: Iterable[int] = ()
) -> Element:
    """A table that scrolls within itself where the page is narrow. The first cell of a row is its header."""
    right = frozenset(numeric)

    def side(index: int) -> dict[str, str]:
        return {"class": "number"} if index in right else {}

    head = [element("th", {"scope": "col", **side(index)}, column) for index, column in enumerate(columns)]
    body = [
        element(
            "tr",
            {},
            *(
                element("td", side(index), cell) if index else element("th", {"scope": "row"}, cell)
                for index, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    return scrolling(
        caption,
        element(
            "table",
            {},
            element("caption", {}, caption),
            element("thead", {}, element("tr", {}, *head)),
            element("tbody", {}, *body),
        ),
    )


def scrolling(name: str, content: Element) -> Element:
    """Content that may be wider than the page; it can be scrolled by keyboard."""
    return element("div", {"class": "scrolls", "tabindex": "0", "role": "region", "aria-label": name}, content)


def document(root: Element) -> str:
    """The page whose root this is."""
    return "<!DOCTYPE html>\n" + tostring(root, encoding="unicode", method="html") + "\n"


def _text(value: object) -> str:
    return _CONTROL.sub("", str(value))
