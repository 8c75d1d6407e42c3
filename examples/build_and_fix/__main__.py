"""`python -m examples.build_and_fix`: what failed, who decided what, and whether the repository is sound now."""

import difflib
import sys
import zipfile
from pathlib import Path
from typing import Any, Final

from examples.build_and_fix import repository
from examples.running import Demonstration, Run, main

HERE: Final = Path(__file__).parent
FOLDER: Final = "build-and-fix"
MODULES: Final = ("wrap", "money")
SOLVED_BY: Final = {"lint": "L2", "test-wrap": "L2", "test-money": "L1", "package": "L2", "sign": "L1"}
"""The level on which each failure should be solved."""

VERBS: Final = {
    "retry": "has it tried again",
    "reassign": "gives it to {to}",
    "resolve": "settles it",
    "fail": "gives it up",
    "escalate": "passes it on",
}


def prepare(run: Run) -> None:
    repository.lay_out(_folder(run))
    for module in MODULES:
        report = repository.test(_folder(run), module).splitlines()
        run.say(f"  before: {module}: {report[-1] if report else 'passes'}")


def show(run: Run) -> bool:
    solved = _show_escalations(run)
    for module in MODULES:
        _show_change(run, module)
    folder = _folder(run)
    failing = [module for module in MODULES if repository.test(folder, module)]
    findings = repository.lint(folder)
    package = folder / "dist" / str(run.result("package")["package"])
    names = zipfile.ZipFile(package).namelist() if package.is_file() else []
    sound = len(MODULES) - len(failing)
    run.say(f"\nThe repository now: {sound} of {len(MODULES)} modules pass their tests, ruff finds "
            f"{findings or 'nothing'}; {package.name} holds {len(names)} files.")  # fmt: skip
    as_meant = solved == SOLVED_BY
    if not as_meant:
        run.say(f"The failures were solved by {solved}, which should be {SOLVED_BY}.", style="red")
    return as_meant and not failing and not findings and len(names) == len(MODULES) + 1


def _show_escalations(run: Run) -> dict[str, str]:
    """In words; and which level solved each failure."""
    solved: dict[str, str] = {}
    refused = 0
    for event in run.events():
        said: dict[str, Any] = event["payload"]
        if event["event_type"] == "escalation.raised":
            lines = said["error"]["message"].strip().splitlines()
            error = f"{said['error']['code']}: {lines[-1][:80] if lines else ''}"
            run.say(f"{said['task_id']}: {said['from_level']} -> {said['to_level']}   {error}")
        elif event["event_type"] == "escalation.decided":
            verb = VERBS.get(said.get("decision", ""), "has no answer").format(to=said.get("to"))
            run.say(f"    {said['level']} {said['by']} {verb}: {said.get('reason', '')}{_refusal(said)}")
            refused += said["outcome"] == "refused"
            if said["outcome"] == "carried_out":
                solved[said["task_id"]] = said["level"]
    run.say(f"\n{len(solved)} failures solved; {refused} decision refused, because it was beyond somebody's authority.")
    return solved if refused else {}


def _refusal(said: dict[str, Any]) -> str:
    return "   (refused)" if said["outcome"] == "refused" else ""


def _show_change(run: Run, module: str) -> None:
    before = (HERE / "subject" / repository.PACKAGE / f"{module}.py{repository.SUFFIX}").read_text(encoding="utf-8")
    after = repository.module_path(_folder(run), module).read_text(encoding="utf-8")
    run.say(f"\n{repository.PACKAGE}/{module}.py:")
    for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm=""):
        if line[:1] in "+-" and line[:3] not in ("+++", "---") and line[1:].strip():
            run.say(f"  {line}")


def _folder(run: Run) -> Path:
    return run.data_dir / FOLDER


DEMONSTRATION: Final = Demonstration(
    title="An architect, a foreman, two builders and a fixer build a broken repository.",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    show=show,
    prepare=prepare,
    input_data=lambda run: {"repository": str(_folder(run))},
)

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
