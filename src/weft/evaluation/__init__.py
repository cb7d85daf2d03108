"""Scorers, the best constant answers, and the report: how good a model is, beside what needs no model."""
