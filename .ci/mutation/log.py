"""Logs and followers: history, claims, joined batches, `linger`."""

from __future__ import annotations

from .mutant import Mutant

MUTANTS = [
    Mutant("history: a token's batch is not compared", "history", "log/sqlite/history.py",
           (("if found != [(token.first, token.batch_id)]:", "if not found:"),), ()),
    Mutant("history: all batches have one id", "history", "log/token.py",
           (('return int.from_bytes(os.urandom(8), "little") >> 1 or 1', "return 1"),), ()),
    Mutant("history: the last batch that was trimmed is not compared", "history", "log/sqlite/history.py",
           (("token.first < trimmed[0][0]", "token.first <= trimmed[0][0]"),), ()),
    Mutant("history: a watermark is a number alone", "history", "recovery/start.py",
           (("        return log.sequence_of(core_id, token)\n", "        return log.load_watermark(group, core_id)\n"),), ()),
    Mutant("history: another log has the same id", "history", "log/token.py",
           (("if token.log_id != log_id:", "if len(token.log_id) != len(log_id):"),), ()),
    Mutant("claims: a watermark moves back", "claims", "log/sqlite/schema.py",
           (("AND sequence > ?2) THEN", "AND sequence > ?2 + 1000000) THEN"),), ()),
    Mutant("claims: a lock is asked for and not taken", "claims", "log/sqlite/claims.py",
           (("fcntl.F_OFD_SETLK, _lock(place))", "fcntl.F_OFD_GETLK, _lock(place))"),), ()),
    Mutant("claims: a forked child keeps its parent's", "claims", "log/sqlite/claims.py",
           (("os.register_at_fork(after_in_child=_leave_to_parent)\n", ""),), ()),
    Mutant("claims: a follower that could not begin keeps its own", "claims", "recovery/follower.py",
           (("        except BaseException:\n            self._release()\n", "        except ZeroDivisionError:\n            self._release()\n"),
            ("            weakref.finalize(self, self._claim.release).atexit = False\n", "            KEPT.append(self._claim)\n"),
            ("_DRAIN: Final = Need.DRAIN\n", "KEPT: list[GroupClaim] = []\n_DRAIN: Final = Need.DRAIN\n")), ()),
    Mutant("claims: a follower that begins earlier commits below the watermark", "claims", "recovery/follower.py",
           (("owed if mark is None else max(owed, mark + 1)", "owed"),), ()),
    Mutant("joining: a stored batch's checksum is not compared", "joining", "log/_joining.pyx",
           (("    if stored.checksum != batch_checksum(", "    if 0 != 0 * batch_checksum("),)),
    Mutant("joining: a payload is not found where it was put", "joining", "batch/_row_checks.pyx",
           (("        if offset != 0:\n            shift_fields(", "        if False:\n            shift_fields("),)),
    Mutant("joining: what was not copied for damage is returned", "joining", "log/_joining.pyx",
           (("return block if intact == found else block.slice(0, at), intact", "return block, intact"),)),
    Mutant("linger: what an exception left gathered is not returned next", "linger", "recovery/state.py",
           (("        if self._pieces:\n            # An exception ended", "        if False:\n            # An exception ended"),), ()),
    Mutant("linger: a stream that never pauses is gathered for ever", "linger", "recovery/state.py",
           (("if self.room == 0 or now >= self._fill_until:", "if self.room == 0:"),), ()),
    Mutant("linger: a batch may be larger than was asked for", "linger", "recovery/pieces.py",
           (("min(stop, begin + room)", "stop"),), ()),
    Mutant("linger: a follower does not outlive its producer", "linger", "recovery/state.py",
           (("elif self.outlives_producer:", "elif not self:"),), ()),
]  # fmt: skip
