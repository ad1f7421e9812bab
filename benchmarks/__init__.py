"""The measured claims, one script each; what they found lies in `results/`."""
