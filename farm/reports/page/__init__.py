"""What report.html and profile.html are made of: templates, style, script, packed data."""
