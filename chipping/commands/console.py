"""The console of chip.py's commands: results on stdout, remarks on stderr, everything in the file of --log as well."""

import datetime

from runtime.errors import UserError
from runtime.logs import Console, print_result
from runtime.words import for_terminal


class LoggedConsole(Console):
    """A Console that also has results, and appends what it says to a file, one line with the time each. log: path, or None for no file."""

    def __init__(self, quiet=False, log=None):
        super().__init__(quiet)
        try:
            self.file = open(log, "a", encoding="utf-8") if log else None
        except OSError as error:
            raise UserError(f"--log {log} cannot be written ({error.strerror}); choose another file") from error

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.file:
            self.file.close()

    def result(self, text):
        print_result(*str(text).split("\n"))
        self.log(text)

    def say(self, text):
        super().say(text)
        self.log(text)

    def note(self, text):
        self.say(f"note: {text}")

    def warn(self, text):
        super().warn(text)
        self.log(f"warning: {text}")

    def log(self, text):
        """For the file alone."""
        if self.file:
            self.file.write(f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}  {for_terminal(text)}\n")
            self.file.flush()
