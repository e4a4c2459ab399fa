"""The pressure state of a ring, which shows its producer when to slow down, and its thresholds."""

from __future__ import annotations

import dataclasses
import enum

__all__ = ["BackpressureConfig", "PressureState"]


class PressureState(enum.IntEnum):
    """The pressure state of a ring. The producer sets it; both ends can read it."""

    NORMAL = 0
    THROTTLED = 1
    SUSPENDED = 2

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackpressureConfig:
    """The four thresholds of the pressure states, in whole percent of utilization.

    A state is entered at or above its ``enter`` threshold and left below its ``exit`` threshold. The distance between
    the two prevents a change of state at every event while utilization stays near a threshold.

    Parameters
    ----------
    throttle_enter, throttle_exit : int, default 85 and 75
        ``NORMAL`` becomes ``THROTTLED`` at ``utilization >= throttle_enter``, and ``NORMAL`` again at
        ``utilization < throttle_exit``.
    suspend_enter, suspend_exit : int, default 95 and 85
        ``SUSPENDED`` is entered at ``utilization >= suspend_enter``, from ``NORMAL`` too, and left at
        ``utilization < suspend_exit``.

    Raises
    ------
    ValueError
        Unless ``0 < throttle_exit < throttle_enter <= suspend_exit < suspend_enter <= 100``.
    """

    throttle_enter: int = 85
    throttle_exit: int = 75
    suspend_enter: int = 95
    suspend_exit: int = 85

    def __post_init__(self) -> None:
        order = (self.throttle_exit, self.throttle_enter, self.suspend_exit, self.suspend_enter)
        for value in order:
            # bool is an int to isinstance, and True would pass for 1 percent.
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"threshold {value!r}: must be an int, in whole percent")
        if not 0 < order[0] < order[1] <= order[2] < order[3] <= 100:
            shown = dict(zip(("throttle_exit", "throttle_enter", "suspend_exit", "suspend_enter"), order, strict=True))
            raise ValueError(
                f"{shown}: must be 0 < throttle_exit < throttle_enter <= suspend_exit < suspend_enter <= 100"
            )
