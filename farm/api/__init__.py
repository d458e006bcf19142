"""What other programs use: runs from Python, and fixtures for pytest. See docs/python.md."""
