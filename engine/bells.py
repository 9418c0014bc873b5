"""Who is woken when there is something new: each by a bell in shared memory, and what it sleeps on."""

import os

from shm import region, stats, wait


class Bells:
    def __init__(self) -> None:
        self._of: dict[str, tuple[region.Region, int]] = {}

    def meet(self, name: str, fds: list[int]) -> None:
        """Someone has started, perhaps in place of another of that name: its page, and its descriptor.

        Raises region.Refused, and has not taken the descriptors then.
        """
        page = stats.attach(fds[0])
        if name in self._of:
            old, eventfd = self._of[name]
            old.close()
            os.close(eventfd)
        self._of[name] = (page, fds[1])

    def ring(self) -> int:
        """Wake those who sleep; how many they were."""
        known = self._of.values()
        return wait.ring_bells([page.arrays["bell"] for page, _ in known], [fd for _, fd in known])
