"""A run config and an inventory: what they may say, and how they are read."""
