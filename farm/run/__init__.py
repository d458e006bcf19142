"""One run: its composition, controller, journal and folder."""
