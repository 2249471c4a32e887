"""Plans as the command line takes them: also profile files, such as found.json or found.json@8."""

from pathlib import Path

from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.profile import Profile, resolve_plans
from fedattn.profiles import load_profile, shipped_profile


def read_plans(
    plan: str, publisher_plan: str | None, num_layers: int, fingerprint: str
) -> RolePlans:
    """The plans of both roles for a model at hand.

    Args:
        plan: of the contributors; with a profile file of both, unless the next says otherwise.
        publisher_plan: of the publisher; None for the same as `plan`.
        num_layers: blocks of the model.
        fingerprint: of the model; `auto` is what its shipped profile says, if there is one.

    Raises:
        InvalidPlanError: a plan is malformed or does not fit the model.
    """
    contributors = _resolve(plan, num_layers, fingerprint).contributors
    publisher = _resolve(publisher_plan or plan, num_layers, fingerprint).publisher
    return RolePlans(contributors=contributors, publisher=publisher)


def _resolve(text: str, num_layers: int, fingerprint: str) -> RolePlans:
    spec, profile = split_profile(text)
    if profile is not None:
        profile.check_model(fingerprint)
    return resolve_plans(spec, spec, num_layers, profile or shipped_profile(fingerprint))


def gateway_plans(plan: str, publisher_plan: str | None) -> tuple[str, str | None]:
    """Plans as the gateway takes them: profile files become lists of blocks.

    Raises:
        InvalidPlanError: a file is no profile, or has no plan so small.
    """
    spec, profile = split_profile(plan)
    chosen = None if profile is None else profile.choose(spec.num_layers).plans
    if publisher_plan is not None:
        own, own_profile = split_profile(publisher_plan)
        if own_profile is not None:
            publisher_plan = str(own_profile.choose(own.num_layers).plans.publisher)
    if chosen is None:
        return plan, publisher_plan
    return str(chosen.contributors), publisher_plan or str(chosen.publisher)


def split_profile(text: str) -> tuple[PlanSpec, Profile | None]:
    """A plan, and the profile it is taken from if the text names a file."""
    name, at, count = text.rpartition("@") if ".json@" in text else (text, "", "")
    if not name.endswith(".json"):
        return PlanSpec(text), None
    return PlanSpec(f"auto{at}{count}"), load_profile(Path(name))
