"""Where workers come from: a protocol, Ray behind it, and the same within the process."""
