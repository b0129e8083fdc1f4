"""The services that a log tells of: which one leads, until when it has worked, whether a worker was free."""

from __future__ import annotations

from workers.events import Event
from workers.process import is_alive
from workers.process_id import recorded_identity

__all__ = ["Services"]


class Services:
    """Follows the events of services, and the time in which a worker was free.

    `free_s` is a clock that runs only while a service led and had a free worker: what waits while it runs waits without
    a reason. It is credited when the leader is heard of again: until then it may have been dead, and the time is
    `uncredited_s`.
    """

    def __init__(self) -> None:
        self.leader: Event | None = None
        self.running = 0
        self.free_s = 0.0
        self.uncredited_s = 0.0
        self._seen_at = 0.0
        self.judged_to = 0

    def pass_time(self, event: Event, now: float, *, is_held: bool = False) -> None:
        """Let time pass up to an event, seconds since the epoch, before what it says is taken in.

        While all is held back, no worker counts as free.
        """
        leader = self.leader
        if leader is None:
            return
        if event["event"] == "clock_jumped" or is_held:
            self._seen_at = now  # that much the clock has moved, and no time has passed
        if self.running < int(leader.get("max_parallel") or 0) and now > self._seen_at:
            self.uncredited_s += now - self._seen_at
        self._seen_at = now
        if event.get("pid") == leader["pid"]:
            self.free_s += self.uncredited_s
            self.uncredited_s = 0.0

    def mark_s(self) -> float:
        """Return what `free_s` has come to if the leader is heard of now: where a wait counts from that begins now."""
        return self.free_s + self.uncredited_s

    def lead(self, event: Event, now: float) -> None:
        """Take in a `supervisor_started`, or the one that a checkpoint repeats."""
        recorded_identity(event)
        self.leader = event
        # The last tick of the one before may be cut off; this one goes on from there.
        self.uncredited_s, self._seen_at, self.judged_to = 0.0, now, 0

    def judge(self, fire: int) -> None:
        """Take in that the leader has judged a fire time: a tick judges all that is due, of every schedule."""
        self.judged_to = max(self.judged_to, fire)

    def set_clock(self, since: int) -> None:
        """Take in that the clock was set, and that judging goes on from `since`."""
        self.judged_to = min(self.judged_to, since)

    def stop(self) -> None:
        """Take in the end of the leader."""
        self.leader = None

    def leads(self, event: Event) -> bool:
        """Say whether the event is of the service that leads."""
        return self.leader is not None and event.get("pid") == self.leader["pid"]

    def demanded_to(self, now: float, lateness_s: float) -> int:
        """Return the fire time up to which every one must have its verdict.

        A leader that lives has looked until now, but for what is late in time. Where one was killed, its last tick may
        be cut off: the next service goes on from there, and until then nothing is demanded.
        """
        leader = self.leader
        if leader is None:
            return self.judged_to
        return int(now - lateness_s) if is_alive(recorded_identity(leader)) else 0
