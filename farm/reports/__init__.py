"""A finished report in the form somebody reads. Each format is a pure function of the report."""
