"""``python -m chainrule``: the command line, for where its script is not on the path."""

from chainrule.cli import main

if __name__ == "__main__":
    main(prog_name="chainrule")
