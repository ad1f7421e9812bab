"""Generated long-context tasks, after RULER's thirteen types: what profiles are measured on."""
