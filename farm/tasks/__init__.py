"""Host tasks, as every pool performs them."""
