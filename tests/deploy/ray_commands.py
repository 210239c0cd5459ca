"""Whether Ray's command line would take a command, without running it."""

import click
from ray.scripts.scripts import cli


def check(words: list[str]) -> None:
    """Parses a command as Ray would.

    Args:
        words: The command, from `ray` on.

    Raises:
        click.ClickException: Ray has no such command, or it doesn't take these options.
    """
    assert words[0] == "ray", words
    command: click.Command = cli
    context = click.Context(cli, info_name="ray")
    left = words[1:]
    while isinstance(command, click.Group):
        name, found, left = command.resolve_command(context, left)
        assert name is not None
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_context(command.name, left, parent=context.parent)
