"""`fedattn ask`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fedattn.cli.answers import show_report, stream_answer
from fedattn.cli.chrome_trace import chrome_trace
from fedattn.cli.options import (
    AUTO,
    ApiKey,
    AsJson,
    AskedPlan,
    Authority,
    Codec,
    Exchanging,
    Gateway,
    Independent,
    InputKeepRatio,
    KeepEnds,
    KeepRatio,
    MaxNewTokens,
    Plan,
    Prefix,
    PublisherPlan,
    QueryCodec,
    Seed,
    Selector,
    read_wish,
)
from fedattn.cli.outfiles import validate_out, write_out
from fedattn.cli.plans import check_gateway_plan
from fedattn.cli.terminal import output, progress, write_json
from fedattn.client import Client
from fedattn.client.connection import DEFAULT_GATEWAY
from fedattn.core.asked import DEFAULT_QUERY_CODEC
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.limits import DEFAULT_DEADLINE_S, DEFAULT_MIN_PARTICIPANTS
from fedattn.core.report import FinishReason
from fedattn.core.request import Exchange
from fedattn.core.sampling import DEFAULT_NO_REPEAT_NGRAM_SIZE, DEFAULT_REPETITION_PENALTY
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.faults import checked
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    gateway: Gateway = DEFAULT_GATEWAY,
    api_key: ApiKey = None,
    ca: Authority = None,
    publisher: Annotated[str | None, typer.Option(help="Who asks; default: the first.")] = None,
    contributors: Annotated[
        str | None, typer.Option(help="Comma-separated ids in token order; default: all joined.")
    ] = None,
    require: Annotated[
        str | None,
        typer.Option(help="Comma-separated ids without all of whose rows there is no answer."),
    ] = None,
    plan: Plan = "auto",
    publisher_plan: PublisherPlan = None,
    exchange: Exchanging = Exchange.AUTO,
    asked_plan: AskedPlan = None,
    query_codec: QueryCodec = DEFAULT_QUERY_CODEC,
    codec: Codec = DEFAULT_CODEC,
    keep_ratio: KeepRatio = None,
    selector: Selector = AUTO,
    keep_ends: KeepEnds = 0,
    input_keep_ratio: InputKeepRatio = 1.0,
    kv_budget_bytes: Annotated[
        int | None, typer.Option(help="Most bytes of KV; the aggregator adapts to it.")
    ] = None,
    link_rate_mbit_s: Annotated[
        float | None, typer.Option(help="Rate of the slowest link; with --link-time-s a budget.")
    ] = None,
    link_time_s: Annotated[
        float | None, typer.Option(help="Seconds the KV may take on that link.")
    ] = None,
    link_rtt_ms: Annotated[
        float | None,
        typer.Option(help="Round trip on that link; with the rate, --exchange auto goes by it."),
    ] = None,
    prefix: Prefix = PrefixMode.PUBLIC,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Probability mass kept.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens kept, 0 for all.")] = 0,
    repetition_penalty: Annotated[
        float, typer.Option(help="On tokens that the answer has already; 1 is off.")
    ] = DEFAULT_REPETITION_PENALTY,
    no_repeat_ngram_size: Annotated[
        int, typer.Option(help="So many tokens in a row come once in the answer; 0 is off.")
    ] = DEFAULT_NO_REPEAT_NGRAM_SIZE,
    seed: Seed = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    min_participants: Annotated[int, typer.Option(help="Fewest, publisher included.")] = (
        DEFAULT_MIN_PARTICIPANTS
    ),
    deadline: Annotated[float, typer.Option(help="Seconds for everything.")] = DEFAULT_DEADLINE_S,
    max_wait: Annotated[
        float | None,
        typer.Option(help="Most seconds of them to wait for a place; 0: rather not at all."),
    ] = None,
    as_json: AsJson = False,
    reuse: Annotated[bool, typer.Option(help="Use rows cached since earlier queries.")] = True,
    retry: Annotated[
        bool, typer.Option(help="Ask once more without nodes lost before the first token.")
    ] = True,
    independent: Independent = False,
    purpose: Annotated[
        str, typer.Option(help="What the answer is for; owners' policies may ask for one.")
    ] = "",
    subject: Annotated[str, typer.Option(help="Who asks, for owners' policies.")] = "",
    share: Annotated[
        Share | None,
        typer.Option(help="What contributors may know of the question; default: the gateway's."),
    ] = None,
    topic: Annotated[
        str, typer.Option(help="Words that contributors are told instead; means --share topic.")
    ] = "",
    node_tokens: Annotated[int | None, typer.Option(help="Most tokens of one node's text.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of all texts; default: what suits the model.")
    ] = None,
    min_support: Annotated[
        float, typer.Option(min=0, max=1, help="Say so if the texts support the answer less.")
    ] = 0.0,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write what every node did when, as a Chrome trace (ui.perfetto.dev)."),
    ] = None,
) -> None:
    """Ask a running gateway. The answer goes to stdout, who took part and the report to stderr."""
    validate_out("--timeline", timeline)
    check_gateway_plan(plan)
    check_gateway_plan(publisher_plan or "")
    wish = read_wish(
        codec, keep_ratio, input_keep_ratio, selector=selector, keep_ends=keep_ends, seed=seed
    )
    sampling = checked(
        SamplingBody,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        seed=seed,
        stop=tuple(stop or ()),
    )
    body = checked(
        QueryBody,
        question=question,
        publisher=publisher,
        contributors=_split(contributors),
        require=_split(require) or [],
        plan=plan,
        publisher_plan=publisher_plan,
        exchange=exchange,
        asked_plan=asked_plan,
        query_codec=query_codec,
        compression=CompressionBody.of(wish),
        kv_budget_bytes=kv_budget_bytes,
        link_rate_mbit_s=link_rate_mbit_s,
        link_time_s=link_time_s,
        link_rtt_ms=link_rtt_ms,
        prefix=prefix,
        min_participants=min_participants,
        deadline_s=deadline,
        max_wait_s=max_wait,
        reuse=reuse,
        retry=retry,
        independent=independent,
        purpose=purpose,
        subject=subject,
        share=Share.TOPIC if topic and share is None else share,
        topic=topic,
        node_tokens=node_tokens,
        context_tokens=context_tokens,
        min_support=min_support,
        timeline=timeline is not None,
        sampling=sampling,
    )
    with Client(gateway, api_key, ca=ca, retries=0) as client:
        answer = _send(client, body, as_json=as_json)
    if timeline is not None:
        write_out("--timeline", timeline, json.dumps(chrome_trace(answer)) + "\n")


def _split(node_ids: str | None) -> list[str] | None:
    return None if node_ids is None else [node_id.strip() for node_id in node_ids.split(",")]


def _send(client: Client, body: QueryBody, *, as_json: bool) -> QueryAnswer:
    """Ask; the answer goes to stdout, and how it came about to stderr."""
    if as_json:
        answer = client.ask(body)
        write_json(answer.model_dump(mode="json"))
        return answer
    told = progress()
    answer = stream_answer(client, body, output(), told)
    if answer.finish_reason is FinishReason.LENGTH:
        told.print(
            f"the answer was cut after {answer.num_tokens} tokens; --max-new-tokens takes more",
            style="yellow",
        )
    show_report(answer, told)
    return answer
