"""The inputs of a prediction for a person, as `run` takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cogsmith.engine.request import Cache, Constraint, Sampling
from cogsmith.errors import RequestError
from cogsmith.predictor.computed import LogitsWanted
from cogsmith.prompts.messages import from_questions

_GENERATORS = {"": None, "greedy": False, "sample": True}
_QAS_FIX = 'write [["Who are you?", "A model."], ["Whose?", null]]'
_TORCH_SEEDS = 2**64
_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInputs:
    """What is to be continued or answered, how, and how the text is to be shown.

    Exactly one of `prompt`, `prompts`, `messages` and `instruction` (with its `input`) is given. `template` names the
    prompt template, in place of the package's own; `stop` None means those of the template. `max_new_tokens` 0 means
    as many as the context holds. `eos_token_id` ends a text in place of the model's end tokens. A `cache` stands for
    the beginning of the prompt; without a prompt its text goes on.
    """

    prompt: str = ""
    prompts: Sequence[str] = ()
    messages: Sequence[dict[str, Any]] = ()
    instruction: str = ""
    input: str = ""
    system_prompt: str = ""
    template: str = ""
    add_generation_prompt: bool = True
    max_new_tokens: int = 128
    min_new_tokens: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stop: Sequence[str] | None = None
    eos_token_id: int | None = None
    masked_tokens: Sequence[int] = ()
    logit_bias: Mapping[str, float] = field(default_factory=dict)
    constraint: Constraint | None = None
    truncate_prompt: bool | None = None
    return_prompt: bool = False
    skip_special_tokens: bool = True
    stream: Literal["deltas", "cumulative"] = "deltas"
    warmup: bool = False
    use_cache: bool = True
    return_logits: LogitsWanted = ""
    return_cache: bool = False
    cache: Cache | None = None

    @property
    def is_given(self) -> bool:
        """Whether there is anything to continue or answer."""
        return self.has_words or self.cache is not None

    @property
    def has_words(self) -> bool:
        """Whether a prompt of some kind is there, and not only a cache, whose text goes on as it is."""
        return bool(self.prompt or self.prompts or self.messages or self.instruction)

    @property
    def gives_files(self) -> bool:
        """Whether the answer is JSON with files in it, and not text alone."""
        return bool(self.return_logits) or self.return_cache

    def bias(self) -> dict[int, float]:
        """What is added to the logits, by id. Raises RequestError for what is no id or no number."""
        try:
            bias = {int(token): float(value) for token, value in self.logit_bias.items()}
        except (TypeError, ValueError):
            raise RequestError(
                "logit_bias maps token ids to numbers, and this one does not", fix='write {"198": -100, "11": 2.5}'
            ) from None
        return bias | dict.fromkeys(self.masked_tokens, -float("inf"))


def constraint_of(regex: str, json_schema: str, grammar: str, choices: Sequence[str]) -> Constraint | None:
    """Return what a text must be; None where nothing is said. Raises RequestError for two of them."""
    given = [
        (name, constraint)
        for name, value, constraint in (
            ("regex", regex, Constraint("regex", regex)),
            ("json_schema", json_schema, Constraint("json_schema", json_schema)),
            ("grammar", grammar, Constraint("lark", grammar)),
            ("choices", choices, Constraint("choice", choices=tuple(choices))),
        )
        if value
    ]
    if len(given) > 1:
        names = " and ".join(name for name, _ in given)
        raise RequestError(f"{names} are given, and a text follows one constraint", fix="send one of them")
    return given[0][1] if given else None


def from_run(
    *,
    max_new_tokens: int = 128,
    max_tokens: int | None = None,
    max_gen_len: int | None = None,
    do_sample: bool | None = None,
    generator: str = "",
    pad_token_id: int | None = None,
    qas: str = "",
    seed: int = -1,
    regex: str = "",
    json_schema: str = "",
    grammar: str = "",
    choices: Sequence[str] = (),
    **inputs: Any,
) -> TextInputs:
    """Return what `run` was given. `max_tokens` and `max_gen_len` are other names of `max_new_tokens`.

    A `seed` below 0 draws one; without `do_sample` the likeliest token is taken at any temperature. `generator` says
    the same in the words of curated-transformers: "greedy" or "sample". `qas` is the JSON text of questions with their
    answers, and becomes messages. `pad_token_id` means nothing where no row is padded. Other `inputs` are fields of
    TextInputs or of Sampling. Raises RequestError where two of them contradict each other.
    """
    do_sample = _one_choice(do_sample, generator)
    if qas:
        inputs |= _as_messages(qas, inputs)
    sampling = {name: inputs.pop(name) for name in _SAMPLING if name in inputs}
    if do_sample is False:
        sampling["temperature"] = 0.0
    elif do_sample and not sampling.get("temperature"):
        sampling["temperature"] = 1.0
    return TextInputs(
        max_new_tokens=_one_length(max_new_tokens, max_tokens, max_gen_len),
        # A person's seed is to give what transformers does with it; torch takes none above these.
        sampling=Sampling(seed=seed if seed >= 0 else None, as_torch=0 <= seed < _TORCH_SEEDS, **sampling),
        constraint=constraint_of(regex, json_schema, grammar, choices),
        **inputs,
    )


def _one_choice(do_sample: bool | None, generator: str) -> bool | None:
    """Whether tokens are drawn, by its two names. None: as the temperature says."""
    named = _GENERATORS[generator]
    if named is not None and do_sample is not None and named != do_sample:
        said = f"generator is {generator!r} and do_sample is {str(do_sample).lower()}"
        raise RequestError(f"{said}, which contradict each other", fix="send one of them")
    return do_sample if named is None else named


def _as_messages(qas: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that questions with their answers stand for. An answer goes on only where the last is open."""
    if inputs.get("messages"):
        raise RequestError("messages and qas are given together, and both are the chat", fix="send one of them")
    try:
        pairs = json.loads(qas)
    except ValueError as error:
        raise RequestError(f"qas cannot be read as JSON: {error}", fix=_QAS_FIX) from None
    if not isinstance(pairs, list) or not pairs or not all(isinstance(pair, list) for pair in pairs):
        raise RequestError("qas is no list of questions with their answers", fix=_QAS_FIX)
    messages = from_questions(pairs)
    is_open = messages[-1]["role"] == "user"
    return {"messages": messages, "add_generation_prompt": is_open and inputs.get("add_generation_prompt", True)}


def _one_length(max_new_tokens: int, *others: int | None) -> int:
    named = {length for length in others if length is not None}
    if len(named) > 1:
        raise RequestError("max_tokens and max_gen_len differ, and are two names of one", fix="send max_new_tokens")
    return named.pop() if named else max_new_tokens
