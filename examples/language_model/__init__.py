"""Agents that are language models, behind any endpoint that speaks OpenAI's chat completions. Needs the extra
`language-models`."""
