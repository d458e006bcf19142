"""What a person sees in a terminal: live view, plain lines, tables. Decides nothing."""
