"""Pure parsers of what device commands and files print. Text in, values out; nothing is run.

None means that the text doesn't tell; a parser raises on no text whatever.
"""
