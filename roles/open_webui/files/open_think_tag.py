"""A filter of Open WebUI: gives the answers of some models the <think> back that their thinking begins with.

The chat templates of these models end the prompt with that tag, so that it is in no answer, and the thinking would be
shown as part of it. What comes first of a streamed answer carries its role: the tag is put before that.
"""

MODELS = ()
TAG = "<think>"


class Filter:
    """What Open WebUI calls; it keeps nothing between two pieces of an answer."""

    def stream(self, event: dict) -> dict:
        """One piece of an answer, in the shape of OpenAI's API, as it is to be shown."""
        if event.get("model") in MODELS:
            for choice in event.get("choices", ()):
                delta = choice.get("delta", {})
                said = delta.get("content") or ""
                if delta.get("role") == "assistant" and not said.lstrip().startswith(TAG):
                    delta["content"] = f"{TAG}\n{said}"
        return event
