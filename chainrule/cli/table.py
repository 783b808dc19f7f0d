"""Lists for people: a table that stays readable in 80 columns."""

from collections.abc import Iterable, Sequence

import click
from rich import box
from rich.console import Console
from rich.table import Table


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], nothing: str) -> None:
    """Prints rows below their columns, or, to stderr, the sentence `nothing` if there are none.

    The first column is the name, for copying, and never shortened; a column called with a trailing ">" holds numbers.
    """
    rows = list(rows)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(
            column.removesuffix(">"),
            justify="right" if column.endswith(">") else "left",
            no_wrap=True,
            min_width=max((len(row[0]) for row in rows), default=None) if index == 0 else None,
            overflow="fold" if index == 0 else "ellipsis",
        )
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        Console(markup=False, highlight=False).print(table)
    else:
        click.echo(nothing, err=True)
