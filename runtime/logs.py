"""Lines and progress bars for the person at the terminal: the one place where text is printed, made harmless first."""

import sys

from runtime.words import for_terminal


def print_result(*lines):
    """Results, to stdout: each of `lines` on one line, whatever names of files and classes are in it."""
    for line in lines:
        print(for_terminal(line).replace("\n", "\\n"), flush=True)


class Console:
    """say() writes a line to stderr, progress() shows a bar on a terminal; silent when quiet. Results go to stdout with print_result()."""

    def __init__(self, quiet=False):
        self.quiet = quiet

    def say(self, text):
        if not self.quiet:
            print(for_terminal(text), file=sys.stderr, flush=True)

    def warn(self, text):
        """For what the user should know even when quiet."""
        print(for_terminal(f"warning: {text}"), file=sys.stderr, flush=True)

    def progress(self, total, description, initial=0):
        from tqdm import tqdm

        description, hidden = for_terminal(description, 60), self.quiet or not sys.stderr.isatty()
        return tqdm(total=total, desc=description, initial=initial, disable=hidden, leave=False, dynamic_ncols=True, file=sys.stderr)


class SilentConsole(Console):
    """For all ranks but the first."""

    def __init__(self):
        super().__init__(quiet=True)

    def warn(self, text):
        pass
