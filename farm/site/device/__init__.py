"""To talk to one device: connection, helper, lease, files, processes."""
