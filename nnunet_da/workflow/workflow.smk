"""One rule for each kind of step of a recipe; what a step does stands in its action. Started by nnunet_da.workflow.run."""

import shlex
import sys

from nnunet_da.workflow.run_file import read_run_file

RUN = read_run_file(config["work"])
STEP = shlex.join([sys.executable, "-m", "nnunet_da.workflow.step", str(RUN.state.work)])


def needs_of(kind):
    """The input function of a rule."""

    # That they are there is enough: whether they are out of date is known by their settings, not by their times.
    def needs(wildcards):
        return [ancient(str(RUN.state.sentinel(step))) for step in RUN.plan[f"{kind}/{wildcards.step}"].needs]

    return needs


for kind in RUN.plan.kinds:

    rule:
        name:
            kind
        input:
            needs_of(kind),
        output:
            str(RUN.state.work / "done" / kind / "{step}.json"),
        wildcard_constraints:
            step="[^/]+",
        resources:
            **RUN.resources(kind),
        shell:
            "{STEP} {rule}/{wildcards.step}"
