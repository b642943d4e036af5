"""Build backend: setuptools, plus the one-line ``.pth`` file that lets nnU-Net find the trainers (PEP 517, PEP 660).

setuptools has no way to place a file at the root of site-packages for normal and editable wheels alike, so the finished
wheel is rewritten with one more member, listed in its RECORD: ``pip uninstall`` removes it with everything else.
"""

import base64
import hashlib
import os
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  (a backend must offer every hook that setuptools does)

PTH_NAME = "nnunet_da_discovery.pth"
# Runs at every start of the interpreter, so it must be quick and can never be allowed to fail: an interpreter whose
# package was removed by hand still has to start. `nnunet-da doctor` says what is wrong when discovery does not work.
PTH_LINE = (
    'exec("try:\\n from nnunet_da.discovery import activate\\nexcept ImportError:\\n pass\\nelse:\\n activate()")'
)
PTH_CONTENT = f"import sys; {PTH_LINE}\n".encode()


def _add_pth(wheel_path):
    """Rewrites the wheel at `wheel_path` (pathlib.Path) with the .pth file added and recorded."""
    rewritten = wheel_path.with_suffix(".whl.partial")
    with zipfile.ZipFile(wheel_path) as source, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            content = source.read(info)
            if info.filename.endswith(".dist-info/RECORD"):
                digest = base64.urlsafe_b64encode(hashlib.sha256(PTH_CONTENT).digest()).rstrip(b"=").decode()
                content += f"{PTH_NAME},sha256={digest},{len(PTH_CONTENT)}\n".encode()
            target.writestr(info, content)
        pth_info = zipfile.ZipInfo(PTH_NAME)
        pth_info.external_attr = 0o644 << 16
        target.writestr(pth_info, PTH_CONTENT)
    os.replace(rewritten, wheel_path)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    _add_pth(Path(wheel_directory) / name)
    return name


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    _add_pth(Path(wheel_directory) / name)
    return name
