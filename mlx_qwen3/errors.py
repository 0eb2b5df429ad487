"""Every error a user can meet, in one tree, caught once at the command line.

    Qwen3Error
    |- ConfigError          config.json is broken, or asks for something we do not run
    |- CheckpointError      weights are missing, cut off, misnamed or of the wrong shape
    |  `- ModelNotFoundError  no such folder, short name or hub repository, or no network
    |- TokenizerError       tokenizer.json is missing or broken
    |- TemplateError        the chat template is missing, broken or tried to leave its sandbox
    |- MessageError         a conversation the template cannot take (roles, missing content)
    |- SamplingError        a sampling parameter out of its range
    |- CacheError           a cache asked for what it cannot do, or that does not fit the model
    |- InsufficientMemoryError  the model, with its cache, needs more memory than there is
    |- ConversionError      a conversion that cannot start or finish
    |- ToolError            a tool, a tool server or their configuration cannot be used
    |- BenchmarkError       a measurement that cannot be made
    |- SchemaError          a JSON schema that cannot be used, or an answer that its model refuses
    `- EngineError          the engine was closed, or its thread died

A message is one line: what was wrong, where, and what to do about it.
"""


class Qwen3Error(Exception):
    """Base of everything this package raises on purpose. `str(error)` is one line for a person."""


class ConfigError(Qwen3Error):
    """config.json cannot be read, or describes a model this package does not run."""


class CheckpointError(Qwen3Error):
    """A checkpoint's files are missing, truncated, or do not hold exactly what the model needs."""


class ModelNotFoundError(CheckpointError):
    """No folder, short name or hub repository of that name can be reached."""


class TokenizerError(Qwen3Error):
    """tokenizer.json is missing, or cannot be read."""


class TemplateError(Qwen3Error):
    """The chat template is missing, does not render, or reaches outside its sandbox."""


class MessageError(Qwen3Error):
    """A message has no role or content, or an unknown role."""


class SamplingError(Qwen3Error):
    """A sampling parameter is out of its range."""


class CacheError(Qwen3Error):
    """A cache cannot do what was asked, or does not belong to this model."""


class InsufficientMemoryError(Qwen3Error):
    """A model and its cache need more memory than this machine has for them."""


class ConversionError(Qwen3Error):
    """A conversion cannot start, or stopped before its output was whole."""


class ToolError(Qwen3Error):
    """A tool, a tool server or their configuration cannot be used."""


class BenchmarkError(Qwen3Error):
    """A measurement cannot be made: nothing to compare with, or its process failed."""


class SchemaError(Qwen3Error):
    """No grammar can be made of a JSON schema, or a model's own checks refused the answer."""


class EngineError(Qwen3Error):
    """The engine is closed, or its thread stopped."""
