"""The commands with torch: `hplb executor`, `evaluate`, `calibrate`, `loss`, `apply`, `run`."""
