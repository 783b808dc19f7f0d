"""The numerics: what a worker computes. NumPy only, except actor.py, which puts it on Ray.

Everything here is a pure function of its arguments. Nothing keeps a random generator, a running mean or a count of its
own, so that any worker computes the same bits for the same shard.
"""
