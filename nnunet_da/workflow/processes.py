"""Ending a process with all that it has started."""


def end_tree(pid, *, signal_number=None, patience=20):
    """Asks process `pid` and its descendants to end (SIGTERM, or `signal_number`); after `patience` s, ends them."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.send_signal(signal_number) if signal_number else member.terminate()
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(family, timeout=patience)
    for member in alive:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=patience)
