"""A scrape, read by Prometheus's own parser for Python."""

from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Samples: TypeAlias = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Scraped:
    """One scrape's families and samples."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        listed = [
            ((sample.name.removeprefix("chainrule_"), tuple(sorted(sample.labels.items()))), sample.value)
            for family in self.families.values()
            for sample in family.samples
        ]
        self.samples: Samples = dict(listed)
        assert len(self.samples) == len(listed), "Prometheus refuses a scrape that has a series twice"

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, tuple(sorted(labels.items()))))

    def having(self, label: str) -> dict[str, set[str]]:
        """The values of a label, by the names of the series that have it."""
        found: dict[str, set[str]] = {}
        for name, labels in self.samples:
            for value in (value for key, value in labels if key == label):
                found.setdefault(name, set()).add(value)
        return found

    def jobs(self) -> set[str]:
        """The jobs that have any series."""
        return set().union(*self.having("job_id").values())
