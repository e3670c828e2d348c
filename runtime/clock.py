"""When the next checkpoint is due, by the clock and not by the step."""

import time


class Clock:
    """due(): is it time for last.pt? epoch_seconds(): how long did the epoch take?"""

    def __init__(self, save_minutes):
        self.save_seconds = 60.0 * save_minutes
        self.saved = self.epoch = time.monotonic()

    def due(self):
        """True once each `save_minutes`."""
        if time.monotonic() - self.saved < self.save_seconds:
            return False
        self.saved = time.monotonic()
        return True

    def epoch_seconds(self):
        """Since the last call."""
        now = time.monotonic()
        seconds, self.epoch = now - self.epoch, now
        return round(seconds, 3)
