"""The content store of a host: objects by hash, results by key."""
