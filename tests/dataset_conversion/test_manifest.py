import argparse

import pytest

from nnunet_da.dataset_conversion import About, converters, manifest
from nnunet_da.errors import UserError
from nnunet_da.raw_dataset import Case, Conversion

HEADER = "case,domain,subject,image_0000,label\n"


@pytest.fixture
def convert(tmp_path):
    """``convert(text, "--labels", …)``: the Conversion of a table with that text."""

    def make(text, *arguments, encoding="utf-8"):
        (tmp_path / "my cases.csv").write_text(text, encoding=encoding)
        parser = argparse.ArgumentParser()
        manifest.add_arguments(parser)
        parser.set_defaults(n_processes=1)
        return manifest.cases(tmp_path / "my cases.csv", parser.parse_args(list(arguments)))

    return make


def test_converters_are_the_files_of_the_folder():
    assert converters()["manifest"] is manifest
    for module in converters().values():
        assert isinstance(module.ABOUT, About)
        assert callable(module.add_arguments)
        assert callable(module.cases)


def test_rows_become_cases_with_paths_beside_the_table(convert, tmp_path):
    conversion = convert(
        HEADER + "a,philips,anna,sub/a.nii.gz,a_label.nii\n\nb,ge,,/scans/b.mha,\n", "--labels", "disc=1"
    )
    assert isinstance(conversion, Conversion)
    assert conversion.cases == [
        Case("a", "philips", "anna", (tmp_path / "sub/a.nii.gz",), tmp_path / "a_label.nii"),
        Case("b", "ge", None, (tmp_path / "/scans/b.mha",), None),
    ]
    assert conversion.labels == {"disc": 1}
    assert conversion.channel_names == ["MR"]
    assert conversion.name == "my_cases"


def test_spreadsheets_may_write_semicolons_and_a_byte_order_mark(convert):
    text = "case;domain;image_0000;image_0001;label\r\na;philips;1.nii;2.nii;\r\n"
    conversion = convert(text, "--labels", "disc=1", "--channels", "in", "opp", encoding="utf-8-sig")
    assert [image.name for image in conversion.cases[0].images] == ["1.nii", "2.nii"]
    assert conversion.cases[0].subject is None


def test_label_values_of_any_kind_become_consecutive(convert, capsys):
    conversion = convert(HEADER + "a,philips,,a.nii,l.nii\n", "--labels", "canal=100", "disc=201,202", "sacrum=1")
    assert conversion.labels == {"sacrum": 1, "canal": 2, "disc": 3}
    assert conversion.cases[0].label_values == {1: 1, 100: 2, 201: 3, 202: 3}
    assert "disc [201, 202] → 3" in capsys.readouterr().out


def test_labels_that_are_not_named_are_named_after_their_values(convert, tmp_path, write_scan, box_label, capsys):
    write_scan(tmp_path / "l1.nii.gz", box_label(4))
    write_scan(tmp_path / "l2.nii.gz", box_label(9))
    conversion = convert(HEADER + "a,philips,,a.nii,l1.nii.gz\nb,philips,,b.nii,l2.nii.gz\n")
    assert conversion.labels == {"label_4": 1, "label_9": 2}
    assert conversion.cases[0].label_values == {4: 1, 9: 2}
    assert "label_4, label_9" in capsys.readouterr().out


def test_domains_name_their_labels(convert):
    text = HEADER + "a,ankle,,a.nii,\nb,shoulder,,b.nii,\n"
    labels = ["--labels", "talus=1", "tibia=2", "scapula=3"]
    conversion = convert(text, *labels, "--domain-labels", "ankle=talus,tibia", "shoulder=scapula")
    assert conversion.domain_labels == {"ankle": ("talus", "tibia"), "shoulder": ("scapula",)}


def test_columns_of_other_use_are_named(convert, capsys):
    convert("case,domain,image_0000,label,sequence\na,philips,a.nii,,T1\n", "--labels", "disc=1")
    assert "columns not used: sequence" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "disc=one"], "--labels disc=one: must be NAME=VALUE"),
        (["--labels", "disc=0"], "0 is the background"),
        (["--labels", "disc=1", "disc=2"], "'disc' is given twice"),
        (["--labels", "disc=1", "--domain-labels", "philips"], "--domain-labels philips: must be"),
        (["--labels", "disc=1", "--domain-labels", "philips=disc,"], "must be DOMAIN=NAME,NAME"),
    ],
)
def test_options_that_say_nothing_are_refused(convert, arguments, message):
    with pytest.raises(UserError, match=message):
        convert(HEADER + "a,philips,,a.nii,\n", *arguments)


def test_negative_values_cannot_name_labels(convert, tmp_path, write_scan, box_label):
    write_scan(tmp_path / "l.nii.gz", box_label(-4, dtype="int16"))
    with pytest.raises(UserError, match="negative value -4"):
        convert(HEADER + "a,philips,,a.nii,l.nii.gz\n")
