"""Docstrings as the site's reader of them expects, where Markdown would take otherwise what they say."""

import re
from typing import Any

from griffe import Extension, Object

READ_AS = {
    r"^( *)Example:$": r"\1Examples:",  # a section of prompts and what they print, not a heading of its own
    r"^( +\w+: )>": r"\1\\>",  # "> 0" is a range, and no quotation
    r":(?:meth|class|func|attr):`": "`",
}


class Docstrings(Extension):
    """Rewrites the docstrings of all objects before they are parsed."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            for pattern, replacement in READ_AS.items():
                obj.docstring.value = re.sub(pattern, replacement, obj.docstring.value, flags=re.M)
