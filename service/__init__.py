"""The coordinator: takes jobs over gRPC, spreads their steps over workers, keeps what must last."""
