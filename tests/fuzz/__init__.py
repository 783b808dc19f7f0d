"""Calls with messages that are almost right, and what may come back."""
