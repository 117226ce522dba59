"""The four operations on a stack: preview, up, refresh and destroy."""

import argparse
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

from .deployment import Deployment, StepFailed
from .display import Report
from .monitor import served
from .project import Project, StackConfig
from .providers import Plugins
from .state import ROOT, CliError, StateFile

VERBS = {
    "preview": ("Previewing update", "Previewing update"),
    "up": ("Previewing update", "Updating"),
    "refresh": ("Previewing refresh", "Refreshing"),
    "destroy": ("Previewing destroy", "Destroying"),
}


def operate(kind: str, config: StackConfig, state: StateFile, preview: bool, options: argparse.Namespace) -> bool:
    """Do it, or with `preview` tell what would be done; whether all went well. `json` and `refresh` count."""
    project = config.project
    values, secret_keys = config.checked()
    cipher = config.cipher()
    environment = {
        "PULUMI_PROJECT": project.name,
        "PULUMI_STACK": config.stack,
        "PULUMI_CONFIG": json.dumps(values),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(sorted(secret_keys)),
        "PULUMI_ORGANIZATION": "organization",
    }
    report = Report(preview)
    plugins = Plugins(project.folder, environment)
    deployment = Deployment(
        project=project.name,
        stack=config.stack,
        config=values,
        secret_keys=secret_keys,
        plugins=plugins,
        preview=preview,
        report=report.diagnose,
        show=report.show,
        save=lambda resources: state.write(resources, cipher),
    )
    deployment.begin(state.read(cipher))
    quiet = io.StringIO() if options.json else sys.stdout
    with redirect_stdout(quiet):
        print(f"{VERBS[kind][not preview]} ({config.stack}):\n", flush=True)
        try:
            if options.refresh and kind != "refresh":
                deployment.refresh_first()
            if kind == "refresh":
                deployment.refresh()
            elif kind == "destroy":
                deployment.delete_left()
            else:
                _run_program(deployment, project, environment)
                deployment.delete_left()
        except StepFailed:
            deployment.failed = True
        except CliError as error:
            deployment.failed = True
            report.diagnose("", "error", str(error))
        finally:
            plugins.stop()
        root = next((resource for resource in deployment.news.values() if resource.type == ROOT), None)
        report.end(deployment.counts, root.outputs if root and kind != "destroy" else None)
    if options.json:
        print(json.dumps({"changeSummary": dict(deployment.counts), "diagnostics": report.diagnostics}, indent=2))
    if not deployment.failed and not preview and kind == "destroy":
        state.write([], cipher)
    return not deployment.failed


def _run_program(deployment: Deployment, project: Project, environment: dict[str, str]) -> None:
    with served(deployment) as address:
        process = subprocess.Popen(
            [
                sys.executable,
                "-u",
                str(Path(__file__).with_name("program.py")),
                address,
                deployment.project,
                deployment.stack,
                str(deployment.preview).lower(),
                str(project.folder / project.data.get("main", "")),
            ],
            cwd=project.folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        output, _ = process.communicate()
    for line in output.splitlines():
        deployment.report(deployment.urn(ROOT, f"{deployment.project}-{deployment.stack}", ""), "info", line)
    if process.returncode or deployment.failed:
        raise StepFailed(f"program exited with {process.returncode}")
