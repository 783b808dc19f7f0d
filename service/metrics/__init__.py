"""What Prometheus scrapes: one file a family of metrics, each metric a row of a table.

Everything is read from the state when a scrape comes, so that training never waits for it.
"""
