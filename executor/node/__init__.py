"""A node: its devices compute and time their shares of the plan that is live."""
