"""Facts about processes, as values, and the protocols of those who collect them."""
