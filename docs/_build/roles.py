"""Sphinx roles of docstrings, such as :class:`.Scoring`, become code in Markdown, and an example a section."""

import re

import griffe

ROLE = re.compile(r":(?:attr|class|func|meth|mod):`~?\.?([^`]+)`")
EXAMPLE = re.compile(r"^( *)Example:$", flags=re.MULTILINE)


class Roles(griffe.Extension):
    """Rewrite each docstring when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """See :class:`griffe.Extension`."""
        del kwargs
        if obj.docstring:
            text = ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", text)
