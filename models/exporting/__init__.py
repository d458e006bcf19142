"""One export: its key, its limits, and the task that makes the artifact."""
