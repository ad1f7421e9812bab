"""docs/results.md and the README's table, written from the JSON in `benchmarks/results` alone."""
