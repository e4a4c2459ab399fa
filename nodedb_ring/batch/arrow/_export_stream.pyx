# cython: language_level=3, auto_pickle=False, autotestdict=False, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
# distutils: extra_compile_args = -O1
"""Streams of batches over the Arrow PyCapsule interface: an array for each batch, when the importer asks for it."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.errno cimport EINTR, EINVAL, EIO, ENOMEM
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset, strdup

from ...core.atomic cimport exchange_u32, store_release_u32
from .._row_block cimport RowBlock
from ._capsules cimport stream_capsule
from ._export cimport LONGEST, WINDOW_SHIFT, Hold, release_hold, rows_within, write_array
from ._schema cimport Selected, Selection, as_requested, write_schema
from .abi cimport ArrowArray, ArrowArrayStream, ArrowSchema

from ...errors import BusyError, ClosedError
from ._schema import EVERY_COLUMN

__all__ = ["StreamClaim", "export_stream"]

cdef extern from "nodedb_interpreter.h" nogil:
    bint is_ending "nodedb_is_ending"() noexcept

cdef struct Stream:
    # Its Python object has the batches.
    Hold hold
    Selected selected
    uint64_t longest
    uint32_t* claim  # of a StreamClaim; NULL without one
    char* error      # of the last call, or NULL


cdef int _fail(ArrowArrayStream* stream, int code, str message) noexcept:
    cdef Stream* state = <Stream*>stream.private_data
    try:
        free(state.error)
        state.error = NULL
        text = message.encode("utf-8", "replace")
        state.error = strdup(<const char*>text)
    except BaseException:
        # No memory for the message; the code has to do.
        pass
    return code


cdef int _stream_schema(ArrowArrayStream* stream, ArrowSchema* out) noexcept nogil:
    if not write_schema(&(<Stream*>stream.private_data).selected, out):
        return ENOMEM
    return 0


cdef const char* _last_error(ArrowArrayStream* stream) noexcept nogil:
    return (<Stream*>stream.private_data).error


cdef void _release_stream(ArrowArrayStream* stream) noexcept nogil:
    cdef Stream* state = <Stream*>stream.private_data
    stream.release = NULL
    # At once, without the GIL: the object that is dropped below keeps the claim, and may wait for a thread that has it.
    if state.claim != NULL and not is_ending():
        store_release_u32(state.claim, 0)
    free(state.error)
    release_hold(&state.hold)


cdef int _stream_next(ArrowArrayStream* stream, ArrowArray* out) noexcept nogil:
    if is_ending():
        return EIO
    return _next_array(stream, out)


cdef int _next_array(ArrowArrayStream* stream, ArrowArray* out) noexcept with gil:
    cdef Stream* state = <Stream*>stream.private_data
    memset(out, 0, sizeof(ArrowArray))
    try:
        (<_Batches>state.hold.object).write_next(state, out)
        return 0
    except MemoryError as error:
        return _fail(stream, ENOMEM, f"MemoryError: {error}")
    except KeyboardInterrupt as error:
        return _fail(stream, EINTR, f"KeyboardInterrupt: {error}")
    except ValueError as error:
        return _fail(stream, EINVAL, f"{type(error).__name__}: {error}")
    except BaseException as error:
        return _fail(stream, EIO, f"{type(error).__name__}: {error}")


cdef class _Batches:
    """What a stream is of, and what of it was taken and could not be handed over yet."""

    cdef object next_batch  # None: the stream is at its end
    cdef object batch
    cdef RowBlock rest
    cdef StreamClaim claim

    cdef int write_next(self, Stream* state, ArrowArray* out) except -1:
        """The next array; none, and `out` stays as it is, at the end."""
        # An importer calls one at a time. One that does not must find no batch replaced while it is read.
        with cython.critical_section(self):
            return self.write_from(state, out)

    cdef int write_from(self, Stream* state, ArrowArray* out) except -1:
        cdef RowBlock part
        if self.rest is None:
            if self.batch is None and self.next_batch is not None:
                self.batch = self.next_batch()
            if self.batch is None:
                self.next_batch = None
                return 0
            self.rest = <RowBlock?>self.batch._block
            self.batch = None
        if write_array(self.rest, &state.selected, WINDOW_SHIFT, False, state.longest, out):
            self.rest = None
            self.was_read()
            return 0
        # More text than one array takes: what fits, and the rest when the importer asks again.
        part = self.rest.slice(0, rows_within(self.rest, &state.selected, state.longest))
        write_array(part, &state.selected, WINDOW_SHIFT, False, state.longest, out)
        self.rest = self.rest.slice(part.count, self.rest.count)
        self.was_read()
        return 0

    cdef void was_read(self) noexcept:
        if self.claim is not None:
            self.claim.was_read = True


@cython.final
@cython.no_gc
cdef class StreamClaim:
    """Whose owner is read by one stream at a time, which holds this until its importer releases it.

    Its end does not do: of an importer that scans twice, one scan behind the other, the second would find nothing.
    """

    cdef uint32_t is_held
    cdef bint was_read  # an array was handed over, by whichever stream


def export_stream(
    next_batch not None, Selection selection not None=EVERY_COLUMN, requested_schema=None, *,
    StreamClaim claim=None, str owner="", is_over=None, uint64_t longest=LONGEST
):
    """A stream of the columns of what `next_batch()` returns, batch for batch until it is None: a capsule.

    The importer calls it on whatever thread it likes, one call at a time. An exception is the stream's error; the
    importer may ask again. While another stream holds the `claim`, it is a BusyError that names its `owner`. When
    `is_over()`, and another stream was handed something, it is a ClosedError: this one would have nothing.
    """
    cdef Selection given = as_requested(selection, requested_schema)
    cdef ArrowArrayStream* stream = <ArrowArrayStream*>calloc(1, sizeof(ArrowArrayStream))
    cdef Stream* state = <Stream*>calloc(1, sizeof(Stream))
    cdef _Batches batches
    if stream == NULL or state == NULL:
        free(stream)
        free(state)
        raise MemoryError("no memory for a stream")
    batches = _Batches.__new__(_Batches)
    batches.next_batch = next_batch
    batches.claim = claim
    Py_INCREF(batches)
    state.hold.object = <PyObject*>batches
    state.selected = given.selected
    state.longest = longest
    stream.get_schema = _stream_schema
    stream.get_next = _stream_next
    stream.get_last_error = _last_error
    stream.release = _release_stream
    stream.private_data = state
    try:
        if claim is not None:
            if exchange_u32(&claim.is_held, 1) != 0:
                raise BusyError(
                    f"{owner}: a stream of it is there already, and a second would take events away from it; read it "
                    "into a table first if it is needed twice, or release the other stream"
                )
            state.claim = &claim.is_held
            if claim.was_read and is_over():
                raise ClosedError(
                    f"{owner}: its events were handed to another stream, and the producer has gone: there are none for "
                    "a second; read it into a table first if it is needed twice"
                )
        return stream_capsule(stream)
    except:
        stream.release(stream)
        free(stream)
        raise

