from typing import final

__all__ = ["TransactionLog"]

@final
class TransactionLog:
    @property
    def core_id(self) -> int: ...
