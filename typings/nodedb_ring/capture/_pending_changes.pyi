from typing import final

__all__ = ["PendingChanges"]

@final
class PendingChanges: ...
