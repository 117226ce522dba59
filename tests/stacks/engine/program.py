"""Runs a project's program in a process of its own, as the real CLI's language host does.

python program.py ADDRESS PROJECT STACK PREVIEW FOLDER; configuration comes in PULUMI_CONFIG, as programs expect it.
"""

import asyncio
import logging
import runpy
import sys
import traceback

import pulumi
import pulumi.runtime

SHOWN = 32  # the exit code of a program whose error has been shown


def main(address: str, project: str, stack: str, preview: str, folder: str) -> int:
    """Run it and return its exit code."""
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=address,
            engine=address,
            project=project,
            stack=stack,
            parallel=16,
            dry_run=preview == "true",
            organization="organization",
            root_directory=folder,
        )
    )
    sys.argv = [folder]
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _run(folder)))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:  # noqa: BLE001 - whatever a program raises is shown
        pulumi.log.error(f"Program failed with an unhandled exception:\n{traceback.format_exc()}")
        return SHOWN
    return 0


def _run(folder: str) -> None:
    runpy.run_path(folder, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
