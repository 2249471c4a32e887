"""Plans as the command line takes them: also profile files, as in found.json@1/20."""

from dataclasses import replace
from pathlib import Path

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec
from fedattn.core.profile import CompressionWish, Profile, Resolved, resolve
from fedattn.profiles import load_profile, shipped_profile


def choose(
    plan: str,
    publisher_plan: str | None,
    num_layers: int,
    fingerprint: str,
    wish: CompressionWish | None = None,
) -> Resolved:
    """Plans, compression and scores for a model at hand.

    Args:
        plan: of the contributors; with a profile file of both, unless the next says otherwise.
        publisher_plan: of the publisher, and how rows travel to it; None for the same as `plan`.
        num_layers: blocks of the model.
        fingerprint: of the model; `auto` is what its shipped profile says, if there is one.
        wish: what is wanted of the rows.

    Raises:
        InvalidPlanError: a plan is malformed or does not fit the model.
        InvalidRequestError: the selector needs a profile.
    """
    contributors = _resolve(plan, num_layers, fingerprint, wish)
    publisher = _resolve(publisher_plan or plan, num_layers, fingerprint, wish)
    plans = replace(publisher.plans, contributors=contributors.plans.contributors)
    return replace(publisher, plans=plans)


def _resolve(
    text: str, num_layers: int, fingerprint: str, wish: CompressionWish | None
) -> Resolved:
    spec, profile = split_profile(text)
    if profile is None:
        profile = shipped_profile(fingerprint)
    else:
        profile.check_model(fingerprint)
    return resolve(spec, spec, num_layers, profile, wish)


def check_gateway_plan(plan: str) -> None:
    """Refuse a profile file where a node's own profile counts.

    Raises:
        InvalidPlanError: it names one.
    """
    if ".json" in plan:
        raise InvalidPlanError(
            f"plan {plan[:80]!r}: a query goes by the profile of the node it is asked through; set "
            f"FEDATTN_PARTICIPANT_PROFILE on every node, and ask for auto or auto@1/20"
        )


def split_profile(text: str) -> tuple[PlanSpec, Profile | None]:
    """A plan, and the profile it is taken from if the text names a file."""
    name, at, ratio = text.rpartition("@") if ".json@" in text else (text, "", "")
    if not name.endswith(".json"):
        return PlanSpec(text), None
    return PlanSpec(f"auto{at}{ratio}"), load_profile(Path(name))
