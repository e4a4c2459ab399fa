# cython: language_level=3, auto_pickle=False, autotestdict=False
"""Has a signal arrive before a chosen bytecode: its handler runs where CPython would run it from there on."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    ctypedef int (*Py_tracefunc)(PyObject*, PyFrameObject*, int, PyObject*) except -1
    int PyTrace_CALL
    int PyTrace_OPCODE
    void PyEval_SetTrace(Py_tracefunc function, PyObject* argument)
    int PyErr_SetInterruptEx(int number)

cdef long _left
cdef int _number


cdef int _trace(PyObject* argument, PyFrameObject* frame, int what, PyObject* value) except -1:
    global _left
    if what == PyTrace_CALL:
        (<object><PyObject*>frame).f_trace_opcodes = True
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
    PyEval_SetTrace(_trace, NULL)
    try:
        call()
    finally:
        PyEval_SetTrace(NULL, NULL)
    PyErr_CheckSignals()
    return _left < 0
