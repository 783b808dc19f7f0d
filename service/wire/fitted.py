"""What a model's file says of how its inputs are made, held against itself: anyone may have written it."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from service.data.classes import FittedClasses
from service.data.features import MOST_CATEGORIES, FittedCategories, FittedNumbers
from service.data.preparation import LARGEST_WIDTH, FittedPreparation
from service.data.words import LARGEST_VOCABULARY, LONGEST_ROW, FittedWords
from service.errors import Violations
from worker.arrays import Shape
from worker.errors import InvalidValue

LONGEST_NAME = 100


def parse_fitted(text: str, input_shape: Shape, path: str, violations: Violations) -> str:
    """The same text, if it is a preparation that makes inputs of that shape. Notes if not, and then returns ""."""
    try:
        values = json.loads(text)
        if type(values) is not dict or set(values) > {"inputs", "target", "windows"} or not _is_list(values["inputs"]):
            raise ValueError("of another form")
        if not all(_is_part(part, INPUTS) for part in values["inputs"]):
            raise ValueError("an input of another form")
        if values["target"] is not None and not _is_part(values["target"], TARGETS):
            raise ValueError("a target of another form")
        if values["windows"] is not None and not all(type(size) is int for size in values["windows"].values()):
            raise ValueError("windows of another form")
        fitted = FittedPreparation.from_json(text)
    except (ValueError, KeyError, TypeError, AttributeError, InvalidValue, RecursionError):
        violations.add(path, "is not a preparation as model files of this service have them; leave it out")
        return ""
    if fitted.inputs and (fitted.row_shape != input_shape or fitted.width > LARGEST_WIDTH):
        violations.add(path, f"makes inputs of shape {fitted.row_shape}; the network takes {input_shape}")
        return ""
    return text


def _is_list(value: object, of: Callable[[Any], bool] = bool, most: int = LARGEST_WIDTH) -> bool:
    return type(value) is list and len(value) <= most and all(map(of, value))


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]  # it is a number by then


def _is_text(value: object) -> bool:
    return type(value) is str and value.isprintable()


def _is_numbers(part: Mapping[str, Any]) -> bool:
    offset, scale, fill = part["offset"], part["scale"], part["fill"]
    return (
        all(_is_list(each, _is_number) and len(each) == len(offset) for each in (offset, scale, fill or offset))
        and len(offset) > 0
        and 0 not in scale
        and type(part["integral"]) is bool
    )


def _is_categories(part: Mapping[str, Any]) -> bool:
    categories = part["categories"]
    kinds = {type(category) for category in categories}
    return (
        _is_list(categories, lambda _: True, MOST_CATEGORIES)
        and kinds in ({int}, {str})
        and len(set(categories)) == len(categories)
        and all(type(category) is str or abs(category) < 2**63 for category in categories)
    )


def _is_words(part: Mapping[str, Any]) -> bool:
    length = part["length"]
    return _is_list(part["words"], _is_text, LARGEST_VOCABULARY) and type(length) is int and 1 <= length <= LONGEST_ROW


INPUTS: Mapping[str, tuple[type[Any], Callable[[Mapping[str, Any]], bool]]] = {
    "numbers": (FittedNumbers, _is_numbers),
    "categories": (FittedCategories, _is_categories),
    "words": (FittedWords, _is_words),
}
TARGETS: Mapping[str, tuple[type[Any], Callable[[Mapping[str, Any]], bool]]] = {
    "classes": (FittedClasses, _is_categories),
    "numbers": (FittedNumbers, _is_numbers),
}


def _is_part(part: Any, kinds: Mapping[str, tuple[type[Any], Callable[[Mapping[str, Any]], bool]]]) -> bool:
    """Whether it has the fields of its kind, and they hold what they should."""
    cls, is_whole = kinds[part["kind"]]
    column = part["column"]
    return (
        set(part) == {"kind", *cls.__dataclass_fields__}
        and _is_text(column)
        and 0 < len(column) <= LONGEST_NAME
        and is_whole(part)
    )
