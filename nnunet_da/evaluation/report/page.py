"""The HTML report: gathers what its parts have to say, and renders it into one file."""

import datetime
from importlib import resources

import nnunet_da
from nnunet_da.errors import UserError, nearest
from nnunet_da.evaluation.report import learning
from nnunet_da.evaluation.report.doubt import indicators, rank_cases
from nnunet_da.evaluation.report.pictures import pictures_context
from nnunet_da.evaluation.report.plots import curves
from nnunet_da.evaluation.report.signs import doubt_context
from nnunet_da.evaluation.report.sources import collect
from nnunet_da.evaluation.report.summary import summary_context
from nnunet_da.files import atomic_file


def write_html_report(
    path,
    rows,
    *,
    title,
    labels=None,
    predictions=None,
    images=None,
    references=None,
    domain_of_case=None,
    default_domain=None,
    domain_labels=None,
    labelled_domains=None,
    folds=None,
    probabilities=None,
    runs=(),
    comparisons=(),
    model=None,
    n_processes=None,
):
    """Writes the report to `path`: one HTML file that needs no other file and no network.

    Parameters
    ----------
    path : Path
        Complete, or as it was, when this returns or raises.
    rows : pandas.DataFrame or None
        Of `cases.evaluate_folders`, for summary, plots and the table of cases; None where there is no reference.
    title : str
    labels : dict, optional
        `labels` of dataset.json; needed with `predictions`.
    predictions : dict of str to path, optional
        Model → folder of predicted label maps, for pictures and signs of doubt, of cases with and without a reference.
    images, references : path, optional
        Folders of scans (CASE_0000 or CASE, with the ending of a label map) and of reference label maps, for pictures.
    domain_of_case, default_domain, domain_labels
        As in `cases.evaluate_folders`. The domains in `rows` go before these.
    labelled_domains : sequence of str, optional
        Domains that the models were trained on with labels, against whose volumes others are compared; by default those
        of `rows`.
    folds : dict of str to sequence of path, optional
        Model → folders of the predictions of its single folds, whose agreement is measured in place of the models'.
    probabilities : dict of str to path, optional
        Model → folder of nnU-Net's CASE.npz; by default those in its folder of predictions, if there are any.
    runs : sequence of path
        Result folders of nnU-Net, each a fold or with fold_* in it, for the learning curves.
    comparisons : sequence of tables.Table
        Further tables to show, as of `tables.comparison_tables`.
    model : str, optional
        By whose results cases are chosen for the pictures; by default the first.
    n_processes : int, optional
        Parallel processes; by default one per core.

    Raises UserError where a folder is missing, a file does not fit, or a model is unknown.
    """
    models = list(predictions or (dict.fromkeys(rows["model"]) if rows is not None else ()))
    for name in [*(folds or ()), *(probabilities or ()), *([model] if model else ())]:
        if name not in models:
            raise UserError(f"report: '{name}' is not one of the models{nearest(name, models)}")
    context = {} if rows is None else summary_context(rows, models)
    ranked = None
    if predictions:
        sources = collect(
            rows,
            labels,
            predictions,
            images=images,
            references=references,
            domain_of_case=domain_of_case,
            default_domain=default_domain,
            domain_labels=domain_labels,
            folds=folds,
            probabilities=probabilities,
        )
        if labelled_domains is None:
            labelled_domains = [] if rows is None else list(dict.fromkeys(rows["domain"]))
        table = indicators(sources.predicted_cases(), sources.structures, labelled_domains, n_processes)
        ranked = rank_cases(table)
        context |= doubt_context(rows, table, ranked, labelled_domains, has_folds=bool(folds))
        context |= pictures_context(rows, sources, ranked, model or models[0], n_processes)
    context |= {"runs": [_run(fold) for fold in learning.find_folds(runs)], "comparisons": list(comparisons)}
    text = _render(title=title, facts=_facts(rows, ranked, models), sections=_sections(context), **context)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _render(**context):
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("nnunet_da.evaluation.report")

    def source(name):
        return (folder / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        style=source("style.css"),
        script=source("script.js"),
        version=nnunet_da.__version__,
        date=datetime.date.today().isoformat(),
        **context,
    )


def _sections(context):
    """Id → heading of the sections that there is something for, in their order on the page."""
    content = {
        "summary": ("Summary", "summaries"),
        "spread": ("Spread of the cases", "plots"),
        "comparisons": ("Comparisons", "comparisons"),
        "pictures": ("Pictures", "pictures"),
        "cases": ("All cases", "cases"),
        "doubt": ("Where to doubt", "doubt"),
        "training": ("Learning curves", "runs"),
        "terms": ("Terms", "terms"),
    }
    sections = {name: heading for name, (heading, key) in content.items() if context.get(key)}
    # Without numbers, doubt is what the page is read for.
    return sections if "summary" in sections else dict(sorted(sections.items(), key=lambda item: item[0] != "doubt"))


def _facts(rows, ranked, models):
    """What stands at the head of the page."""
    source = rows if rows is not None else ranked
    if source is None:
        return []
    facts = {"Cases": source["case"].nunique(), "Domains": source["domain"].nunique(), "Models": len(models)}
    alarms = {}
    if rows is not None:
        facts["Structures"] = rows["structure"].nunique()
        alarms = {"Structures missed": int(rows["missed"].sum()), "False structures": int(rows["false"].sum())}
    elif ranked is not None:
        alarms["Cases with an empty structure"] = ranked.loc[ranked["empty"].str.len() > 0, "case"].nunique()
    facts = [{"name": name, "value": value, "alarm": False} for name, value in facts.items()]
    return facts + [{"name": name, "value": value, "alarm": value > 0} for name, value in alarms.items()]


def _run(fold):
    title, is_finished, panels = learning.read_run(fold)
    if not panels:
        raise UserError(f"{fold}: its checkpoint holds no log of a training")
    return {"title": title, "is_finished": is_finished, "plot": curves(panels)}
