"""What each example is expected to reach: one row for each job file of this folder."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
LESS_IS_BETTER = frozenset({"mae", "rmse", "loss"})


@dataclass(frozen=True)
class Example:
    """A job file, and the score that its model is judged by."""

    name: str
    """The job file is <name>.yaml."""
    expected: float
    score: str = "accuracy"
    """One of the scores of the job's held-out rows, or of the rows of `judged_on`."""
    judged_on: str = ""
    """A dataset to judge the model by, instead of the job's held-out rows."""
    after: str = ""
    """The example whose model this one starts from."""

    @property
    def job_file(self) -> Path:
        """Where its job file is."""
        return FOLDER / f"{self.name}.yaml"

    def is_reached(self, value: float) -> bool:
        """Whether a score is as good as expected."""
        return value <= self.expected if self.score in LESS_IS_BETTER else value >= self.expected


EXAMPLES = {
    example.name: example
    for example in (
        Example("digits", 0.96),
        Example("digits-feedback-alignment", 0.93),
        Example("fashion-cnn", 0.90),
        Example("fashion-residual", 0.90),
        Example("default", 0.92, "auc"),
        Example("bikeshare", 0.90, "r2"),
        Example("electricity", 0.985, "r2", judged_on="electricity-last-weeks"),
        Example("sentiment-lstm", 0.72),
        Example("sentiment-transformer", 0.72),
        Example("denoising-autoencoder", 0.12, "rmse"),
        Example("variational-autoencoder", 0.20, "rmse"),
        Example("transfer-first", 0.96),
        Example("transfer-second", 0.90, after="transfer-first"),
        Example("quantum", 0.93),
        Example("cartpole", 195, "return"),
    )
}
"""By name, in the order in which they are run."""
