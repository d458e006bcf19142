"""The life of a site agent: sessions, events, devices that went away."""
