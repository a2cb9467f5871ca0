"""What Cog runs. Rendered by Cogsmith; all that varies between two models is in model.json.

Cog reads the signature of `run` from this text without importing it: keep every input one plain literal on one line.
{% if concurrency > 1 %}
`run` is async so that predictions overlap, and returns a plain generator, the only shape that also streams them live.
{% else %}
One prediction runs at a time.
{% endif %}
"""

import cog
from cog import ConcatenateIterator, Input

from cogsmith.predictor.runner import LanguageModel


class Predictor(LanguageModel):
    """The model of this folder, token by token over LMTP, or as text."""

{% if concurrency > 1 %}
    @cog.concurrent(max={{ concurrency }})
    @cog.streaming
    async def run(
{% else %}
    @cog.streaming
    def run(
{% endif %}
        self,
        prompt: str = Input(default="", description="Text to continue"),
        messages: list[dict] = Input(default=[], description="A chat to answer, instead of a prompt: objects with role and content"),
        instruction: str = Input(default="", description="An instruction to follow, instead of a prompt; it goes through the prompt template"),
        input: str = Input(default="", description="What the instruction is about"),
        prompts: list[str] = Input(default=[], description="Several texts to continue at once, instead of a prompt; the answer is a JSON list"),
        system_prompt: str = Input(default="", description="What the model is told before the conversation"),
        template: str = Input(default="", choices=[""{% for name in prompt_templates %}, "{{ name }}"{% endfor %}], description="Prompt template; left empty, the one packaged with the model, else the model's own for chats"),
        max_new_tokens: int = Input(default=128, ge=0, description="Most tokens to generate; 0 is as many as there is room for"),
        temperature: float = Input(default=0.0, ge=0.0, le=5.0, description="How freely tokens are drawn; 0 always takes the likeliest"),
        top_p: float = Input(default=1.0, ge=0.0, le=1.0, description="Draw from the likeliest tokens of this probability in all"),
        top_k: int = Input(default=0, ge=0, description="Draw from this many likeliest tokens; 0 is all"),
        repetition_penalty: float = Input(default=1.0, ge=0.1, le=10.0, description="Above 1, tokens that are there already become less likely"),
        presence_penalty: float = Input(default=0.0, ge=-2.0, le=2.0, description="Subtracted once from the score of every token generated before"),
        frequency_penalty: float = Input(default=0.0, ge=-2.0, le=2.0, description="Subtracted from the score of a token each time it was generated before"),
        seed: int = Input(default=-1, description="Makes draws repeatable; -1 draws a seed"),
        stop: list[str] | None = Input(default=None, description="Texts that end the answer and are not shown; left out, those of the template"),
        choices: list[str] = Input(default=[], description="Texts, of which the answer is to be one"),
        regex: str = Input(default="", description="A regular expression that the whole answer matches"),
        json_schema: str = Input(default="", description="A JSON schema that the answer keeps to"),
        grammar: str = Input(default="", description="A grammar in Lark's syntax that the answer keeps to"),
        min_new_tokens: int = Input(default=0, ge=0, description="Least tokens to generate: before, neither end tokens nor stop texts end the answer"),
        do_sample: bool | None = Input(default=None, description="False takes the likeliest token at any temperature; left out, the temperature decides"),
        generator: str = Input(default="", choices=["", "greedy", "sample"], description="Another way to say do_sample: greedy is false, sample is true"),
        eos_token_id: int | None = Input(default=None, ge=0, description="Token that ends the answer, in place of the model's own"),
        masked_tokens: list[int] = Input(default=[], description="Ids of tokens that never come"),
        logit_bias: dict = Input(default={}, description="Added to the scores of tokens, by id"),
        truncate_prompt: bool | None = Input(default=None, description="Whether a prompt that is too long loses its beginning; left out, as the package says, else it is refused"),
        add_generation_prompt: bool = Input(default=True, description="Whether a template goes on to where the answer begins"),
        return_prompt: bool = Input(default=False, description="Whether the prompt stands before the answer"),
        skip_special_tokens: bool = Input(default=True, description="Whether special tokens are left out of the text"),
        stream: str = Input(default="deltas", choices=["deltas", "cumulative"], description="Pieces as they come, or lines of JSON with all the text so far"),
        warmup: bool = Input(default=False, description="Generate once before, unseen"),
        use_cache: bool = Input(default=True, description="Whether what was computed for earlier texts is used; without, all is computed anew, with the same answer"),
        return_logits: str = Input(default="", choices=["", "last", "all"], description="Gives JSON with an npz file of logits: last, those that the answer's tokens were drawn from; all, those after every token of the prompt too"),
        return_cache: bool = Input(default=False, description="Gives JSON with a safetensors file of the keys and values of prompt and answer, which a later prediction may begin with"),
        cache: cog.Path | None = Input(default=None, description="A file that return_cache gave: what it has of the prompt's beginning is not computed again; without a prompt, its text goes on"),
        max_tokens: int | None = Input(default=None, ge=1, description="Another name of max_new_tokens"),
        max_gen_len: int | None = Input(default=None, ge=1, description="Another name of max_new_tokens"),
{% if reads_images %}
        image: list[cog.Path] = Input(default=[], description="Images that the prompt is about, in order: where it has placeholders, else before it"),
        image_transform: str = Input(default="", choices=["", "model", "padded_resize", "resized_center_crop"], description="How images become pixels; left empty, as the package says"),
{% endif %}
        ops_batch_json: str = Input(default="", description="For programs: LMTP operations, a JSON array; the answer is LMTP lines"),
    ) -> ConcatenateIterator[str]:
        """Stream text that continues a prompt or answers a chat, or LMTP lines for `ops_batch_json`."""
        {{ "return" if concurrency > 1 else "yield from" }} self.stream(
            prompt=prompt,
            messages=messages,
            instruction=instruction,
            input=input,
            prompts=prompts,
            system_prompt=system_prompt,
            template=template,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            seed=seed,
            stop=stop,
            choices=choices,
            regex=regex,
            json_schema=json_schema,
            grammar=grammar,
            min_new_tokens=min_new_tokens,
            do_sample=do_sample,
            generator=generator,
            eos_token_id=eos_token_id,
            masked_tokens=masked_tokens,
            logit_bias=logit_bias,
            truncate_prompt=truncate_prompt,
            add_generation_prompt=add_generation_prompt,
            return_prompt=return_prompt,
            skip_special_tokens=skip_special_tokens,
            stream=stream,
            warmup=warmup,
            use_cache=use_cache,
            return_logits=return_logits,
            return_cache=return_cache,
            cache=cache,
            max_tokens=max_tokens,
            max_gen_len=max_gen_len,
{% if reads_images %}
            image=image,
            image_transform=image_transform,
{% endif %}
            ops_batch_json=ops_batch_json,
        )
