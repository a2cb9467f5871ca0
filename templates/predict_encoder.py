{% extends "predict_base.py" %}
{% set module, parent = "cogsmith.predictor.encoder", "Encoder" %}
{% block about %}The model of this folder: texts into vectors and hidden states, over LMTP or as JSON.{% endblock %}

{% block inputs %}
        texts: list[str] = Input(default=[], description="Texts to encode"),
        text: str = Input(default="", description="One text to encode, instead of texts"),
        layers: list[int] | str = Input(default="last", description="Whose outputs are wanted: last, the last hidden state; all layers; or some by their numbers from 0, such as [0, 5] or 0,5"),
        embedding: bool = Input(default=False, description="Whether the output of the embedding is wanted too"),
        pooling: str = Input(default="", choices=["", "mean", "cls", "last", "max", "none"], description="How the vectors of a text's tokens become one; left empty, as the model was trained; none gives hidden states"),
        normalize: bool | None = Input(default=None, description="Whether vectors are brought to length 1; left out, as the model was trained"),
        padding_side: str = Input(default="", choices=["", "left", "right"], description="Side on which texts are padded to the longest of them; left empty, none is padded unless padding_id is given"),
        padding_id: int | None = Input(default=None, ge=0, description="Token that pads; left out, the model's own"),
        truncate: bool = Input(default=False, description="Whether a text that is too long is cut, else it is refused"),
        output: str = Input(default="json", choices=["json", "npz"], description="Numbers as JSON, or JSON with a file of numpy's arrays as a data URI"),
{% endblock %}

{% block answer %}Give the vectors or hidden states of texts as one JSON object, or LMTP lines for `ops_batch_json`.{% endblock %}

{% block values %}
            texts=texts,
            text=text,
            layers=layers,
            embedding=embedding,
            pooling=pooling,
            normalize=normalize,
            padding_side=padding_side,
            padding_id=padding_id,
            truncate=truncate,
            output=output,
{% endblock %}
