"""Whether exactly one installation is there, whose package is the one that is imported, and no leftovers of others."""

import importlib.metadata
import json
import site
import sysconfig
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import nnunet_da
from nnunet_da.doctor.environment import DISTRIBUTION
from nnunet_da.doctor.findings import ok, problem, warning

# Written by the build backend.
PTH_NAME = "nnunet_da_discovery.pth"
PACKAGE_FOLDER = Path(nnunet_da.__file__).resolve().parent


def examine():
    installed = installations()
    yield from check_installations(installed)
    yield from check_leftovers(installed, site_folders())


def installations():
    """The installed distributions of this package on Python's path, each once."""
    found = {}
    for distribution in importlib.metadata.distributions(name=DISTRIBUTION):
        # The egg-info that a build leaves in a source folder has no RECORD: nothing is installed there.
        if distribution.read_text("RECORD") is not None:
            found.setdefault(record_folder(distribution), distribution)
    return list(found.values())


def record_folder(distribution):
    """The folder that `distribution` is installed in (site-packages)."""
    return Path(distribution.locate_file("")).resolve()


def site_folders():
    """The folders in which this interpreter reads .pth files, as far as they exist."""
    folders = [*site.getsitepackages(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return list(dict.fromkeys(path for path in map(Path, folders) if path.is_dir()))


def check_installations(installed):
    """Whether there is one installation, and its package is the one that Python imports."""
    if not installed:
        # That nothing is installed is said where the versions are examined.
        return
    if len(installed) > 1:
        places = ", ".join(f"{dist.version} in {record_folder(dist)}" for dist in installed)
        yield problem(
            f"{DISTRIBUTION} is installed more than once: {places}",
            f"repeat `pip uninstall {DISTRIBUTION}` until nothing is left, then install it once",
        )
        return
    (distribution,) = installed
    source = editable_source(distribution)
    expected = (source or record_folder(distribution)) / "nnunet_da"
    if expected.resolve() != PACKAGE_FOLDER:
        yield warning(
            f"Python imports nnunet_da from {PACKAGE_FOLDER}, but {expected} is installed",
            "remove the former from PYTHONPATH, start Python in another folder, or install again",
        )
        return
    where = f"editable, from {source}" if source else f"in {record_folder(distribution)}"
    yield ok(f"{DISTRIBUTION} {distribution.version}, {where}")


def editable_source(distribution):
    """The source folder of an editable installation, None for a normal one (PEP 610)."""
    direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not direct_url.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlparse(direct_url["url"]).path))


def check_leftovers(installed, folders):
    """Whether a .pth file of this package lies in `folders` that no installation owns: pip will never remove it."""
    owned = {
        Path(distribution.locate_file(file)).resolve()
        for distribution in installed
        for file in distribution.files or []
    }
    for folder in folders:
        for path in sorted(folder.glob("*nnunet_da*.pth")):
            if path.resolve() not in owned:
                yield problem(f"{path} is left over from another installation", f"delete it: rm '{path}'")
