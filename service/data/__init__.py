"""Datasets: named, immutable, typed columns, uploaded once."""
