"""Plans written into weights: checkpoints that a stock tensor-parallel engine runs as planned."""
