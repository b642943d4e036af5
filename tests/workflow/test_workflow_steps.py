"""Plans, their fingerprints, and the records that are kept of their steps."""

import os

import pytest

from nnunet_da.errors import UserError
from nnunet_da.workflow.actions import Action
from nnunet_da.workflow.state import DISCARDING, State
from nnunet_da.workflow.steps import Plan, Step


class Noted(Action):
    """Notes that it was discarded."""

    def __init__(self):
        self.discarded = 0

    def discard(self):
        self.discarded += 1


def chain(**settings):
    """Plan of one → two → three, in stages A, B and B; and aside, in stage A."""
    one = Step("kind", "one", "A", Noted(), (), {"x": settings.get("x", 1)})
    aside = Step("kind", "aside", "A", Noted(), (), {})
    two = Step("other", "two", "B", Noted(), (one,), {"y": settings.get("y", 1)})
    three = Step("kind", "three", "B", Noted(), (two,), {})
    return Plan([one, aside, two, three])


def test_a_setting_changes_what_rests_on_it_and_nothing_else():
    before, after = chain(), chain(y=2)
    changed = {step.id for step in before if before.fingerprint(step) != after.fingerprint(after[step.id])}
    assert changed == {"other/two", "kind/three"}


def test_stages():
    plan = chain()
    assert plan.stages == ("A", "B")
    assert plan.kinds == ("kind", "other")
    assert plan.until("A") == ("A",)
    assert [step.name for step in plan.resting_on(plan.of_stages(["A"]))] == ["one", "aside", "two", "three"]
    assert [step.name for step in plan.resting_on([plan["other/two"]])] == ["two", "three"]
    assert [step.name for step in plan.needed_for([plan["other/two"]])] == ["one", "two"]
    with pytest.raises(UserError, match=r"stage b: not in this plan.*\(A, B\)"):
        plan.until("b")


def test_a_plan_is_in_order():
    plan = chain()
    with pytest.raises(ValueError, match="other/two"):
        Plan([plan["other/two"], plan["kind/one"]])


def done(state, plan):
    for step in plan:
        started = state.begin(step, plan.fingerprint(step))
        state.finish(step, plan.fingerprint(step), started)


def unchanged(state, plan, steps=None):
    state.require_unchanged(plan, plan if steps is None else steps, "run.yaml")


def test_a_changed_setting_is_refused_by_name(tmp_path):
    state = State(tmp_path)
    unchanged(state, chain())
    done(state, chain())
    unchanged(state, chain())
    with pytest.raises(UserError, match=r"run.yaml: x is 2, was 1: stage A .*--redo A"):
        unchanged(state, chain(x=2))
    with pytest.raises(UserError, match=r"y is 2, was 1: stage B"):
        unchanged(state, chain(y=2))
    later = chain(y=2)
    unchanged(state, later, later.needed_for([later["kind/one"]]))


def test_a_step_that_was_only_begun_counts_too(tmp_path):
    state, plan = State(tmp_path), chain()
    state.begin(plan["kind/one"], plan.fingerprint(plan["kind/one"]))
    changed = chain(x=2)
    with pytest.raises(UserError, match="x is 2, was 1"):
        unchanged(state, changed)
    with pytest.raises(UserError, match="begun with other settings"):
        state.begin(changed["kind/one"], changed.fingerprint(changed["kind/one"]))


def test_what_is_discarded_is_as_if_never_done(tmp_path):
    state, plan = State(tmp_path), chain()
    done(state, plan)
    steps = plan.resting_on(plan.of_stages(["B"]))
    state.discard(plan, steps)
    assert [step.action.discarded for step in plan] == [0, 0, 1, 1]
    assert [state.is_done(step) for step in plan] == [True, True, False, False]
    assert state.record(plan["other/two"]) is None


def test_an_interrupted_discarding_is_finished(tmp_path):
    state, plan = State(tmp_path), chain()
    done(state, plan)
    state.write(plan["kind/three"], plan.fingerprint(plan["kind/three"]), DISCARDING)
    state.clear(plan)
    assert [step.action.discarded for step in plan] == [0, 0, 0, 1]
    assert not state.is_done(plan["kind/three"])


def test_a_lock_is_held_once_and_given_back(tmp_path):
    state = State(tmp_path)
    with (
        state.lock("run", "the workflow"),
        pytest.raises(UserError, match=f"process {os.getpid()} .* still works on the workflow"),
        state.lock("run", "the workflow", patience=0.2),
    ):
        pass
    with state.lock("run", "the workflow"):
        pass
