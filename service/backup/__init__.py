"""Backups of a data directory: made, given back, and looked at for damage."""
