"""Models: what jobs made, as files that others can read."""
