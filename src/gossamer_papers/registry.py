"""All reproductions by name."""

from collections.abc import Mapping

from gossamer_papers import diffdac, gala, siac, theory_figures
from gossamer_papers.protocol import Reproduction

REPRODUCTIONS: Mapping[str, Reproduction] = dict(
    sorted(pair for part in (siac, diffdac, gala, theory_figures) for pair in part.REPRODUCTIONS.items())
)
