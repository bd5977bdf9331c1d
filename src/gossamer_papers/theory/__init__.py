"""What the papers' theorems say, checked by numbers: what holds, what does not, and by which counterexample."""
