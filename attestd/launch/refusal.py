"""Why the launcher of system mode starts nothing: a text for people and what to do. Standard library only."""


class RefusedError(Exception):
    """``text`` follows "cannot start NAME: "."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
