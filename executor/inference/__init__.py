"""Attention of a model's layers by policy: budgets for every head, or none."""
