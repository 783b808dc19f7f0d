"""A progress bar for an upload; nothing where stderr is not a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from chainrule import transfer


@contextmanager
def upload_bar() -> Iterator[transfer.Progress]:
    """The function that an upload is to call as it goes."""
    console = Console(stderr=True)
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("upload", total=None, visible=False)

        def show(sent: int, total: int) -> None:
            bar.update(task, completed=sent, total=total, visible=True)

        yield show
