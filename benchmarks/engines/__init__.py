"""A plan on a stock engine: real processes, a real model, measured beside what was predicted."""
