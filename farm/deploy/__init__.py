"""Deployment of what passed: versions on devices, in stages, with a way back."""
