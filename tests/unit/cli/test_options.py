"""Options stand once: every command that has one takes it in the same way."""

import inspect

import pytest

from fedattn.cli import ask, calibrate, cost, evaluate, leak, options, simulate, trace
from fedattn.cli.options import read_wish
from fedattn.core.compression import SELECTION_FIELDS
from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import CompressionWish

COMMANDS = (
    ask.ask,
    simulate.simulate,
    evaluate.evaluate,
    trace.trace,
    leak.leak,
    calibrate.calibrate,
    cost.cost,
)
SHARED = {
    "model": options.Model,
    "codec": options.Codec,
    "keep_ratio": options.KeepRatio,
    "selector": options.Selector,
    "keep_ends": options.KeepEnds,
    "input_keep_ratio": options.InputKeepRatio,
    "seed": options.Seed,
    "prefix": options.Prefix,
    "plan": options.Plan,
    "publisher_plan": options.PublisherPlan,
    "independent": options.Independent,
    "system_prompt": options.SystemPrompt,
    "num_cases": options.NumCases,
    "num_contexts": options.NumContexts,
    "json_path": options.JsonOut,
    "plot_path": options.PlotOut,
}
MAY_BE_REPEATED = {"plan", "publisher_plan", "codec", "keep_ratio", "input_keep_ratio"}  # of eval


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_a_shared_option_is_the_same_everywhere(command: object) -> None:
    assert callable(command)
    parameters = inspect.signature(command).parameters
    own = MAY_BE_REPEATED if command is evaluate.evaluate else set()
    shared = {name for name in parameters if name in SHARED} - own
    assert {name: parameters[name].annotation for name in shared} == {
        name: SHARED[name] for name in shared
    }


@pytest.mark.parametrize("command", [ask.ask, simulate.simulate])
def test_every_setting_of_a_compression_has_its_option(command: object) -> None:
    assert callable(command)
    assert {"codec", *SELECTION_FIELDS} <= inspect.signature(command).parameters.keys()


def test_options_without_a_word_leave_all_to_the_profile() -> None:
    assert read_wish() == CompressionWish()


@pytest.mark.parametrize(
    ("codec", "keep_ratio", "selector", "words"),
    [
        ("zip", 1.0, "auto", "codec 'zip'"),
        ("int8", 0.0, "random", "keep_ratio must be above 0"),
        ("int8", 1.0, "best", "unknown selector 'best'"),
    ],
)
def test_a_compression_that_is_none_is_refused(
    codec: str, keep_ratio: float, selector: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_wish(codec, keep_ratio, selector=selector)
