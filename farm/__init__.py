"""farm: a distributed device-farm orchestrator for on-device LLMs."""

__version__ = "0.1.0"
