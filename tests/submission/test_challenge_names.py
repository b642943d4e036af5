import re
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_da.dataset_conversion import converters
from nnunet_da.errors import UserError
from nnunet_da.submission.challenges import CHALLENGES, grand_challenge

# Names as the challenges' releases have them, and as this package's and nnU-Net's commands derive them.
SCANS = {
    "crossmoda2021": {
        "crossmoda_validation/target_validation/crossmoda_211_hrT2.nii.gz": "crossmoda_211_Label.nii.gz",
        "crossmoda2021_ldn_211_hrT2.nii.gz": "crossmoda_211_Label.nii.gz",
        "imagesTs/crossmoda_211_0000.nii.gz": "crossmoda_211_Label.nii.gz",
    },
    "crossmoda2022": {
        "crossmoda2022_validation/crossmoda2021_ldn_211_hrT2.nii.gz": "crossmoda2021_ldn_211_Label.nii.gz",
        "imagesTs/crossmoda2022_etz_210_0000.nii.gz": "crossmoda2022_etz_210_Label.nii.gz",
    },
    "crossmoda2023": {"crossmoda2023_ukm_7_T2.nii.gz": "crossmoda2023_ukm_7_Label.nii.gz"},
    "msd": {"Task05_Prostate/imagesTs/prostate_03.nii.gz": "Task05_Prostate/prostate_03.nii.gz"},
    "ivdm3seg": {"01/01_fat.nii": "01/01_Labels.nii.gz", "imagesTs/ivdm3seg_A1_0000.nii.gz": "A1/A1_Labels.nii.gz"},
}
PREDICTIONS = {
    "crossmoda2021": ["crossmoda_211.nii.gz", "crossmoda_211_hrT2.nii.gz", "crossmoda2021_ldn_211_Label.nii.gz"],
    "crossmoda2022": ["crossmoda2022_etz_210.nii.gz", "crossmoda2022_etz_210_hrT2.nii", "crossmoda2021_ldn_1.nii"],
    "crossmoda2023": ["crossmoda2023_etz_9.nii.gz", "crossmoda2023_etz_9_T2.nii.gz"],
    "msd": ["Task02_Heart/la_007.nii.gz", "la_007.nii.gz"],
    "ivdm3seg": ["ivdm3seg_03.nii.gz", "03_Labels.nii", "03/result.nii.gz", "B2.nii.gz"],
}
NEITHER = {
    "crossmoda2021": ["crossmoda_211_T2.nii.gz", "crossmoda2022_etz_210_hrT2.nii.gz", "crossmoda_x_hrT2.nii.gz"],
    "crossmoda2022": [
        "crossmoda2023_etz_9_hrT2.nii.gz",
        "crossmoda2022_etz_9_T2.nii.gz",
        "mycrossmoda2022_etz_9.nii.gz",
    ],
    "crossmoda2023": ["crossmoda2023_etz_9_hrT2.nii.gz"],
    "msd": ["prostate.nii.gz"],
    "ivdm3seg": ["ivdm3seg_3.nii.gz", "other_fat.nii"],
}


def name_of_result(challenge, fields):
    return challenge.result_of(tuple(fields[name] for name in challenge.key))


@pytest.mark.parametrize("name", CHALLENGES)
def test_names_are_told_apart(name):
    challenge = CHALLENGES[name]
    for scan, result in SCANS[name].items():
        assert name_of_result(challenge, challenge.parse(Path("/data", scan), challenge.scans)) == result
    for prediction in PREDICTIONS[name]:
        assert challenge.parse(Path("/data", prediction), challenge.predictions), prediction
    for other in NEITHER[name]:
        assert challenge.parse(Path("/data", other), challenge.scans + challenge.predictions) is None, other


@pytest.mark.parametrize("name", CHALLENGES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_cases_and_results_are_one_to_one(name, data):
    """The name of a result gives the case back, so no two cases share one; predictions are found under every name."""
    challenge = CHALLENGES[name]
    values = {
        field: data.draw(st.from_regex(re.compile(expression, re.ASCII), fullmatch=True), label=field)
        for field, expression in {"nii": r"nii(?:\.gz)?", "channel": r"\d{4}", **challenge.fields}.items()
    }
    case = tuple(values[field] for field in challenge.key)
    result = challenge.result_of(case)
    fields = challenge.parse(PurePosixPath("/x", result), [challenge.result])
    assert tuple(fields[field] for field in challenge.key) == case
    for templates in (challenge.scans, challenge.predictions):
        for template in templates:
            fields = challenge.parse(PurePosixPath("/x", template.format(**values)), templates)
            parsed = tuple(fields.get(field, values[field]) for field in challenge.key)
            assert parsed == case, template


@pytest.mark.parametrize("name", ["crossmoda2021", "crossmoda2022", "crossmoda2023"])
def test_test_cases_of_converted_datasets_are_known(name):
    """The converters' own rules for cases, written apart from these, agree with them."""
    challenge = CHALLENGES[name]
    for layout in converters()[name].LAYOUTS:
        case = {"crossmoda_N": "crossmoda_211", "crossmoda2021_ldn_N": "crossmoda2021_ldn_211"}.get(
            layout.shown["case"], layout.shown["case"].replace("N", "211")
        )
        assert layout.match(layout.example("validation", case=case))[0] == "validation"
        for path in (layout.example("validation", case=case), f"imagesTs/{case}_0000.nii.gz"):
            assert challenge.parse(Path("/", path), challenge.scans)
        assert challenge.parse(Path("/", f"{case}.nii.gz"), challenge.predictions)


def test_labels_have_the_names_and_values_of_the_converters():
    modules = converters()
    for name in ("crossmoda2021", "crossmoda2022", "crossmoda2023", "ivdm3seg"):
        scheme = next(iter(modules[name].SCHEMES.values()))
        assert {structure: CHALLENGES[name].labels[structure] for structure in scheme} == {
            structure: values[0] for structure, values in scheme.items()
        }


def test_slugs():
    container = grand_challenge(["t1-mri", "t2-mri"], "discs").container
    assert container.inputs == {slug: f"images/{slug}/{{case}}.mha" for slug in ("t1-mri", "t2-mri")}
    assert container.output == "images/discs/{case}.mha"
    for inputs, output, message in (
        ([], "discs", "give --input-slug"),
        (["t2"], None, "give --input-slug"),
        (["../t2"], "discs", "../t2: must be a slug"),
        (["t2", "t2"], "discs", "must be another one for each channel"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            grand_challenge(inputs, output)
