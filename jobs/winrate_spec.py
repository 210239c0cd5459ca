"""What can be asked about win rates: which answers are compared, and who judges them."""

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from jobs.frozen import Frozen

PROMPT = """\
Two models answered the same instruction. Decide which answer a person who gave the instruction
would prefer: the one that follows it better, is right, and is helpful.

<instruction>
{instruction}
</instruction>

<answer model="m">
{output_1}
</answer>

<answer model="M">
{output_2}
</answer>

Reply with the name of the better model alone, without quotes or any other word: m or M."""
"""What a judge is asked, with AlpacaEval's names `m` and `M` for the two answers."""

PLACES = ("{instruction}", "{output_1}", "{output_2}")
"""What a judge's prompt must hold."""


class EndpointJudge(Frozen):
    """A model behind an OpenAI-compatible `/chat/completions`."""

    kind: Literal["endpoint"] = "endpoint"
    base_url: str
    """What `/chat/completions` is appended to, as in `https://api.example.com/v1`. Not part of any
    identity. Unencrypted HTTP is for this machine alone."""
    model: str = Field(min_length=1)
    """Name of the model; part of the identity."""
    api_key_env: str | None = None
    """Environment variable, on every node, that holds the key; never the key itself."""
    input_price: float = Field(0.0, ge=0)
    """Price of a million tokens read, in any currency."""
    output_price: float = Field(0.0, ge=0)
    """Price of a million tokens written."""
    most_cost: float | None = Field(None, gt=0)
    """What all comparisons of the study may cost together; each gets an equal share."""
    temperature: float = Field(0.0, ge=0)
    """Of the judge's sampling; of no matter where it gives log-probabilities."""
    answer_tokens: int = Field(1, ge=1)
    """Longest answer of the judge."""
    logprobs: bool = True
    """Ask for the probabilities of both names, and weigh the preference by them."""
    prompt: str = PROMPT
    """What it is asked: holds {instruction}, {output_1} and {output_2}; its answer is m or M."""
    retries: int = Field(6, ge=0)
    """Further tries where the endpoint is busy, fails or says nothing."""
    timeout: float = Field(60.0, gt=0)
    """Seconds without a byte after which a try is given up."""
    concurrency: int = Field(8, ge=1, le=256)
    """Questions at a time."""

    @field_validator("base_url", "api_key_env", mode="before")
    @classmethod
    def _holds_no_secret(cls, value: object) -> object:
        """Refuses what may hold a key by replacing it, since refused values are shown."""
        text = str(value)
        secret = "@" in text or "?" in text or "#" in text or text.startswith(("sk-", "Bearer"))
        return "(something that may hold a key)" if secret else value

    @model_validator(mode="after")
    def _can_be_asked(self) -> "EndpointJudge":
        if fault := url_fault(self.base_url):
            raise ValueError(f"base_url {self.base_url} {fault}")
        if self.api_key_env is not None and not self.api_key_env.isidentifier():
            raise ValueError("api_key_env is no name of an environment variable")
        if missing := [place for place in PLACES if place not in self.prompt]:
            raise ValueError(f"prompt lacks {missing[0]}")
        if self.most_cost is not None and not (self.input_price or self.output_price):
            raise ValueError("most_cost needs input_price and output_price")
        return self


class LocalJudge(Frozen):
    """A checkpoint on disk: it prefers the answer that is likelier to it, token for token.

    It reads no two answers against each other, so their order can't matter to it. It is for tests,
    for models too small to follow a judge's prompt, and for work without a network.
    """

    kind: Literal["local"] = "local"
    checkpoint: str
    """A transformers folder with its tokenizer."""


class SuiteJudge(Frozen):
    """The last checkpoint of one of the study's models; it judges as a local judge does."""

    kind: Literal["suite"] = "suite"
    suite: str
    """The suite or chain."""
    model: str | None = None
    """Its model; may be left out where there is only one."""


Judge = Annotated[EndpointJudge | LocalJudge | SuiteJudge, Field(discriminator="kind")]


class Winrates(Frozen):
    """How often a judge prefers the answers of one checkpoint to those of another."""

    instructions: str
    """Name of the study's training data whose records have `instruction` or `prompt`."""
    pairs: tuple[tuple[str, str], ...] = ()
    """Pairs of chains or suites: the last checkpoint of each stage of the first is compared with
    that of the second, where both have the same model and began from the same checkpoint."""
    against_last: tuple[str, ...] = ()
    """Chains or suites: each model from an earlier start is compared with that from the last."""
    new_tokens: int = Field(1024, ge=1)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0)
    """Of the sampling; 0 takes the likeliest token."""
    seed: int = Field(0, ge=0, lt=2**53)
    """Seed of the sampling."""
    difficulties: str | None = None
    """CSV with a column `instruction_difficulty`, a row for each instruction in order, as
    AlpacaEval publishes it; without, no length-controlled rate is to be had."""
    judge: Judge
    """Who judges."""

    @model_validator(mode="after")
    def _compares_something(self) -> "Winrates":
        if not (self.pairs or self.against_last):
            raise ValueError("nothing to compare: give pairs or against_last")
        if alike := [first for first, second in self.pairs if first == second]:
            raise ValueError(f"pairs compares '{alike[0]}' with itself")
        return self


def url_fault(url: str) -> str | None:
    """Returns what is wrong with the address of an endpoint; None if nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is no URL"
    if parts.scheme not in {"http", "https"} or not host:
        return "is no http(s) URL"
    if parts.username or parts.password or parts.query or parts.fragment:
        return "may hold no credentials, query or fragment"
    if parts.scheme == "http" and not is_loopback(host):
        return "is unencrypted: use https, or http on this machine alone"
    return None


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shared_cost(judge: EndpointJudge, comparisons: int) -> EndpointJudge:
    """Returns a judge that may cost only its share of what all comparisons may."""
    if judge.most_cost is None:
        return judge
    return judge.model_copy(update={"most_cost": judge.most_cost / comparisons})
