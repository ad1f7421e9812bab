"""Measuring what the heads of a transformers model need: the one part of `profiles` with torch."""
