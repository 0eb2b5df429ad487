"""The local server: OpenAI's, Anthropic's and the Responses API over one engine for each model.

A request goes one way: `app.py` checks who sends it (`auth.py`), an endpoint of a protocol folder reads its
JSON into a `ServerRequest` (`request.py`), `service.py` queues and runs it on the engine of its model, and
the protocol's `Writer` turns the engine's events into the chunks or the one answer of its API.
"""
