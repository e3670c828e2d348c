"""Files that a run leaves out because they cannot be read: noted with the reason, merged over processes, reported."""

from typing import NamedTuple

from runtime.errors import RunError, UserError


class Problem(NamedTuple):
    """
    What a dataset says of a file in place of its content.

    fatal: the data set does not fit the task, whatever --strict says. index: of the sample in its dataset.
    """

    name: str
    reason: str
    fatal: bool = False
    index: int | None = None

    def __str__(self):
        return self.reason if self.fatal else f"{self.name}: {self.reason}"


class Unreadable:
    """
    {file name: reason} of one run. Each process notes what it meets; report() and state_dict() merge, so all processes call them.

    what, folder, total: for messages such as "3 of 120 patches in FOLDER". strict: the first one is a RunError. most: share of `total`
    beyond which it is no accident any more, a RunError.
    """

    def __init__(self, what, folder, total, processes, *, strict=False, most=1.0):
        self.what, self.folder, self.total, self.processes = what, folder, total, processes
        self.strict, self.most = strict, most
        self.files, self.reported = {}, 0

    def __len__(self):
        return len(self.files)

    def __contains__(self, name):
        return name in self.files

    def note(self, problems):
        """Remember the problems of a batch, a list of Problem. UserError for a fatal one; RunError with --strict, or for too many."""
        for problem in problems:
            if problem.fatal:
                raise UserError(problem.reason)
            if self.strict:
                raise RunError(f"{problem.name} in {self.folder} cannot be read: {problem.reason} (--strict)")
            self.files.setdefault(problem.name, problem.reason)
        if problems:
            self.refuse_too_many()

    def refuse_too_many(self):
        if len(self.files) > self.most * self.total:
            raise RunError(f"{self.in_words()}; make the {self.what} again")

    def merge(self):
        """Make it the same in all processes: all of them call it."""
        for files in self.processes.gather(self.files):
            self.files |= files
        self.files = dict(sorted(self.files.items()))

    def report(self, console):
        """Merge, and warn of files that came since the last report."""
        self.merge()
        self.refuse_too_many()
        if len(self.files) > self.reported:
            console.warn(f"{self.in_words()} and are left out")
        self.reported = len(self.files)

    def in_words(self, most=3):
        """`2 of 8 patches in FOLDER cannot be read (a.npy: cut short; b.npy: …)`."""
        named = "; ".join(f"{name}: {reason}" if reason else name for name, reason in list(self.files.items())[:most])
        more = f" and {len(self.files) - most} more" if len(self.files) > most else ""
        return f"{len(self.files)} of {self.total} {self.what} in {self.folder} cannot be read ({named}{more})"

    def left_out(self):
        """`; 2 unreadable patches left out` for a program's last line, or nothing."""
        return f"; {len(self.files)} unreadable {self.what} left out" if self.files else ""

    def state_dict(self):
        self.merge()
        return dict(self.files)

    def load_state_dict(self, state):
        self.files = dict(state)
        self.reported = len(self.files)
