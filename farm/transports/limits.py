"""How long a transport waits: the limits that the remote ones share, and their errors."""

from __future__ import annotations

import time
from dataclasses import dataclass

from farm.clock import Deadline
from farm.core.errors import TransportTimeout

#: Limit of one question to a device that should answer at once, seconds.
ANSWER_S = 7.0
#: What ending a remote program may take while the user closes the transport, seconds.
KILL_CLOSING_S = 0.5


@dataclass
class Wait:
    """How long one call may take, in total and without a byte."""

    device: str
    #: What is waited for, for messages.
    what: str
    deadline: Deadline | None = None
    #: Longest time without a byte; None where silence is normal.
    stall_s: float | None = None

    def check(self, moved_at: float) -> None:
        """Raise when it took too long.

        Args:
            moved_at: When the last byte went through, on the monotonic clock.

        Raises:
            TransportTimeout: The deadline passed, or nothing moved for `stall_s`.
        """
        if self.deadline is not None and self.deadline.passed:
            limit_s = round(self.deadline.seconds, 1)
            raise TransportTimeout(
                f"{self.what} on {self.device} didn't end within {limit_s:g} s",
                device=self.device,
            )
        if self.stall_s is not None and time.monotonic() - moved_at >= self.stall_s:
            raise TransportTimeout(
                f"{self.what} on {self.device} stalled for {self.stall_s:g} s", device=self.device
            )

    def left_s(self, longest_s: float) -> float:
        """Time until the deadline, at most so much."""
        return longest_s if self.deadline is None else min(longest_s, self.deadline.remaining_s)
