"""Resource names: "jobs/<id>", "datasets/<id>", "models/<id>"; a model may also be named by "models/@<alias>".

Ids become parts of paths on disk, so that what is not a plain word is refused here, before anything else sees it.
"""

import re

from service.errors import InvalidArgument, Violations

_ID = re.compile(r"[a-z][a-z0-9-]{0,62}")
_CHECKPOINT = re.compile(
    rf"jobs/(?P<job>{_ID.pattern})/checkpoints/(?P<which>0|[1-9][0-9]{{0,17}}|@latest|@best)", re.ASCII
)


def is_id(text: str) -> bool:
    """Whether a text may be the id of a resource."""
    return _ID.fullmatch(text) is not None


def parse_name(name: str, collection: str, field: str, violations: Violations) -> str:
    """The id in a resource name; "" if that is wrong and was noted."""
    prefix, _, last = name.partition("/")
    if prefix == collection and is_id(last):
        return last
    said = f"is {name[:100]!r}" if name else "is missing"
    violations.add(
        field,
        f'{said}; must be "{collection}/<id>", where the id has 1 to 63 lower-case letters, digits and hyphens '
        "and begins with a letter",
    )
    return ""


def require_name(name: str, collection: str, field: str = "name") -> str:
    """The id in a resource name. Raises InvalidArgument."""
    violations = Violations()
    found = parse_name(name, collection, field, violations)
    violations.raise_any()
    return found


def parse_model(name: str, field: str, violations: Violations) -> str:
    """The id in a model's name, or "@" and the alias in its place; "" if that is wrong and was noted."""
    prefix, _, last = name.partition("/")
    if prefix == "models" and is_id(last.removeprefix("@")):
        return last
    said = f"is {name[:100]!r}" if name else "is missing"
    violations.add(
        field,
        f'{said}; must be "models/<id>" or "models/@<alias>", where ids and aliases have 1 to 63 lower-case letters, '
        "digits and hyphens and begin with a letter",
    )
    return ""


def require_model(name: str, field: str = "name") -> str:
    """The id in a model's name, or "@" and the alias in its place. Raises InvalidArgument."""
    violations = Violations()
    found = parse_model(name, field, violations)
    violations.raise_any()
    return found


def require_checkpoint(name: str, field: str) -> tuple[str, str]:
    """The job's id in a checkpoint's name, and the step's number, "@latest" or "@best". Raises InvalidArgument."""
    if match := _CHECKPOINT.fullmatch(name):
        return match["job"], match["which"]
    said = f"is {name[:100]!r}" if name else "is missing"
    raise InvalidArgument.of(
        field,
        f'{said}; must be "jobs/<id>/checkpoints/<step>", where the step is a number, or "@latest", or "@best"',
    )


def require_id(text: str, field: str) -> str:
    """The text, if it may be an id. Raises InvalidArgument."""
    if not is_id(text):
        raise InvalidArgument.of(
            field,
            f"is {text[:100]!r}; must have 1 to 63 lower-case letters, digits and hyphens, and begin with a letter",
        )
    return text
