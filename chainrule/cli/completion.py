"""``chainrule completion``: prints what makes a shell complete our command lines."""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and their values.

    \b
      chainrule completion bash > ~/.local/share/bash-completion/completions/chainrule
      chainrule completion zsh > ~/.zfunc/_chainrule     with ~/.zfunc in fpath
      chainrule completion fish > ~/.config/fish/completions/chainrule.fish
    """
    root = context.find_root().command
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click has these three
    click.echo(made(root, {}, "chainrule", "_CHAINRULE_COMPLETE").source())
