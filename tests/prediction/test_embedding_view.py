import pytest

from nnunet_da.errors import UserError
from nnunet_da.prediction import embedding_view
from nnunet_da.prediction.features import NEW
from nnunet_da.prediction.profiles import Scale


class Model:
    """What the view asks of a model before any network is run: one channel."""

    scales = (Scale(),)


@pytest.fixture
def scans(tmp_path, write_scan):
    for name in ("a", "b"):
        write_scan(tmp_path / "scans" / f"{name}.nii.gz")
    return tmp_path / "scans"


def test_new_scans_are_of_the_domains_in_the_table(scans, tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("case,domain\nb,site2\na,site1\n")
    sources = embedding_view._new_sources(Model, scans, table)
    assert [(source.case, source.domain, source.role) for source in sources] == [
        ("a", "site1", NEW),
        ("b", "site2", NEW),
    ]


def test_without_a_table_they_are_of_a_domain_of_their_own(scans):
    assert {source.domain for source in embedding_view._new_sources(Model, scans, None)} == {NEW}


@pytest.mark.parametrize(
    ("rows", "message"),
    [("a,s\nb,s\nc,s\n", "there is no scan 'c' in"), ("a,s\n", r"scan 'b' of .* is not listed")],
)
def test_a_table_that_does_not_fit_the_scans(scans, tmp_path, rows, message):
    table = tmp_path / "cases.csv"
    table.write_text("case,domain\n" + rows)
    with pytest.raises(UserError, match=message):
        embedding_view._new_sources(Model, scans, table)
