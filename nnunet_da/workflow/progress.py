"""Progress on the terminal: which step of how many began or ended, and how far the running ones are."""

from tqdm import tqdm

from nnunet_da.workflow.state import DONE, FAILED, RUNNING

# As much of the end of a log as tells the epoch.
_TAIL = 20_000


class Progress:
    """Watches the records of `steps`, which are to be done, in `state`."""

    def __init__(self, state, steps):
        self._state = state
        self._steps = list(steps)
        self._seen = {}
        self._numbers = {}
        # What an earlier start has left is no news.
        self._before = {step.id: state.record(step) for step in self._steps}
        self.failed = {}

    def __enter__(self):
        self._bar = tqdm(
            total=len(self._steps),
            bar_format="{n_fmt}/{total_fmt} steps |{bar:20}| {elapsed} {postfix}",
            # A line a second is nothing for a log file.
            disable=None,
        )
        return self

    def __exit__(self, *_):
        self._bar.close()

    def update(self):
        """Says what is new since the last call."""
        running = []
        for step in self._steps:
            record = self._state.record(step)
            if record is None or record == self._before[step.id]:
                continue
            state = record["state"]
            if self._seen.get(step.id) != state:
                self._report(step, record)
                self._seen[step.id] = state
            if state == RUNNING:
                running.append(f"{step.id} {step.action.progress(self._tail(step))}".strip())
        self._bar.set_postfix_str("; ".join(running), refresh=True)

    def _report(self, step, record):
        # The number of a step is that of its begin.
        number = self._numbers.setdefault(step.id, len(self._numbers) + 1)
        title = f"[{number}/{len(self._steps)}] {step.stage}: {step.id}"
        if record["state"] == RUNNING:
            tqdm.write(title)
        elif record["state"] == DONE:
            self._bar.update()
            tqdm.write(f"{title} done in {duration(record['ended'] - record['started'])}")
        elif record["state"] == FAILED:
            self.failed[step.id] = record["error"]
            tqdm.write(f"{title} failed")

    def _tail(self, step):
        log = self._state.log(step)
        if not log.exists():
            return []
        with open(log, "rb") as stream:
            stream.seek(max(0, log.stat().st_size - _TAIL))
            return stream.read().decode("utf-8", errors="replace").splitlines()


def duration(seconds):
    """``75`` → ``1 min 15 s``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
