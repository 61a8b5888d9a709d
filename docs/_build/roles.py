"""Sphinx roles of docstrings, such as :class:`.Scoring`, become code in Markdown."""

import re

import griffe

ROLE = re.compile(r":(?:attr|class|func|meth|mod):`~?\.?([^`]+)`")


class Roles(griffe.Extension):
    """Rewrite each docstring when it is loaded."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """See :class:`griffe.Extension`."""
        del kwargs
        if obj.docstring:
            obj.docstring.value = ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", obj.docstring.value)
