"""What of a run is done, and with which settings; kept in its folder, outside of nnU-Net's.

``done/KIND/NAME.json``
    The output that Snakemake sees. It deletes the output of a step that it does again, so it is never a result.
``steps/KIND/NAME.json``
    The record: settings, fingerprint, state, times. Written before a step touches anything, so that what a killed one
    left behind is known to be its own, and of which settings.
``logs/KIND/NAME.log``
    What its commands printed.
"""

import contextlib
import os
import time
from pathlib import Path

from nnunet_da.errors import UserError
from nnunet_da.files import read_json, write_json
from nnunet_da.workflow.config import flatten

RUNNING, FAILED, DONE, DISCARDING = "running", "failed", "done", "discarding"
# Seconds that processes which were killed together may take to end.
PATIENCE = 10


class State:
    """The folder `work` of a run."""

    def __init__(self, work):
        self.work = Path(work)

    def sentinel(self, step):
        return self.work / "done" / step.kind / f"{step.name}.json"

    def log(self, step):
        return self.work / "logs" / step.kind / f"{step.name}.log"

    def _record_path(self, step):
        return self.work / "steps" / step.kind / f"{step.name}.json"

    def record(self, step):
        """The record of a step (dict); None where it was never begun."""
        path = self._record_path(step)
        return read_json(path) if path.exists() else None

    def is_done(self, step):
        return self.sentinel(step).exists()

    def write(self, step, fingerprint, state, **more):
        content = {"step": step.id, "stage": step.stage, "state": state, "fingerprint": fingerprint}
        write_json({**content, "settings": step.settings, **more}, self._record_path(step))

    def begin(self, step, fingerprint):
        """Notes that a step works. Raises UserError where what an earlier start left is of other settings."""
        record = self.record(step)
        if record and record["fingerprint"] != fingerprint:
            raise UserError(f"{self._record_path(step)}: begun with other settings; start the whole workflow again")
        started = (record or {}).get("started", time.time())
        self.write(step, fingerprint, RUNNING, started=started, resumed=time.time(), pid=os.getpid())
        return started

    def finish(self, step, fingerprint, started):
        self.write(step, fingerprint, DONE, started=started, ended=time.time())
        # The very last thing: with it the step is done.
        write_json({"step": step.id, "fingerprint": fingerprint}, self.sentinel(step))

    def fail(self, step, fingerprint, started, error):
        self.write(step, fingerprint, FAILED, started=started, ended=time.time(), error=error)

    def discard(self, plan, steps):
        """Undoes `steps`, the last first, so that they are done anew. Interrupted, it is finished by `clear`."""
        begun = [step for step in steps if self.record(step)]
        for step in begun:
            self.write(step, plan.fingerprint(step), DISCARDING)
        self.clear(begun)

    def clear(self, steps):
        """Removes what is left of those `steps` whose discarding has begun."""
        for step in reversed(list(steps)):
            if (self.record(step) or {}).get("state") == DISCARDING:
                self.sentinel(step).unlink(missing_ok=True)
                step.action.discard()
                self._record_path(step).unlink()

    def require_unchanged(self, plan, steps, source):
        """Raises UserError, naming the setting, where one of `steps` was begun with other settings than `plan` has."""
        for step in steps:
            record = self.record(step)
            if not record or record["fingerprint"] == plan.fingerprint(step):
                continue
            before, now = flatten(record["settings"]), flatten(step.settings)
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            what = "; ".join(f"{key} is {now.get(key)!r}, was {before.get(key)!r}" for key in changed[:3])
            raise UserError(
                f"{source}: {what or 'what it rests on has changed'}: stage {step.stage} was begun in {self.work} "
                f"before that; --redo {step.stage} does it and all that rests on it again, another 'work' starts anew"
            )

    @contextlib.contextmanager
    def lock(self, name, doing, patience=PATIENCE):
        """Holds the lock `name`; yields its file descriptor, for children that are to hold it as well.

        The kernel gives it back when the last process that holds it has ended, killed or not: there are no stale ones.
        Raises UserError where another process still holds it after `patience` seconds.
        """
        import fcntl

        path = self.work / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", encoding="utf-8") as stream:
            try:
                _wait_for(lambda: fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB), patience)
            except BlockingIOError:
                stream.seek(0)
                raise UserError(
                    f"{path}: process {stream.read().strip() or '?'} or a child of it still works on {doing}; wait "
                    f"for it, or end it"
                ) from None
            except OSError as error:
                print(f"warning: {path}: no locks on this file system ({error.strerror}); start no second run of it")
            stream.truncate(0)
            stream.write(str(os.getpid()))
            stream.flush()
            yield stream.fileno()


def _wait_for(lock, patience):
    """Calls `lock` until it does not raise BlockingIOError, for `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return lock()
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
