"""Public datasets in their own layouts, with simulated anatomy: one table, RELEASES, and a file per family.

A release bears the name of its converter, and what is written is what the converter reads: folders and names of files,
formats, label values, grids and side files. Every image is simulated: nothing of the datasets themselves is in them.
"""

from nnunet_da.errors import UserError, nearest
from nnunet_da.phantom.public import abdomen, head, joints, knee, prostate, spine
from nnunet_da.phantom.public.release import describe, write_release

__all__ = ["RELEASES", "describe", "find_release", "write_release"]

RELEASES = {
    release.name: release for family in (spine, knee, head, prostate, abdomen, joints) for release in family.RELEASES
}


def find_release(name):
    """The Release of that name. Raises UserError, with the nearest name, where there is none."""
    if name not in RELEASES:
        raise UserError(f"{name}: no such dataset, there are {', '.join(RELEASES)}{nearest(name, RELEASES)}")
    return RELEASES[name]
