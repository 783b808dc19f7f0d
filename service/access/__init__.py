"""Who may do what: principals and their tokens, certificates, limits of each, and the log of what they did."""
