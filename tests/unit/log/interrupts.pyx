# cython: language_level=3, auto_pickle=False, autotestdict=False
# cython: freethreading_compatible=True
"""Has a signal arrive before a chosen bytecode: its handler runs where CPython would run it from there on."""

import gc
import sys

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    ctypedef int (*Py_tracefunc)(PyObject*, PyFrameObject*, int, PyObject*) except -1
    int PyTrace_CALL
    int PyTrace_OPCODE
    void PyEval_SetTrace(Py_tracefunc function, PyObject* argument)
    int PyErr_SetInterruptEx(int number)

def _trace_nothing(*_): ...


cdef long _left
cdef int _number


cdef int _trace(PyObject* argument, PyFrameObject* frame, int what, PyObject* value) except -1:
    global _left
    if what == PyTrace_CALL:
        entered = <object><PyObject*>frame
        # Python 3.13 reads the second only where there is a first, which nobody calls.
        entered.f_trace = _trace_nothing
        entered.f_trace_opcodes = True
    elif what == PyTrace_OPCODE:
        _left -= 1
        if _left < 0:
            PyEval_SetTrace(NULL, NULL)
            PyErr_SetInterruptEx(_number)
    return 0


def call_interrupted(call, long at, int number) -> bool:
    """Calls, and has the signal arrive before bytecode `at`, counted from 0. Whether the call had so many.

    What the handler raises comes out of here. Only in the main thread, where handlers run.
    """
    global _left, _number
    _left, _number = at, number
    # Python 3.12 has a trace function see bytecodes only if a frame asked for that before.
    caller = sys._getframe()
    caller.f_trace_opcodes = True
    caller.f_trace_opcodes = False
    # No collection meanwhile: what a handler raises in a callback of a weak reference is lost.
    collects = gc.isenabled()
    gc.disable()
    PyEval_SetTrace(_trace, NULL)
    try:
        call()
    finally:
        PyEval_SetTrace(NULL, NULL)
        if collects:
            gc.enable()
    PyErr_CheckSignals()
    return _left < 0
