"""`OPENAI_BASE_URL=http://... LANGUAGE_MODEL=name python -m examples.language_model`

With `OPENAI_API_KEY_FILE` where the endpoint wants a key.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Final

import yaml

from cli.outcome import ExitCode
from examples.running import Demonstration, Run, main

HERE: Final = Path(__file__).parent
REQUIRED: Final = ("OPENAI_BASE_URL", "LANGUAGE_MODEL")
OPTIONAL: Final = ("OPENAI_API_KEY_FILE",)
SUBJECT_VARIABLE: Final = "SUBJECT"
SUBJECT_DEFAULT: Final = "why long transactions need compensation"


def show(run: Run) -> bool:
    results = run.results()
    run.say(results["article"]["text"])
    tokens = sum(result["tokens"] for result in results.values())
    run.say(f"\n{len(results)} answers of {results['article']['model']}, {tokens} tokens.")
    return bool(results["article"]["text"])


def write_catalogue(folder: Path) -> Path:
    """Hosts get of the environment only what the operator's catalogue names."""
    environment = {name: os.environ[name] for name in (*REQUIRED, *OPTIONAL) if name in os.environ}
    agent_type = {
        "entry": "python:examples.language_model.agents:ask",
        "python_path": str(HERE.parents[1]),
        "description": "asks a language model",
        "slots": 4,
        "environment": environment,
    }
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump({"agents": {"language-model": agent_type}}), encoding="utf-8")
    return path


def start(arguments: list[str] | None = None) -> int:
    missing = [name for name in REQUIRED if not os.environ.get(name)]
    if missing:
        names = " and ".join(missing)
        print(f"{names} must be set: an endpoint like http://127.0.0.1:11434/v1, and its model", file=sys.stderr)
        return ExitCode.USAGE
    with tempfile.TemporaryDirectory(prefix="language-model-") as folder:
        demonstration = Demonstration(
            title="An article by language models",
            workflow=HERE / "workflow.yaml",
            catalogue=write_catalogue(Path(folder)),
            input_data={"subject": os.environ.get(SUBJECT_VARIABLE, SUBJECT_DEFAULT)},
            show=show,
        )
        return main(demonstration, arguments)


if __name__ == "__main__":
    sys.exit(start())
