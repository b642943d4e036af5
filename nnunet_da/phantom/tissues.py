"""Magnetic properties of the tissues of the lumbar spine at 1.5 T and 3 T.

Sources, rounded:

- muscle, marrow, fat, disc: de Bazelaire et al., Radiology 2004 (MR imaging relaxation times of abdominal and pelvic
  tissues at 1.5 and 3.0 T); Gold et al., AJR 2004 (musculoskeletal MRI at 3.0 T);
- cord and blood: Stanisz et al., Magn Reson Med 2005 (T1, T2 relaxation and magnetisation transfer in tissue at 3 T);
- the nucleus's T2 falls from about 210 ms (Pfirrmann grade I) over 129 and 84 ms to 51 ms (grade IV), the annulus's
  from about 58 ms to 38 ms: T2 mapping studies graded after Pfirrmann et al., Spine 2001. A disc between the extremes
  is a mixture of `nucleus` and `degenerated_nucleus`;
- marrow's fat fraction (about 0.37) and the short T2 of its water: Ruschke et al., NMR Biomed 2021;
- cerebrospinal fluid: Rooney et al., Magn Reson Med 2007 (T1 is the same at all fields);
- skin, ligament, cortical bone and bowel: chosen for their appearance, within what is commonly reported.
"""

from dataclasses import dataclass

import numpy as np

# Standard deviation, relative, between subjects: of proton density, T1 and T2.
VARIABILITY = (0.05, 0.07, 0.08)


@dataclass(frozen=True)
class Tissue:
    """One tissue. Its protons are a pool of water and a pool of fat, the latter with the relaxation of `fat`.

    pd: proton density relative to water, seen by MR (0 to 1); fat_fraction: share of it that is fat (0 to 1); t1, t2:
    of the water pool in ms, at 1.5 T and at 3 T; r2_prime: 1/T2* - 1/T2 in 1/s per tesla; flowing: moves out of the
    slice between the two pulses of a spin echo.
    """

    pd: float
    fat_fraction: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    r2_prime: float
    flowing: bool = False


TISSUES = {
    "air": Tissue(0.0, 0.0, (1000, 1000), (50, 50), 5),
    "skin": Tissue(0.60, 0.1, (800, 950), (28, 26), 15),
    "fat": Tissue(0.95, 0.95, (860, 900), (35, 32), 5),
    "muscle": Tissue(0.80, 0.03, (900, 1150), (38, 34), 4),
    "cortical_bone": Tissue(0.10, 0.0, (300, 350), (2, 2), 50),
    "ligament": Tissue(0.35, 0.0, (650, 750), (16, 14), 15),
    "marrow": Tissue(0.70, 0.38, (650, 800), (34, 30), 22),
    "nucleus": Tissue(0.92, 0.0, (1150, 1350), (165, 150), 4),
    "degenerated_nucleus": Tissue(0.68, 0.0, (850, 1000), (48, 44), 6),
    "annulus": Tissue(0.66, 0.0, (850, 1000), (46, 42), 6),
    "csf": Tissue(1.0, 0.0, (4300, 4300), (1900, 1500), 2),
    "nerve": Tissue(0.80, 0.0, (750, 1000), (80, 76), 5),
    "blood": Tissue(0.85, 0.0, (1450, 1900), (250, 180), 3, flowing=True),
    "bowel": Tissue(0.85, 0.05, (950, 1250), (70, 62), 10),
}
NAMES = tuple(TISSUES)
INDEX = {name: index for index, name in enumerate(NAMES)}

# Relaxation of the fat pool in ms, at 1.5 T and at 3 T.
FAT_T1 = (340, 380)
FAT_T2 = (60, 68)


@dataclass(frozen=True)
class Pools:
    """What the signal equations need, per tissue (arrays of shape (tissues,)); times in ms, field in tesla."""

    field: float
    water: np.ndarray
    fat: np.ndarray
    t1: np.ndarray
    t2: np.ndarray
    t2_star: np.ndarray
    fat_t1: np.ndarray
    fat_t2: np.ndarray
    fat_t2_star: np.ndarray
    flowing: np.ndarray


def pools(field, deviations=None):
    """Water and fat pools of all tissues at `field` (1.5 or 3, in tesla), in the order of NAMES.

    deviations: standard scores of shape (tissues, 3) by which a subject's PD, T1 and T2 leave the table, log-normally
    with the relative spread VARIABILITY; None gives the table's values. Raises ValueError for another field.
    """
    if field not in (1.5, 3.0):
        raise ValueError(f"tissues are known at 1.5 and 3 tesla, not at {field}")
    at = (1.5, 3.0).index(field)
    factors = np.ones((len(NAMES), 3)) if deviations is None else np.exp(np.asarray(deviations) * VARIABILITY)
    table = TISSUES.values()
    pd = np.array([tissue.pd for tissue in table]) * factors[:, 0]
    fat_fraction = np.array([tissue.fat_fraction for tissue in table])
    r2_prime = np.array([tissue.r2_prime for tissue in table]) * field / 1000
    t1 = np.array([tissue.t1[at] for tissue in table]) * factors[:, 1]
    t2 = np.array([tissue.t2[at] for tissue in table]) * factors[:, 2]
    # All fat is one substance, so it varies between subjects as one, wherever it lies.
    fat_t1 = np.full(len(NAMES), FAT_T1[at] * factors[INDEX["fat"], 1])
    fat_t2 = np.full(len(NAMES), FAT_T2[at] * factors[INDEX["fat"], 2])
    return Pools(
        field=field,
        water=pd * (1 - fat_fraction),
        fat=pd * fat_fraction,
        t1=t1,
        t2=t2,
        t2_star=1 / (1 / t2 + r2_prime),
        fat_t1=fat_t1,
        fat_t2=fat_t2,
        fat_t2_star=1 / (1 / fat_t2 + r2_prime),
        flowing=np.array([tissue.flowing for tissue in table]),
    )
