"""What the reviewers find out, on a small repository with a known history."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.code_review.agents import lead, review, split
from examples.code_review.complexity import measure
from examples.code_review.history import trends
from examples.code_review.lint import LintError, lint, ruff_program
from examples.code_review.ranking import FileFacts, gather, rank
from examples.code_review.report import Subject, write_report
from examples.code_review.repository import Repository, RepositoryError
from orchestration_agent import Task, TaskFailed
from tests.unit.examples.git_repository import commit, git, new_repository

SIMPLE = "def f(x):\n    return x\n"
BRANCHING = "def f(x):\n    if x and x > 1:\n        return 1\n    return x\n"
REFORMATTED = "# a comment\ndef f(x):\n    if x and x > 1:  # why\n        return 1\n\n    return x\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """hot.py: three commits, and growing; cold.py: one; and a file that is gone."""
    folder = new_repository(tmp_path / "reviewed")
    commit(folder, hot_py=SIMPLE, cold_py="x = 1\n", gone_py=SIMPLE, README="text")
    commit(folder, hot_py=BRANCHING)
    (folder / "gone.py").unlink()
    commit(folder, hot_py=BRANCHING + "import os\n\n\ndef g():\n    try:\n        pass\n    except:\n        pass\n")
    return folder


def task(action: str, folder: Path, *, results: dict[str, object] | None = None, **input_: object) -> Task:
    return Task(
        task_id=action,
        agent_id="reviewer-1",
        action=action,
        role="reviewer",
        execution_id="e",
        report=lambda _: None,
        execution_input={"repository": str(folder), "report": str(folder.parent / "report.md")},
        results=results,
        input=input_,
    )


class TestRepository:
    def test_files_are_those_that_are_tracked_and_there(self, folder: Path) -> None:
        (folder / "untracked.py").write_text("")
        (folder / "link.py").symlink_to("hot.py")
        git(folder, "add", "link.py")
        assert Repository(folder).files() == ["README", "cold.py", "hot.py"]

    def test_churn_counts_commits_and_lines(self, folder: Path) -> None:
        commits, churn = Repository(folder).churn()
        assert commits == 3
        assert churn["hot.py"][0] == 3
        assert churn["cold.py"] == (1, 1)
        assert churn["gone.py"] == (2, 4)

    def test_revisions_come_oldest_first_with_their_contents(self, folder: Path) -> None:
        repository = Repository(folder)
        revisions = [revision for revision in repository.revisions(".py") if revision.path == "hot.py"]
        contents = list(repository.blobs(revision.blob for revision in revisions))
        assert contents[:2] == [SIMPLE.encode(), BRANCHING.encode()]
        assert len(contents) == 3

    def test_an_object_that_is_not_there_is_told(self, folder: Path) -> None:
        with pytest.raises(RepositoryError, match="partial clone"):
            list(Repository(folder).blobs(["0" * 40]))

    def test_no_repository_and_no_commit_are_told_with_the_folder(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(RepositoryError, match=r"empty.*git ls-files.*not a git repository"):
            Repository(empty).files()
        with pytest.raises(RepositoryError, match="rev-parse"):
            Repository(new_repository(tmp_path / "new")).head()

    def test_a_machine_without_git_is_told_so(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(folder))
        with pytest.raises(RepositoryError, match="git is not installed"):
            Repository(folder).head()

    def test_names_that_could_break_a_table_are_left_out(self, folder: Path) -> None:
        (folder / "a|b.py").write_text("")
        (folder / "a\nb.py").write_text("")
        git(folder, "add", "--all")
        assert Repository(folder).files() == ["README", "cold.py", "hot.py"]


class TestComplexity:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("return x", 1),
            ("if x:\n  return 1\n elif y:\n  return 2", 3),
            ("for i in x:\n  while y: pass", 3),
            ("try:\n  pass\n except A:\n  pass\n except B:\n  pass", 3),
            ("return [i for i in x if i if i > 1]", 4),
            ("return a and b and c or d", 4),
            ("match x:\n  case 1: pass\n  case _: pass", 3),
            ("assert x", 1),
            ("return 1 if x else 2", 2),
        ],
    )
    def test_a_function_has_one_and_one_more_for_each_decision(self, body: str, expected: int) -> None:
        measured = measure(f"def f(x):\n {body}\n".encode())
        assert measured is not None
        assert [(f.name, f.complexity) for f in measured.functions] == [("f", expected)]

    def test_inner_functions_and_methods_count_on_their_own(self) -> None:
        measured = measure(b"class A:\n def m(self):\n  if 1: pass\n  def inner():\n   if 1: pass\n\nif 1: pass\n")
        assert measured is not None
        assert {f.name: f.complexity for f in measured.functions} == {"A.m.inner": 2, "A.m": 2}
        assert (measured.total, measured.lines) == (5, 7)

    @pytest.mark.parametrize("source", [b"def f(:\n", b"\x00", b"print 'two'\n", "ü = '".encode("latin-1")])
    def test_what_is_not_python_has_no_measure(self, source: bytes) -> None:
        assert measure(source) is None

    def test_layout_and_comments_do_not_change_a_fingerprint_but_decisions_do(self) -> None:
        prints = []
        for source in (SIMPLE, BRANCHING, REFORMATTED):
            measured = measure(source.encode(), fingerprints=True)
            assert measured is not None
            prints.append(measured.functions[0].fingerprint)
        assert prints[0] != prints[1] == prints[2]


class TestHistory:
    def test_a_trend_has_the_first_and_last_complexity_and_the_functions_that_changed(self, folder: Path) -> None:
        seen: list[float] = []
        found = trends(Repository(folder), ["hot.py", "cold.py"], seen.append)
        assert found["files"]["hot.py"] == {"revisions": 3, "first": 1, "last": 5, "changes": {"f": 1}}
        assert found["files"]["cold.py"]["revisions"] == 1
        assert found["revisions"] == 4
        assert seen == [0.25, 0.5, 0.75, 1.0]

    def test_a_cancelled_look_at_history_ends_early(self, folder: Path) -> None:
        assert trends(Repository(folder), ["hot.py"], lambda _: None, lambda: True)["files"] == {}


class TestLint:
    def test_findings_name_file_line_and_rule(self, folder: Path) -> None:
        findings = list(lint(folder, ["hot.py", "cold.py"]))
        assert ("hot.py", 5, "F401") in {(f.path, f.line, f.rule) for f in findings}
        assert {f.path for f in findings} == {"hot.py"}

    def test_the_projects_own_configuration_does_not_matter(self, folder: Path) -> None:
        before = list(lint(folder, ["hot.py"]))
        (folder / "ruff.toml").write_text('exclude = ["*"]\n')
        assert list(lint(folder, ["hot.py"])) == before

    def test_syntax_errors_are_findings(self, folder: Path) -> None:
        (folder / "broken.py").write_text("def f(:\n")
        assert [f.path for f in lint(folder, ["broken.py"])][:1] == ["broken.py"]

    def test_no_files_have_no_findings(self, folder: Path) -> None:
        assert list(lint(folder, [])) == []

    def test_missing_ruff_is_told_with_the_remedy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
        with pytest.raises(LintError, match="install ruff"):
            ruff_program()


class TestRanking:
    def test_complex_code_that_changes_often_comes_first(self) -> None:
        stable = FileFacts("stable.py", complexity=50, commits=1)
        changing = FileFacts("changing.py", complexity=50, commits=20)
        trivial = FileFacts("trivial.py", complexity=1, commits=20)
        assert rank([trivial, stable, changing])[0] is changing

    @given(
        st.lists(st.tuples(*[st.integers(0, 1000)] * 4), max_size=20).map(
            lambda rows: [
                FileFacts(f"{n}.py", complexity=a, commits=b, growth=c, findings=[{"rule": "X"}] * (d % 7))
                for n, (a, b, c, d) in enumerate(rows)
            ]
        )
    )
    def test_scores_are_between_0_and_100_and_never_fall_with_more_of_anything(self, files: list[FileFacts]) -> None:
        ranked = rank(files)
        assert all(0 <= file.score <= 100 for file in ranked)
        for one in ranked:
            for other in ranked:
                if (
                    one.complexity >= other.complexity
                    and one.commits >= other.commits
                    and one.growth >= other.growth
                    and len(one.findings) >= len(other.findings)
                ):
                    assert one.score >= other.score

    def test_files_without_python_are_not_ranked(self) -> None:
        assert gather({"churn": {"churn": {"README": (3, 9)}}}) == []


class TestAgents:
    def review_all(self, folder: Path) -> dict[str, object]:
        planned = lead(task("plan", folder))
        results: dict[str, object] = {}
        for n in range(3):
            results[f"lint-{n}"] = review(task("lint", folder, results={"plan": planned}, shard=n))
            results[f"complexity-{n}"] = review(task("complexity", folder, results={"plan": planned}, shard=n))
        results["churn"] = review(task("churn", folder))
        results["trend"] = review(task("trend", folder, results={"plan": planned}))
        return results

    def test_a_review_ranks_the_file_that_changes_and_is_complex_first(self, folder: Path) -> None:
        outcome = lead(task("report", folder, results=self.review_all(folder)))
        assert outcome["look_first_at"] == ["hot.py", "cold.py"]
        document = Path(outcome["report"]).read_text()
        assert document.startswith("# Review of reviewed\n")
        assert "3 files, 2 of them Python" in document
        assert "changed in 3 commits" in document
        assert "F401" in document
        assert sorted(path.name for path in folder.parent.iterdir()) == ["report.md", "reviewed"]

    def test_a_repository_without_python_has_a_report_too(self, tmp_path: Path) -> None:
        folder = new_repository(tmp_path / "prose")
        commit(folder, README="text")
        outcome = lead(task("report", folder, results=self.review_all(folder)))
        assert "no Python code to rank" in Path(outcome["report"]).read_text()

    def test_what_cannot_be_reviewed_fails_for_good_with_the_reason(self, tmp_path: Path) -> None:
        with pytest.raises(TaskFailed, match="not a git repository") as failed:
            review(task("churn", tmp_path))
        assert (failed.value.code, failed.value.retryable) == ("CANNOT_REVIEW", False)

    def test_a_report_that_cannot_be_written_fails_with_its_path(self, folder: Path) -> None:
        work = task("report", folder, results={})
        work.execution_input["report"] = str(folder / "nowhere" / "report.md")
        with pytest.raises(TaskFailed, match=r"nowhere/report\.md"):
            lead(work)

    def test_an_unknown_action_is_refused(self, folder: Path) -> None:
        with pytest.raises(TaskFailed, match="knows no action 'dance'"):
            review(task("dance", folder))

    @given(st.lists(st.tuples(st.uuids().map(str), st.integers(0, 10_000)), unique_by=lambda item: item[0]))
    def test_shards_hold_each_file_once_and_differ_by_one_file_at_most(self, sized: list[tuple[str, int]]) -> None:
        shards = split(sized, 3)
        assert sorted(path for shard in shards for path in shard) == sorted(path for path, _ in sized)
        sizes = dict(sized)
        totals = [sum(sizes[path] for path in shard) for shard in shards]
        assert max(totals) - min(totals) <= max(sizes.values(), default=0)


def test_the_report_says_how_much_was_left_out() -> None:
    findings = [{"path": "a.py", "line": n, "rule": "X1", "message": "m"} for n in range(20)]
    document, _ = write_report(Subject("s", "abc", 1), {"lint": {"findings": findings}})
    assert "and 12 more findings" in document
    assert "20 findings (X1)" in document
