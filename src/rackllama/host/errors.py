"""The one error that reaches a user: what is wrong, and what to do about it."""


class RackllamaError(Exception):
    """A failure the user can act on.

    `message` is one sentence without a full stop that says what is wrong; `remedy` is what to do or type next.
    Programming mistakes are not wrapped in it: they stay tracebacks.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}. Remedy: {self.remedy}"
