"""Adds up what a transfer says of its progress."""

from cogsmith.sources.silent import Silent


class Watcher(Silent):
    total = done = 0

    def task(self, label, total=None, *, unit="bytes"):
        self.total = total
        return super().task(label, total, unit=unit)

    def advance(self, amount):
        self.done += amount
