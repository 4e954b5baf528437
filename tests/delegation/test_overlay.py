"""An overlay is a dict in every respect but one: what was frozen stays as it is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentbus.delegation.overlay import Overlay

STEPS = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["set", "del", "freeze"]), st.integers()), max_size=80)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.integers(0, 40), st.integers(), max_size=30), STEPS)
def test_an_overlay_is_the_dict_it_stands_for(start: dict[int, int], steps: list[tuple[int, str, int]]) -> None:
    model, frozen = dict(start), []
    draft = Overlay(start).draft()
    for key, what, value in steps:
        if what == "set":
            draft[key] = model[key] = value
        elif what == "del" and key in model:
            del draft[key], model[key]
        elif what == "freeze":
            frozen.append((draft.freeze(), dict(model)))
        assert (key in draft, draft.get(key), len(draft)) == (key in model, model.get(key), len(model))
    for made, then in [*frozen, (draft.freeze(), model)]:
        assert made == then and len(made) == len(then) and sorted(made) == sorted(then)
        for key in range(41):
            assert made.get(key) == then.get(key) and (key in made) == (key in then)


def test_many_changes_become_part_of_the_whole() -> None:
    made: Overlay[int, int] = Overlay({n: n for n in range(1000)})
    for n in range(3000):
        draft = made.draft()
        draft[n] = -n
        if n % 3 == 0:
            del draft[n]
        made = draft.freeze()
    assert len(made) == 2000 and made.get(3) is None and made[4] == -4
    assert len(made._changes) <= 257


def test_what_did_not_change_is_not_copied() -> None:
    made: Overlay[int, int] = Overlay({1: 1})
    assert made.draft().freeze() is made
