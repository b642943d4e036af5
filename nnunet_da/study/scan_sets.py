"""Sets of scans to evaluate on: a folder with ``images``, ``labels`` and ``cases.csv`` (columns case, domain)."""

import csv
import threading

from nnunet_da.files import atomic_folder

COLUMNS = ("case", "domain")
# Runs of one study may ask for the same part at once.
_MAKING = threading.Lock()


def read_rows(scans):
    """The rows of a set's table (list of dict)."""
    with open(scans / "cases.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def domains_of(scans):
    """The domains of a set of scans, in the order of its table."""
    return list(dict.fromkeys(row["domain"] for row in read_rows(scans)))


def scans_of_domain(scans, domain):
    """A set of scans of one domain alone."""
    return _part(scans, domain, lambda row: row["domain"] == domain)


def scans_of_fold(scans, fold, cases):
    """Those of a set of scans that `fold` (int) tests: `cases`, ids."""
    return _part(scans, f"f{fold}", lambda row: row["case"] in cases)


def _part(scans, name, keep):
    """The set of the scans whose rows `keep`, as links in the folder ``SET_name`` beside the set; made once."""
    target = scans.with_name(f"{scans.name}_{name}")
    with _MAKING:
        if target.exists():
            return target
        rows = [row for row in read_rows(scans) if keep(row)]
        with atomic_folder(target) as temporary:
            for kind, ending in (("images", "_[0-9][0-9][0-9][0-9].*"), ("labels", ".*")):
                (temporary / kind).mkdir()
                for path in (path for row in rows for path in (scans / kind).glob(row["case"] + ending)):
                    (temporary / kind / path.name).symlink_to(path.resolve())
            with open(temporary / "cases.csv", "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n", extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
    return target
