"""What others compute from the same numbers, kept in small files beside the scripts that made them."""
