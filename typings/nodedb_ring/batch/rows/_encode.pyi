from .encoded import EncodedRows

__all__ = ["encode_rows"]

def encode_rows(source: object, /) -> EncodedRows: ...
