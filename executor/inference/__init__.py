"""Plans on real models: attention of a transformers model through the executor's kernels."""
