"""An ankle and shoulder study, of two domains with labels of their own, as `nnunet-da convert manifest` reads it.

It stands for the private data of Boutillon et al. (multi-domain, multi-anatomy segmentation of joints).
"""

from nnunet_da.phantom.ankle import Ankle
from nnunet_da.phantom.public.release import Part, Release
from nnunet_da.phantom.scanner import SCANNERS
from nnunet_da.phantom.shoulder import Shoulder
from nnunet_da.phantom.study import write_csv, write_nifti

# One numbering over both domains.
VALUES = {"calcaneus": 1, "talus": 2, "tibia": 3, "scapula": 4, "humerus": 5}
DOMAINS = {
    "ankle": (Ankle, SCANNERS["ankle_t1"], ("calcaneus", "talus", "tibia")),
    "shoulder": (Shoulder, SCANNERS["shoulder_t1"], ("scapula", "humerus")),
}


def _write_manifest(case):
    """DOMAIN/images/CASE_0000.nii.gz and DOMAIN/labels/CASE.nii.gz. Returns the row of cases.csv."""
    body, scanner, structures = DOMAINS[case.part]
    scan = case.scan(case.subject(body), scanner)
    name = f"{case.part}_{case.number:03d}"
    image, label = f"{case.part}/images/{name}_0000.nii.gz", f"{case.part}/labels/{name}.nii.gz"
    write_nifti(scan.images[0], scan.affine, case.folder / image)
    values = {structure: VALUES[structure] for structure in structures}
    write_nifti(scan.anatomy.label_map(values), scan.affine, case.folder / label)
    return [name, case.part, f"subject_{name}", image, label]


def _finish_manifest(folder, rows, _aside):
    write_csv([["case", "domain", "subject", "image_0000", "label"], *rows], folder / "cases.csv")


MANIFEST = Release(
    "manifest",
    anatomy="ankles and shoulders, T1, with cases.csv for `convert manifest`",
    n="cases of each of ankle and shoulder",
    labels=", ".join(f"{value} {name}" for name, value in VALUES.items()) + "; each domain its own",
    parts=tuple(Part(domain, (scanner,)) for domain, (_body, scanner, _structures) in DOMAINS.items()),
    write=_write_manifest,
    finish=_finish_manifest,
    to_convert="/cases.csv --labels {} --domain-labels {}".format(
        " ".join(f"{name}={value}" for name, value in VALUES.items()),
        " ".join(f"{domain}={','.join(structures)}" for domain, (_body, _scanner, structures) in DOMAINS.items()),
    ),
)

RELEASES = (MANIFEST,)
