"""How columns are prepared: what is asked for."""

import math

from chainrule.v1 import preparation_pb2 as pb
from chainrule.v1.training_data_pb2 import TrainingData
from service.data.preparation import KINDS, REST, TARGET_KINDS, Feature, Preparation
from service.data.windows import Windows
from service.data.words import Tokenise
from service.errors import Violations
from service.wire.fields import fill, fill_kind, parse, parse_kind

MOST_FEATURES = 1_000
MOST_NAMES = 50_000


def parse_preparation(data: TrainingData, path: str, violations: Violations) -> Preparation | None:
    """None if nothing is asked for. Notes what is wrong."""
    if not data.features and not data.HasField("target") and not data.HasField("windows"):
        return None
    if len(data.features) > MOST_FEATURES:
        violations.add(f"{path}.features", f"has {len(data.features):,}; must have at most {MOST_FEATURES:,}")
        return None
    found = [
        _parse_feature(message, f"{path}.features[{index}]", violations) for index, message in enumerate(data.features)
    ]
    features = tuple(feature for feature in found if feature is not None)
    _check_together(data, features, path, violations)
    target = None
    if data.HasField("target"):
        target = parse_kind(data.target, TARGET_KINDS, f"{path}.target", violations)
    windows = None
    if data.HasField("windows"):
        windows = parse(data.windows, Windows, f"{path}.windows", violations)
        _check_windows(data, features, path, violations)
    return Preparation(features, target, windows)


def fill_preparation(data: TrainingData, preparation: Preparation | None) -> None:
    """Sets the fields that ask for it."""
    if preparation is None:
        return
    for feature in preparation.features:
        message = data.features.add(columns=feature.columns, fill=feature.fill, fill_mean=feature.fill_mean)
        fill_kind(message, feature.kind, KINDS)
    if preparation.target is not None:
        fill_kind(data.target, preparation.target, TARGET_KINDS)
    if preparation.windows is not None:
        fill(data.windows, preparation.windows)


def _parse_feature(message: pb.Feature, path: str, violations: Violations) -> Feature | None:
    names = tuple(message.columns)
    if not 1 <= len(names) <= MOST_NAMES:
        violations.add(f"{path}.columns", f"has {len(names):,} names; must have 1 to {MOST_NAMES:,}, such as {REST!r}")
    elif len(set(names)) < len(names):
        violations.add(f"{path}.columns", "has a name twice; once is enough")
    fills = message.HasField("fill") or message.fill_mean
    if fills and message.WhichOneof("kind") in ("one_hot", "tokenise"):
        field = "fill" if message.HasField("fill") else "fill_mean"
        violations.add(f"{path}.{field}", f"is for numbers; leave it out of {message.WhichOneof('kind')}")
    if message.HasField("fill") and message.fill_mean:
        violations.add(f"{path}.fill_mean", "is given beside fill; one of them is enough")
    if message.HasField("fill") and not math.isfinite(message.fill):
        violations.add(f"{path}.fill", f"is {message.fill:g}; must be a finite number")
    kind = parse_kind(message, KINDS, path, violations)
    fill = message.fill if message.HasField("fill") else None
    return Feature(names, kind, fill, message.fill_mean) if kind is not None else None


def _check_together(data: TrainingData, features: tuple[Feature, ...], path: str, violations: Violations) -> None:
    tokenised = [feature for feature in features if isinstance(feature.kind, Tokenise)]
    if tokenised and (len(features) > 1 or len(tokenised[0].columns) > 1 or REST in tokenised[0].columns):
        violations.add(f"{path}.features", "has tokenise beside others; it must be the only one, of one named column")
    if sum(REST in feature.columns for feature in features) > 1:
        violations.add(f"{path}.features", f"has {REST!r} twice; it stands for all columns that no other names")
    name = data.input_column or "x"
    if data.features and name in (data.target_column or "y", data.weight_column):
        violations.add(
            f"{path}.input_column", f"is {name!r}, the name of another column that is used; give the input its own"
        )


def _check_windows(data: TrainingData, features: tuple[Feature, ...], path: str, violations: Violations) -> None:
    if not data.features:
        violations.add(f"{path}.features", "is empty; windows need features: as_is takes columns as they are")
    if any(isinstance(feature.kind, Tokenise) for feature in features):
        violations.add(f"{path}.windows", "are of numbers and categories, and can't be made of what tokenise gives")
    if data.weight_column:
        violations.add(f"{path}.weight_column", "can't be used with windows, which share their rows; leave it out")
    if data.split == TrainingData.RANDOM:
        violations.add(
            f"{path}.split", "is RANDOM; windows overlap, so that only the last can be held out: LAST, or leave it out"
        )
