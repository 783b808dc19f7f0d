"""Side-by-side measurements against other ways to do the same. Not part of the tests."""
