"""Jobs: what was asked for, what happened, what may happen next, and whose turn it is."""
