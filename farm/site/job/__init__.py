"""One attempt of a job on one device."""
