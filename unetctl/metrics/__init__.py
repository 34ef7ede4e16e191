"""Scores of a prediction against labels: pure functions of arrays, no files."""
