"""What others compute from the same numbers, kept in small files."""
