"""Attention of one device's shares of a step: what is computed, laid out once, and run."""
