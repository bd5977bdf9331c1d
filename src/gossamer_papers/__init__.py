"""Published figures and tables, each with its trainings, its picture, and a verdict on every claim."""
