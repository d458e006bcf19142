"""Runners: what starts a model on a device and how its output is read."""
