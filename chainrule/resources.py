"""Resource names and job states: the few words of the contract that every part of the client needs."""

from chainrule.v1.training_job_pb2 import TrainingJob

JOBS, DATASETS, MODELS = "jobs", "datasets", "models"

ENDED = frozenset({TrainingJob.SUCCEEDED, TrainingJob.FAILED, TrainingJob.CANCELLED})
"""The states that a job does not leave."""


def full_name(collection: str, name: str) -> str:
    """``full_name("jobs", "x")`` and ``full_name("jobs", "jobs/x")`` are both ``"jobs/x"``."""
    return name if "/" in name else f"{collection}/{name}"


def bare_id(name: str) -> str:
    """``bare_id("jobs/x")`` and ``bare_id("x")`` are both ``"x"``."""
    return name.rpartition("/")[2]


def bare_alias(alias: str) -> str:
    """``bare_alias("models/@x")``, ``bare_alias("@x")`` and ``bare_alias("x")`` are all ``"x"``."""
    return bare_id(alias).removeprefix("@")
