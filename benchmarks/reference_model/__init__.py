"""The small model that ships with HPLB, trained from scratch on generated tasks."""
