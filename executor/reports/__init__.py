"""What a node is told, remembers, and hands over."""
