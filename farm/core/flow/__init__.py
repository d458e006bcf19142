"""The state machine of a run: stimuli in, instructions out. Pure."""
