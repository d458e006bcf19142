"""Decisions that are functions of values: when to stop, what an outcome is, what to keep. Pure."""
