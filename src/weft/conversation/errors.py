"""The one error type that a user's mistake raises; the command line prints it as a sentence and exits with 2."""


class WeftError(ValueError):
    """Bad input, said in one sentence: what is wrong, where, and what to do."""


class SampleError(WeftError):
    """A sample that breaks the format. The message names file, line and field."""

    def __init__(self, problem: str, *, file: str | None = None, line: int | None = None, field: str | None = None):
        self.problem, self.file, self.line, self.field = problem, file, line, field
        where = ":".join(str(x) for x in (file, line) if x is not None)
        super().__init__(": ".join(x for x in (where, field, problem) if x))
