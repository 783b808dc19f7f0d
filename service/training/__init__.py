"""One job's training: averaging the shards' gradients, stepping, checking, keeping checkpoints."""
