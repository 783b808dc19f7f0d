"""Examples: a job file for each kind of problem, what each is expected to reach, and the data they learn from."""
