"""The rules for the repository as a whole: each is a function from its root to what is wrong there."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import tree

# path pattern -> the most lines a file may have, and where the rest belongs.
LIMITS = {
    "roles/*/tasks/*.yml": (80, "move logic to a module"),
    "plugins/modules/*.py": (300, "move logic to src/rackllama/host"),
    "plugins/filter/*.py": (30, "move logic to src/rackllama"),
    "plugins/inventory/*.py": (30, "move logic to src/rackllama"),
    "stacks/*/__main__.py": (60, "move logic to a component in src/rackllama/provision"),
    "playbooks/site.yml": (40, "it only imports one playbook a phase"),
}
EXCERPT = re.compile(r"^```yaml\n# (\S+/\S+\.yml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# In parts, so that this file does not contain what it forbids.
REGISTRIES = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("proxy", "golang", "org"),
        ("sum", "golang", "org"),
        ("deb", "debian", "org"),
        ("ftp", "debian", "org"),
        ("security", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("security", "ubuntu", "com"),
        ("registry", "npmjs", "org"),
        ("crates", "io"),
        ("repo1", "maven", "org"),
        ("galaxy", "ansible", "com"),
    )
)


def files_stay_short(root: Path) -> Iterator[str]:
    for pattern, (limit, remedy) in LIMITS.items():
        for path in sorted(root.glob(pattern)):
            lines = len(path.read_text("utf-8").splitlines())
            if lines > limit:
                yield f"{path}: {lines} lines where {limit} are allowed; {remedy}"


def site_only_imports(root: Path) -> Iterator[str]:
    """What a play does belongs to a phase, which can be run alone."""
    path = root / "playbooks" / "site.yml"
    for play in tree.plays(path):
        if "ansible.builtin.import_playbook" not in play:
            yield f"{path}: {play.get('name')!r} is no import; move it to a playbook of its own and import that"


def host_package_runs_on_bare_hosts(root: Path) -> Iterator[str]:
    """It reaches hosts as module_utils: standard library and relative imports only, and packages that do nothing."""
    package = root / "src" / "rackllama" / "host"
    for path in sorted(package.rglob("*.py")):
        if path.name == "__init__.py" and path.read_text("utf-8"):
            yield f"{path}: is not empty; move what it does into a module"
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for name in _absolute_imports(node):
                if name.split(".")[0] not in sys.stdlib_module_names:
                    yield f"{path}: imports {name}; use the standard library, or `from . import`"


def _absolute_imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def what_runs_on_hosts_runs_on_python_3_9(root: Path) -> Iterator[str]:
    folders = [root / "src" / "rackllama" / "host", root / "plugins" / "modules"]
    places = [str(folder) for folder in folders if folder.exists()]
    vermin = [str(Path(sys.executable).with_name("vermin")), "--no-tips", "--violations", "--target=3.9-", *places]
    checked = subprocess.run(vermin, capture_output=True, text=True, check=False)
    if checked.returncode:
        told = checked.stdout + checked.stderr
        yield f"{' or '.join(places)}: needs more than Python 3.9; say it in older words:\n{told}"


def module_utils_is_the_host_package(root: Path) -> Iterator[str]:
    link = root / "plugins" / "module_utils"
    if not link.is_symlink() or str(link.readlink()) != "../src/rackllama/host":
        yield f"{link}: is not the link it ought to be; run: ln -sfn ../src/rackllama/host plugins/module_utils"


def every_test_is_collected(root: Path) -> Iterator[str]:
    """A test that nothing runs is worse than none. Molecule runs tests/host, the Makefile all others."""
    runners = [root / "Makefile", root / ".config" / "molecule" / "config.yml"]
    named = " ".join(path.read_text("utf-8") for path in runners if path.exists())
    for path in sorted(root.glob("tests/**/*.py")):
        has_tests = re.search(r"^\s*(async )?def test_", path.read_text("utf-8"), re.MULTILINE)
        if has_tests and not path.name.startswith("test_"):
            yield f"{path}: pytest does not collect its tests; name it test_{path.name}"
        folder = "/".join(path.relative_to(root).parts[:2])
        if has_tests and not re.search(rf"{re.escape(folder)}(?![\w-])", named):
            yield f"{path}: no target of the Makefile runs {folder}; add one, or give it to molecule's verifier"


def no_registry_is_named(root: Path) -> Iterator[str]:
    """Packages come from where a machine's own clients get them. uv.lock is uv's own record."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    for name in sorted(filter(None, listed.split("\0"))):
        path = root / name
        if name == "uv.lock" or not path.is_file() or path.is_symlink():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        for host in REGISTRIES:
            if re.search(rf"(?<![\w-]){re.escape(host)}\b", text):
                yield f"{path}: names {host}; use the package client as the machine has it configured"


def linters_skip_nothing(root: Path) -> Iterator[str]:
    """What a linter finds is mended where it is."""
    config = root / ".ansible-lint"
    settings = tree.read(config) or {}
    if settings.get("profile") != "production":
        yield f"{config}: the profile is {settings.get('profile')}; set profile: production"
    for key in sorted({"skip_list", "warn_list", "mock_modules", "mock_roles"} & set(settings)):
        yield f"{config}: has a {key}; take it out and mend what is found"
    if (root / ".ansible-lint-ignore").exists():
        yield f"{root / '.ansible-lint-ignore'}: lists findings to ignore; delete it and mend them"
    for path in sorted([*root.glob("*.yml"), *root.glob("[!.]*/**/*.yml")]):
        if re.search(r"#\s*(noqa|yamllint disable)", path.read_text("utf-8")):
            yield f"{path}: switches a linter off; take the comment out and mend what is found"


def pages_quote_what_is_there(root: Path) -> Iterator[str]:
    """A YAML example that begins with a comment naming a file is an excerpt of it: each line stands there."""
    for page in sorted(root.glob("docs/**/*.md")):
        for name, excerpt in EXCERPT.findall(page.read_text("utf-8")):
            path = root / name
            lines = path.read_text("utf-8").splitlines() if path.exists() else []
            for line in excerpt.splitlines():
                if line not in lines:
                    yield f"{page}: {line.strip()!r} is not in {name}; quote what is there"
