"""One question to Gemini, by google-genai (the extra `gemini`)."""

from __future__ import annotations

from typing import Any

from mlx_plastic.errors import NotInstalled
from mlx_plastic.sleep.teacher.openai import PASSING, count
from mlx_plastic.sleep.teacher.reply import Passing, Reply, TeacherFailed


class GeminiLine:
    """models.generate_content. url: another address than Google's, for tests and proxies."""

    def __init__(self, url: str, model: str, key: str, timeout_s: float) -> None:
        try:
            from google import genai  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise NotInstalled(
                "Gemini needs google-genai, which is not installed", hint="pip install 'mlx-plastic[gemini]'"
            ) from error
        options: dict[str, Any] = {"timeout": int(1000 * timeout_s)}  # milliseconds
        if url:
            options["base_url"] = url
        self.client = genai.Client(api_key=key, vertexai=False, http_options=options)
        self.model, self.timeout_s = model, timeout_s

    def ask(self, prompt: str) -> Reply:
        from google.genai import errors  # type: ignore[import-untyped, unused-ignore]

        config = {"response_mime_type": "application/json"}
        try:
            found = self.client.models.generate_content(model=self.model, contents=prompt, config=config)
        except errors.APIError as error:
            kind = Passing if error.code in PASSING else TeacherFailed
            raise kind(f"the teacher answered {error.code}") from error
        except Exception as error:  # whatever its HTTP library raises; its text may hold the prompt
            raise Passing(f"the teacher cannot be reached: {type(error).__name__}") from error
        if not isinstance(found.text, str):
            raise TeacherFailed("the teacher's answer holds no text", hint="check [teacher] model")
        used = found.usage_metadata
        told = {name: getattr(used, name, None) for name in ("prompt_token_count", "candidates_token_count")}
        return Reply(found.text, *(count(told, name) for name in told))
