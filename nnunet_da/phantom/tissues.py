"""Magnetic properties of tissues at 1.5 T and 3 T.

Sources, rounded:

- fat, liver, spleen, pancreas, renal cortex and medulla: de Bazelaire et al., Radiology 230 (2004) (MR imaging
  relaxation times of abdominal and pelvic tissues measured in vivo at 3.0 T: preliminary results);
- muscle: between de Bazelaire et al. and Gold et al., AJR 183 (2004) (musculoskeletal MRI at 3.0 T), its T2 slightly
  longer;
- synovial fluid (which stands for all fluids not named otherwise) and the T2 of cartilage: Gold et al.;
- T1 of cartilage, blood and the cord (`nerve`), all of white matter, T1 of grey matter: Stanisz et al., Magn Reson Med
  54 (2005) (T1, T2 relaxation and magnetization transfer in tissue at 3T). The T2 of grey matter is that at 1.5 T at
  both fields, that of the cord near the source's, that of blood chosen;
- the nucleus's T2 falls from about 210 ms (Pfirrmann grade I) over 129 and 84 ms to 51 ms (grade IV), the annulus's
  from about 58 ms to 38 ms: a poster of the European Congress of Radiology on 494 discs, graded after Pfirrmann et al.,
  Spine 26 (2001); other studies give shorter ones. A disc between the extremes is a mixture of `nucleus` and
  `degenerated_nucleus`; the T1 of discs is chosen;
- marrow's fat fraction (about 0.37): Ruschke et al., NMR Biomed 34 (2021). The T2 of its water is short there, too
  (21 ms in the median), and less so here; its T1 is chosen;
- cerebrospinal fluid: Rooney et al., Magn Reson Med 57 (2007) (T1 is the same at all fields);
- relaxivity of the contrast agent: about that of gadoterate in plasma, Rohrer et al., Invest Radiol 40 (2005);
- skin, ligament, cortical bone, bowel, mucosa, perilymph (which stands for the vitreous body too), schwannoma, the
  zones of the prostate and its cancer, all diffusion coefficients and all concentrations of the contrast agent: chosen
  for their appearance, within what is commonly reported.
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
    slice between the pulses of an echo; adc: apparent diffusion coefficient of the water in 1e-6 mm²/s;
    uptake: concentration of the contrast agent some minutes after a usual dose, in mmol/l.
    """

    pd: float
    fat_fraction: float
    t1: tuple[float, float]
    t2: tuple[float, float]
    r2_prime: float
    flowing: bool = False
    adc: float = 1000.0
    uptake: float = 0.0


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
    "blood": Tissue(0.85, 0.0, (1450, 1900), (250, 180), 3, flowing=True, adc=1500, uptake=0.7),
    "bowel": Tissue(0.85, 0.05, (950, 1250), (70, 62), 10, adc=1500, uptake=0.3),
    "cartilage": Tissue(0.85, 0.0, (1024, 1168), (42, 37), 5),
    "fluid": Tissue(1.0, 0.0, (2850, 3620), (1210, 767), 2, adc=2900),
    "perilymph": Tissue(0.97, 0.0, (4300, 4300), (1500, 1100), 2, adc=2900),
    "grey_matter": Tissue(0.84, 0.0, (1124, 1820), (95, 95), 5, adc=850, uptake=0.02),
    "white_matter": Tissue(0.70, 0.0, (884, 1084), (72, 69), 5, adc=750, uptake=0.01),
    "schwannoma": Tissue(0.88, 0.0, (1300, 1650), (125, 115), 4, adc=1300, uptake=0.6),
    "mucosa": Tissue(0.88, 0.0, (1100, 1450), (95, 85), 6, adc=1500, uptake=0.6),
    "liver": Tissue(0.75, 0.02, (586, 809), (46, 34), 12, adc=1100),
    "spleen": Tissue(0.82, 0.0, (1057, 1328), (79, 61), 8, adc=850),
    "pancreas": Tissue(0.78, 0.08, (584, 725), (46, 43), 10, adc=1300),
    "renal_cortex": Tissue(0.84, 0.0, (966, 1142), (87, 76), 6, adc=2000),
    "renal_medulla": Tissue(0.88, 0.0, (1412, 1545), (85, 81), 6, adc=1900),
    "peripheral_zone": Tissue(0.92, 0.0, (1450, 1700), (160, 145), 4, adc=1750),
    "transition_zone": Tissue(0.84, 0.0, (1300, 1550), (92, 84), 4, adc=1300),
    "prostate_cancer": Tissue(0.84, 0.0, (1250, 1500), (82, 74), 4, adc=850),
}
NAMES = tuple(TISSUES)
INDEX = {name: index for index, name in enumerate(NAMES)}

# Relaxation of the fat pool in ms, at 1.5 T and at 3 T.
FAT_T1 = (340, 380)
FAT_T2 = (60, 68)
# Relaxivities r1 and r2 of the contrast agent in l/mmol/s, at both fields.
RELAXIVITIES = (3.6, 4.6)


@dataclass(frozen=True)
class Pools:
    """What the signal equations need, per tissue (arrays of shape (tissues,)).

    Times in ms, field in tesla, adc in 1e-6 mm²/s.
    """

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
    adc: np.ndarray


def pools(field, deviations=None, names=NAMES, dose=0.0):
    """Water and fat pools of the tissues `names` at `field` (1.5 or 3, in tesla), in that order.

    deviations: standard scores of shape (tissues, 3) by which a subject's PD, T1 and T2 leave the table, log-normally
    with the relative spread VARIABILITY; None gives the table's values; dose: of the contrast agent, 1 is the usual
    one. Raises ValueError for another field.
    """
    if field not in (1.5, 3.0):
        raise ValueError(f"tissues are known at 1.5 and 3 tesla, not at {field}")
    at = (1.5, 3.0).index(field)
    factors = np.ones((len(names), 3)) if deviations is None else np.exp(np.asarray(deviations) * VARIABILITY)
    table = [TISSUES[name] for name in names]
    pd = np.array([tissue.pd for tissue in table]) * factors[:, 0]
    fat_fraction = np.array([tissue.fat_fraction for tissue in table])
    r2_prime = np.array([tissue.r2_prime for tissue in table]) * field / 1000
    t1 = np.array([tissue.t1[at] for tissue in table]) * factors[:, 1]
    t2 = np.array([tissue.t2[at] for tissue in table]) * factors[:, 2]
    # All fat is one substance, so it varies between subjects as one, wherever it lies.
    fat_t1 = np.full(len(names), FAT_T1[at] * factors[names.index("fat"), 1])
    fat_t2 = np.full(len(names), FAT_T2[at] * factors[names.index("fat"), 2])
    if dose:
        concentration = dose * np.array([tissue.uptake for tissue in table]) / 1000
        t1, t2 = (
            1 / (1 / t + relaxivity * concentration) for t, relaxivity in zip((t1, t2), RELAXIVITIES, strict=True)
        )
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
        adc=np.array([tissue.adc for tissue in table]),
    )
