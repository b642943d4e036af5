"""Scans in the formats of ITK: MetaImage and DICOM."""

import uuid

import numpy as np
import SimpleITK as sitk  # noqa: N813

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def to_itk(array, affine):
    """A SimpleITK image of an array (X, Y, Z) whose affine goes from voxels to RAS mm."""
    affine = np.diag([-1, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def write_itk(array, affine, path, *, compress=False):
    """Writes an array (X, Y, Z) as .mha, or as .mhd with its .raw."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(to_itk(array, affine), str(path), useCompression=compress)


def write_dicom_series(array, affine, paths, numbers, *, patient, series, description, study):
    """Writes the slices array[:, :, k] (int16) as uncompressed DICOM files, one path and instance number each.

    patient: name and id; series: its number; study: what tells this study from any other; the unique identifiers
    follow from it.
    """
    image = to_itk(array, affine)
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    tags = {
        "0008|0008": "ORIGINAL\\PRIMARY",
        "0008|0016": MR_IMAGE_STORAGE,
        # Fixed, lest the hour of writing gets in.
        **dict.fromkeys(("0008|0012", "0008|0020"), "20000101"),
        **dict.fromkeys(("0008|0013", "0008|0030"), "000000"),
        "0008|0060": "MR",
        "0008|103e": description,
        "0010|0010": patient,
        "0010|0020": patient,
        "0018|0050": f"{image.GetSpacing()[2]:g}",
        "0020|000d": _uid(study),
        "0020|000e": _uid(study, description),
        "0020|0011": str(series),
        "0020|0052": _uid(study, "frame of reference"),
        # GDCM adds these in a process that has read a DICOM file, so they are always given.
        "0028|1052": "0",
        "0028|1053": "1",
        "0028|1054": "US",
    }
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k, (path, number) in enumerate(zip(paths, numbers, strict=True)):
        # One slice thick rather than two-dimensional, so that position, orientation and spacing are written along.
        section = image[:, :, k : k + 1]
        for tag, value in {**tags, "0008|0018": _uid(study, description, k), "0020|0013": str(number)}.items():
            section.SetMetaData(tag, value)
        writer.SetFileName(str(path))
        writer.Execute(section)


def _uid(*words):
    """A DICOM identifier that depends on `words` alone: UUID derived, as PS3.5, B.2 has it."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, '/'.join(map(str, words))).int}"
