"""The outermost wrapper of every command: whatever goes wrong becomes a clear line on stderr and an exit code."""

import errno
import os
import sys

import click

from chainrule.errors import ChainruleError, DeadlineExceeded, JobFileError, ServiceError, Unavailable, Violation

FAILED, AWAY, INTERRUPTED = 1, 3, 130
"""Exit codes beside 0 and click's own 2: see the help of `chainrule`."""

SPEC = "training_job.spec."


class Program(click.Group):
    """A group whose commands end with an exit code, never with a traceback."""

    def invoke(self, ctx: click.Context) -> None:
        """Runs the command that the command line names."""
        try:
            super().invoke(ctx)
            return
        except ChainruleError as error:
            lines, code = explain(error)
        except KeyboardInterrupt:
            lines, code = ["interrupted"], INTERRUPTED
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of a pipe has seen enough; click ends quietly
                raise
            lines, code = [f"{error.filename}: {error.strerror}" if error.filename else str(error)], FAILED
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get("CHAINRULE_DEBUG"):
                raise
            lines, code = [f"a mistake in Chainrule: {error!r}; CHAINRULE_DEBUG=1 shows where"], FAILED
        click.echo("\n".join([f"chainrule: {lines[0]}", *lines[1:]]), file=sys.stderr)
        ctx.exit(code)


def explain(error: ChainruleError) -> tuple[list[str], int]:
    """The lines that tell a person about an error, and the exit code that tells a script."""
    match error:
        case JobFileError():
            return [error.headline, *map(str, error.violations)], FAILED
        case Unavailable() | DeadlineExceeded():
            return [str(error)], AWAY
        case ServiceError():
            # The service's message may be nothing but its violations in a row; they have lines of their own here.
            repeats = any(violation.description in str(error) for violation in error.violations)
            headline = "the request was refused" if repeats else str(error)
            return [headline, *map(_in_terms_of_the_job_file, error.violations)], FAILED
        case _:
            return [str(error)], FAILED


def _in_terms_of_the_job_file(violation: Violation) -> str:
    """The service gives paths within its request; whoever wrote a job file knows them without the beginning."""
    return str(Violation(violation.field.removeprefix(SPEC), violation.description))
