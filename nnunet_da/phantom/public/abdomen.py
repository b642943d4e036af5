"""CHAOS: abdominal MR as DICOM series, with a picture of labels per slice."""

from dataclasses import replace

import numpy as np
import SimpleITK as sitk  # noqa: N813

from nnunet_da.phantom.abdomen import Abdomen
from nnunet_da.phantom.public.itk import write_dicom_series
from nnunet_da.phantom.public.release import Part, Release
from nnunet_da.phantom.scanner import SCANNERS

GREYS = {"liver": 63, "right kidney": 126, "left kidney": 189, "spleen": 252}
# Axial slices as DICOM lays out pixels, columns to the left and rows to the back, stored from head to foot.
_STORED = {"axcodes": "LPI", "spacing": (1.5625, 1.5625, 6.0), "field_of_view": (400.0, 312.5, 216.0)}
T1DUAL = replace(SCANNERS["chaos_t1dual"], name="t1dual", **_STORED)
T2SPIR = replace(SCANNERS["chaos_t2spir"], name="t2spir", **_STORED)


def _write_chaos(case):
    """Train_Sets/MR/ID/T1DUAL and T2SPIR, each with DICOM_anon/ and Ground/.

    Files of T1DUAL out of phase have odd numbers, those in phase even ones, and the pictures those of the latter.
    """
    patient = case.folder / f"Train_Sets/MR/{case.number}"
    abdomen = case.subject(Abdomen)

    scan = case.scan(abdomen, T1DUAL)
    n_slices = scan.images.shape[-1]
    odd, even = range(1, 2 * n_slices, 2), range(2, 2 * n_slices + 1, 2)
    for image, phase, numbers in zip(scan.images, ("OutPhase", "InPhase"), (odd, even), strict=True):
        _write_series(case, image, scan.affine, patient / "T1DUAL/DICOM_anon" / phase, 4, numbers)
    _write_pictures(scan.anatomy.label_map(GREYS), patient / "T1DUAL/Ground", 4, even)

    scan = case.scan(abdomen, T2SPIR)
    numbers = range(1, scan.images.shape[-1] + 1)
    _write_series(case, scan.images[0], scan.affine, patient / "T2SPIR/DICOM_anon", 2, numbers)
    _write_pictures(scan.anatomy.label_map(GREYS), patient / "T2SPIR/Ground", 2, numbers)


def _paths(folder, series, numbers, ending):
    return [folder / f"IMG-{series:04d}-{number:05d}.{ending}" for number in numbers]


def _write_series(case, image, affine, folder, series, numbers):
    place = folder.relative_to(case.folder)
    write_dicom_series(
        image,
        affine,
        _paths(folder, series, numbers, "dcm"),
        numbers,
        patient=f"phantom_{case.number}",
        series=series,
        description="_".join(part for part in place.parts[3:] if part != "DICOM_anon"),
        # Other voxels are another study: identifiers are not used twice.
        study=f"nnunet-da phantom chaos {case.seed} {case.number} {image.shape}",
    )


def _write_pictures(label, folder, series, numbers):
    """One 8-bit picture per slice of a label map (X, Y, Z), its pixels as those of the DICOM files."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, path in enumerate(_paths(folder, series, numbers, "png")):
        sitk.WriteImage(sitk.GetImageFromArray(np.ascontiguousarray(label[:, :, k].T)), str(path))


CHAOS = Release(
    "chaos",
    anatomy="abdomen, T1 in and out of phase (T1DUAL) and fat-suppressed T2 (T2SPIR), 1.5 T, as DICOM",
    n="patients, with both sequences each",
    labels=", ".join(f"{grey} {name}" for name, grey in GREYS.items()),
    parts=(Part("Train_Sets", (T1DUAL, T2SPIR)),),
    write=_write_chaos,
    scale=0.7,
)

RELEASES = (CHAOS,)
