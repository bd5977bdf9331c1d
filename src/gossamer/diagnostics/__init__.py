"""What a population reveals while it learns: consensus distance and its bound, gradient correlation, energy."""
