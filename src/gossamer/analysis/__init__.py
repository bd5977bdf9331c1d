"""What records say: curves and statistics."""

from gossamer.analysis.curves import Curve, plot, read_curve
from gossamer.analysis.statistics import bootstrap_interval

__all__ = ["Curve", "bootstrap_interval", "plot", "read_curve"]
