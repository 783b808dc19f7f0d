"""The gRPC face: one servicer a file, and what they share."""
