"""What an endpoint says that it serves: the answer of `GET /v1/models`."""

from pydantic import BaseModel, ConfigDict, ValidationError

from blockwise.serving.http_json import get_json


class ServedModel(BaseModel):
    """One entry of the list; all but its name are vLLM's own fields, which others lack."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    root: str | None = None  # the files that are served
    max_model_len: int | None = None  # the window, in tokens
    owned_by: str | None = None  # the software


class _Listing(BaseModel):
    data: list[ServedModel]


def served_models(base_url: str, api_key: str) -> dict[str, ServedModel]:
    """The models of an endpoint by name; none where its answer is in another form.

    Args:
        base_url: of the OpenAI-compatible API, as in `http://127.0.0.1:8000/v1`.
        api_key: of the endpoint.

    Raises:
        HttpError: no answer, no success, or no JSON.
    """
    answer = get_json(f"{base_url}/models", api_key)
    try:
        return {model.id: model for model in _Listing.model_validate(answer).data}
    except ValidationError:
        return {}
