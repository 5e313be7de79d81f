"""Text of others in, text without what a terminal would obey out."""


def printable(text: str) -> str:
    """Return text of a foreign catalogue or table with a space for what is no printable letter."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
