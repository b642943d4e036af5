"""Which domain is translated into which."""

from nnunet_da.errors import UserError


def source_and_target(domains, settings):
    """The labelled domain and the one whose look it gets (Domain, Domain).

    Parameters
    ----------
    domains : Domains
    settings : TranslationSettings

    Raises UserError where a name is unknown, the source has no labels, or a domain is left open and several would do.
    """
    source = _chosen(domains, "source", settings.source, settings.target, [d for d in domains if d.labelled])
    target = _chosen(domains, "target", settings.target, source.name, [d for d in domains if not d.labelled])
    if not source.labelled:
        raise UserError(f"setting translation.source: domain '{source.name}' has no labelled case")
    return source, target


def _chosen(domains, role, name, other, candidates):
    """The domain called `name`; None: the only one of `candidates` that is not `other`."""
    if name is not None:
        return domains[name]
    candidates = [domain for domain in candidates if domain.name != other]
    if len(candidates) == 1:
        return candidates[0]
    kind = "with labelled cases" if role == "source" else "without labelled cases"
    found = ", ".join(domain.name for domain in candidates) or "none"
    raise UserError(
        f"setting translation.{role}: name it, since the dataset must have one domain {kind} for it to be clear "
        f"(there: {found})"
    )
