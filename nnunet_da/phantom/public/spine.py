"""The releases of spines: IVDM3Seg, MRSpineSeg, Zenodo 22304, Al Khalil et al. and SPIDER."""

from dataclasses import replace

import numpy as np

from nnunet_da.phantom.public.itk import write_itk
from nnunet_da.phantom.public.release import Aside, Part, Release
from nnunet_da.phantom.scanner import SCANNERS, Scanner
from nnunet_da.phantom.sequences import Dixon, SpinEcho
from nnunet_da.phantom.spine import DISCS, VERTEBRAE, Spine
from nnunet_da.phantom.study import write_csv, write_nifti

LOWER_DISCS = DISCS[:7]  # up to T11-T12

# ---- IVDM3Seg -------------------------------------------------------------------------------------------------------

IVDM3SEG_SCANNER = Scanner(
    "ivdm3seg",
    1.5,
    Dixon(tr=10, flip=10),
    spacing=(2.0, 1.25, 1.25),
    field_of_view=(72, 320, 320),
    axcodes="RPI",
    blur=1.2,
    snr=20,
    gain=600,
)
# The last set of the release has its label map on a grid of its own, so many mm from the images'.
DISPLACED_SET, DISPLACEMENT = 16, 8.0


def _write_ivdm3seg(case):
    """NN/NN_fat.nii, …, NN/NN_Labels.nii for both time points of a subject: sets 2i - 1 and 2i."""
    spine = case.subject(Spine)
    for number in (2 * case.number - 1, 2 * case.number):
        scan = case.scan(spine, IVDM3SEG_SCANNER, f"set {number}")
        stem = case.folder / f"{number:02d}" / f"{number:02d}"
        for channel, image in zip(IVDM3SEG_SCANNER.channels, scan.images, strict=True):
            write_nifti(image, scan.affine, stem.with_name(f"{stem.name}_{channel}.nii"))
        anatomy = scan.anatomy
        if number == DISPLACED_SET:
            anatomy = spine.rasterise(scan.images.shape[1:], _displaced(scan.affine, case.rng("displacement")))
        label = anatomy.label_map(dict.fromkeys(LOWER_DISCS, 1))
        write_nifti(label, anatomy.affine, stem.with_name(f"{stem.name}_Labels.nii"))


def _displaced(affine, rng):
    direction = rng.normal(size=3)
    affine = affine.copy()
    affine[:3, 3] += DISPLACEMENT * direction / np.linalg.norm(direction)
    return affine


IVDM3SEG = Release(
    "ivdm3seg",
    anatomy="lumbar discs, water-fat MR",
    n="subjects, two sets (time points) each: 01 and 02, 03 and 04, …; set 16 has displaced labels, as in the release",
    labels="1 disc",
    parts=(Part("subjects", (IVDM3SEG_SCANNER, IVDM3SEG_SCANNER)),),
    write=_write_ivdm3seg,
)

# ---- MRSpineSeg -----------------------------------------------------------------------------------------------------

MRSPINESEG_SCANNER = replace(
    SCANNERS["philips_3t"], name="mrspineseg", spacing=(4.4, 0.34, 0.34), field_of_view=(66, 299.2, 299.2)
)
MRSPINESEG_VALUES = {name: value for value, name in enumerate(("sacrum", *VERTEBRAE[:9], *DISCS[:9]), start=1)}


def _write_mrspineseg(case):
    """train/MR/CaseN.nii.gz and train/Mask/mask_caseN.nii.gz."""
    scan = case.scan(case.subject(Spine), MRSPINESEG_SCANNER)
    write_nifti(scan.images[0], scan.affine, case.folder / f"train/MR/Case{case.number}.nii.gz")
    label = scan.anatomy.label_map(MRSPINESEG_VALUES)
    write_nifti(label, scan.affine, case.folder / f"train/Mask/mask_case{case.number}.nii.gz")


MRSPINESEG = Release(
    "mrspineseg",
    anatomy="lumbar discs and vertebrae, T2",
    n="subjects, one scan each",
    labels="1 sacrum, 2-6 L5 to L1, 7-10 T12 to T9, 11-19 discs L5-S1 to T9-T10",
    parts=(Part("train", (MRSPINESEG_SCANNER,)),),
    write=_write_mrspineseg,
    scale=0.4,
)

# ---- Zenodo 22304 ---------------------------------------------------------------------------------------------------

ZENODO22304_SCANNER = replace(
    SCANNERS["siemens_1p5t"],
    name="zenodo22304",
    spacing=(2.0, 1.25, 1.25),
    field_of_view=(78, 381.25, 381.25),
    axcodes="LIP",
    # Deep enough for the wider view.
    coil_depth=110,
)


def _write_zenodo22304(case):
    """Img_NN.nii and Img_NN_Labels.nii, the vertebral bodies; aside: Img_NN_Discs.nii."""
    scan = case.scan(case.subject(Spine), ZENODO22304_SCANNER)
    name = f"Img_{case.number:02d}"
    write_nifti(scan.images[0], scan.affine, case.folder / f"{name}.nii")
    bodies = scan.anatomy.label_map(dict.fromkeys(VERTEBRAE[:7], 1))
    write_nifti(bodies, scan.affine, case.folder / f"{name}_Labels.nii")
    if case.aside:
        discs = scan.anatomy.label_map(dict.fromkeys(LOWER_DISCS, 1))
        write_nifti(discs, scan.affine, case.aside / f"{name}_Discs.nii")


ZENODO22304 = Release(
    "zenodo22304",
    anatomy="vertebral bodies L5 to T11, T2",
    n="patients, one scan each",
    labels="1 vertebral body",
    parts=(Part("patients", (ZENODO22304_SCANNER,)),),
    write=_write_zenodo22304,
    aside=Aside("--disc-masks", "masks of the discs; the release has vertebral bodies only"),
)

# ---- Al Khalil et al. -----------------------------------------------------------------------------------------------

# Several vendors; a volume's number says whose.
ALKHALIL_SCANNERS = tuple(
    replace(scanner, name=f"alkhalil_{name}", spacing=(4.0, 0.6, 0.6), field_of_view=(60, 300, 300))
    for name, scanner in SCANNERS.items()
    if name in ("philips_3t", "siemens_1p5t")
)
ALKHALIL_STRUCTURES = (*VERTEBRAE[:5], *DISCS[1:5])


def alkhalil_patient(volume):
    """Whose volume it is: every fourth is a second one of the patient before (51 volumes of 39 in the release)."""
    return volume - 1 if volume % 4 == 0 else volume


def _write_alkhalil_lumbar(case):
    """Volume_NN/T2.nii.gz and a mask per structure."""
    patient = alkhalil_patient(case.number)
    scanner = ALKHALIL_SCANNERS[case.number % len(ALKHALIL_SCANNERS)]
    scan = case.scan(replace(case, number=patient).subject(Spine), scanner)
    folder = case.folder / f"Volume_{case.number:02d}"
    write_nifti(scan.images[0], scan.affine, folder / "T2.nii.gz")
    for name in ALKHALIL_STRUCTURES:
        write_nifti(scan.anatomy.label_map({name: 1}), scan.affine, folder / f"{name}.nii.gz")
    return f"alkhalil_{case.number:02d}", f"patient_{patient:02d}"


def _finish_alkhalil_lumbar(_folder, rows, aside):
    if aside:
        write_csv([["case", "subject"], *rows], aside)


ALKHALIL_LUMBAR = Release(
    "alkhalil_lumbar",
    anatomy="lumbar vertebrae and discs, T2, two vendors",
    n="volumes, every fourth a second one of the patient before",
    labels="a mask each: vertebrae L1 to L5, discs L1-L2 to L4-L5",
    parts=(Part("volumes", ALKHALIL_SCANNERS[:1]),),
    write=_write_alkhalil_lumbar,
    finish=_finish_alkhalil_lumbar,
    scale=0.6,
    aside=Aside("--subjects", "the table case,subject for the converter: which volumes are of one patient", False),
)

# ---- SPIDER ---------------------------------------------------------------------------------------------------------

SPIDER_SERIES = {
    "t1": {"sequence": SpinEcho(tr=550, te=11)},
    "t2": {"sequence": SpinEcho(tr=3400, te=95, turbo=True)},
    "t2_SPACE": {
        "sequence": SpinEcho(tr=1500, te=130, turbo=True),
        "spacing": (0.9, 0.47, 0.47),
        "field_of_view": (72, 240, 240),
    },
}
# Patients and hospitals, by the patient's number: not everyone has every series.
SPIDER_PROTOCOLS = (("t1", "t2"), ("t1", "t2"), ("t2",), ("t1", "t2", "t2_SPACE"), ("t2_SPACE",))
SPIDER_HOSPITALS = {"Philips": SCANNERS["philips_3t"], "SIEMENS": SCANNERS["siemens_1p5t"]}
SPIDER_VALUES = {
    **{name: value for value, name in enumerate(VERTEBRAE, start=1)},
    "canal": 100,
    **{name: value for value, name in enumerate(DISCS, start=201)},
}
OVERVIEW_COLUMNS = (
    *("new_file_name", "subset", "num_vertebrae", "num_discs", "sex", "EchoTime", "RepetitionTime"),
    *("MagneticFieldStrength", "Manufacturer", "PixelSpacing", "SliceThickness"),
)
GRADING_COLUMNS = (
    *("Patient", "IVD label", "Modic", "UP endplate", "LOW endplate", "Spondylolisthesis", "Disc herniation"),
    *("Disc narrowing", "Disc bulging", "Pfirrman grade"),
)


def _spider_scanner(manufacturer, series):
    base = {"spacing": (4.0, 0.6, 0.6), "field_of_view": (64, 270, 300), "axcodes": "LPS"}
    return replace(
        SPIDER_HOSPITALS[manufacturer], name=f"spider_{manufacturer}_{series}", **{**base, **SPIDER_SERIES[series]}
    )


def _write_spider(case):
    """images/N_t1.mha, … and masks/ likewise. Returns the rows of overview.csv and of radiological_gradings.csv."""
    spine = case.subject(Spine)
    manufacturer = list(SPIDER_HOSPITALS)[case.number % len(SPIDER_HOSPITALS)]
    overview, discs = [], set()
    for series in SPIDER_PROTOCOLS[(case.number - 1) % len(SPIDER_PROTOCOLS)]:
        scanner = _spider_scanner(manufacturer, series)
        scan = case.scan(spine, scanner)
        label = scan.anatomy.label_map(SPIDER_VALUES)
        name = f"{case.number}_{series}"
        write_itk(scan.images[0], scan.affine, case.folder / "images" / f"{name}.mha", compress=True)
        write_itk(label, scan.affine, case.folder / "masks" / f"{name}.mha", compress=True)
        values = np.unique(label)
        discs |= {int(value) - 200 for value in values if value > 200}
        counts = np.count_nonzero((values > 0) & (values < 100)), np.count_nonzero(values > 200)
        spacing = np.linalg.norm(scan.affine[:3, :3], axis=0).round(4)
        overview.append(
            [
                *(name, "validation" if case.number % 5 == 0 else "training", *counts, "FM"[case.number // 2 % 2]),
                *(scanner.sequence.te, scanner.sequence.tr, scanner.field, manufacturer),
                *([float(side) for side in spacing[1:]], float(spacing[0])),
            ]
        )
    return overview, [_gradings(case.number, spine, disc) for disc in sorted(discs)]


def _gradings(patient, spine, disc):
    """What a radiologist would say of disc number `disc` (L5-S1 is 1); what the phantom lacks is 0."""
    grade, bulge = spine.grades[disc], spine.bulges[disc]
    return [patient, disc, 0, 0, 0, 0, 0, int(grade > 0.7), int(bulge > 0.06), 1 + round(4 * float(grade))]


def _finish_spider(folder, results, _aside):
    write_csv([OVERVIEW_COLUMNS, *(row for overview, _ in results for row in overview)], folder / "overview.csv")
    gradings = [row for _, rows in results for row in rows]
    write_csv([GRADING_COLUMNS, *gradings], folder / "radiological_gradings.csv")


SPIDER = Release(
    "spider",
    anatomy="lumbar discs, vertebrae and spinal canal, T1, T2 and T2 SPACE, two vendors",
    n="patients, one to three series each",
    labels="1, 2, … vertebrae from L5 upwards, 100 canal, 201, 202, … discs from L5-S1 upwards",
    parts=(Part("patients", tuple(_spider_scanner("Philips", series) for series in SPIDER_SERIES)),),
    write=_write_spider,
    finish=_finish_spider,
    scale=0.5,
)

RELEASES = (IVDM3SEG, MRSPINESEG, ZENODO22304, ALKHALIL_LUMBAR, SPIDER)
