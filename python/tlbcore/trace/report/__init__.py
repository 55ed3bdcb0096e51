"""The texts of `explain` and `replay`, from data."""
