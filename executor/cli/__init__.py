"""The commands: `hplb executor` and `hplb evaluate`."""
