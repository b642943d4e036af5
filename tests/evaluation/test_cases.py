import os

import nibabel
import numpy as np
import pytest

from nnunet_da.errors import UserError
from nnunet_da.evaluation import cases
from nnunet_da.evaluation.cases import COLUMNS, SLICE_COLUMNS, Options, evaluate_folders, parse_models
from nnunet_da.evaluation.finished import FinishedCases
from nnunet_da.evaluation.metrics import structure_metrics

LABELS = {"background": 0, "disc": 1, "bone": 2}
AFFINE = np.diag([1.0, 2, 3, 1])


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array.astype(np.uint8), affine), path)


@pytest.fixture
def folders(tmp_path):
    """Three references; model `exact` copies them, model `noisy` disagrees in a tenth of the voxels."""
    generator = np.random.default_rng(0)
    arrays = {}
    for case in ("c", "a", "b"):
        reference = generator.integers(0, 3, (6, 7, 8))
        noisy = np.where(generator.random(reference.shape) < 0.1, 0, reference)
        arrays[case] = reference, noisy
        write(tmp_path / "labels" / f"{case}.nii.gz", reference)
        write(tmp_path / "exact" / f"{case}.nii.gz", reference)
        write(tmp_path / "noisy" / f"{case}.nii.gz", noisy)
    return tmp_path, arrays


def evaluate(folder, models=("noisy", "exact"), labels=LABELS, **options):
    options = {"n_processes": 1, **options}
    return evaluate_folders(folder / "labels", {model: folder / model for model in models}, labels, **options)


def test_rows_and_their_order(folders):
    folder, arrays = folders
    rows = evaluate(folder, domain_of_case={"b": "philips", "x": "philips", "a": "siemens"}, default_domain="ge")
    assert tuple(rows.columns) == COLUMNS
    keys = list(rows[["domain", "model", "case", "structure"]].itertuples(index=False, name=None))
    assert keys == [
        (domain, model, case, structure)
        for domain, case in (("philips", "b"), ("siemens", "a"), ("ge", "c"))
        for model in ("noisy", "exact")
        for structure in ("disc", "bone")
    ]
    for row in rows.to_dict("records"):
        reference, noisy = arrays[row["case"]]
        prediction = noisy if row["model"] == "noisy" else reference
        value = LABELS[row["structure"]]
        expected = structure_metrics(reference == value, prediction == value, (1, 2, 3))
        assert {key: row[key] for key in expected} == pytest.approx(expected)


def test_processes_change_nothing(folders):
    folder, _ = folders
    assert evaluate(folder, n_processes=2).equals(evaluate(folder))


def test_cases_without_a_domain(folders, capsys):
    folder, _ = folders
    assert set(evaluate(folder)["domain"]) == {"all"}
    assert capsys.readouterr().err == ""
    assert set(evaluate(folder, domain_of_case={"a": "x"})["domain"]) == {"x", "all"}
    assert "2 case(s) belong to no known domain, such as 'b'" in capsys.readouterr().err


def test_a_domain_has_the_structures_that_it_names(folders):
    folder, _ = folders
    rows = evaluate(folder, domain_of_case={"a": "x"}, default_domain="y", domain_labels={"x": ["bone"]})
    found = {domain: list(dict.fromkeys(group["structure"])) for domain, group in rows.groupby("domain")}
    assert found == {"x": ["bone"], "y": ["disc", "bone"]}
    with pytest.raises(UserError, match="labels of 'x': 'bones' is no structure of the dataset; did you mean 'bone'"):
        evaluate(folder, domain_of_case={"a": "x"}, domain_labels={"x": ["bones"]})


def test_regions_are_unions(folders):
    folder, arrays = folders
    rows = evaluate(folder, ["noisy"], {"background": 0, "both": [1, 2], "bone": 2})
    for row in rows[rows["structure"] == "both"].to_dict("records"):
        reference, noisy = arrays[row["case"]]
        assert row["dsc"] == structure_metrics(reference > 0, noisy > 0, (1, 2, 3))["dsc"]


def test_ignored_voxels_are_left_out(folders):
    folder, arrays = folders
    labels = {**LABELS, "ignore": 3}
    before = evaluate(folder, labels=labels)
    for case, (reference, _) in arrays.items():
        reference[:2] = 3
        write(folder / "labels" / f"{case}.nii.gz", reference)
    # `exact` still holds labels where the reference is now ignored.
    after = evaluate(folder, labels=labels)
    assert (after.loc[after["model"] == "exact", "dsc"] == 1).all()
    assert (after["n_reference_voxels"] < before["n_reference_voxels"]).all()
    assert (after["n_predicted_voxels"] < before["n_predicted_voxels"]).all()


def test_missing_predictions(folders):
    folder, _ = folders
    (folder / "noisy" / "b.nii.gz").unlink()
    with pytest.raises(UserError, match=r"noisy: model 'noisy' has no prediction for case 'b' of .*--allow-missing"):
        evaluate(folder)
    rows = evaluate(folder, allow_missing=True).set_index(["model", "case"])
    absent, present = rows.loc[("noisy", "b")], rows.loc[("exact", "b")]
    assert absent["missed"].all()
    assert (absent["dsc"] == 0).all()
    assert absent["hd_mm"].isna().all()
    assert not present["missed"].any()
    for case in "ac":
        (folder / "noisy" / f"{case}.nii.gz").unlink()
    with pytest.raises(UserError, match="no prediction for case 'a' and 2 more of"):
        evaluate(folder)
    with pytest.raises(UserError, match="no prediction for any case"):
        evaluate(folder, allow_missing=True)


def test_predictions_without_a_reference_are_named(folders, capsys):
    folder, _ = folders
    (folder / "labels" / "b.nii.gz").unlink()
    assert set(evaluate(folder)["case"]) == {"a", "c"}
    assert "noisy: 1 prediction(s) without a reference are left out, such as 'b'" in capsys.readouterr().err


@pytest.mark.parametrize("n_processes", [1, 2])
@pytest.mark.parametrize("role", ["labels", "noisy"])
def test_broken_files(folders, role, n_processes):
    folder, _ = folders
    path = folder / role / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=f"{role}/b.nii.gz: unreadable or truncated"):
        evaluate(folder, n_processes=n_processes)


@pytest.mark.parametrize("role", ["labels", "noisy"])
def test_unknown_values(folders, role):
    folder, arrays = folders
    write(folder / role / "b.nii.gz", np.where(arrays["b"][0] == 2, 7, 0))
    with pytest.raises(UserError, match=rf"{role}/b\.nii\.gz: unknown label value 7; the dataset has 0, 1, 2"):
        evaluate(folder)


def test_a_prediction_cannot_be_ignore(folders):
    folder, arrays = folders
    write(folder / "noisy" / "b.nii.gz", np.full_like(arrays["b"][0], 3))
    with pytest.raises(UserError, match="unknown label value 3"):
        evaluate(folder, labels={**LABELS, "ignore": 3})


def test_another_grid(folders):
    folder, arrays = folders
    write(folder / "noisy" / "b.nii.gz", arrays["b"][1], np.diag([2.0, 2, 3, 1]))
    with pytest.raises(UserError, match=r"noisy/b\.nii\.gz: not on the grid of .*labels/b\.nii\.gz: spacing"):
        evaluate(folder)


def test_folders_without_label_maps(folders):
    folder, _ = folders
    with pytest.raises(UserError, match="absent: no such folder"):
        evaluate(folder, ["absent"])
    with pytest.raises(UserError, match="no model"):
        evaluate(folder, [])
    for path in (folder / "labels").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="labels: no reference label maps"):
        evaluate(folder)
    (folder / "labels").rmdir()
    with pytest.raises(UserError, match="labels: no such folder"):
        evaluate(folder)


def test_duplicate_case(folders):
    folder, arrays = folders
    write(folder / "noisy" / "b.nii", arrays["b"][1])
    with pytest.raises(UserError, match=r"noisy/b\.nii\.gz: duplicate case 'b' \(also b\.nii\)"):
        evaluate(folder)


def test_models():
    found = parse_models(["unet=a/b", "da=c=d"])
    assert {name: str(folder) for name, folder in found.items()} == {"unet": "a/b", "da": "c=d"}
    assert list(found) == ["unet", "da"]


@pytest.mark.parametrize("text", ["unet", "=a", "unet="])
def test_models_of_another_form(text):
    with pytest.raises(UserError, match="must be NAME=FOLDER"):
        parse_models([text])


def test_duplicate_models():
    with pytest.raises(UserError, match=r"--pred unet=b: duplicate model 'unet' \(also a\)"):
        parse_models(["unet=a", "unet=b"])


def test_options_are_handed_on(folders):
    folder, arrays = folders
    write(folder / "noisy" / "a.nii.gz", np.zeros((6, 7, 8)))
    plain = evaluate(folder, ["noisy"]).set_index(["case", "structure"])
    found = evaluate(folder, ["noisy"], options=Options(tolerance_mm=0, empty="penalty")).set_index(
        ["case", "structure"]
    )
    assert found.loc[("a", "disc"), "hd_mm"] == pytest.approx(np.linalg.norm([6 * 1, 7 * 2, 8 * 3]))
    assert np.isnan(plain.loc[("a", "disc"), "hd_mm"])
    assert found.loc[("a", "disc"), "missed"]
    reference, noisy = arrays["b"]
    for table, tolerance_mm in ((plain, 1), (found, 0)):
        expected = structure_metrics(reference == 1, noisy == 1, (1, 2, 3), tolerance_mm=tolerance_mm)["nsd"]
        assert table.loc[("b", "disc"), "nsd"] == pytest.approx(expected)


class TestOtherFormats:
    def convert(self, path, ending):
        import SimpleITK

        image = SimpleITK.ReadImage(str(path))
        SimpleITK.WriteImage(image, str(path).removesuffix(".nii.gz") + ending)
        path.unlink()

    def test_change_nothing(self, folders):
        folder, _ = folders
        before = evaluate(folder)
        for path, ending in (
            ("labels/a", ".mha"),
            ("labels/b", ".nrrd"),
            ("noisy/a", ".nii"),
            ("noisy/c", ".mhd"),
            ("exact/b", ".nhdr"),
        ):
            self.convert(folder / f"{path}.nii.gz", ending)
        after = evaluate(folder)
        assert list(after["case"]) == list(before["case"])
        for column in COLUMNS[4:]:
            np.testing.assert_allclose(after[column].astype(float), before[column].astype(float), rtol=1e-6)

    def test_broken_files(self, folders):
        folder, _ = folders
        self.convert(folder / "noisy" / "b.nii.gz", ".mha")
        path = folder / "noisy" / "b.mha"
        path.write_bytes(path.read_bytes()[:300])
        with pytest.raises(UserError, match=r"noisy/b\.mha: unreadable or truncated"):
            evaluate(folder)


class TestSlices:
    def slices(self, folder, **options):
        arguments = folder / "labels", {"noisy": folder / "noisy"}, LABELS
        return cases.evaluate(*arguments, n_processes=1, options=Options(**options))

    # The files' axes x, y, z have 6, 7 and 8 voxels of 1, 2 and 3 mm.
    @pytest.mark.parametrize(("name", "axis"), [("x", 0), ("y", 1), ("z", 2), ("coarsest", 2)])
    def test_dice_of_each(self, folders, name, axis):
        folder, arrays = folders
        found = self.slices(folder, slice_axis=name).slices
        assert tuple(found.columns) == SLICE_COLUMNS
        assert len(found) == 3 * 2 * (6, 7, 8)[axis]
        for row in found.to_dict("records"):
            reference, noisy = (
                array.take(row["slice"], axis) == LABELS[row["structure"]] for array in arrays[row["case"]]
            )
            assert row["dsc"] == pytest.approx(2 * (reference & noisy).sum() / (reference.sum() + noisy.sum()))
            assert row["sensitivity"] == pytest.approx((reference & noisy).sum() / reference.sum())
            assert row["specificity"] == pytest.approx((~reference & ~noisy).sum() / (~reference).sum())

    def test_empty_slices_are_left_out_and_counted(self, folders):
        folder, arrays = folders
        for name in ("labels", "noisy"):
            array = arrays["b"][0].copy()
            array[:, :, :3] = 0
            write(folder / name / "b.nii.gz", array)
        found = self.slices(folder)
        assert found.n_empty_slices == 2 * 3
        assert set(found.slices.loc[found.slices["case"] == "b", "slice"]) == {3, 4, 5, 6, 7}

    def test_of_2d_images(self, tmp_path):
        image = np.random.default_rng(0).integers(0, 3, (6, 7))
        for name in ("labels", "noisy"):
            write(tmp_path / name / "a.nii.gz", image)
            write(tmp_path / name / "b.nii.gz", image[:, None])
        found = self.slices(tmp_path, slice_axis="x")
        assert found.slices[["case", "slice", "dsc"]].to_numpy().tolist() == [["a", 0, 1]] * 2 + [["b", 0, 1]] * 2
        assert found.n_empty_slices == 0


class TestResumption:
    @pytest.fixture
    def evaluated(self, monkeypatch):
        """The names of the cases that are evaluated, in order."""
        names, work = [], cases.evaluate_case

        def count(case, *arguments):
            names.append(case.name)
            return work(case, *arguments)

        monkeypatch.setattr(cases, "evaluate_case", count)
        return names

    def interrupt_at(self, monkeypatch, name):
        work = cases.evaluate_case

        def stop(case, *arguments):
            if case.name == name:
                raise KeyboardInterrupt
            return work(case, *arguments)

        monkeypatch.setattr(cases, "evaluate_case", stop)

    def test_an_interrupted_evaluation_goes_on(self, folders, evaluated, monkeypatch, capsys):
        folder, _ = folders
        finished = FinishedCases(folder / "kept")
        expected = evaluate(folder)
        assert evaluated == ["a", "b", "c"]
        evaluated.clear()
        with monkeypatch.context() as context:
            self.interrupt_at(context, "c")
            with pytest.raises(KeyboardInterrupt):
                evaluate(folder, finished=finished)
        assert evaluated == ["a", "b"]
        assert len(list((folder / "kept").iterdir())) == 2
        assert capsys.readouterr().err == ""
        assert evaluate(folder, finished=finished).equals(expected)
        assert evaluated == ["a", "b", "c"]
        assert "2 of 3 cases were finished before" in capsys.readouterr().err
        assert evaluate(folder, finished=finished).equals(expected)
        assert evaluated == ["a", "b", "c"]

    def test_processes_keep_what_they_finish(self, folders, evaluated):
        folder, _ = folders
        finished = FinishedCases(folder / "kept")
        found = evaluate(folder, finished=finished, n_processes=2)
        assert evaluate(folder, finished=finished).equals(found)
        assert evaluated == []

    def test_a_file_that_is_mended_is_all_that_is_left(self, folders, evaluated):
        folder, arrays = folders
        finished = FinishedCases(folder / "kept")
        (folder / "noisy" / "b.nii.gz").write_bytes(b"broken")
        with pytest.raises(UserError, match="unreadable"):
            evaluate(folder, finished=finished)
        write(folder / "noisy" / "b.nii.gz", arrays["b"][1])
        evaluated.clear()
        assert evaluate(folder, finished=finished).equals(evaluate(folder))
        assert evaluated[0] == "b"
        assert len(evaluated) == 1 + 3

    @pytest.mark.parametrize("change", ["reference", "prediction", "absent", "time"])
    def test_a_changed_file_is_evaluated_again(self, folders, evaluated, change):
        folder, arrays = folders
        finished = FinishedCases(folder / "kept")
        evaluate(folder, finished=finished, allow_missing=True)
        evaluated.clear()
        path = folder / ("labels" if change == "reference" else "noisy") / "b.nii.gz"
        if change == "absent":
            path.unlink()
        elif change == "time":
            os.utime(path, ns=(0, 0))
        else:
            write(path, arrays["b"][0] * (arrays["b"][0] == 1))
        found = evaluate(folder, finished=finished, allow_missing=True)
        assert evaluated == ["b"]
        assert found.equals(evaluate(folder, allow_missing=True))

    @pytest.mark.parametrize(
        "change",
        [
            {"options": Options(empty="penalty")},
            {"options": Options(tolerance_mm=2)},
            {"options": Options(slice_axis="x")},
            {"labels": {"background": 0, "bone": 2, "disc": 1}},
            {"labels": {**LABELS, "ignore": 3}},
            {"models": ["exact"]},
            {"default_domain": "x"},
            {"domain_labels": {"all": ["bone"]}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_another_evaluation_takes_nothing_over(self, folders, evaluated, change):
        folder, _ = folders
        finished = FinishedCases(folder / "kept")
        evaluate(folder, finished=finished)
        evaluated.clear()
        assert evaluate(folder, finished=finished, **change).equals(evaluate(folder, **change))
        assert evaluated == ["a", "b", "c"] * 2
