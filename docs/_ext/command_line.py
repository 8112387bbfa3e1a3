"""The command line's own help as a page."""

import click
from sphinx.util.docutils import SphinxDirective

from ctxrnn._cli import app as program


def _walk(command, parent, name):
    context = click.Context(command, info_name=name, parent=parent, max_content_width=88)
    yield context
    if isinstance(command, click.Group):
        for sub in command.list_commands(context):
            yield from _walk(command.get_command(context, sub), context, sub)


class CommandLine(SphinxDirective):
    """Show the help of every command."""

    def run(self):
        """Return one section for each command."""
        lines = []
        for context in _walk(program, None, "ctxrnn"):
            text = context.get_help().rstrip()
            lines += [f"## {context.command_path}", "", "```text", text, "```", ""]
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app):
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
